"""The neuron equations in plain torch, one step after the other: what every other kernel must equal."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.dynamics import State, step
from neuro.nodes import Neuron


def run_steps(
    node: Neuron, state: State, current: Tensor, steps: int, keep: bool
) -> tuple[State, Tensor, Tensor | None]:
    """Advance by `steps`; returns the state, the outputs (steps, batch, *features) and, if `keep`, the potentials.

    current (steps or 1, batch, *features). A current with one step is held constant. The potentials are those after the
    reset.
    """
    outputs, potentials = [], []
    for t in range(steps):
        state, output = step(node, state, current[t if current.shape[0] > 1 else 0])
        outputs.append(output)
        if keep:
            potentials.append(state.v)
    return state, torch.stack(outputs), torch.stack(potentials) if keep else None
