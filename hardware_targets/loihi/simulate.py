"""Runs a Loihi program on this machine's processor: bit for bit the reference, layer by layer, sample by sample."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hardware_targets.loihi import kernels
from hardware_targets.loihi.connections import IntArray
from hardware_targets.loihi.lowered_neurons import lower_neurons
from hardware_targets.loihi.lowering import lower_program
from hardware_targets.loihi.program import Neurons, Program
from neuro.errors import ParameterError, ShapeError

Ports = tuple[IntArray, ...]
WORKSPACE = 2**20  # bytes of activations one thread keeps in its cache while it walks the layers


class State(NamedTuple):
    """Everything a program remembers between ticks, by population: its variables (batch, size), the activations under
    way to each of its ports (batch, 1 + longest delay, size), and the number of ticks that have passed."""

    variables: dict[str, dict[str, IntArray]]
    arriving: dict[str, tuple[IntArray, ...]]
    tick: int

    def of(self, variable: str) -> dict[str, IntArray]:
        """{population: (batch, size)} of those that have the variable."""
        return {name: state[variable] for name, state in self.variables.items() if variable in state}

    @property
    def u(self) -> dict[str, IntArray]:
        """Currents."""
        return self.of("u")

    @property
    def v(self) -> dict[str, IntArray]:
        """Membrane potentials."""
        return self.of("v")


@dataclass(frozen=True, eq=False)
class EventCounts:
    """What happened, summed over samples and ticks; the causes of time and energy on the chip.

    spikes: by input and population, per neuron (size,). synaptic_events: by connection, each spike times the synapses
    with non-zero weight that it really reaches (borders of a convolution included). active_updates: neuron updates with
    a non-zero activation or a spike; inactive_updates: the others. Neurons before their `start` are not updated.
    """

    samples: int
    steps: int
    spikes: dict[str, NDArray[np.int64]]
    synaptic_events: dict[str, int]
    active_updates: dict[str, int]
    inactive_updates: dict[str, int]


@dataclass(frozen=True, eq=False)
class LoihiRun:
    """Result of `simulate_program`; arrays by name of the population.

    spike_counts: (batch, size) int32, over time, inputs too. state: after the last tick; `state.v` is what an
    integrator is read out by. spikes (events: 0 and 1, or integers of a graded population) and traces[variable]:
    (time, batch, size), empty unless recorded.
    """

    spike_counts: dict[str, IntArray]
    state: State
    counts: EventCounts
    spikes: dict[str, IntArray]
    traces: dict[str, dict[str, IntArray]]
    readout: IntArray | None = None

    @property
    def u(self) -> dict[str, IntArray]:
        """Currents after each update."""
        return self.traces.get("u", {})

    @property
    def v(self) -> dict[str, IntArray]:
        """Membrane potentials after each update."""
        return self.traces.get("v", {})


def simulate_program(
    program: Program,
    inputs: Mapping[str, ArrayLike],
    steps: int,
    *,
    record: Sequence[str] = (),
    readout: tuple[str, Literal["spikes", "v"]] | None = None,
    state: State | None = None,
    threads: int | None = None,
) -> LoihiRun:
    """Runs `program` for `steps` ticks.

    inputs: {input name: (time, batch, size)} integers or booleans, silent after their end (never longer than `steps`).
    record: which of spikes and the populations' variables (u, v, sigma, ...) to keep at every tick.
    readout: (population, 'spikes' or 'v') becomes `result.readout`, (batch, size): spikes counted over time, or the
    last v. state: goes on from `result.state`.
    Raises ParameterError or ShapeError for inputs that do not fit.
    """
    given = _checked_inputs(program, inputs, steps, state)
    batch = next(iter(given.values())).shape[1] if given else (_batch_of(state) if state is not None else 1)
    known = recordable(program)
    for what in record:
        if what not in known:
            raise ParameterError(f"simulate_program: record holds {what!r}, not one of {', '.join(known)}")
    if readout is not None:
        if readout[1] not in ("spikes", "v"):
            raise ParameterError(f"simulate_program: readout must be (population, 'spikes' or 'v'), got {readout!r}")
        if readout[1] not in ("spikes", *program.population(readout[0]).rest):
            raise ParameterError(f"simulate_program: '{readout[0]}' has no {readout[1]} to read out")

    workers = max(1, min(threads or os.cpu_count() or 1, batch))
    per_sample = 4 * (steps + 1) * max((p.size * len(p.ports) for p in program.populations), default=1)
    chunk = max(1, min(WORKSPACE // per_sample, -(-batch // workers)))
    run = _Run(program, given, steps, batch, frozenset(record), state)
    todo = iter([slice(start, min(start + chunk, batch)) for start in range(0, batch, chunk)])
    if workers == 1:
        active = [run.work(todo, chunk)]
    else:
        with ThreadPoolExecutor(workers) as pool:
            active = [future.result() for future in [pool.submit(run.work, todo, chunk) for _ in range(workers)]]
    return run.result(active, readout)


def recordable(program: Program) -> tuple[str, ...]:
    """What `simulate_program` can record: spikes and every variable of a population of the program."""
    return tuple(dict.fromkeys(["spikes", *(what for p in program.populations for what in p.rest)]))


class _Run:
    """The arrays of one simulation; `walk` fills those of some samples and touches no others."""

    def __init__(
        self,
        program: Program,
        inputs: dict[str, NDArray],
        steps: int,
        batch: int,
        record: frozenset[str],
        state: State | None,
    ) -> None:
        self.program, self.steps, self.batch = program, steps, batch
        self.order, self.feed_forward = program.order()
        self.lowered = lower_program(program)
        self.first_tick = 0 if state is None else state.tick
        self.reach = {p.name: 1 + max((c.max_delay for c in program.into(p.name)), default=0) for p in self.order}
        self.graded = {c.source for c in program.connections if c.num_message_bits}
        self.graded |= {p.name for p in self.order if p.graded}
        self.inputs = {name: x if name in self.graded or x.dtype == bool else x != 0 for name, x in inputs.items()}
        sizes = {part.name: part.size for part in program.sources}
        self.fired: dict[str, IntArray] = {name: np.zeros((batch, size), np.int32) for name, size in sizes.items()}
        self.neurons = {p.name: lower_neurons(p) for p in self.order}
        self.variables, self.arriving = {}, {}
        for p in self.order:
            if state is not None:
                self.variables[p.name] = {what: x.copy() for what, x in state.variables[p.name].items()}
                self.arriving[p.name] = tuple(x.copy() for x in state.arriving[p.name])
                continue
            self.variables[p.name] = {what: np.tile(x, (batch, 1)) for what, x in p.rest.items()}
            under_way = (batch, self.reach[p.name], p.size)
            self.arriving[p.name] = tuple(np.zeros(under_way, np.int32) for _ in p.ports)
        self.spikes = {
            p.name: np.empty((batch, steps, p.size), np.int32 if p.graded else np.uint8)
            for p in self.order
            if "spikes" in record
        }
        self.traces = {
            p.name: {what: np.empty((batch, steps, p.size), np.int32) for what in p.rest if what in record}
            for p in self.order
        }

    def work(self, todo: Iterator[slice], chunk: int) -> dict[str, int]:
        """Runs the samples of one slice of `todo` after the other; active updates by population."""
        spikes = {
            part.name: np.zeros(
                (chunk, self.steps, _padded(part.size)), np.int32 if part.name in self.graded else np.uint8
            )
            for part in self.program.sources
        }
        arriving = {
            p.name: [np.zeros((chunk, self.steps + self.reach[p.name], p.size), np.int32) for _ in p.ports]
            for p in self.order
        }
        active = dict.fromkeys(arriving, 0)
        for part in todo:
            samples = part.stop - part.start
            self._walk(
                part,
                {name: buffer[:samples] for name, buffer in spikes.items()},
                {name: tuple(buffer[:samples] for buffer in ports) for name, ports in arriving.items()},
                active,
            )
        return active

    def _walk(
        self, part: slice, spikes: dict[str, NDArray], arriving: dict[str, Ports], active: dict[str, int]
    ) -> None:
        steps = self.steps
        for p in self.order:
            for port, under_way in zip(arriving[p.name], self.arriving[p.name], strict=True):
                port[:, : self.reach[p.name]] = under_way[part]
        for name, given in self.inputs.items():
            time, _, size = given.shape
            spikes[name][:, :time, :size] = given[:, part].transpose(1, 0, 2)
            kernels.tally(spikes[name], self.fired[name][part])
            self._send(name, spikes, arriving, 0, steps)
        windows = [(0, steps)] if self.feed_forward else [(t, t + 1) for t in range(steps)]
        for first, last in windows:
            for p in self.order:
                active[p.name] += self._integrate(p, part, spikes, arriving, first, last)
                self._send(p.name, spikes, arriving, first, last)
        for p in self.order:
            for port, under_way in zip(arriving[p.name], self.arriving[p.name], strict=True):
                under_way[part] = port[:, steps:]
                port[:, steps:] = 0
            if p.name in self.spikes:
                self.spikes[p.name][part] = spikes[p.name][..., : p.size]

    def _integrate(
        self,
        p: Neurons,
        part: slice,
        spikes: dict[str, NDArray],
        arriving: dict[str, Ports],
        first: int,
        last: int,
    ) -> int:
        begin = min(max(first, p.start - self.first_tick), last)
        state = self.variables[p.name]
        traces = {what: self.traces[p.name].get(what, _NOTHING)[part] for what in state}
        if begin > first:
            spikes[p.name][:, first:begin] = 0
            for port in arriving[p.name]:
                port[:, first:begin] = 0
            for what, trace in traces.items():
                if trace.size:
                    trace[:, first:begin] = state[what][part, None]
        kernel, constants = self.neurons[p.name]
        return kernel(
            arriving[p.name], tuple(x[part] for x in state.values()), constants, spikes[p.name],
            self.fired[p.name][part], tuple(traces.values()), self.first_tick, begin, last,
        )  # fmt: skip

    def _send(self, source: str, spikes: dict[str, NDArray], arriving: dict[str, Ports], first: int, last: int) -> None:
        for connection in self.program.connections:
            if connection.source == source:
                for deliver in self.lowered[connection.name]:
                    deliver(spikes[source], arriving[connection.target][connection.port], first, last)

    def result(
        self, active: Sequence[Mapping[str, int]], readout: tuple[str, Literal["spikes", "v"]] | None
    ) -> LoihiRun:
        per_neuron = {name: fired.sum(axis=0, dtype=np.int32).astype(np.int64) for name, fired in self.fired.items()}
        active_updates = {p.name: int(sum(part[p.name] for part in active)) for p in self.program.populations}
        updated = {
            p.name: self.batch * p.size * max(0, self.steps - max(0, p.start - self.first_tick))
            for p in self.program.populations
        }
        counts = EventCounts(
            samples=self.batch,
            steps=self.steps,
            spikes=per_neuron,
            synaptic_events={c.name: int(per_neuron[c.source] @ c.fan_out) for c in self.program.connections},
            active_updates=active_updates,
            inactive_updates={name: updated[name] - count for name, count in active_updates.items()},
        )
        names = [p.name for p in self.program.populations]
        state = State(self.variables, self.arriving, self.first_tick + self.steps)
        read = None if readout is None else (self.fired if readout[1] == "spikes" else state.v)[readout[0]]
        traced = dict.fromkeys(what for name in names for what in self.traces[name])
        return LoihiRun(
            spike_counts=self.fired,
            state=state,
            counts=counts,
            spikes={n: self.spikes[n].transpose(1, 0, 2) for n in names if n in self.spikes},
            traces={
                what: {n: self.traces[n][what].transpose(1, 0, 2) for n in names if what in self.traces[n]}
                for what in traced
            },
            readout=read,
        )


_NOTHING = np.empty((0, 0, 0), np.int32)


def _padded(size: int) -> int:
    return -(-size // kernels.LANE) * kernels.LANE


def _batch_of(state: State) -> int:
    return len(next((ports[0] for ports in state.arriving.values()), np.empty((1, 0))))


def _checked_inputs(
    program: Program, inputs: Mapping[str, ArrayLike], steps: int, state: State | None
) -> dict[str, NDArray]:
    if not isinstance(steps, int | np.integer) or steps < 1:
        raise ParameterError(f"simulate_program: steps must be a positive integer, got {steps!r}")
    expected = {part.name: part.size for part in program.inputs}
    if set(inputs) != set(expected):
        raise ParameterError(f"simulate_program: the program's inputs are {sorted(expected)}, got {sorted(inputs)}")
    given = {name: np.asarray(value) for name, value in inputs.items()}
    batch = next(iter(given.values())).shape[1:2] if given else ()
    for name, value in given.items():
        if value.dtype != bool and not np.issubdtype(value.dtype, np.integer):
            raise ParameterError(
                f"simulate_program: input '{name}' must be integer or boolean spikes, got {value.dtype}"
            )
        if value.ndim != 3 or value.shape[1:2] != batch or value.shape[2] != expected[name] or len(value) > steps:
            raise ShapeError(
                f"simulate_program: input '{name}' must be (time <= {steps}, batch, {expected[name]}), the same batch"
                f" for every input, got {value.shape}"
            )
    if state is not None and given and (_batch_of(state),) != batch:
        raise ShapeError(f"simulate_program: state is for {_batch_of(state)} samples, inputs for {batch[0]}")
    return given
