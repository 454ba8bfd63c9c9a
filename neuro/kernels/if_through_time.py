"""IF populations on bfloat16 currents: membranes in float32, one pass, spikes come out with their weight on them."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

BLOCK = 2048


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _fire(current, theta, worth, spikes, counts):
    steps, batch, size = current.shape
    blocks = (size + BLOCK - 1) // BLOCK
    for item in numba.prange(batch * blocks):
        b = item // blocks
        low = (item % blocks) * BLOCK
        high = min(low + BLOCK, size)
        threshold = theta[low:high]
        potential = threshold * np.float32(0.5)
        bits = np.empty(high - low, dtype=np.uint32)
        value = bits.view(np.float32)
        count = counts[b, low:high]
        for t in range(steps):
            row = current[t, b, low:high]
            out = spikes[t, b, low:high]
            for n in range(high - low):
                # a bfloat16 is the upper half of a float32
                bits[n] = np.uint32(row[n]) << np.uint32(16)
            for n in range(high - low):
                x = potential[n] + value[n]
                fires = x >= threshold[n]
                out[n] = worth[low + n] if fires else np.uint16(0)
                count[n] += np.int16(1) if fires else np.int16(0)
                potential[n] = x - threshold[n] if fires else x


def fire(current: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """IF neurons, v0 = theta / 2, soft reset: theta * spikes (steps, batch, *features) and counts (batch, *features).

    current: (steps, batch, *features), bfloat16, on the CPU; theta broadcasts against the features. The membrane is
    float32, so the counts are those of `neuro.dynamics.step` on the same currents in float32. counts: int16.
    """
    steps, batch, *features = current.shape
    rows = theta.detach().to(torch.float32).expand(features).reshape(-1).contiguous()
    flat = current.contiguous().reshape(steps, batch, -1)
    spikes = torch.empty_like(flat)
    counts = torch.zeros(batch, flat.shape[2], dtype=torch.int16)
    if flat.numel():
        _fire(_bits(flat), rows.numpy(), _bits(rows.to(torch.bfloat16)), _bits(spikes), counts.numpy())
    return spikes.reshape(current.shape), counts.reshape(batch, *features)


def _bits(tensor: Tensor) -> np.ndarray:
    return tensor.view(torch.int16).numpy().view(np.uint16)
