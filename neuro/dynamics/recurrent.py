"""Populations of `neuro.nodes.recurrent`: loops and delays."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from neuro.dynamics.state import Fire, State, hard, rest, step
from neuro.graph import Shape, Stateless
from neuro.nodes import Delay, Neuron, Recurrent


@rest.register
def _(
    node: Delay, batch: int, shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> State:
    nothing = torch.zeros(batch, *shape, dtype=dtype, device=device)
    return State(nothing, kept=(nothing,) * node.longest)


@rest.register
def _(
    node: Recurrent, batch: int, shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> State:
    inner = _states_inside(node, batch, dtype, device)
    silent = torch.zeros(batch, *node.body.shapes[node.body.output], dtype=dtype, device=device)
    kept = tuple(tensor for state in inner.values() for tensor in (state.v, *state.kept))
    return State(inner[node.body.output].v, kept=(silent, *kept))


def _states_inside(node: Recurrent, batch: int, dtype: torch.dtype, device: torch.device | None) -> dict[str, State]:
    """The states at rest of the populations in a loop."""
    body = node.body
    return {
        name: rest(inner, batch, body.shapes[body.sources[name][0]], dtype, device)
        for name, inner in body.nodes.items()
        if isinstance(inner, Neuron)
    }


@step.register
def _(node: Delay, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    """`kept`: the inputs of the last steps, the latest first."""
    series = torch.stack((i, *state.kept))
    late = node.steps.long().expand(1, *i.shape)
    return State(state.v, state.t + 1, (i, *state.kept)[: node.longest]), series.gather(0, late)[0]


@step.register
def _(node: Recurrent, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    """`kept`: what fired in the step before, then potential and `kept` of every population in the body, in order."""
    body, (before, *others) = node.body, state.kept
    values: dict[str, Tensor] = dict(zip(body.inputs, (i, before), strict=True))
    resting = _states_inside(node, 0, before.dtype, before.device)
    counts = {name: len(inner.kept) for name, inner in resting.items()}
    left: Iterator[Tensor] = iter(others)
    after: dict[str, State] = {}
    for name, inner in body.nodes.items():
        given = [values[source] for source in body.sources[name]]
        if isinstance(inner, Neuron):
            own = State(next(left), state.t, tuple(islice(left, counts[name])))
            after[name], values[name] = step(inner, own, given[0], fire)
        elif isinstance(inner, Stateless):
            values[name] = inner.forward(*given)
    kept = tuple(tensor for own in after.values() for tensor in (own.v, *own.kept))
    return State(after[body.output].v, state.t + 1, (values[body.output], *kept)), values[body.output]
