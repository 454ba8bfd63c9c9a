"""Which values of a network stay events: spikes as bits, and sums of weights that only membranes take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from neuro.graph import Graph, Node, Shape, Stateless
from neuro.kernels.events import AS_IS, Currents, Value, fires, population, together
from neuro.kernels.spikes import Spikes, pack
from neuro.kernels.synapses import table
from neuro.nodes import Add, Affine, AvgPool, Conv, Pad, Permute, Reshape, Scale, Slice

DENSE_ADVANTAGE = 0.5
"""Additions of events that cost no more than one dense multiply-accumulate.

Measured on layers of 6 to 128 channels against torch and the fused populations: events are faster up to 0.45 to 1.
"""


def _moves(node: Node) -> bool:
    return isinstance(node, Slice | Permute | Reshape) or (isinstance(node, Pad) and node.value == 0)


@dataclass(frozen=True, eq=False)
class Paths:
    """The event-driven part of a network over `steps` steps.

    binary: names that carry spikes. always: follow the spikes however many they are.
    """

    graph: Graph
    binary: set[str]
    steps: int
    always: bool = False

    @cached_property
    def into_membranes(self) -> set[str]:
        """Names whose values IF and LIF populations take, directly or through one sum, and nothing else."""
        graph = self.graph

        def takes(name: str) -> bool:
            readers = graph.targets[name]
            return graph.dtypes[name] == torch.float32 and bool(readers) and all(fires(graph.nodes[r]) for r in readers)

        sums = {name for name, node in graph.nodes.items() if isinstance(node, Add) and takes(name)}
        return sums | {
            name
            for name, node in graph.nodes.items()
            if isinstance(node, Conv | Affine | AvgPool | Scale)
            and graph.dtypes[name] == torch.float32
            and graph.targets[name]
            and all(reader in sums or fires(graph.nodes[reader]) for reader in graph.targets[name])
        }

    def wanted(self, name: str) -> bool:
        """Whether a reader of these spikes can follow them one by one."""
        return name in self.binary and self._followed(name, self.graph.shapes[name], ())

    def _followed(self, name: str, shape: Shape, moves: tuple[Stateless, ...]) -> bool:
        for reader in self.graph.targets[name]:
            node = self.graph.nodes[reader]
            if isinstance(node, Stateless) and _moves(node):
                if self._followed(reader, shape, (*moves, node)):
                    return True
            elif reader in self.into_membranes or fires(node):
                linear = AS_IS if isinstance(node, Add) or fires(node) else node
                if isinstance(linear, Stateless) and table(linear, shape, moves) is not None:
                    return True
        return False

    def as_bits(self, name: str, value: Value) -> Value:
        """A dense series of spikes as bits where a reader wants them."""
        series = isinstance(value, Tensor) and len(value) == self.steps > 1 and value.dtype == torch.float32
        return pack(value) if series and isinstance(value, Tensor) and self.wanted(name) else value

    def follow(self, name: str, node: Node, given: list[Value]) -> Value | None:
        """The value of a node on events: spikes, or currents that membranes have yet to add; None where it is dense."""
        if fires(node):
            known = isinstance(given[0], Tensor) and not (given[0].dtype == torch.float32 and self.wanted(name))
            return None if known else self._population(name, node, given)
        return self._current(name, node, given) if isinstance(node, Stateless) else None

    def _population(self, name: str, node: Node, given: list[Value]) -> Spikes | None:
        currents = together([self._passable(value) for value in given])
        return population(node, currents, self.graph.shapes[name], self.steps)  # type: ignore[arg-type]

    def _current(self, name: str, node: Stateless, given: list[Value]) -> Value | None:
        if all(isinstance(value, Tensor) for value in given):
            return None
        if isinstance(node, Add) and name in self.into_membranes:
            return together([self._passable(value) for value in given])
        (value, *others) = given
        if others or not isinstance(value, Spikes):
            return None
        if _moves(node):
            return value.moved(node)
        return Currents(((value, node),)) if name in self.into_membranes and self._pays(name, node, value) else None

    def _passable(self, value: Value) -> Value:
        direct = isinstance(value, Spikes) and table(AS_IS, value.shape, value.moves) is None
        return value.dense if direct and isinstance(value, Spikes) else value

    def _pays(self, name: str, node: Stateless, spikes: Spikes) -> bool:
        """Whether adding the weights of every spike takes less time than the dense product."""
        runs = table(node, spikes.shape, spikes.moves)
        if runs is None or self.always or not isinstance(node, Conv | Affine):
            return runs is not None
        dense = node.weight.numel() * math.prod(self.graph.shapes[name][1:] if isinstance(node, Conv) else (1,))
        return spikes.density * math.prod(spikes.shape) * runs.per_spike < DENSE_ADVANTAGE * dense
