"""A spiking graph compiled to cores, and run there tick by tick: spike for spike what the graph does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hardware_targets.chip import Chip
from hardware_targets.truenorth.activity import Activity, activity, tally_of
from hardware_targets.truenorth.assemble import Assembled, assemble
from hardware_targets.truenorth.core import CoreShape, shape_from
from hardware_targets.truenorth.corelets import MOST_TICKS
from hardware_targets.truenorth.mapping import CLOCK, Mapped, map_graph
from hardware_targets.truenorth.picture import write_picture
from hardware_targets.truenorth.simulate import ChipRun, Events, rest
from hardware_targets.truenorth.simulate import run as run_network
from neuro.counts import Counts, Tally
from neuro.errors import DoesNotFit, ParameterError, ShapeError
from neuro.graph import Graph
from neuro.nodes import Readout, Spiking
from neuro.progress import track
from neuro.simulate import Run
from neuro.trinary import Thermometer


@dataclass(frozen=True, eq=False)
class CoreProgram:
    """A network on the cores of a chip: `placement` says which cores hold what, `cores` is what they hold.

    errors is empty: nothing is lost, a graph that would lose something is refused.
    """

    graph: Graph
    chip: Chip
    placement: Mapped
    cores: Assembled
    errors: tuple[()] = ()

    @property
    def depth(self) -> int:
        """Ticks from an input to the last spikes that leave the chip, that of the input counted."""
        return self.placement.depth


@dataclass(frozen=True, eq=False)
class CoreRun(Run):
    """A run on cores; `activity`, if recorded, says what each did, for `truenorth.picture`.

    No potential can touch the limits of its register, so `saturated` is empty.
    """

    activity: Activity | None = None
    saturated: Mapping[str, int] = field(default_factory=dict)


def compile_to_cores(graph: Graph, chip: Chip, *, seed: int = 0) -> CoreProgram:
    """Map a spiking graph to cores.

    seed: of the cores' generators, which a compiled network does not use. Raises DoesNotFit with every limit that is
    broken, UnsupportedNode with every node that no core computes.
    """
    mapped = map_graph(graph, chip, shape_of(chip))
    if mapped.violations:
        raise DoesNotFit("\n".join(map(str, mapped.violations)), mapped.violations)
    return CoreProgram(graph, chip, mapped, assemble(mapped, seed))


def shape_of(chip: Chip) -> CoreShape:
    """The cores of a chip of the family "truenorth"; ParameterError for another one."""
    if chip.family != "truenorth":
        raise ParameterError(f"chip {chip.name!r} is of family {chip.family!r}, not 'truenorth'")
    return shape_from({"limits": chip.limits, "arithmetic": chip.arithmetic})


def encode_spikes(program: CoreProgram, x: Tensor, steps: int) -> NDArray[np.bool_]:
    """What enters the chip, (steps, batch, size) of bool.

    x: a series (steps, batch, *features) of 0 and 1, or (batch, *features) in [0, 1], held: after t steps a value has
    made round(t x) spikes, evenly spaced. Raises ShapeError and ParameterError.
    """
    (entry,) = program.graph.inputs
    shape = program.graph.shapes[entry]
    if x.ndim == len(shape) + 2 and tuple(x.shape[2:]) == shape:
        if len(x) != steps:
            raise ParameterError(f"{program.graph.name!r}: x has {len(x)} steps, not {steps}")
        if not bool(((x == 0) | (x == 1)).all()):
            raise ParameterError(f"chip {program.chip.name!r} takes plain spikes, so a series must hold 0 and 1 alone")
        return x.flatten(2).numpy() != 0
    if tuple(x.shape[1:]) != shape:
        sizes = ", ".join(map(str, shape))
        raise ShapeError(
            f"{program.graph.name!r} takes (batch, {sizes}) or (steps, batch, {sizes}), got {tuple(x.shape)}"
        )
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise ParameterError(f"chip {program.chip.name!r} takes plain spikes, so inputs must lie in [0, 1]")
    edges = np.floor(np.arange(steps + 1)[:, None, None] * x.flatten(1).double().numpy() + 0.5)
    return np.diff(edges, axis=0) > 0


def as_bits(program: CoreProgram, x: Tensor, steps: int) -> Tensor:
    """Data as a series of spikes that graph and chip take alike, (steps, batch, *features).

    Images with k times fewer channels than the network reads are shown as k bits per channel (`Thermometer`), others
    as `encode_spikes` says.
    """
    (entry,) = program.graph.inputs
    shape = program.graph.shapes[entry]
    if x.ndim == len(shape) + 1 == 4 and x.shape[1] < shape[0] and shape[0] % x.shape[1] == 0:
        bits = Thermometer(shape[0] // x.shape[1])(x)
        return bits.expand(steps, *bits.shape)
    given = encode_spikes(program, x, steps)
    return torch.from_numpy(given).float().unflatten(2, shape)


def run_on_cores(
    program: CoreProgram,
    x: Tensor,
    *,
    steps: int | None = None,
    record: Sequence[str] = (),
    batch_size: int = 250,
    threads: int | None = None,
    progress: bool = False,
) -> CoreRun:
    """Run a compiled network for `steps` ticks of input per sample; those of a series where left out.

    x: as in `encode_spikes`. Where all neurons forget, samples follow each other without a pause, one every `steps`
    ticks; else every sample finds the chip at rest. outputs: (batch, classes), what the host's read-out makes of the
    spikes, or spikes per step, as `neuro.simulate` gives them. record: "spikes", (steps, batch, *features) of every
    population, and "activity" of every core. counts: those of all cores, copies and splitters included.
    """
    dim = 1 if x.ndim == len(program.graph.shapes[program.graph.inputs[0]]) + 2 else 0
    steps = len(x) if steps is None and dim else steps
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_TICKS:
        raise ParameterError(f"steps must be an integer from 1 to {MOST_TICKS}, got {steps!r}")
    if unknown := set(record) - {"spikes", "activity"}:
        raise ParameterError(f"record takes 'spikes' and 'activity' on this chip, got {sorted(unknown)[0]!r}")
    host = program.placement.host
    if host is not None and isinstance(host.node, Readout) and host.node.start >= steps:
        raise ParameterError(f"{host.name!r} reads from step {host.node.start} on; run more than {steps} steps")
    samples = 1 if program.placement.memory else batch_size
    parts = x.split(samples, dim)
    shown = track(parts, len(parts), f"run {program.graph.name}", progress)
    runs = [_streamed(program, encode_spikes(program, part, steps), record, threads) for part in shown]
    shapes = {cut.corelet.name: cut.corelet.shape for cut in program.placement.cuts}
    recordings = {
        name: torch.cat([torch.from_numpy(each.recorded[name]) for each in runs], 1).float().unflatten(2, shape)
        for name, shape in shapes.items()
        if "spikes" in record
    }
    seen = [each.activity for each in runs if each.activity is not None]
    tally = sum((each.tally for each in runs), Tally())
    return CoreRun(
        torch.cat([_read_out(program, each.spikes) for each in runs]),
        Counts(x.shape[dim], steps + program.depth - 1, {"cores": tally}, program.chip.family),
        {"spikes": recordings} if recordings else {},
        activity=reduce(add, seen) if seen else None,
    )


def draw_at_work(program: CoreProgram, x: Tensor, path: Path) -> None:
    """What every core does while it answers x, as `run_on_cores` takes it, drawn into an HTML file."""
    seen = run_on_cores(program, x, record=["activity"]).activity
    assert seen is not None
    write_picture(path, seen, [use.population for use in program.placement.cores])


class Streamed(NamedTuple):
    """What samples one behind the other gave, (steps, batch, neurons): spikes that left the chip, and all recorded."""

    spikes: dict[str, NDArray[np.bool_]]
    recorded: dict[str, NDArray[np.bool_]]
    activity: Activity | None
    tally: Tally


def _streamed(program: CoreProgram, given: NDArray[np.bool_], record: Sequence[str], threads: int | None) -> Streamed:
    steps, batch, _ = given.shape
    ticks = steps * batch + program.depth - 1
    network, line_at = program.cores.network, program.cores.line_at
    events = _events(program, given)
    done = run_network(network, rest(network), ticks, events, record=bool(record), threads=threads)
    line = done.output_line.astype(np.int64)
    left = _unrolled(done.output_tick - line_at[line], line, line_at.size, steps, batch)
    spikes = {name: np.zeros((steps, batch, line.size), bool) for name, line in program.cores.lines.items()}
    for name, own in program.cores.lines.items():
        spikes[name][:, :, own >= 0] = left[:, :, own[own >= 0]]
    recorded = _recorded(program, done, steps, batch) if "spikes" in record else {}
    seen = activity(network, done, events) if "activity" in record else None
    return Streamed(spikes, recorded, seen, tally_of(done))


def _unrolled(
    since: NDArray[np.int64], number: NDArray[np.int64], size: int, steps: int, batch: int
) -> NDArray[np.bool_]:
    """(steps, batch, size): spikes of `number` at the tick `since`, of samples one behind the other."""
    inside = (since >= 0) & (since < steps * batch)
    sample, step = np.divmod(since[inside], steps)
    spikes = np.zeros((steps, batch, size), bool)
    spikes[step, sample, number[inside]] = True
    return spikes


def _events(program: CoreProgram, given: NDArray[np.bool_]) -> Events:
    """Input spikes on all axons that they drive; the clock in every tick of a sample."""
    steps, batch, _ = given.shape
    step, sample, signal = np.nonzero(given)
    tick = sample * steps + step
    beats = np.arange(steps * batch)
    tick = np.concatenate([tick, beats])
    signal = np.concatenate([signal, np.full(beats.size, program.placement.first[CLOCK])])
    routes = program.cores.routes
    many = routes.first[signal + 1] - routes.first[signal]
    ends = np.cumsum(many)
    at = np.arange(int(many.sum())) - np.repeat(ends - many, many) + np.repeat(routes.first[signal], many)
    return Events(np.repeat(tick, many) + routes.wait[at], routes.core[at], routes.axon[at])


def _recorded(program: CoreProgram, done: ChipRun, steps: int, batch: int) -> dict[str, NDArray[np.bool_]]:
    """(steps, batch, neurons) of every population, from the first copy of each neuron."""
    network, width = program.cores.network, program.cores.network.shape.neurons
    flat = done.spike_core * width + done.spike_neuron
    found = {}
    for cut in program.placement.cuts:
        name, place = cut.corelet.name, program.cores.places[cut.corelet.name]
        standing = np.full(network.count * width, -1)
        standing[place.core * width + place.slot] = np.arange(cut.corelet.size)
        neuron, since = standing[flat], done.spike_tick - program.placement.at[name]
        first = neuron >= 0
        found[name] = _unrolled(since[first], neuron[first], cut.corelet.size, steps, batch)
    return found


def _read_out(program: CoreProgram, spikes: Mapping[str, NDArray[np.bool_]]) -> Tensor:
    """What the host makes of the spikes that leave the chip: the mean current of the read-out, or mean spikes."""
    host = program.placement.host
    if host is None:
        (last,) = spikes.values()
        fires = isinstance(program.graph.nodes[program.graph.output], Spiking)
        read = torch.from_numpy(last.mean(0) if fires else last[-1])
        return read.float().unflatten(1, program.placement.layers[-1].shape)
    assert isinstance(host.node, Readout)
    batch = next(iter(spikes.values())).shape[1]
    total = np.tile(host.bias, (batch, 1))
    for path in host.paths:
        total = total + (path.as_matrix() @ spikes[path.source][host.node.start :].mean(0).T).T
    return torch.from_numpy(total).float().unflatten(1, host.shape)
