"""Every neuron equation, once: `rest` gives the state before the first step, `step` advances it by one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from neuro.graph import Shape, Stateless
from neuro.nodes import (
    IAF,
    IF,
    LI,
    LIF,
    Accumulate,
    Alpha,
    BoxLIF,
    CountThenFire,
    CurrentLI,
    CurrentLIF,
    Decaying,
    Delay,
    Delta,
    Differences,
    Euler,
    GradedIF,
    Leaky,
    MaxCount,
    MaxCountAgain,
    Neuron,
    OffsetIF,
    Pulse,
    Readout,
    Recurrent,
    ResidualIF,
    Sigma,
    SigmaDeltaReLU,
    Synaptic,
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


@rest.register
def _(node: Synaptic, batch: int, shape: Shape, dtype: torch.dtype = torch.float32) -> State:
    nothing = torch.zeros(batch, *shape, dtype=dtype)
    return State(nothing, kept=(nothing,))


@rest.register
def _(node: Alpha, batch: int, shape: Shape, dtype: torch.dtype = torch.float32) -> State:
    nothing = torch.zeros(batch, *shape, dtype=dtype)
    return State(nothing, kept=(nothing, nothing))


@rest.register(CurrentLIF)
@rest.register(CurrentLI)
@rest.register(BoxLIF)
def _(node: CurrentLIF | CurrentLI | BoxLIF, batch: int, shape: Shape, dtype: torch.dtype = torch.float32) -> State:
    v = node.v_leak.to(dtype).expand(batch, *shape).clone()
    return State(v) if isinstance(node, BoxLIF) else State(v, kept=(torch.zeros_like(v),))


@rest.register
def _(node: IAF, batch: int, shape: Shape, dtype: torch.dtype = torch.float32) -> State:
    return State(node.v_reset.to(dtype).expand(batch, *shape).clone())


@rest.register
def _(node: Delay, batch: int, shape: Shape, dtype: torch.dtype = torch.float32) -> State:
    nothing = torch.zeros(batch, *shape, dtype=dtype)
    return State(nothing, kept=(nothing,) * node.longest)


@rest.register
def _(node: Recurrent, batch: int, shape: Shape, dtype: torch.dtype = torch.float32) -> State:
    inner = _states_inside(node, batch, dtype)
    silent = torch.zeros(batch, *node.body.shapes[node.body.output], dtype=dtype)
    kept = tuple(tensor for state in inner.values() for tensor in (state.v, *state.kept))
    return State(inner[node.body.output].v, kept=(silent, *kept))


def _states_inside(node: Recurrent, batch: int, dtype: torch.dtype) -> dict[str, State]:
    """The states at rest of the populations in a loop."""
    body = node.body
    return {
        name: rest(inner, batch, body.shapes[body.sources[name][0]], dtype)
        for name, inner in body.nodes.items()
        if isinstance(inner, Neuron)
    }


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


def _late(node: Leaky | Synaptic, v: Tensor, r: Tensor, t: int, *kept: Tensor) -> tuple[State, Tensor]:
    """Spikes of a population that r has reset already; without delay, the reset that these spikes ask for."""
    z = (v > node.theta).to(v.dtype)
    if not node.delay and node.reset != "none":
        v = v - (z - r) * (node.theta if node.reset == "subtract" else v)
    return State(v, t + 1, kept), z


def _fired(node: Decaying, state: State) -> Tensor:
    return (state.v > node.theta).to(state.v.dtype)


@step.register
def _(node: Leaky, state: State, i: Tensor) -> tuple[State, Tensor]:
    r = _fired(node, state)
    v = node.beta * ((1 - r) * state.v if node.reset == "zero" else state.v) + i
    return _late(node, v - r * node.theta if node.reset == "subtract" else v, r, state.t)


@step.register
def _(node: Synaptic, state: State, i: Tensor) -> tuple[State, Tensor]:
    """`kept`: the current s."""
    r = _fired(node, state)
    s = node.alpha * state.kept[0] + i
    v = node.beta * state.v + s
    if node.reset != "none":
        v = v - r * (node.theta if node.reset == "subtract" else v)
    return _late(node, v, r, state.t, s)


@step.register
def _(node: Alpha, state: State, i: Tensor) -> tuple[State, Tensor]:
    """`kept`: the currents e and h."""
    r, (e, before) = _fired(node, state), state.kept
    e, h = node.alpha * e + i, node.beta * before - i
    v = node.tau * (e + h)
    if node.reset == "zero":
        e, h, v = e - e * r, h - h * r, v - v * r
    elif node.reset == "subtract":
        e, h, v = e - node.theta * r, h - h * r, v + before * r
    return State(v, state.t + 1, (e, h)), (v > node.theta).to(v.dtype)


def _towards(node: CurrentLIF | CurrentLI, state: State, i: Tensor) -> tuple[Tensor, Tensor]:
    """The Euler step of membrane and current."""
    s = state.kept[0] + i
    return state.v + node.rate_mem * ((node.v_leak - state.v) + s), s - node.rate_syn * s


def _fire_above(node: Euler, v: Tensor, t: int, *kept: Tensor) -> tuple[State, Tensor]:
    z = (v > node.theta).to(v.dtype)
    v = (1 - z) * v + z * (v - node.theta if node.reset == "subtract" else node.v_reset)
    return State(v, t + 1, kept), z


@step.register
def _(node: CurrentLIF, state: State, i: Tensor) -> tuple[State, Tensor]:
    """`kept`: the current s."""
    v, s = _towards(node, state, i)
    return _fire_above(node, v, state.t, s)


@step.register
def _(node: CurrentLI, state: State, i: Tensor) -> tuple[State, Tensor]:
    """`kept`: the current s."""
    v, s = _towards(node, state, i)
    return State(v, state.t + 1, (s,)), v


@step.register
def _(node: BoxLIF, state: State, i: Tensor) -> tuple[State, Tensor]:
    return _fire_above(node, state.v + node.rate_mem * ((i + node.v_leak) - state.v), state.t)


@step.register
def _(node: IAF, state: State, i: Tensor) -> tuple[State, Tensor]:
    return _fire_above(node, state.v + i, state.t)


@step.register
def _(node: Delay, state: State, i: Tensor) -> tuple[State, Tensor]:
    """`kept`: the inputs of the last steps, the latest first."""
    series = torch.stack((i, *state.kept))
    late = node.steps.long().expand(1, *i.shape)
    return State(state.v, state.t + 1, (i, *state.kept)[: node.longest]), series.gather(0, late)[0]


@step.register
def _(node: Recurrent, state: State, i: Tensor) -> tuple[State, Tensor]:
    """`kept`: what fired in the step before, then potential and `kept` of every population in the body, in order."""
    body, (before, *others) = node.body, state.kept
    values: dict[str, Tensor] = dict(zip(body.inputs, (i, before), strict=True))
    counts = {name: len(inner.kept) for name, inner in _states_inside(node, 0, i.dtype).items()}
    left: Iterator[Tensor] = iter(others)
    after: dict[str, State] = {}
    for name, inner in body.nodes.items():
        given = [values[source] for source in body.sources[name]]
        if isinstance(inner, Neuron):
            own = State(next(left), state.t, tuple(islice(left, counts[name])))
            after[name], values[name] = step(inner, own, given[0])
        elif isinstance(inner, Stateless):
            values[name] = inner.forward(*given)
    kept = tuple(tensor for own in after.values() for tensor in (own.v, *own.kept))
    return State(after[body.output].v, state.t + 1, (values[body.output], *kept)), values[body.output]
