"""Runs of networks with a warm-up: what the first steps see, and populations whose answer comes later."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.dynamics import rest
from neuro.kernels import Kernel, run_steps
from neuro.nodes import OffsetIF


def shown_again(x: Tensor, steps: int) -> Tensor:
    """A series (time, batch, *features) with its first `steps` steps shown once before it, over again where it is
    shorter. A held value (1, batch, *features) is held for longer.
    """
    if len(x) == 1 or not steps:
        return x
    return torch.cat([x[torch.arange(steps) % len(x)], x])


def run_late(node: OffsetIF, current: Tensor, steps: int, keep: bool, kernel: Kernel) -> tuple[Tensor, Tensor | None]:
    """Outputs and, if `keep`, potentials (steps, batch, *features) of a population on a clock that runs late.

    The clock starts with the first output, so that step t answers current t: all paths that meet behind it are taken
    to be delayed alike.
    """
    late = node.warmup
    if len(current) > 1:
        current = torch.cat([current, current[-1:].expand(late, *current.shape[1:])])
    state = rest(node, current.shape[1], tuple(current.shape[2:]), current.dtype)
    _, spikes, potentials = run_steps(node, state, current, steps + late, keep, kernel)
    return spikes[late:], None if potentials is None else potentials[late:]
