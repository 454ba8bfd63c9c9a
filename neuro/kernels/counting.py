"""CountThenFire populations fused over time with numba: every step of every neuron, in integers."""

from __future__ import annotations

import numba
import torch
from torch import Tensor

from neuro.dynamics import State
from neuro.nodes import CountThenFire, Neuron

BLOCK = 2048
"""Neurons per work item: their potentials and thresholds stay in the first-level cache."""


@numba.njit(parallel=True, cache=True)
def _fused(current, v, theta, first, start, levels, spikes, potentials, keep):
    steps, batch, size = spikes.shape
    held = current.shape[0] == 1
    blocks = (size + BLOCK - 1) // BLOCK
    for item in numba.prange(batch * blocks):
        b = item // blocks
        low = (item % blocks) * BLOCK
        high = min(low + BLOCK, size)
        potential = v[b, low:high]
        threshold = theta[low:high]
        for t in range(steps):
            out = spikes[t, b, low:high]
            if first + t < start:
                row = current[0 if held else t, b, low:high]
                for n in range(high - low):
                    potential[n] += row[n]
                    out[n] = 0
            elif first + t < start + levels:
                for n in range(high - low):
                    fires = potential[n] >= threshold[n]
                    out[n] = fires
                    potential[n] -= threshold[n] if fires else 0
            else:
                out[:] = 0
            if keep:
                potentials[t, b, low:high] = potential


def supports(node: Neuron, current: Tensor) -> bool:
    """Whether this kernel computes that node on that current: CountThenFire, whole numbers, on the CPU."""
    return isinstance(node, CountThenFire) and current.dtype in (torch.int32, torch.int64) and current.is_cpu


def run_steps(
    node: CountThenFire, state: State, current: Tensor, steps: int, keep: bool
) -> tuple[State, Tensor, Tensor | None]:
    """The same contract as `neuro.kernels.reference.run_steps`, and the same integers."""
    _, batch, *features = current.shape
    flat = current.flatten(2) if features else current[..., None]
    size = flat.shape[2]
    v = state.v.reshape(batch, size).long().clone()
    theta = node.theta.long().expand(features).reshape(-1).contiguous()
    spikes = torch.empty(steps, batch, size, dtype=current.dtype)
    potentials = torch.empty((steps, batch, size) if keep else (1, 1, 1), dtype=torch.int64)
    if batch and size:
        _fused(
            flat.contiguous().numpy(), v.numpy(), theta.numpy(), state.t, node.start, node.levels, spikes.numpy(),
            potentials.numpy(), keep,
        )  # fmt: skip
    shaped = (steps, batch, *features)
    kept = potentials.reshape(shaped) if keep else None
    return State(v.reshape(batch, *features), state.t + steps), spikes.reshape(shaped), kept
