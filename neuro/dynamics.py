"""Every neuron equation, once: `rest` gives the state before the first step, `step` advances it by one."""

from __future__ import annotations

from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor

from neuro.graph import Shape
from neuro.nodes import (
    IF,
    LI,
    LIF,
    Accumulate,
    CountThenFire,
    Delta,
    Differences,
    GradedIF,
    MaxCount,
    MaxCountAgain,
    Neuron,
    OffsetIF,
    Pulse,
    Readout,
    ResidualIF,
    Sigma,
    SigmaDeltaReLU,
)


class State(NamedTuple):
    """What a population remembers: membrane potential `v` (batch, *features) and the number of steps done.

    `kept` holds what else an equation needs, each (batch, *features); its `step` says what.
    """

    v: Tensor
    t: int = 0
    kept: tuple[Tensor, ...] = ()


@singledispatch
def rest(node: Neuron, batch: int, shape: Shape, dtype: torch.dtype = torch.float32) -> State:
    """State of a population of feature shape `shape` before its first step."""
    return State(torch.zeros(batch, *shape, dtype=dtype))


@rest.register(IF)
@rest.register(LIF)
@rest.register(Sigma)
@rest.register(OffsetIF)
@rest.register(ResidualIF)
def _(
    node: IF | LIF | Sigma | OffsetIF | ResidualIF, batch: int, shape: Shape, dtype: torch.dtype = torch.float32
) -> State:
    return State(node.v0.to(dtype).expand(batch, *shape).clone())


@rest.register(CountThenFire)
@rest.register(Accumulate)
def _(node: CountThenFire | Accumulate, batch: int, shape: Shape, dtype: torch.dtype = torch.int32) -> State:
    return State(node.v0.long().expand(batch, *shape).clone())


@rest.register(GradedIF)
@rest.register(SigmaDeltaReLU)
def _(node: GradedIF | SigmaDeltaReLU, batch: int, shape: Shape, dtype: torch.dtype = torch.float32) -> State:
    return State(node.v0.to(dtype).expand(batch, *shape).clone(), kept=(torch.zeros(batch, *shape, dtype=dtype),))


@rest.register
def _(node: Delta, batch: int, shape: Shape, dtype: torch.dtype = torch.float32) -> State:
    nothing = torch.zeros(batch, *shape, dtype=dtype)
    return State(nothing, kept=(nothing,))


@singledispatch
def step(node: Neuron, state: State, i: Tensor) -> tuple[State, Tensor]:
    """One step: `i` (batch, *features) is the current of this step; returns the next state and the output."""
    raise TypeError(f"{node.kind} has no dynamics")


def _fire(node: IF | LIF | OffsetIF | ResidualIF, v: Tensor, t: int) -> tuple[State, Tensor]:
    z = (v >= node.theta).to(v.dtype)
    v = v - node.theta * z if node.reset == "subtract" else v * (1 - z)
    return State(v, t + 1), z


@step.register
def _(node: IF, state: State, i: Tensor) -> tuple[State, Tensor]:
    return _fire(node, state.v + i, state.t)


@step.register
def _(node: LIF, state: State, i: Tensor) -> tuple[State, Tensor]:
    return _fire(node, node.beta * state.v + i, state.t)


@step.register
def _(node: OffsetIF, state: State, i: Tensor) -> tuple[State, Tensor]:
    """`kept`: the lowest potential that fired, the highest that did not, then the currents not yet integrated.

    Only the currents are left after the warm-up.
    """
    if state.t >= node.warmup:
        first, *later = state.kept
        state, z = _fire(node, state.v + first, state.t)
        return state._replace(kept=(*later, i)), z
    u = state.v + i
    after, z = _fire(node, u, state.t)
    inf = torch.full_like(u, torch.inf)
    fired, silent, *currents = state.kept or (inf, -inf)
    fired = torch.where(z > 0, u, inf).minimum(fired)
    silent = torch.where(z > 0, -inf, u).maximum(silent)
    if after.t < node.warmup:
        return after._replace(kept=(fired, silent, *currents, i)), torch.zeros_like(z)
    return State(_corrected(node, after.v, fired, silent), after.t, kept=(*currents, i)), torch.zeros_like(z)


def _corrected(node: OffsetIF, v: Tensor, fired: Tensor, silent: Tensor) -> Tensor:
    """The initial potential of the run, from the potential after the warm-up."""
    theta = node.theta
    lower = node.v0 - torch.maximum(theta, fired - 0.999 * theta)
    higher = node.v0 + torch.maximum(theta, 1.001 * theta - silent)
    too_many = (v < 0) & (fired < torch.inf)
    too_few = (v >= theta) & (silent > -torch.inf)
    return torch.where(too_many, lower, torch.where(too_few, higher, node.v0)).to(v.dtype)


@step.register
def _(node: ResidualIF, state: State, i: Tensor) -> tuple[State, Tensor]:
    """`kept`: after the warm-up, ones for the neurons that may fire."""
    after, z = _fire(node, state.v + i, state.t)
    if state.t >= node.warmup:
        return after._replace(kept=state.kept), z * state.kept[0]
    if after.t < node.warmup:
        return after, z
    may_fire = (after.v > 1e-3 * node.theta).to(z.dtype)
    return State(node.v0.to(z.dtype).expand_as(z).clone(), after.t, kept=(may_fire,)), z


@step.register
def _(node: LI, state: State, i: Tensor) -> tuple[State, Tensor]:
    v = node.beta * state.v + i
    return State(v, state.t + 1), v


@step.register
def _(node: Readout, state: State, i: Tensor) -> tuple[State, Tensor]:
    v = state.v + i if state.t >= node.start else state.v
    return State(v, state.t + 1), v / max(state.t + 1 - node.start, 1)


@step.register
def _(node: MaxCount, state: State, i: Tensor) -> tuple[State, Tensor]:
    counts = state.v + i
    return State(counts, state.t + 1), node.window.forward(counts) - node.window.forward(state.v)


@step.register
def _(node: MaxCountAgain, state: State, i: Tensor) -> tuple[State, Tensor]:
    counts = torch.zeros_like(state.v) if state.t == node.warmup else state.v
    return step.dispatch(MaxCount)(node, State(counts, state.t), i)


@step.register
def _(node: Pulse, state: State, i: Tensor) -> tuple[State, Tensor]:
    return State(state.v, state.t + 1), i if state.t == 0 else torch.zeros_like(i)


@step.register
def _(node: CountThenFire, state: State, i: Tensor) -> tuple[State, Tensor]:
    if state.t < node.start:
        return State(state.v + i, state.t + 1), torch.zeros_like(i)
    firing = state.t < node.start + node.levels
    z = (state.v >= node.theta) & firing
    return State(state.v - node.theta * z, state.t + 1), z.to(i.dtype)


@step.register
def _(node: Accumulate, state: State, i: Tensor) -> tuple[State, Tensor]:
    v = state.v + i
    return State(v, state.t + 1), v


@step.register
def _(node: GradedIF, state: State, i: Tensor) -> tuple[State, Tensor]:
    """`kept`: the sum of all n so far."""
    v, (sent,) = state.v + i, state.kept
    low = -sent.clamp(max=node.levels) if node.signed else torch.zeros_like(sent)
    n = (v / node.theta).floor().clamp(max=node.levels).maximum(low)
    return State(v - node.theta * n, state.t + 1, kept=(sent + n,)), n


@step.register
def _(node: Delta, state: State, i: Tensor) -> tuple[State, Tensor]:
    """`kept`: the sum of all n so far."""
    (sent,) = state.kept
    n = _change(node, i, sent)
    return State(i, state.t + 1, kept=(sent + n,)), n


@step.register
def _(node: SigmaDeltaReLU, state: State, i: Tensor) -> tuple[State, Tensor]:
    """`kept`: the sum of all n so far."""
    s, (sent,) = state.v + i, state.kept
    n = _change(node, s.clamp(0, node.high), sent)
    return State(s, state.t + 1, kept=(sent + n,)), n


@step.register
def _(node: Sigma, state: State, i: Tensor) -> tuple[State, Tensor]:
    v = state.v + i
    return State(v, state.t + 1), v


def _change(node: Differences, a: Tensor, sent: Tensor) -> Tensor:
    """The event that brings r = sent * step to a, where it is at least theta away."""
    away = a - sent * node.step
    n = (away / node.step).round().clamp(-node.levels, node.levels)
    return n * (away.abs() >= node.theta)
