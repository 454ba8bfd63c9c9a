"""IF populations that learn from their spikes, over all steps at once; every unit of charge counts once.

u <- v + i;  z = [u >= theta];  v <- u - theta z, v0 before the first step. Backward, dz/du = 1/theta where
|u - theta| < theta/2 and 0 elsewhere, through the reset too: dv/du = 1 - theta dz/du. So charge that arrives either
becomes part of a spike or stays in the membrane for a later step, and d(sum of z)/d(charge) <= 1/theta, the slope of
the ReLU that the population stands for. (The usual surrogate gradients leave the reset out, and count charge again in
every step.)
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

BLOCK = 2048
"""Neurons per work item: their potentials and thresholds stay in the first-level cache."""


def fire(current: Tensor, theta: Tensor, v0: Tensor) -> Tensor:
    """Spikes (steps, batch, *features) of the element type of `current` (steps, batch, *features).

    theta > 0 and v0 broadcast against the features. Differentiable in current and v0. The membrane is float32; a fused
    kernel serves bfloat16 currents on the CPU, torch everything else.
    """
    z: Tensor = _Fire.apply(current, theta, v0)
    return z


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, theta: Tensor, v0: Tensor) -> Tensor:
        features = current.shape[2:]
        theta, start = (p.detach().float().expand(features).contiguous() for p in (theta, v0))
        current = current.contiguous()
        z, near = torch.empty_like(current), torch.empty_like(current, dtype=torch.bool)
        if fused(current):
            _forward(_bits(current), _row(theta), _row(start), _bits(z), _flat(near).numpy())
        else:
            v = start
            for t, i in enumerate(current.float()):
                u = v + i
                z[t] = fires = u >= theta
                near[t] = (u - theta).abs() < theta / 2
                v = u - theta * fires
        ctx.save_for_backward(theta, near)
        ctx.v0 = v0.shape
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        theta, near = ctx.saved_tensors
        of_z = gradients[0].contiguous()
        of_current, left = torch.empty_like(of_z), torch.zeros(of_z.shape[1:], device=of_z.device)
        if fused(of_z):
            _backward(_bits(of_z), _flat(near).numpy(), _row(theta), _bits(of_current), _flat(left, 1).numpy())
        else:
            for t in range(len(of_z) - 1, -1, -1):
                left = torch.where(near[t], of_z[t] / theta, left)
                of_current[t] = left
        return of_current, None, left.sum(0).sum_to_size(ctx.v0)


def fused(current: Tensor) -> bool:
    """Whether the fused kernel computes populations on that current."""
    return current.dtype == torch.bfloat16 and current.device.type == "cpu" and current.numel() > 0


def _flat(tensor: Tensor, lead: int = 2) -> Tensor:
    return tensor.reshape(*tensor.shape[:lead], -1)


def _row(tensor: Tensor) -> np.ndarray:
    return tensor.reshape(-1).numpy()


def _bits(tensor: Tensor) -> np.ndarray:
    """bfloat16 (steps, batch, *features) as the upper halves of float32, uint16 (steps, batch, neurons)."""
    return _flat(tensor).view(torch.int16).numpy().view(np.uint16)


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _forward(current, theta, start, spikes, near):
    steps, batch, size = current.shape
    blocks = (size + BLOCK - 1) // BLOCK
    for item in numba.prange(batch * blocks):
        b = item // blocks
        low = (item % blocks) * BLOCK
        high = min(low + BLOCK, size)
        threshold = theta[low:high]
        potential = start[low:high].copy()
        bits = np.empty(high - low, dtype=np.uint32)
        value = bits.view(np.float32)
        for t in range(steps):
            row = current[t, b, low:high]
            out = spikes[t, b, low:high]
            close = near[t, b, low:high]
            for n in range(high - low):
                bits[n] = np.uint32(row[n]) << np.uint32(16)
            for n in range(high - low):
                u = potential[n] + value[n]
                above = u - threshold[n]
                fires = u >= threshold[n]
                out[n] = np.uint16(0x3F80) if fires else np.uint16(0)
                close[n] = abs(above) < threshold[n] / np.float32(2)
                potential[n] = above if fires else u


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _backward(of_spikes, near, theta, of_current, left):
    steps, batch, size = of_spikes.shape
    blocks = (size + BLOCK - 1) // BLOCK
    for item in numba.prange(batch * blocks):
        b = item // blocks
        low = (item % blocks) * BLOCK
        high = min(low + BLOCK, size)
        threshold = theta[low:high]
        bits = np.empty(high - low, dtype=np.uint32)
        value = bits.view(np.float32)
        kept = left[b, low:high]
        word = kept.view(np.uint32)
        for back in range(steps):
            t = steps - 1 - back
            row = of_spikes[t, b, low:high]
            out = of_current[t, b, low:high]
            close = near[t, b, low:high]
            for n in range(high - low):
                bits[n] = np.uint32(row[n]) << np.uint32(16)
            for n in range(high - low):
                kept[n] = value[n] / threshold[n] if close[n] else kept[n]
            for n in range(high - low):
                # to the nearest bfloat16
                out[n] = np.uint16((word[n] + np.uint32(0x8000)) >> np.uint32(16))
