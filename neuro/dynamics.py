"""Every neuron equation, once: `rest` gives the state before the first step, `step` advances it by one."""

from __future__ import annotations

from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor

from neuro.graph import Shape
from neuro.nodes import IF, LI, LIF, Accumulate, CountThenFire, MaxCount, Neuron, Pulse, Readout


class State(NamedTuple):
    """What a population remembers: membrane potential `v` (batch, *features) and the number of steps done."""

    v: Tensor
    t: int = 0


@singledispatch
def rest(node: Neuron, batch: int, shape: Shape, dtype: torch.dtype = torch.float32) -> State:
    """State of a population of feature shape `shape` before its first step."""
    return State(torch.zeros(batch, *shape, dtype=dtype))


@rest.register(IF)
@rest.register(LIF)
def _(node: IF | LIF, batch: int, shape: Shape, dtype: torch.dtype = torch.float32) -> State:
    return State(node.v0.to(dtype).expand(batch, *shape).clone())


@rest.register(CountThenFire)
@rest.register(Accumulate)
def _(node: CountThenFire | Accumulate, batch: int, shape: Shape, dtype: torch.dtype = torch.int32) -> State:
    return State(node.v0.long().expand(batch, *shape).clone())


@singledispatch
def step(node: Neuron, state: State, i: Tensor) -> tuple[State, Tensor]:
    """One step: `i` (batch, *features) is the current of this step; returns the next state and the output."""
    raise TypeError(f"{node.kind} has no dynamics")


def _fire(node: IF | LIF, v: Tensor, t: int) -> tuple[State, Tensor]:
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
