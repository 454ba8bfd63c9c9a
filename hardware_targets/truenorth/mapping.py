"""A spiking graph on cores: who stands where, who drives which axon, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from hardware_targets.chip import Chip
from hardware_targets.lower import Layer, lower
from hardware_targets.placement import NETWORK, Violation
from hardware_targets.truenorth.core import CoreShape
from hardware_targets.truenorth.corelets import corelet, with_clock
from hardware_targets.truenorth.cutting import Cut, cut_all
from neuro.errors import UnsupportedNode
from neuro.flow import carries_spikes
from neuro.graph import Graph, Node
from neuro.nodes import LIF, AvgPool, BatchNorm, Dropout, MaxPool, Readout, Spiking
from neuro.shown import Sheet, Shown

CLOCK = "(clock)"


class CoreUse(NamedTuple):
    """What a core holds: neurons and axons of one population, or of its splitters."""

    population: str
    neurons: int
    axons: int


@dataclass(frozen=True, eq=False)
class Mapped(Shown):
    """A network mapped to cores; `run` needs it compiled, `check` only asks whether it fits.

    layers: the populations in order, a `Readout` last where the host reads one.  at: the tick at which a population
    answers an input of tick 0.  first: the lowest signal of every input and population.  memory: whether any
    population outlasts a tick, so that every sample needs a chip at rest.  violations: every limit that is broken.
    starts: the numbers of a population's first core and of its first splitter core.
    """

    graph: Graph
    chip: Chip
    shape: CoreShape
    layers: tuple[Layer, ...]
    cuts: tuple[Cut, ...]
    at: Mapping[str, int]
    first: Mapping[str, int]
    memory: bool
    violations: tuple[Violation, ...]
    starts: Mapping[str, tuple[int, int]]

    @property
    def host(self) -> Layer | None:
        """The read-out that the host computes from the spikes that leave the chip."""
        return self.layers[-1] if isinstance(self.layers[-1].node, Readout) else None

    @property
    def depth(self) -> int:
        """Ticks from an input to the last spikes that leave the chip, that of the input counted."""
        return 1 + max(self.at[cut.corelet.name] + cut.relayed for cut in self.cuts)

    @property
    def cores(self) -> tuple[CoreUse, ...]:
        """All cores in order: of every population its own, then its splitters."""
        found: list[CoreUse] = []
        for cut in self.cuts:
            name = cut.corelet.name
            neurons = np.bincount(cut.core, cut.here, minlength=cut.cores).astype(int)
            axons = np.bincount(cut.axon_core, minlength=cut.cores)
            found += [CoreUse(name, int(n), int(a)) for n, a in zip(neurons, axons, strict=True)]
            if cut.relayed:
                kept = cut.relay_core >= 0
                relays = np.bincount(cut.relay_core[kept], cut.copies[kept], minlength=cut.splitters).astype(int)
                driven = np.bincount(cut.relay_core[kept], minlength=cut.splitters)
                splitters = zip(relays, driven, strict=True)
                found += [CoreUse(f"{name} (splitters)", int(n), int(a)) for n, a in splitters]
        return tuple(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """How each population got what a core does not have: signed inputs, several targets, more weight values."""
        return tuple(note for cut in self.cuts for note in _notes(cut))

    def rows(self) -> list[tuple[str, ...]]:
        """Population, neurons, copies of them, cores, splitters, axons and neurons of the fullest core, tick."""
        uses: dict[str, list[CoreUse]] = {}
        for use in self.cores:
            uses.setdefault(use.population, []).append(use)
        return [
            (
                cut.corelet.name, f"{cut.corelet.size:,}", f"{int(cut.copies.sum()):,}", f"{cut.cores:,}",
                f"{cut.splitters:,}", str(max(use.axons for use in uses[cut.corelet.name])),
                str(max(use.neurons for use in uses[cut.corelet.name])), str(self.at[cut.corelet.name]),
            )
            for cut in self.cuts
        ]  # fmt: skip

    @property
    def title(self) -> str:
        total = self.chip.limit("cores") * self.chip.limit("chips")
        return f"{len(self.cores):,} of {total:,} cores of {self.chip.title}"

    def sheet(self) -> Sheet:
        headings = ("population", "neurons", "with copies", "cores", "splitters", "axons", "neurons/core", "tick")
        return self.title, headings, self.rows(), self.notes


def _notes(cut: Cut) -> list[str]:
    name, copies = cut.corelet.name, cut.copies
    notes = [f"{name}: {cut.corelet.rule}"]
    if copies.max() > 1:
        many = (
            f"{name}: {int((copies > 1).sum()):,} neurons drive up to {int(copies.max())} axons, a neuron has 1 target"
        )
        if cut.relayed:
            notes.append(f"{many}: {cut.splitters} splitter cores, 1 tick later")
        else:
            notes.append(f"{many}: split into {int(copies.sum()):,} copies")
    return notes


def map_graph(graph: Graph, chip: Chip, shape: CoreShape, *, assume: bool = False) -> Mapped:
    """Map a spiking graph; what breaks a limit is in `violations`, all of it.

    assume: take weights that are not few-valued for trinary ones to be trained. Raises UnsupportedNode listing what no
    core computes.
    """
    if len(graph.inputs) != 1:
        raise UnsupportedNode(f"{graph.name!r} has {len(graph.inputs)} inputs; a chip of small cores takes one")
    layers = lower(on_cores(graph))
    spiking = [layer for layer in layers if isinstance(layer.node, Spiking)]
    odd = [layer.name for layer in layers[:-1] if isinstance(layer.node, Readout)]
    if odd or not spiking or graph.output != layers[-1].name:
        raise UnsupportedNode(
            f"{graph.name!r}: spiking populations must end in one read-out, or in a population, that nothing reads; "
            f"got {', '.join(map(repr, odd)) or repr(graph.output)}"
        )
    first, total = {}, 0
    sizes = {name: int(np.prod(graph.shapes[name])) for name in graph.inputs} | {CLOCK: 1}
    for name, size in (sizes | {layer.name: layer.size for layer in spiking}).items():
        first[name], total = total, total + size
    types = [corelet(layer, _synapses(layer, first, total), shape, assume=assume) for layer in spiking]
    violations = [broken for _, found in types for broken in found]
    corelets = [made for made, _ in types]
    memory = any(made.memory for made in corelets)
    if memory:
        clocked = [with_clock(made, first[CLOCK], shape) for made in corelets]
        corelets, violations = [made for made, _ in clocked], [*violations, *(v for _, found in clocked for v in found)]
    cuts, broken = cut_all(corelets, first, read_by_host(layers), shape)
    violations += broken
    at, late = _ticks(spiking, cuts, shape)
    starts, number = {}, 0
    for cut in cuts:
        starts[cut.corelet.name] = (number, number + cut.cores)
        number += cut.cores + cut.splitters
    available = chip.limit("cores") * chip.limit("chips")
    if number > available:
        remedy = "use fewer channels or positions, smaller kernels, or more chips (limits.chips)"
        violations.append(Violation(NETWORK, None, "cores", number, available, remedy))
    return Mapped(graph, chip, shape, layers, cuts, at, first, memory, (*violations, *late), starts)


def on_cores(graph: Graph) -> Graph:
    """The graph with what cores compute in another form: norms as scales, a max-pool of spikes as their OR."""
    nodes: dict[str, Node] = dict(graph.nodes)
    sources = {name: list(given) for name, given in graph.sources.items()}
    binary = carries_spikes(graph, spiking_inputs=True)
    for name, node in graph.nodes.items():
        if isinstance(node, BatchNorm):
            nodes[name] = node.as_scale(len(graph.shapes[name]))
        elif isinstance(node, MaxPool) and name in binary:
            count = f"{name} (count)"
            nodes[count] = AvgPool(node.kernel, node.stride, node.padding, True, node.ceil)
            sources[count] = sources[name]
            half = torch.tensor(0.5 / float(np.prod(node.kernel)))
            nodes[name], sources[name] = LIF(torch.zeros(()), half, torch.zeros(()), "zero"), [count]
        elif isinstance(node, Dropout):
            (given,) = sources[name]
            for reader in graph.targets[name]:
                sources[reader] = [given if source == name else source for source in sources[reader]]
            del nodes[name], sources[name]
    return replace(graph, nodes=nodes, sources={name: tuple(given) for name, given in sources.items()}, history=())


def _synapses(layer: Layer, first: Mapping[str, int], total: int) -> sp.csr_array:
    """(neurons, signals): what flows into a population from all signals."""
    rows, columns, data = [], [], []
    for path in layer.paths:
        part = path.as_matrix().tocoo()
        rows.append(part.row)
        columns.append(part.col + first[path.source])
        data.append(part.data)
    entries = (np.concatenate(data or [np.zeros(0)]), (np.concatenate(rows or [[]]), np.concatenate(columns or [[]])))
    found = sp.csr_array(entries, shape=(layer.size, total), dtype=np.float64)
    found.sum_duplicates()
    found.eliminate_zeros()
    found.sort_indices()
    return found


def read_by_host(layers: Sequence[Layer]) -> dict[str, NDArray[np.int64]]:
    """1 for neurons that the host reads, by population: those under the read-out's weights, or all of a last one."""
    last = layers[-1]
    if not isinstance(last.node, Readout):
        return {last.name: np.ones(last.size, np.int64)}
    found: dict[str, NDArray[np.int64]] = {}
    for path in last.paths:
        used = np.asarray((path.as_matrix() != 0).sum(0)).reshape(-1) > 0
        found[path.source] = np.maximum(found.get(path.source, 0), used.astype(np.int64))
    return found


def _ticks(
    layers: Sequence[Layer], cuts: Sequence[Cut], shape: CoreShape
) -> tuple[dict[str, int], tuple[Violation, ...]]:
    """When every population answers; all its inputs wait for the latest, in the delays of their neurons."""
    at: dict[str, int] = {}
    relayed = {cut.corelet.name: cut.relayed for cut in cuts}
    late = []
    for layer in layers:
        known = [path.source for path in layer.paths if path.source in at]
        at[layer.name] = max((at[name] + 1 + relayed[name] for name in known), default=0)
        for name in known:
            delay = at[layer.name] - at[name] - relayed[name]
            if delay > shape.delay[1]:
                remedy = "shorten the path that waits, or add a population to it"
                late.append(Violation(layer.name, None, "delay", delay, shape.delay[1], remedy))
    return at, tuple(late)
