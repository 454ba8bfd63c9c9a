"""A graph with neurons over all its steps, differentiably: layer by layer, as far as it has no loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from neuro.dynamics import State
from neuro.graph import Graph, Input, Stateless
from neuro.kernels import scan, through_time
from neuro.nodes import AvgPool, Dropout, Neuron, Spiking, Weighted
from neuro.surrogate import Surrogate

Kernel = through_time.Kernel | Literal["scan"]
"""As in `neuro.kernels.through_time`; scan: `neuro.kernels.scan` where it applies, else as auto."""

KERNELS: tuple[str, ...] = (*get_args(through_time.Kernel), "scan")

NARROW = (torch.float16, torch.bfloat16)
"""Element types in which no membrane integrates."""


class Trajectory(NamedTuple):
    """What a network did over time.

    `outputs` (time, batch, *outputs); `spikes` of every spiking population by name, (time, batch, *features); `states`
    of all populations after the last step, from which a later call goes on.
    """

    outputs: Tensor
    spikes: dict[str, Tensor]
    states: dict[str, State]


class Product(NamedTuple):
    """A weighted sum that the population behind it has yet to take: both are computed in one pass."""

    node: Weighted
    x: Tensor


@dataclass(frozen=True, eq=False)
class Unrolled:
    """How a graph runs over time: the surrogate of each population, the kernel, and what dropout keeps of a sample.

    kept: for the name of each dropout that drops, (batch, *features) factors that hold over all steps. record: whether
    anyone wants to see spikes, which a pool may otherwise take while they are made.
    """

    graph: Graph
    surrogates: Mapping[str, Surrogate]
    kernel: Kernel
    kept: Mapping[str, Tensor]
    record: bool

    def run(self, x: Tensor, steps: int, states: Mapping[str, State]) -> Trajectory:
        """x (steps or 1, batch, *features); one step is held as a constant current."""
        graph = self.graph
        waiting = {name: len(readers) for name, readers in graph.targets.items()}
        values: dict[str, Any] = {}
        spikes: dict[str, Tensor] = {}
        after: dict[str, State] = {}
        pooled: set[str] = set()
        for name, node in graph.nodes.items():
            given = [values[source] for source in graph.sources[name]]
            if isinstance(node, Input):
                values[name] = x
            elif isinstance(node, Neuron):
                pool = self._pool_behind(name) if isinstance(given[0], Product) else None
                values[name], after[name] = self._population(name, node, given[0], steps, states.get(name), pool)
                pooled |= {name} if pool is not None else set()
                if self.record and isinstance(node, Spiking):
                    spikes[name] = values[name]
            elif isinstance(node, Dropout):
                values[name] = given[0] * self.kept[name] if name in self.kept else given[0]
            elif isinstance(node, AvgPool) and graph.sources[name][0] in pooled:
                values[name] = given[0]
            elif isinstance(node, Weighted):
                values[name] = self._weighted(name, node, given[0])
            elif isinstance(node, Stateless):
                values[name] = _at_every_step(node, given)
            for source in graph.sources[name]:
                waiting[source] -= 1
                if not waiting[source]:
                    del values[source]
        output = values[graph.output]
        return Trajectory(output.expand(steps, *output.shape[1:]), spikes, after)

    def _pool_behind(self, name: str) -> AvgPool | None:
        """The average pool that alone reads a population, where nobody wants its spikes."""
        (reader, *others) = self.graph.targets[name] or (name,)
        node = self.graph.nodes[reader]
        return node if isinstance(node, AvgPool) and not others and not self.record else None

    def _population(
        self, name: str, node: Neuron, current: Tensor | Product, steps: int, state: State | None, pool: AvgPool | None
    ) -> tuple[Tensor, State]:
        """The outputs of all steps, averaged by `pool` where one is given, and the state after them."""
        surrogate = self.surrogates[name]
        if isinstance(current, Product):
            (linear, x), kernel = current, "auto" if self.kernel == "scan" else self.kernel
            x = x.expand(steps, *x.shape[1:])
            return through_time.layer(linear, node, x, surrogate, state, x.requires_grad, kernel, pool)
        current = current.float() if current.dtype in NARROW else current
        current = current.expand(steps, *current.shape[1:])
        if self.kernel != "scan":
            return through_time.run(node, current, surrogate, state, self.kernel)
        run = scan.run if scan.supports(node) else through_time.run
        return run(node, current, surrogate, state)

    def _weighted(self, name: str, node: Weighted, x: Tensor) -> Tensor | Product:
        if self.kernel == "reference" or node.weight.dtype != torch.float32:
            return _at_every_step(node, [x])
        reader = self.graph.nodes[self.graph.targets[name][0]] if len(self.graph.targets[name]) == 1 else None
        if isinstance(reader, Neuron) and not (self.kernel == "scan" and scan.supports(reader)):
            return Product(node, x)
        if len(x) == 1:
            return _at_every_step(node, [x])
        return through_time.product(node, x, x.requires_grad, "auto" if self.kernel == "scan" else self.kernel)


def _at_every_step(node: Stateless, given: list[Tensor]) -> Tensor:
    """All steps as rows of one batch."""
    steps, batch = max(value.shape[0] for value in given), given[0].shape[1]
    rows = [value.expand(steps, *value.shape[1:]).flatten(0, 1) for value in given]
    return node.forward(*rows).unflatten(0, (steps, batch))
