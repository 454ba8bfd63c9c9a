"""Populations of `neuro.nodes.neurons`: integrate, leak, fire, count."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.dynamics.state import Fire, State, filled, hard, rest, step
from neuro.graph import Shape
from neuro.nodes import (
    IF,
    LI,
    LIF,
    Accumulate,
    AdaptiveLIF,
    CountThenFire,
    MaxCount,
    OffsetIF,
    Pulse,
    Readout,
    ResidualIF,
)

Resetting = IF | LIF | AdaptiveLIF | OffsetIF | ResidualIF


@rest.register(IF)
@rest.register(LIF)
def _(
    node: IF | LIF, batch: int, shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> State:
    return State(filled(node.v0, batch, shape, dtype))


@rest.register
def _(
    node: AdaptiveLIF, batch: int, shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> State:
    nothing = torch.zeros(batch, *shape, dtype=dtype, device=device)
    return State(nothing, kept=(nothing,))


@rest.register(CountThenFire)
@rest.register(Accumulate)
def _(
    node: CountThenFire | Accumulate,
    batch: int,
    shape: Shape,
    dtype: torch.dtype = torch.int32,
    device: torch.device | None = None,
) -> State:
    return State(filled(node.v0, batch, shape, torch.int64))


def reset(node: Resetting, v: Tensor, z: Tensor) -> Tensor:
    """The potential after the spikes z of this step."""
    z = z.detach()
    if node.reset == "none":
        return v
    return v - node.theta * z if node.reset == "subtract" else v * (1 - z)


def fired(node: IF | LIF | OffsetIF | ResidualIF, v: Tensor, t: int, fire: Fire) -> tuple[State, Tensor]:
    """Spikes, and the state after the reset that they cause."""
    z = fire(v, node.theta)
    return State(reset(node, v, z), t + 1), z


@step.register
def _(node: IF, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    return fired(node, state.v + i, state.t, fire)


@step.register
def _(node: LIF, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    return fired(node, node.beta * state.v + i, state.t, fire)


@step.register
def _(node: AdaptiveLIF, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    """`kept`: the trace a of the spikes."""
    v, (a,) = node.beta * state.v + i, state.kept
    z = fire(v, node.theta + node.rise * a)
    return State(reset(node, v, z), state.t + 1, (node.rho * a + z,)), z


@step.register
def _(node: LI, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    v = node.beta * state.v + i
    return State(v, state.t + 1), v


@step.register
def _(node: Readout, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    v = state.v + i if state.t >= node.start else state.v
    return State(v, state.t + 1), v / max(state.t + 1 - node.start, 1)


@step.register
def _(node: MaxCount, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    counts = state.v + i
    return State(counts, state.t + 1), node.window.forward(counts) - node.window.forward(state.v)


@step.register
def _(node: Pulse, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    return State(state.v, state.t + 1), i if state.t == 0 else torch.zeros_like(i)


@step.register
def _(node: CountThenFire, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    if state.t < node.start:
        return State(state.v + i, state.t + 1), torch.zeros_like(i)
    firing = state.t < node.start + node.levels
    z = (state.v >= node.theta) & firing
    return State(state.v - node.theta * z, state.t + 1), z.to(i.dtype)


@step.register
def _(node: Accumulate, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    v = state.v + i
    return State(v, state.t + 1), v
