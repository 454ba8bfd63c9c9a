"""What every core of a network did in a run, and the same counts as every other target's, for pricing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuro.counts import Counts, Tally
from neuro.errors import ParameterError, ShapeError

from . import kernels
from .network import Network
from .simulate import ChipRun, Events, State

BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)
"""Set bits of every byte."""


def counts_of(done: ChipRun, *, samples: int = 1, precision: str = "truenorth") -> Counts:
    """The events of a run as `neuro.Counts`, so that `price(counts_of(done), "truenorth")` gives its joules.

    samples: inferences that the run held, of equal length in ticks. Raises ParameterError if they are not.
    """
    ticks = len(done.counts["spikes"])
    if samples < 1 or ticks % samples:
        raise ParameterError(f"counts_of: {ticks} ticks are not {samples} samples of equal length")
    return Counts(samples, ticks // samples, {"cores": tally_of(done)}, precision)


def tally_of(done: ChipRun) -> Tally:
    """Sums over all cores and ticks. A synaptic event is one accumulate; it reads a weight, reads and writes a
    potential. An update adds the leak and compares with the threshold."""
    sums = {name: int(counted.sum()) for name, counted in done.counts.items()}
    events, updates = sums["synaptic_events"], sums["neuron_updates"]
    return Tally(
        accumulates=events, spikes=sums["spikes"], updates=updates, updates_active=updates, additions=updates,
        comparisons=updates, weight_words=events, state_words=2 * (events + updates),
        activation_words=2 * sums["spikes"], packets=sums["packets"], hops=sums["hops"],
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Activity:
    """Sums over `ticks` ticks. spikes, packets (delivered to its axons, by cores and from outside), synaptic_events:
    (C,) of each core.  through: (height, width), packets that left a position of the mesh for a neighbour; through[0,
    0] is at `origin` (x, y).
    """

    network: Network
    ticks: int
    spikes: NDArray[np.int64]
    packets: NDArray[np.int64]
    synaptic_events: NDArray[np.int64]
    through: NDArray[np.int64]
    origin: tuple[int, int]

    def __add__(self, other: Activity) -> Activity:
        """Of two runs of one network."""
        if self.network is not other.network:
            raise ParameterError("activities of two networks cannot be added")
        names = ("spikes", "packets", "synaptic_events", "through")
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Activity(self.network, self.ticks + other.ticks, **sums, origin=self.origin)


def activity(network: Network, done: ChipRun, events: Events | None = None, before: State | None = None) -> Activity:
    """Who did what in a recorded run.   events, before: what the run was given; without `before` it began at rest.

    Spikes that meet on an axon in one tick cause one set of synaptic events. Raises ParameterError if `done` was run
    without record=True, ShapeError if it belongs to another network.
    """
    c, axons, words = network.count, network.shape.axons, network.axon_words
    ticks = len(done.counts["spikes"])
    begin = done.state.tick - ticks
    if done.state.v.shape != (c, network.shape.neurons):
        raise ShapeError(f"activity: the run belongs to another network: v {done.state.v.shape}")
    if done.spike_tick.size != done.counts["spikes"].sum():
        raise ParameterError("activity: the run kept no spikes; run it with record=True")
    width = network.v.shape[1]
    target = network.net[3][done.spike_core * width + done.spike_neuron]
    word = target >> kernels.WORD_AT
    sent, inner = target >= 0, (target >= 0) & (word < c * words)
    core, axon = word[inner] // words, word[inner] % words * 64 + (target[inner] & 63)
    when = done.spike_tick[inner] + (target[inner] >> kernels.DELAY_AT & 255)
    arrivals = [((when - begin) * c + core) * axons + axon]
    if events is not None:
        tick, to, at = (np.asarray(field, np.int64).ravel() for field in events)
        arrivals.append(((tick - begin) * c + to) * axons + at)
    if before is not None:
        bits = np.unpackbits(before.pending[:, : c * words].view(np.uint8), axis=1, bitorder="little")
        slot, bit = np.nonzero(bits)
        arrivals.append((slot * c + bit // (64 * words)) * axons + bit % (64 * words))
    place = np.unique(np.concatenate(arrivals))
    place = place[place < ticks * c * axons] % (c * axons)
    fan_out = BITS[network.net[0].view(np.uint8)].reshape(c * axons, -1).sum(1, dtype=np.int64)
    exits = np.zeros(int(sent.sum()), np.int64)
    exits[inner[sent]] = core
    through, origin = _through(network, done.spike_core[sent], exits, ~inner[sent])
    return Activity(
        network, ticks, np.bincount(done.spike_core, minlength=c), np.bincount(place // axons, minlength=c),
        np.bincount(place // axons, fan_out[place], c).astype(np.int64), through, origin,
    )  # fmt: skip


def _through(
    network: Network, source: NDArray[np.int64], target: NDArray[np.int64], leaves: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Packets that left every position for a neighbour, along x first, then along y: ranges, added by their ends."""
    at, out = network.positions, network.output_position
    everywhere = at if out is None else np.concatenate([at, [out]])
    low, high = everywhere.min(0), everywhere.max(0)
    a = at[source] - low
    b = np.where(leaves[:, None], a if out is None else np.asarray(out) - low, at[target] - low)
    size = (high - low + 2)[::-1]
    along_x, along_y = np.zeros(size, np.int64), np.zeros(size, np.int64)
    # places left on the way: from a up to b, b left out, or from b + 1 up to a
    first, last = np.where(b < a, b + 1, a), np.where(b < a, a + 1, b)
    for sums, row, ends in (
        (along_x, a[:, 1], (first[:, 0], last[:, 0])),
        (along_y.T, b[:, 0], (first[:, 1], last[:, 1])),
    ):
        np.add.at(sums, (row, ends[0]), 1)
        np.add.at(sums, (row, ends[1]), -1)
    through = along_x.cumsum(1) + along_y.cumsum(0)
    return through[:-1, :-1], (int(low[0]), int(low[1]))
