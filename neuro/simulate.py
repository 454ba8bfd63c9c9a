"""Run a network on data and count what it did.

A graph without loops runs layer by layer: each layer computes all time steps at once. Linear nodes see (time * batch)
rows, neurons run through a kernel fused over time. A value that does not change in time is computed once and held.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

import neuro.hypervector_counts
import neuro.optical_counts
import neuro.quantum_counts  # noqa: F401 - `tally` learns its nodes
from neuro.counts import Counts, Tally, Traffic, experts_counts, tally, tally_neurons
from neuro.dynamics import rest
from neuro.errors import ParameterError, ShapeError
from neuro.feedback import recurrent_counts
from neuro.flow import carries_spikes, carries_sums_of_spikes, has_neurons, lead, rehearsal, ticks
from neuro.graph import Graph, Input, Stateless
from neuro.kernels import Kernel, run_steps
from neuro.kernels.cpu import active
from neuro.kernels.events import Value, dense
from neuro.kernels.paths import Paths
from neuro.kernels.spikes import Spikes
from neuro.nodes import (
    Accumulate,
    Add,
    CountThenFire,
    Delay,
    Experts,
    GradedSpiking,
    MaxCount,
    MaxCountAgain,
    Neuron,
    OffsetIF,
    Pulse,
    RampFirstSpike,
    Readout,
    Recurrent,
    Spiking,
    TimedLIF,
    TimeToFirstSpike,
    Weighted,
)
from neuro.progress import track
from neuro.warmup import run_late, shown_again
from neuro.windows import carried_as_sums, check_steps, duration, spike_counts, unfolded

Recordable = Literal["spikes", "v", "outputs", "counts"]


@dataclass(frozen=True, eq=False)
class Run:
    """What a simulation gave.

    `outputs` (batch, *features): the read-out at the last step, or the mean firing rate where the last node spikes.
    Recordings hold the steps that count, each population on its own clock; `counts` has the warm-up too.
    `recordings["spikes"][node]` (graded spikes with their numbers) and `["v"][node]` are (time, batch, *features);
    `["outputs"]` holds the read-out after every step under the name of the last node; `["counts"][node]` holds the
    spikes of each neuron over the whole run, graded ones summed, (1, batch, *features).
    """

    outputs: Tensor
    counts: Counts
    recordings: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def _samples_per_chunk(graph: Graph, steps: int, memory: float) -> int:
    widest = sorted((math.prod(shape) for shape in graph.shapes.values()), reverse=True)[:3]
    return max(1, int(memory / (4 * steps * max(sum(widest), 1))))


def _check(graph: Graph, x: Tensor, steps: int | None) -> tuple[int, bool]:
    if len(graph.inputs) != 1:
        raise ParameterError(f"{graph.name!r} has {len(graph.inputs)} inputs; simulate takes networks with one")
    shape = graph.shapes[graph.inputs[0]]
    timed = x.ndim == len(shape) + 2 and tuple(x.shape[2:]) == shape
    if not timed and tuple(x.shape[1:]) != shape:
        sizes = ", ".join(map(str, shape))
        raise ShapeError(f"{graph.name!r} takes (batch, {sizes}) or (time, batch, {sizes}), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ShapeError(f"{graph.name!r} takes floating-point input, got {x.dtype}")
    if not bool(torch.isfinite(x).all()):
        raise ParameterError(f"the input of {graph.name!r} holds NaN or infinite values")
    if not has_neurons(graph):
        if (steps is not None and (isinstance(steps, bool) or steps != 1)) or timed:
            raise ParameterError(f"{graph.name!r} has no neurons and knows no time; leave steps out")
        return 1, False
    steps = check_steps(graph, steps, timed) or steps
    if steps is None and timed:
        steps = x.shape[0]
    if steps is None:
        raise ParameterError(f"{graph.name!r} has neurons: say how many steps to simulate, e.g. steps=32")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 1_000_000:
        raise ParameterError(f"steps must be an integer from 1 to 1000000, got {steps!r}")
    if timed and x.shape[0] != steps:
        raise ShapeError(f"the input has {x.shape[0]} steps but steps={steps}")
    return steps, timed


def simulate(
    graph: Graph,
    x: Tensor,
    *,
    steps: int | None = None,
    record: Sequence[Recordable] = (),
    kernel: Kernel = "auto",
    memory: float = 5e8,
    progress: bool = False,
    count: bool = True,
) -> Run:
    """Run `graph` on `x` and count what happened.

    x: (batch, *features), held constant as an input current over all steps; or (time, batch, *features). A graph
    without neurons runs once, as the plain network it is; one that counts in windows says itself how many steps it
    takes. `record` keeps "spikes", "v" (potentials after reset) or "outputs" of every step, or "counts" of spikes. The
    batch is cut so that the widest layers need at most `memory` bytes. `count=False` skips the counting.
    `kernel` "auto" follows single spikes where these are few (sums of real weights then round in another order),
    "events" wherever it can; "numba" and "reference" compute every sum densely, and every step of populations that
    count in windows.
    Raises ParameterError and ShapeError before any work.
    """
    if any(isinstance(node, TimeToFirstSpike | TimedLIF) for node in graph.nodes.values()):
        from neuro.first_spike.run import run_events

        if steps is not None or record:
            raise ParameterError(f"{graph.name!r} fires at times, not in steps: leave steps and record out")
        return run_events(graph, x, progress=progress)
    steps, timed = _check(graph, x, steps)
    for wish in record:
        if wish not in ("spikes", "v", "outputs", "counts"):
            raise ParameterError(f"record takes 'spikes', 'v', 'outputs' and 'counts', got {wish!r}")
    if kernel not in get_args(Kernel):
        raise ParameterError(f"kernel must be 'auto', 'reference', 'numba' or 'events', got {kernel!r}")
    spiking_input = timed and bool(((x == 0) | (x == 1)).all())
    samples = x.shape[1] if timed else x.shape[0]
    if samples < 1:
        raise ShapeError(f"the input of {graph.name!r} holds no samples: {tuple(x.shape)}")
    if steps < (longer := rehearsal(graph)):
        series = x[torch.arange(longer) % steps] if timed else x
        options = {"kernel": kernel, "memory": memory, "progress": progress, "count": count}
        long = simulate(graph, series, steps=longer, record=[*record, "outputs"], **options)  # type: ignore[arg-type]
        return _cut(graph, long, steps, "outputs" in record)
    whole = _Chunk(graph, steps + lead(graph), tuple(record), kernel, spiking_input, count)
    size = _samples_per_chunk(graph, whole.rows, memory)
    series = shown_again(x, lead(graph)) if timed else x[None]
    parts = range(0, samples, size)
    runs = []
    with torch.no_grad():
        for start in track(parts, len(parts), f"simulate {graph.name}", progress):
            runs.append(whole.run(series[:, start : start + size].to(torch.float32)))
    counts = runs[0].counts
    for run in runs[1:]:
        counts = counts + run.counts
    recordings = {
        wish: {name: torch.cat([run.recordings[wish][name] for run in runs], 1) for name in runs[0].recordings[wish]}
        for wish in runs[0].recordings
    }
    return Run(torch.cat([run.outputs for run in runs]), counts, recordings)


def _cut(graph: Graph, run: Run, steps: int, kept: bool) -> Run:
    """What the output says after `steps` of a longer run; the populations before it have run on for their readers."""
    recordings = {wish: dict(found) for wish, found in run.recordings.items() if kept or wish != "outputs"}
    output = run.recordings["outputs"][graph.output][:steps]
    if kept:
        recordings["outputs"][graph.output] = output
    rate = isinstance(graph.nodes[graph.output], Spiking | GradedSpiking | MaxCount)
    counts = replace(run.counts, steps=ticks(graph, steps))
    return Run(output.mean(0) if rate else output[-1], counts, recordings)


def plain_counts(graph: Graph, x: Tensor) -> Counts:
    """Counts of a network without neurons on x (batch, *features)."""
    return simulate(graph, x).counts


@dataclass(frozen=True, eq=False)
class _Chunk:
    """One pass of a part of the batch through all nodes.

    Values are (time, batch, *features), or (1, batch, *features) where they are constant or in `summed`. Those that
    populations take spike by spike stay `Spikes` and `Currents`.
    """

    graph: Graph
    steps: int
    record: tuple[str, ...]
    kernel: Kernel
    spiking_input: bool
    count: bool

    @cached_property
    def binary(self) -> set[str]:
        return carries_spikes(self.graph, self.spiking_input)

    @cached_property
    def graded(self) -> set[str]:
        return carries_sums_of_spikes(self.graph, self.binary)

    @cached_property
    def summed(self) -> set[str]:
        """Names of which only the sum over time is kept."""
        if not self.closed or {"spikes", "v", "outputs"} & set(self.record):
            return set()
        return carried_as_sums(self.graph, self.binary, self.graded, self.count)

    @property
    def closed(self) -> bool:
        """Whether populations that count in windows take the closed form in place of their steps."""
        return self.kernel in ("auto", "events")

    @cached_property
    def paths(self) -> Paths | None:
        """What runs on events; None where every value is dense."""
        timed = any(isinstance(node, RampFirstSpike) for node in self.graph.nodes.values())
        dense_only = timed or self.windowed or self.lead or "v" in self.record or self.kernel in ("reference", "numba")
        return None if dense_only else Paths(self.graph, self.binary, self.steps, self.kernel == "events")

    @cached_property
    def windowed(self) -> bool:
        return duration(self.graph) is not None

    @cached_property
    def lead(self) -> int:
        return lead(self.graph)

    @property
    def rows(self) -> int:
        """Steps that the widest values hold; the integers of sums pass through wider numbers."""
        spiking = {name for name, node in self.graph.nodes.items() if isinstance(node, Spiking)}
        return 4 if spiking and spiking <= self.summed else self.steps

    def run(self, x: Tensor) -> Run:
        graph, batch = self.graph, x.shape[1]
        binary, graded, summed = self.binary, self.graded, self.summed
        waiting = {name: len(readers) for name, readers in graph.targets.items()}
        values: dict[str, Value] = {}
        flows: dict[str, Traffic] = {}
        tallies: dict[str, Tally] = {}
        recordings: dict[str, dict[str, Tensor]] = {wish: {} for wish in self.record}
        for name, node in graph.nodes.items():
            arrived = [values[source] for source in graph.sources[name]]
            followed = None if self.paths is None else self.paths.follow(name, node, arrived)
            given = [] if followed is not None else [dense(value) for value in arrived]
            if name in summed and isinstance(node, Stateless | MaxCount):
                given = [value.sum(0, keepdim=True) if len(value) > 1 else value for value in given]
            if isinstance(node, Input):
                values[name] = x
                tallies[name] = Tally(spikes=int(x.sum())) if self.spiking_input else Tally()
            elif isinstance(node, Neuron):
                value = self._neurons(name, node, given[0], recordings) if followed is None else followed
                self._record(name, node, value, recordings)
                values[name] = value
                if self.count and not isinstance(node, Pulse | Delay):
                    flows[name] = self._traffic(name, values[name])
                    fired = int(flows[name].active.sum()) if name in binary or name in graded else 0
                    size, batch = math.prod(graph.shapes[name]), x.shape[1]
                    tallies[name] = tally_neurons(node, size, batch, self.steps, fired, None)
                    if isinstance(node, Recurrent):
                        tallies[name] = recurrent_counts(node, given[0], dense(value))
            elif isinstance(node, Stateless):
                silent = self.windowed and (name in binary or name in graded)
                forward = _forward_live if silent else _forward
                values[name] = forward(node, self._averaged(name, given)) if followed is None else followed
                if self.count:
                    if isinstance(node, RampFirstSpike):
                        flows[name] = self._traffic(name, values[name])
                        fired, updates = int(flows[name].active.sum()), dense(values[name]).numel()
                        tallies[name] = Tally(
                            spikes=fired, updates=updates, comparisons=updates, state_words=2 * updates,
                            activation_words=2 * fired,
                        )  # fmt: skip
                    elif isinstance(node, Experts):
                        tallies[name] = experts_counts(node, given[0].flatten(0, 1))
                    elif not self._joins_currents(name):
                        for source, entered in zip(graph.sources[name], given or arrived, strict=True):
                            if source not in flows:
                                flows[source] = self._traffic(source, entered)
                        seen = tuple(flows[source] for source in graph.sources[name])
                        tallies[name] = tally(node, seen, graph.shapes[name])
            if self.paths is not None:
                values[name] = self.paths.as_bits(name, values[name])
            for source in graph.sources[name]:
                waiting[source] -= 1
                if not waiting[source]:
                    del values[source]
                    flows.pop(source, None)
        output = dense(values[graph.output])
        if "outputs" in self.record:
            recordings["outputs"][graph.output] = output.expand(self.steps, *output.shape[1:])[self.lead :]
        last = graph.nodes[graph.output]
        final = output[self.lead :].mean(0) if isinstance(last, Spiking | GradedSpiking | MaxCount) else output[-1]
        precision = (
            "int8"
            if any(not t.is_floating_point() for n in graph.nodes.values() for _, t in n.tensors())
            else "float32"
        )
        return Run(final, Counts(batch, ticks(graph, self.steps - self.lead), tallies, precision), recordings)

    def _traffic(self, name: str, value: Value) -> Traffic:
        binary = name in self.binary
        if isinstance(value, Spikes):
            often = value.often
            return Traffic(tuple(often.shape), often, value.steps * value.batch, binary, name in self.graded)
        value = dense(value)
        often = value.sum((0, 1)) if binary and name in self.summed else active(value)
        presentations = value.shape[0] * value.shape[1]
        return Traffic(tuple(value.shape[2:]), often, presentations, binary, name in self.graded)

    def _joins_currents(self, name: str) -> bool:
        """Whether a node only adds what membranes then integrate: they add up what arrives anyway."""
        readers = self.graph.targets[name]
        return isinstance(self.graph.nodes[name], Add) and all(isinstance(self.graph.nodes[r], Neuron) for r in readers)

    def _averaged(self, name: str, given: list[Tensor]) -> list[Tensor]:
        """The inputs of a node, averaged over time where only a plain Readout reads a weighted sum of them.

        The read-out is the mean over time of a linear map, which is the map of the mean: one product in place of many.
        """
        node, readers = self.graph.nodes[name], self.graph.targets[name]
        reader = self.graph.nodes[readers[0]] if len(readers) == 1 else None
        plain = isinstance(reader, Readout) and reader.start == 0 and not {"v", "outputs"} & set(self.record)
        if not (plain and isinstance(node, Weighted) and node.weight.is_floating_point()) or len(given[0]) == 1:
            return given
        return [given[0].mean(0, keepdim=True)]

    def _neurons(self, name: str, node: Neuron, current: Tensor, recordings: dict[str, dict[str, Tensor]]) -> Tensor:
        batch, shape = current.shape[1], tuple(current.shape[2:])
        keep = "v" in self.record
        if isinstance(node, Readout) and not keep and "outputs" not in self.record:
            value = _mean_current(node, current, self.steps)
        elif isinstance(node, MaxCount) and not keep and not isinstance(node, MaxCountAgain):
            value = _count_maxima(node, current, self.steps if name not in self.summed else 1)
        elif isinstance(node, Pulse) and name in self.summed:
            value = current[:1]
        elif isinstance(node, CountThenFire) and not keep and self.closed:
            value = spike_counts(node, current)
            value = value if name in self.summed else unfolded(node, value, self.steps)
        elif isinstance(node, Accumulate) and not keep and "outputs" not in self.record:
            value = node.v0 + current.sum(0, keepdim=True)
        elif isinstance(node, OffsetIF):
            value, potentials = run_late(node, current, self.steps, keep, self.kernel)
            if potentials is not None:
                recordings["v"][name] = potentials[self.lead :]
        else:
            state = rest(node, batch, shape, current.dtype)
            _, value, potentials = run_steps(node, state, current, self.steps, keep, self.kernel)
            if potentials is not None:
                recordings["v"][name] = potentials[self.lead :]
        return value

    def _record(self, name: str, node: Neuron, value: Value, recordings: dict[str, dict[str, Tensor]]) -> None:
        if not isinstance(node, Spiking | GradedSpiking | MaxCount):
            return
        if "spikes" in self.record:
            told = dense(value)[self.lead :]
            recordings["spikes"][name] = told.to(torch.bool) if name in self.binary else told
        if "counts" in self.record:
            total = value.counts if isinstance(value, Spikes) else dense(value)[self.lead :].sum(0, keepdim=True)
            recordings["counts"][name] = total.to(torch.int32)


def _mean_current(node: Readout, current: Tensor, steps: int) -> Tensor:
    """The last output of a Readout without the series before it: its sum over time, in one go."""
    if current.shape[0] == 1:
        return current if steps > node.start else torch.zeros_like(current)
    kept = current[node.start :]
    return kept.sum(0, keepdim=True) / max(steps - node.start, 1)


def _count_maxima(node: MaxCount, spikes: Tensor, steps: int) -> Tensor:
    """All outputs of a MaxCount at once: differences of the pooled cumulative counts."""
    counts = spikes.expand(steps, *spikes.shape[1:]).cumsum(0)
    pooled = _forward(node.window, [counts])
    return torch.diff(pooled, dim=0, prepend=torch.zeros_like(pooled[:1])).to(spikes.dtype)


def _forward(node: Stateless, given: list[Tensor]) -> Tensor:
    times = max(value.shape[0] for value in given)
    batch = given[0].shape[1]
    rows = [value.expand(times, *value.shape[1:]).flatten(0, 1) for value in given]
    return node.forward(*rows).unflatten(0, (times, batch))


def _forward_live(node: Stateless, given: list[Tensor]) -> Tensor:
    """The same for a node that makes zeros of zeros: steps without a spike are not computed."""
    times = max(value.shape[0] for value in given)
    live = torch.zeros(times, dtype=torch.bool)
    for value in given:
        live |= value.flatten(1).any(1)
    if times == 1 or bool(live.all()):
        return _forward(node, given)
    part = _forward(node, [value[live] if len(value) > 1 else value for value in given])
    result = part.new_zeros(times, *part.shape[1:])
    result[live] = part
    return result
