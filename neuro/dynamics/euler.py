"""Populations of `neuro.nodes.euler`: Euler steps towards a leak potential."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.dynamics.state import Fire, State, filled, hard, rest, step
from neuro.graph import Shape
from neuro.nodes import IAF, BoxLIF, CurrentLI, CurrentLIF, Euler


@rest.register(CurrentLIF)
@rest.register(CurrentLI)
@rest.register(BoxLIF)
def _(
    node: CurrentLIF | CurrentLI | BoxLIF,
    batch: int,
    shape: Shape,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> State:
    v = filled(node.v_leak, batch, shape, dtype)
    return State(v) if isinstance(node, BoxLIF) else State(v, kept=(torch.zeros_like(v),))


@rest.register
def _(
    node: IAF, batch: int, shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> State:
    return State(filled(node.v_reset, batch, shape, dtype))


def _towards(node: CurrentLIF | CurrentLI, state: State, i: Tensor) -> tuple[Tensor, Tensor]:
    """The Euler step of membrane and current."""
    s = state.kept[0] + i
    return state.v + node.rate_mem * ((node.v_leak - state.v) + s), s - node.rate_syn * s


def _fire_above(node: Euler, v: Tensor, t: int, fire: Fire, *kept: Tensor) -> tuple[State, Tensor]:
    z = fire(v, node.theta, strict=True)
    r = z.detach()
    v = (1 - r) * v + r * (v - node.theta if node.reset == "subtract" else node.v_reset)
    return State(v, t + 1, kept), z


@step.register
def _(node: CurrentLIF, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    """`kept`: the current s."""
    v, s = _towards(node, state, i)
    return _fire_above(node, v, state.t, fire, s)


@step.register
def _(node: CurrentLI, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    """`kept`: the current s."""
    v, s = _towards(node, state, i)
    return State(v, state.t + 1, (s,)), v


@step.register
def _(node: BoxLIF, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    return _fire_above(node, state.v + node.rate_mem * ((i + node.v_leak) - state.v), state.t, fire)


@step.register
def _(node: IAF, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    return _fire_above(node, state.v + i, state.t, fire)
