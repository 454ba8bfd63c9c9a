"""IF and LIF populations fused over time with numba: the membrane stays in the cache, one pass over the currents."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from neuro.dynamics import State
from neuro.nodes import IF, LIF, Neuron

BLOCK = 2048
"""Neurons per work item: their potentials and thresholds stay in the first-level cache."""


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _fused(current, v, beta, leaky, theta, subtract, spikes, potentials, keep):
    steps, batch, size = spikes.shape
    held = current.shape[0] == 1
    blocks = (size + BLOCK - 1) // BLOCK
    fired = np.zeros(batch * blocks, dtype=np.int64)
    for item in numba.prange(batch * blocks):
        b = item // blocks
        low = (item % blocks) * BLOCK
        high = min(low + BLOCK, size)
        zero = np.float32(0)
        one = np.float32(1)
        potential = v[b, low:high]
        decay = beta[low:high]
        threshold = theta[low:high]
        count = 0
        for t in range(steps):
            row = current[0 if held else t, b, low:high]
            out = spikes[t, b, low:high]
            if leaky:
                for n in range(high - low):
                    potential[n] = decay[n] * potential[n]
            for n in range(high - low):
                x = potential[n] + row[n]
                z = one if x >= threshold[n] else zero
                out[n] = z
                count += 1 if x >= threshold[n] else 0
                potential[n] = x - threshold[n] * z if subtract else x * (one - z)
            if keep:
                potentials[t, b, low:high] = potential
        fired[item] = count
    return fired.sum()


def supports(node: Neuron, current: Tensor) -> bool:
    """Whether this kernel computes that node on that current: IF and LIF with a reset, float32, CPU, no gradients."""
    tensors = (current, *(tensor for _, tensor in node.tensors()))
    plain = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
    fits = isinstance(node, IF | LIF) and node.reset != "none" and plain
    return fits and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))


def run_steps(
    node: IF | LIF, state: State, current: Tensor, steps: int, keep: bool
) -> tuple[State, Tensor, Tensor | None]:
    """The same contract as `neuro.kernels.reference.run_steps`, and the same spikes."""
    _, batch, *features = current.shape
    size = int(np.prod(features, dtype=np.int64))

    def row(parameter: Tensor) -> np.ndarray:
        return parameter.detach().to(torch.float32).expand(features).reshape(-1).contiguous().numpy()

    v = state.v.reshape(batch, size).contiguous().clone()
    spikes = torch.empty(steps, batch, size)
    potentials = torch.empty((steps, batch, size) if keep else (1, 1, 1))
    leaky = isinstance(node, LIF)
    beta = row(node.beta) if isinstance(node, LIF) else np.ones(size, dtype=np.float32)
    flat = current.reshape(current.shape[0], batch, size).contiguous()
    if batch and size:
        _fused(
            flat.numpy(), v.numpy(), beta, leaky, row(node.theta), node.reset == "subtract", spikes.numpy(),
            potentials.numpy(), keep,
        )  # fmt: skip
    shaped = (steps, batch, *features)
    kept = potentials.reshape(shaped) if keep else None
    return State(v.reshape(batch, *features), state.t + steps), spikes.reshape(shaped), kept


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _active(rows, counts):
    steps, size = rows.shape
    blocks = (size + BLOCK - 1) // BLOCK
    for block in numba.prange(blocks):
        low = block * BLOCK
        high = min(low + BLOCK, size)
        count = counts[low:high]
        for t in range(steps):
            row = rows[t, low:high]
            for n in range(high - low):
                count[n] += 1 if row[n] != 0 else 0


def active(value: Tensor) -> Tensor:
    """How often each element of value (time, batch, *features) is not zero, (*features) int32, in one pass."""
    features = value.shape[2:]
    rows = value.reshape(value.shape[0] * value.shape[1], -1).contiguous()
    counts = torch.zeros(rows.shape[1], dtype=torch.int32)
    if rows.numel():
        _active(rows.numpy(), counts.numpy())
    return counts.reshape(features)
