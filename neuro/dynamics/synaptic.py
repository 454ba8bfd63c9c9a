"""Populations of `neuro.nodes.synaptic`: decaying currents and membranes, reset one step late."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.dynamics.state import Fire, State, hard, rest, step
from neuro.graph import Shape
from neuro.nodes import Alpha, Decaying, Leaky, Synaptic


@rest.register
def _(
    node: Synaptic, batch: int, shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> State:
    nothing = torch.zeros(batch, *shape, dtype=dtype, device=device)
    return State(nothing, kept=(nothing,))


@rest.register
def _(
    node: Alpha, batch: int, shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> State:
    nothing = torch.zeros(batch, *shape, dtype=dtype, device=device)
    return State(nothing, kept=(nothing, nothing))


def _late(node: Leaky | Synaptic, v: Tensor, r: Tensor, t: int, fire: Fire, *kept: Tensor) -> tuple[State, Tensor]:
    """Spikes of a population that r has reset already; without delay, the reset that these spikes ask for."""
    z = fire(v, node.theta, strict=True)
    if not node.delay and node.reset != "none":
        v = v - (z.detach() - r) * (node.theta if node.reset == "subtract" else v)
    return State(v, t + 1, kept), z


def _fired(node: Decaying, state: State) -> Tensor:
    return hard(state.v, node.theta, strict=True)


@step.register
def _(node: Leaky, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    r = _fired(node, state)
    v = node.beta * ((1 - r) * state.v if node.reset == "zero" else state.v) + i
    return _late(node, v - r * node.theta if node.reset == "subtract" else v, r, state.t, fire)


@step.register
def _(node: Synaptic, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    """`kept`: the current s."""
    r = _fired(node, state)
    s = node.alpha * state.kept[0] + i
    v = node.beta * state.v + s
    if node.reset != "none":
        v = v - r * (node.theta if node.reset == "subtract" else v)
    return _late(node, v, r, state.t, fire, s)


@step.register
def _(node: Alpha, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    """`kept`: the currents e and h."""
    r, (e, before) = _fired(node, state), state.kept
    e, h = node.alpha * e + i, node.beta * before - i
    v = node.tau * (e + h)
    if node.reset == "zero":
        e, h, v = e - e * r, h - h * r, v - v * r
    elif node.reset == "subtract":
        e, h, v = e - node.theta * r, h - h * r, v + before * r
    return State(v, state.t + 1, (e, h)), fire(v, node.theta, strict=True)
