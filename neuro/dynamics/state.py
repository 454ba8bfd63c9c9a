"""What a population remembers, how it starts, how it takes a step: dispatched on the kind of node."""

from __future__ import annotations

from functools import singledispatch
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from neuro.graph import Shape
from neuro.nodes import Neuron


class State(NamedTuple):
    """What a population remembers: membrane potential `v` (batch, *features) and the number of steps done.

    `kept` holds what else an equation needs, each (batch, *features); its `step` says what.
    """

    v: Tensor
    t: int = 0
    kept: tuple[Tensor, ...] = ()


class Fire(Protocol):
    """Spikes of potentials: 1 where v >= theta (where v > theta if `strict`), 0 elsewhere, in the dtype of v."""

    def __call__(self, v: Tensor, theta: Tensor, strict: bool = False) -> Tensor: ...


def hard(v: Tensor, theta: Tensor, strict: bool = False) -> Tensor:
    """The threshold itself, which lets no gradient through; training puts `neuro.surrogate.spike` in its place."""
    return (v > theta if strict else v >= theta).to(v.dtype)


@singledispatch
def rest(
    node: Neuron, batch: int, shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> State:
    """State of a population of feature shape `shape` before its first step; its own tensors must be on `device`."""
    return State(torch.zeros(batch, *shape, dtype=dtype, device=device))


@singledispatch
def step(node: Neuron, state: State, i: Tensor, fire: Fire = hard) -> tuple[State, Tensor]:
    """One step: `i` (batch, *features) is the current of this step; returns the next state and the output.

    Gradients pass spikes as `fire` lets them, but no reset: whether it happens is a constant for them, as in snnTorch
    and in the recurrent neurons of Norse (Zenke and Vogels 2021, The remarkable robustness of surrogate gradient
    learning [recalled]).
    """
    raise TypeError(f"{node.kind} has no dynamics")


def filled(value: Tensor, batch: int, shape: Shape, dtype: torch.dtype) -> Tensor:
    """A parameter as the own potential of every neuron."""
    return value.to(dtype).expand(batch, *shape).clone()
