"""Counts by hard reset: integrate, then ramp. What a network that counts in windows becomes on a chip.

A population of `CountThenFire` owes its readers n = clip(floor((v0 + S) / theta), 0, L) spikes, S the sum of its input.
That takes no soft reset. On the chip its membrane starts at v0 - (L + 1) theta - H, its threshold is 0, and H is so
large that no input can reach it: the first phase adds up S. In the second phase an axon of the schedule adds theta at
every tick of a window of L ticks, and another adds H at the first of them. At tick k = 1..L of the window the membrane
stands at v0 + S - (L + 1 - k) theta, which crosses the threshold at k = L + 1 - n. The spike resets it to 0, from where
the ramp alone carries it over the threshold again at every tick until the window closes: n spikes, exactly. When the
ramp ends, 0 is not above 0.

The first spike says n by its time alone (Stanojevic et al. 2024, B1 model [recalled]); those after it keep up the
current that a first spike switches on in its readers, which a synapse of Loihi cannot hold by itself: its u decays, by
one part in 4096 at least. All spikes of a population come at the end of its window, without a gap, so those of a
max-pool of counts are the union of the spikes in its window: neurons that fire when anything arrives.

Whatever the data, no register overflows: interval arithmetic over integers proves it, or the network is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from hardware_targets.chip import Chip
from hardware_targets.count_windows import Counting, Entry
from hardware_targets.exact_synapses import WIDE, excitatory, signed
from hardware_targets.loihi.program import STATE_SHIFT, VOLTAGE_LIMIT, Connection, Input, Population, Program
from hardware_targets.lower import Layer, Path
from hardware_targets.placement import Violation
from neuro.errors import DoesNotFit

LARGEST_SUM = VOLTAGE_LIMIT >> STATE_SHIFT
"""What a membrane holds, in weight steps: activations leave the lowest six of its 24 bits free."""

FINER = "convert with Exact(potential_bits=18), or one bit less, or fewer levels or input bits"

Interval = tuple[np.ndarray, np.ndarray]
"""Lowest and highest number of every element."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """A network that takes its data once, at tick 0, and has its answer in the read-out after `ticks`.

    clock: {its input: (ticks, axons)}, the spikes that open and close the windows, the same for every sample. entries:
    what the data are; without `graded` spikes their bits have an axon each.
    """

    integers: Program
    ticks: int
    clock: Mapping[str, np.ndarray]
    entries: Mapping[str, Entry]
    graded: bool

    def spikes(self, payloads: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """What enters the chip, {input: (time, batch, size)}, for payloads {entry: (batch, size)}."""
        batch = len(next(iter(payloads.values())))
        found = {name: np.repeat(spikes[:, None], batch, 1) for name, spikes in self.clock.items()}
        for name, payload in payloads.items():
            whole = payload.numpy().astype(np.int32)[None]
            if self.graded:
                found[name] = whole
            else:
                bits = range(self.entries[name].bits)
                found |= {_plane(name, bit): (whole >> bit) & 1 for bit in bits}
        return found


def schedule(populations: tuple[Counting, ...], entries: Mapping[str, Entry], chip: Chip) -> Schedule:
    """The integer program of a network that counts.

    Data arrive as graded spikes or, on chips without, as one spike per bit of their two's complement, each bit on an
    axon of its own. Raises DoesNotFit where a membrane could leave its 24 bits or weights their synapses.
    """
    widest = max(entry.bits for entry in entries.values())
    graded = "graded_spike_bits" in chip.arithmetic and chip.width("graded_spike_bits") >= widest
    reach: dict[str, Interval] = {
        name: (np.full(entry.size, entry.low), np.full(entry.size, entry.high)) for name, entry in entries.items()
    }
    arrival = dict.fromkeys(entries, 1)
    windows: list[tuple[int, int]] = []
    driven: list[tuple[int, str, np.ndarray]] = []
    chosen: list[Population] = []
    connections: list[Connection] = []
    violations: list[Violation] = []
    for part in populations:
        name, paths = part.layer.name, part.layer.paths
        low, high = _interval(part.layer, reach)
        population, kick, needed = _population(part, low, high)
        chosen.append(population)
        if needed > LARGEST_SUM:
            violations.append(Violation(name, None, "potential", needed, LARGEST_SUM, FINER))
        arrival[name] = 1 + max((arrival[path.source] for path in paths), default=0)
        if part.theta is not None and part.v0 is not None and part.levels is not None:
            first, last = arrival[name], arrival[name] + part.levels - 1
            for begin, end, values in ((first, last, part.theta), (first, first, kick)):
                driven.append((len(windows), name, values))
                windows.append((begin, end))
            arrival[name] = last + 1
            reach[name] = np.zeros_like(high), np.clip((part.v0 + high) // part.theta, 0, part.levels)
        else:
            most = max((int(reach[path.source][1].max()) for path in paths), default=0)
            reach[name] = np.zeros_like(high), np.full_like(high, most)
        for path in paths:
            connections += _synapses(path, entries.get(path.source), graded, chip)
    if violations:
        raise DoesNotFit("\n".join(map(str, violations)), tuple(violations))
    ticks = arrival[populations[-1].layer.name]
    clock = unused("clock", [*entries, *(part.layer.name for part in populations)])
    spikes = np.zeros((ticks, len(windows)), np.int32)
    for axon, (first, last) in enumerate(windows):
        spikes[first - 1 : last, axon] = 1  # arrives one tick after it was sent
    for axon, target, values in driven:
        connections += excitatory(clock, len(windows), axon, target, values)
    inputs = [Input(name, entry.size) for name, entry in entries.items()]
    if not graded:
        inputs = [Input(_plane(part.name, bit), part.size) for part in inputs for bit in range(entries[part.name].bits)]
    program = Program((*inputs, Input(clock, len(windows))), tuple(chosen), tuple(connections))
    return Schedule(program, ticks, {clock: spikes}, entries, graded)


def _plane(name: str, bit: int) -> str:
    return f"{name}.bit{bit}"


def unused(name: str, taken: Iterable[str]) -> str:
    """A name like `name` that is not taken."""
    return name if name not in taken else unused(f"{name}_", taken)


def _interval(layer: Layer, reach: Mapping[str, Interval]) -> Interval:
    """The lowest and the highest sum at any time: what a source has sent so far lies between 0 and its bounds."""
    low, high = np.zeros(layer.size), np.zeros(layer.size)
    for path in layer.paths:
        matrix: sp.csr_array = path.as_matrix()
        least, most = (np.minimum(reach[path.source][0], 0), np.maximum(reach[path.source][1], 0))
        exciting, inhibiting = matrix.maximum(0), matrix.minimum(0)
        high += exciting @ most + inhibiting @ least
        low += exciting @ least + inhibiting @ most
    return np.rint(low).astype(np.int64), np.rint(high).astype(np.int64)


def _population(part: Counting, low: np.ndarray, high: np.ndarray) -> tuple[Population, np.ndarray, int]:
    """The population, the kick H of its neurons, and the largest magnitude that it has to hold."""
    name, size = part.layer.name, part.layer.size
    none = np.zeros(size, np.int64)
    if part.v0 is None:
        return Population(name, size, vth=0), none, int(high.max(initial=0))
    if part.theta is None or part.levels is None:
        needed = np.maximum(np.abs(part.v0 + low), np.abs(part.v0 + high)).max(initial=0)
        start = np.clip(part.v0, -LARGEST_SUM, LARGEST_SUM) << STATE_SHIFT
        return Population(name, size, vth=LARGEST_SUM, v0=start), none, int(needed)
    rest = part.v0 - (part.levels + 1) * part.theta
    kick = -(-np.maximum(rest + high + 1, 0) >> WIDE) << WIDE
    lowest, gate = (kick - rest - low).max(initial=0), (kick + part.theta).max(initial=0)
    # a 64th of a weight step more: v >= theta of the network is v > 0 of the chip
    start = np.clip(((rest - kick) << STATE_SHIFT) + 1, -VOLTAGE_LIMIT, VOLTAGE_LIMIT)
    return Population(name, size, vth=0, v0=start), kick, int(max(lowest, gate))


def _synapses(path: Path, entry: Entry | None, graded: bool, chip: Chip) -> list[Connection]:
    """A path from a population, from graded spikes, or from the bits of its payloads."""
    if entry is None or graded:
        return signed(path, chip, message_bits=0 if entry is None else entry.bits)
    found = []
    for connection in signed(path, chip):
        for bit in range(entry.bits):
            sign = -1 if entry.low < 0 and bit == entry.bits - 1 else 1
            exponent = connection.weight_exp + bit
            if exponent > WIDE:
                broken = Violation(path.target, None, "weight_exp", exponent, WIDE, FINER)
                raise DoesNotFit(str(broken), (broken,))
            source = _plane(path.source, bit)
            weights = (sign * connection.weights).astype(np.int32)
            name = connection.name.replace(path.source, source, 1)
            found.append(replace(connection, source=source, weights=weights, weight_exp=exponent, name=name))
    return found
