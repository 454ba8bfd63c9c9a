"""What a network asks of a chip of small cores: populations, and who reaches whom. It serves check and place alike.

A slice of a population needs one input axon per distinct source neuron, and memory for the synapses that each of them
has into the slice. A `Reach` answers both questions without the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from hardware_targets.loihi.program import Connection, Conv2d, Dense, Neurons, Program, Sparse
from hardware_targets.loihi.program import Population as LIFPopulation
from hardware_targets.lower import Layer, Path, lower
from neuro.errors import ParameterError
from neuro.graph import Graph, Node
from neuro.nodes import IF, BatchNorm, Clamp, Dropout, Experts, LeakyReLU, Neuron, Readout, ReLU, Softmax, Spiking


class Reach(Protocol):
    """Which source neurons reach which target neurons."""

    def synapses(self, targets: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many synapses each source neuron has into `targets`, a set of indices; (sources,)."""

    def fan_in(self) -> NDArray[np.int64]:
        """How many source neurons reach each target neuron; (targets,)."""

    def first(self) -> NDArray[np.int64]:
        """The lowest source of each target neuron, 0 where there is none; (targets,)."""


@dataclass(frozen=True, eq=False)
class Listed:
    """Synapse by synapse: a sparse matrix (targets, sources) whose stored entries are the synapses, sorted in rows."""

    matrix: sp.csr_array

    def synapses(self, targets: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(self.matrix[targets].indices, minlength=self.matrix.shape[1])

    def fan_in(self) -> NDArray[np.int64]:
        return np.diff(self.matrix.indptr).astype(np.int64)

    def first(self) -> NDArray[np.int64]:
        starts = self.matrix.indptr[:-1]
        padded = np.append(self.matrix.indices, 0)
        return np.where(self.fan_in() > 0, padded[starts], 0)


@dataclass(frozen=True, eq=False)
class AllBut:
    """All to all but for a few pairs: `mask` (targets, sources), True where there is a synapse."""

    mask: NDArray[np.bool_]

    @cached_property
    def _holes(self) -> Listed:
        return Listed(sp.csr_array(~self.mask))

    def synapses(self, targets: NDArray[np.int64]) -> NDArray[np.int64]:
        return len(targets) - self._holes.synapses(targets)

    def fan_in(self) -> NDArray[np.int64]:
        return self.mask.shape[1] - self._holes.fan_in()

    def first(self) -> NDArray[np.int64]:
        return self.mask.argmax(axis=1)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A convolution, flattened channels first. Every entry of the kernel counts, zero or not: the kernel is one block.

    channels (out, in), rows (height_out, height_in) and columns (width_out, width_in) hold 1 where the two meet: a
    target and a source meet where all three do.
    """

    channels: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    @property
    def area(self) -> int:
        return len(self.rows) * len(self.columns)

    @cached_property
    def _groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        patterns, group = np.unique(self.channels, axis=0, return_inverse=True)
        return patterns, group.reshape(-1)

    def synapses(self, targets: NDArray[np.int64]) -> NDArray[np.int64]:
        channel, position = np.divmod(targets, self.area)
        patterns, group = self._groups
        present, where = np.unique(group[channel], return_inverse=True)
        top, bottom = position.min() // len(self.columns), position.max() // len(self.columns) + 1
        shape = (len(present), bottom - top, len(self.columns))
        place = where.reshape(-1) * (shape[1] * shape[2]) + position - top * len(self.columns)
        image = np.bincount(place, minlength=int(np.prod(shape))).reshape(shape).astype(np.float64)
        reached = (self.rows[top:bottom].T @ image @ self.columns).reshape(len(present), -1)
        return np.rint(patterns[present].T @ reached).astype(np.int64).reshape(-1)

    def fan_in(self) -> NDArray[np.int64]:
        per_position = np.outer(self.rows.sum(1), self.columns.sum(1)).reshape(-1)
        return np.outer(self.channels.sum(1), per_position).reshape(-1)

    def first(self) -> NDArray[np.int64]:
        height, width = self.rows.shape[1], self.columns.shape[1]
        corner = (self.rows.argmax(1)[:, None] * width + self.columns.argmax(1)[None, :]).reshape(-1)
        return (self.channels.argmax(1)[:, None] * (height * width) + corner[None, :]).reshape(-1)

    def stored_weights(self, targets: NDArray[np.int64]) -> int:
        """Kernel entries of the output channels among `targets`."""
        taps = int(self.rows.sum(1).max() * self.columns.sum(1).max())
        return int(self.channels[np.unique(targets // self.area)].sum()) * taps


@dataclass(frozen=True, eq=False)
class Link:
    """The synapses from one part of a network to one population, in one format."""

    source: str
    target: str
    reach: Reach
    weight_bits: int
    weight_exp: int = 0
    delay: int = 0
    message_bits: int = 0


@dataclass(frozen=True, eq=False)
class Population:
    """`size` neurons of one kind. `thresholds` (size,): equal numbers where two neurons share a threshold.

    `reset` is "zero", "subtract" or "none" for neurons that never fire.
    """

    name: str
    size: int
    reset: str
    thresholds: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Demand:
    """Populations in order, the sizes of the inputs from outside, and the links between them."""

    name: str
    inputs: Mapping[str, int]
    populations: tuple[Population, ...]
    links: tuple[Link, ...]

    def into(self, name: str) -> tuple[Link, ...]:
        """Links that end at population `name`."""
        return tuple(link for link in self.links if link.target == name)

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Neurons of every input and population."""
        return {**self.inputs, **{population.name: population.size for population in self.populations}}


def program_demand(program: Program) -> Demand:
    """What an integer program asks for. Zero weights of matrices take no synapse, those of kernels do."""
    populations = tuple(Population(p.name, p.size, *_firing(p)) for p in program.populations)
    links = tuple(
        Link(c.source, c.target, _reach(c), c.num_weight_bits, c.weight_exp, c.max_delay, c.num_message_bits)
        for c in program.connections
    )
    return Demand("program", {part.name: part.size for part in program.inputs}, populations, links)


def _firing(neurons: Neurons) -> tuple[str, NDArray[np.int64]]:
    """Reset mode and threshold class of every neuron. What never fires or runs as microcode needs neither."""
    if isinstance(neurons, LIFPopulation) and neurons.reset != "none":
        return neurons.reset, _classes(np.asarray(neurons.vth))
    return "none", _classes(np.zeros(neurons.size))


def graph_demand(graph: Graph, weight_bits: int, reset: str) -> Demand:
    """What a spiking or ordinary network will ask for once compiled with weights of `weight_bits`.

    In an ordinary network every ReLU becomes a population (resetting as `reset`) and the output a readout. Thresholds
    are counted as the quantiser makes them: one per channel behind a convolution, one per neuron elsewhere. Inputs are
    taken as spikes. Raises UnsupportedNode, listing all, for nodes that have no form on a chip.
    """
    layers = lower(as_populations(graph, reset))
    level = {layer.name: layer.level for layer in layers}
    populations, links = [], []
    for layer in layers:
        kind = layer.node.reset if isinstance(layer.node, Spiking) else "none"
        populations.append(Population(layer.name, layer.size, kind, _quantiser_classes(layer, kind)))
        for path in layer.paths:
            delay = layer.level - level.get(path.source, 0) - 1
            links.append(Link(path.source, layer.name, _path_reach(path, delay), weight_bits, delay=delay))
    inputs = {name: int(np.prod(graph.shapes[name])) for name in graph.inputs}
    return Demand(graph.name, inputs, tuple(populations), tuple(links))


def as_populations(graph: Graph, reset: str) -> Graph:
    """The graph with a population in the place of every activation, and without what conversion folds away."""
    nodes: dict[str, Node] = {}
    sources: dict[str, tuple[str, ...]] = {}
    renamed: dict[str, str] = {}
    one, zero = torch.ones(()), torch.zeros(())
    for name, node in graph.nodes.items():
        given = tuple(renamed.get(source, source) for source in graph.sources[name])
        if isinstance(node, BatchNorm | Dropout | Softmax):
            renamed[name] = given[0]
            continue
        population = isinstance(node, ReLU | Clamp | LeakyReLU)
        nodes[name] = IF(one, zero, reset) if population else node  # type: ignore[arg-type]
        sources[name] = given
    output = renamed.get(graph.output, graph.output)
    if not isinstance(nodes[output], Neuron | Experts):
        nodes["readout"], sources["readout"] = Readout(), (output,)
    return replace(graph, nodes=nodes, sources=sources, history=())


def _quantiser_classes(layer: Layer, kind: str) -> NDArray[np.int64]:
    if kind == "none":
        return np.zeros(layer.size, np.int64)
    if any(path.conv is not None for path in layer.paths):
        return np.repeat(np.arange(layer.shape[0]), layer.size // layer.shape[0])
    return np.arange(layer.size)


def _classes(values: NDArray) -> NDArray[np.int64]:
    return np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _path_reach(path: Path, delay: int) -> Reach:
    if path.affine is not None:
        return _table((path.affine.weight != 0).numpy())
    if path.conv is None or delay:
        return Listed(_nonzero(path.as_matrix()))
    conv = path.conv
    shape = (int(path.input_shape[0]), int(path.input_shape[1]), int(path.input_shape[2]))
    kernel = (int(conv.weight.shape[2]), int(conv.weight.shape[3]))
    return _kernel(shape, conv.output_shape(shape), kernel, conv.stride, conv.padding, conv.dilation, conv.groups)


def _reach(connection: Connection) -> Reach:
    match connection:
        case Dense():
            return _table(connection.effective_weights != 0)
        case Sparse():
            entries = (connection.effective_weights, (connection.rows, connection.columns))
            return Listed(_nonzero(sp.csr_array(entries, shape=connection.shape)))
        case Conv2d():
            kernel = np.asarray(connection.weights).shape[2:]
            geometry = (connection.stride, connection.padding, connection.dilation)
            return _kernel(connection.input_shape, connection.output_shape, kernel, *geometry, connection.groups)  # type: ignore[arg-type]
    raise ParameterError(f"Connection {connection.name!r}: {type(connection).__name__} cannot be placed")


def _table(mask: NDArray[np.bool_]) -> Reach:
    return AllBut(mask) if 2 * np.count_nonzero(mask) > mask.size else Listed(_nonzero(sp.csr_array(mask)))


def _nonzero(matrix: sp.csr_array) -> sp.csr_array:
    kept = matrix.copy()
    kept.sum_duplicates()
    kept.eliminate_zeros()
    kept.sort_indices()
    return kept


def _kernel(
    shape: tuple[int, ...],
    output: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Kernel:
    group_of_output = np.arange(output[0]) // (output[0] // groups)
    group_of_input = np.arange(shape[0]) // (shape[0] // groups)
    channels = (group_of_output[:, None] == group_of_input[None, :]).astype(np.int64)
    rows, columns = (
        _meets(shape[dim + 1], output[dim + 1], kernel[dim], stride[dim], padding[dim], dilation[dim]) for dim in (0, 1)
    )
    return Kernel(channels, rows, columns)


def _meets(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> NDArray[np.int64]:
    """1 where output position o reads input position i, (out, size)."""
    read = stride * np.arange(out)[:, None] - padding + dilation * np.arange(kernel)[None, :]
    target, tap = np.nonzero((read >= 0) & (read < size))
    meets = np.zeros((out, size), np.int64)
    meets[target, read[target, tap]] = 1
    return meets
