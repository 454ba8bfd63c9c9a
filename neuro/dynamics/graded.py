"""Populations of `neuro.nodes.graded`: events that carry a whole number."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.dynamics.state import Fire, State, filled, hard, rest, step
from neuro.graph import Shape
from neuro.nodes import Delta, Differences, GradedIF, Sigma, SigmaDeltaReLU


@rest.register
def _(
    node: Sigma, batch: int, shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> State:
    return State(filled(node.v0, batch, shape, dtype))


@rest.register(GradedIF)
@rest.register(SigmaDeltaReLU)
def _(
    node: GradedIF | SigmaDeltaReLU,
    batch: int,
    shape: Shape,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> State:
    v = filled(node.v0, batch, shape, dtype)
    return State(v, kept=(torch.zeros_like(v),))


@rest.register
def _(
    node: Delta, batch: int, shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> State:
    nothing = torch.zeros(batch, *shape, dtype=dtype, device=device)
    return State(nothing, kept=(nothing,))


@step.register
def _(node: GradedIF, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    """`kept`: the sum of all n so far."""
    v, (sent,) = state.v + i, state.kept
    low = -sent.clamp(max=node.levels) if node.signed else torch.zeros_like(sent)
    n = (v / node.theta).floor().clamp(max=node.levels).maximum(low)
    return State(v - node.theta * n, state.t + 1, kept=(sent + n,)), n


@step.register
def _(node: Delta, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    """`kept`: the sum of all n so far."""
    (sent,) = state.kept
    n = _change(node, i, sent)
    return State(i, state.t + 1, kept=(sent + n,)), n


@step.register
def _(node: SigmaDeltaReLU, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    """`kept`: the sum of all n so far."""
    s, (sent,) = state.v + i, state.kept
    n = _change(node, s.clamp(0, node.high), sent)
    return State(s, state.t + 1, kept=(sent + n,)), n


@step.register
def _(node: Sigma, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    v = state.v + i
    return State(v, state.t + 1), v


def _change(node: Differences, a: Tensor, sent: Tensor) -> Tensor:
    """The event that brings r = sent * step to a, where it is at least theta away."""
    away = a - sent * node.step
    n = (away / node.step).round().clamp(-node.levels, node.levels)
    return n * (away.abs() >= node.theta)
