"""The neuron equations in plain torch, one step after the other: what every other kernel must equal."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.dynamics import Fire, State, hard, step
from neuro.nodes import Neuron


def run_steps(
    node: Neuron, state: State, current: Tensor, steps: int, keep: bool, fire: Fire = hard
) -> tuple[State, Tensor, Tensor | None]:
    """Advance by `steps`; returns the state, the outputs (steps, batch, *features) and, if `keep`, the potentials.

    current (steps or 1, batch, *features). A current with one step is held constant. The potentials are those after the
    reset. A `fire` with a surrogate lets gradients pass the spikes.
    """
    outputs, potentials = [], []
    # Unbound at once: the gradient of every current[t] would be as large as all of them.
    currents = current.unbind() if current.shape[0] > 1 else (current[0],) * steps
    for i in currents:
        state, output = step(node, state, i, fire)
        outputs.append(output)
        if keep:
            potentials.append(state.v)
    return state, torch.stack(outputs), torch.stack(potentials) if keep else None
