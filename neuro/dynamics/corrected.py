"""Populations of `neuro.nodes.corrected`: the beginning of each sample twice."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.dynamics.neurons import fired
from neuro.dynamics.state import Fire, State, filled, hard, rest, step
from neuro.graph import Shape
from neuro.nodes import MaxCount, MaxCountAgain, OffsetIF, ResidualIF


@rest.register(OffsetIF)
@rest.register(ResidualIF)
def _(
    node: OffsetIF | ResidualIF,
    batch: int,
    shape: Shape,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> State:
    return State(filled(node.v0, batch, shape, dtype))


@step.register
def _(node: OffsetIF, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    """`kept`: the lowest potential that fired, the highest that did not, then the currents not yet integrated.

    Only the currents are left after the warm-up.
    """
    if state.t >= node.warmup:
        first, *later = state.kept
        state, z = fired(node, state.v + first, state.t, fire)
        return state._replace(kept=(*later, i)), z
    u = state.v + i
    after, z = fired(node, u, state.t, fire)
    inf = torch.full_like(u, torch.inf)
    lowest, highest, *currents = state.kept or (inf, -inf)
    lowest = torch.where(z > 0, u, inf).minimum(lowest)
    highest = torch.where(z > 0, -inf, u).maximum(highest)
    if after.t < node.warmup:
        return after._replace(kept=(lowest, highest, *currents, i)), torch.zeros_like(z)
    return State(_corrected(node, after.v, lowest, highest), after.t, kept=(*currents, i)), torch.zeros_like(z)


def _corrected(node: OffsetIF, v: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """The initial potential of the run, from the potential after the warm-up."""
    theta = node.theta
    lower = node.v0 - torch.maximum(theta, lowest - 0.999 * theta)
    higher = node.v0 + torch.maximum(theta, 1.001 * theta - highest)
    too_many = (v < 0) & (lowest < torch.inf)
    too_few = (v >= theta) & (highest > -torch.inf)
    return torch.where(too_many, lower, torch.where(too_few, higher, node.v0)).to(v.dtype)


@step.register
def _(node: ResidualIF, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    """`kept`: after the warm-up, ones for the neurons that may fire."""
    after, z = fired(node, state.v + i, state.t, fire)
    if state.t >= node.warmup:
        return after._replace(kept=state.kept), z * state.kept[0]
    if after.t < node.warmup:
        return after, z
    may_fire = (after.v > 1e-3 * node.theta).to(z.dtype)
    return State(node.v0.to(z.dtype).expand_as(z).clone(), after.t, kept=(may_fire,)), z


@step.register
def _(node: MaxCountAgain, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    counts = torch.zeros_like(state.v) if state.t == node.warmup else state.v
    return step.dispatch(MaxCount)(node, State(counts, state.t), i, fire)
