"""Populations that hear their own past: spikes of the step before, or anything some steps late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Graph, Input, Shape, Stateless
from neuro.nodes.euler import IAF, BoxLIF, CurrentLI, CurrentLIF
from neuro.nodes.neurons import IF, LI, LIF, AdaptiveLIF, Domain, Neuron, Spiking
from neuro.nodes.synaptic import Alpha, Leaky, Synaptic

LONGEST_DELAY = 100_000
"""Steps; a delay keeps everything that it has not passed on yet."""

_INSIDE = IF | LIF | AdaptiveLIF | LI | IAF | BoxLIF | CurrentLI | CurrentLIF | Leaky | Synaptic | Alpha


@dataclass(frozen=True, eq=False)
class Recurrent(Spiking):
    """y(t) = body(x(t), y(t - 1)), y = 0 before the first step: a population whose spikes come back one step later.

    `body` is a graph with two inputs, x and then y(t - 1), whose output node is the population that fires; every other
    node is stateless, or a membrane such as the synaptic current of that population. So the common recurrent layer is
    i(t) = x(t) + W y(t - 1) + b, then the neuron (Pedersen et al. 2024, NIR, fig. 5 [recalled]; snnTorch RSynaptic).
    """

    domains: ClassVar[Mapping[str, Domain]] = {}

    body: Graph

    def __post_init__(self) -> None:
        Neuron.__post_init__(self)
        body = self.body
        if len(body.inputs) != 2:
            raise ParameterError(f"Recurrent: its body needs two inputs, what enters and what fired, got {body.inputs}")
        odd = [f"{n.kind} {name!r}" for name, n in body.nodes.items() if not isinstance(n, Input | Stateless | _INSIDE)]
        if odd or not isinstance(body.nodes[body.output], Spiking):
            raise ParameterError(f"Recurrent: its body must end in a spiking population and not hold {odd[:3]}")
        if body.shapes[body.output] != body.shapes[body.inputs[1]]:
            raise ShapeError(
                f"Recurrent: spikes of shape {body.shapes[body.output]} come back as {body.shapes[body.inputs[1]]}"
            )

    @property
    def population(self) -> Spiking:
        """The neurons that fire."""
        return self.body.nodes[self.body.output]  # type: ignore[return-value]

    @property
    def theta(self) -> Tensor:  # type: ignore[override]
        return self.population.theta

    @property
    def reset(self) -> str:  # type: ignore[override]
        return self.population.reset

    @property
    def parameters(self) -> int:
        return self.body.parameters

    def output_shape(self, *shapes: Shape) -> Shape:
        wanted = self.body.shapes[self.body.inputs[0]]
        if shapes[0] != wanted:
            raise ShapeError(f"Recurrent: takes features of shape {wanted}, got {shapes[0]}")
        return self.body.shapes[self.body.output]


@dataclass(frozen=True, eq=False)
class Delay(Neuron):
    """y(t) = x(t - steps), 0 before: a whole number of steps for all, or one per feature."""

    steps: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = self.steps == self.steps.round()
        if bool((~whole | (self.steps < 0) | (self.steps > LONGEST_DELAY)).any()):
            raise ParameterError(f"Delay: steps must be whole numbers in 0..{LONGEST_DELAY}")

    @cached_property
    def longest(self) -> int:
        """Steps that the slowest feature is late."""
        return int(self.steps.max())

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return dtypes[0]
