"""From a mapping to the arrays of cores: crossbars, weights, targets, and where spikes come in and leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardware_targets.truenorth.core import CoreShape, make_cores
from hardware_targets.truenorth.cutting import Cut
from hardware_targets.truenorth.mapping import CLOCK, Mapped, read_by_host
from hardware_targets.truenorth.network import NO_TARGET, OUTPUT, Network, Targets, make_network


@dataclass(frozen=True, eq=False)
class Places:
    """Where neurons stand: for each, its core, the place of its first copy there, and that of its first relay."""

    core: NDArray[np.int64]
    slot: NDArray[np.int64]
    relay_core: NDArray[np.int64]
    relay_slot: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Routes:
    """Axons that each signal from outside drives: axons first[s] to first[s + 1] of the lists, `wait` ticks later."""

    first: NDArray[np.int64]
    core: NDArray[np.int64]
    axon: NDArray[np.int64]
    wait: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Assembled:
    """The cores of a mapping.

    places: of every population.  lines: (neurons,) of each population that the host reads, the output line or -1.
    line_at: (lines,) the tick at which a spike leaves that answers an input of tick 0.
    """

    network: Network
    routes: Routes
    places: Mapping[str, Places]
    lines: Mapping[str, NDArray[np.int64]]
    line_at: NDArray[np.int64]


def assemble(mapped: Mapped, seed: int = 0) -> Assembled:
    """Write a mapping without violations into cores; unused neurons stay silent. seed: as in `make_network`."""
    shape = mapped.shape
    places = {cut.corelet.name: _places(cut, mapped.starts[cut.corelet.name]) for cut in mapped.cuts}
    arrays = _empty(len(mapped.cores), shape)
    for cut in mapped.cuts:
        _write_corelet(arrays, cut, places[cut.corelet.name], mapped.starts[cut.corelet.name][0], mapped)
        _write_splitters(arrays, cut, places[cut.corelet.name])
    driven = _driven(mapped)
    lines, line_at = _lines(mapped)
    targets = _targets(mapped, places, driven, lines, len(mapped.cores))
    network = make_network(
        shape, make_cores(shape, **arrays), targets, positions=_square(mapped), outputs=len(line_at), seed=seed
    )
    return Assembled(network, _routes(mapped, driven), places, lines, line_at)


def _square(mapped: Mapped) -> NDArray[np.int64] | None:
    """Columns and rows of the cores in the smallest square, row by row; None, the rows of whole chips, where one is
    too small. Populations are mixed, so that the first cores of each stand near the first ones of the next.
    """
    count, (width, height) = len(mapped.cores), mapped.shape.chip
    side = int(np.ceil(np.sqrt(count)))
    if side > min(width, height):
        return None
    share = np.concatenate([(np.arange(n) + 0.5) / n for cut in mapped.cuts for n in (cut.cores, cut.splitters) if n])
    place = np.empty(count, np.int64)
    place[np.argsort(share, kind="stable")] = np.arange(count)
    row, column = np.divmod(place, side)
    return np.stack([np.where(row % 2, side - 1 - column, column), row], 1)


def _ranks(sorted_keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2, ... within every stretch of equal keys."""
    starts = np.flatnonzero(np.diff(sorted_keys, prepend=sorted_keys[:1] - 1))
    return np.arange(sorted_keys.size) - np.repeat(starts, np.diff(np.append(starts, sorted_keys.size)))


def _first_slots(core: NDArray[np.int64], wide: NDArray[np.int64]) -> NDArray[np.int64]:
    """Neurons of each core one behind the other, each `wide` places."""
    order = np.argsort(core, kind="stable")
    ends = np.cumsum(wide[order])
    begin = ends - wide[order]
    first = np.flatnonzero(np.diff(core[order], prepend=-2))
    base = np.repeat(begin[first], np.diff(np.append(first, order.size)))
    slots = np.empty(core.size, np.int64)
    slots[order] = begin - base
    return slots


def _places(cut: Cut, start: tuple[int, int]) -> Places:
    relay = cut.relay_core >= 0
    relay_slot = np.zeros(cut.core.size, np.int64)
    relay_slot[relay] = _first_slots(cut.relay_core[relay], cut.copies[relay])
    return Places(
        cut.core + start[0],
        _first_slots(cut.core, cut.here),
        np.where(relay, cut.relay_core + start[1], -1),
        relay_slot,
    )


def _empty(total: int, shape: CoreShape) -> dict[str, NDArray]:
    per_neuron = {name: np.zeros((total, shape.neurons), np.int32) for name in ("leak", "beta", "v", "mode", "reset")}
    return {
        "crossbar": np.zeros((total, shape.axons, -(-shape.neurons // 64)), np.uint64),
        "axon_types": np.zeros((total, shape.axons), np.uint8),
        "weights": np.zeros((total, shape.neurons, shape.axon_types), np.int16),
        "alpha": np.full((total, shape.neurons), shape.alpha[1], np.int32),
        **per_neuron,
    }


def _connect(crossbar: NDArray[np.uint64], core: NDArray, axon: NDArray, neuron: NDArray) -> None:
    np.bitwise_or.at(crossbar, (core, axon, neuron // 64), np.uint64(1) << (neuron % 64).astype(np.uint64))


def _axon_slots(cut: Cut, core: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place among the axons of its core of each (core, column), both as in the cut."""
    width = cut.corelet.inputs.shape[1]
    keys = cut.axon_core * width + cut.axon_column
    slots = _ranks(cut.axon_core)
    return slots[np.searchsorted(keys, core * width + column)]


def _write_corelet(arrays: dict[str, NDArray], cut: Cut, places: Places, start: int, mapped: Mapped) -> None:
    corelet, types = cut.corelet, mapped.shape.axon_types
    arrays["axon_types"][cut.axon_core + start, _ranks(cut.axon_core)] = cut.axon_column % types
    neuron = np.repeat(np.arange(corelet.size), cut.here)
    core, slot = places.core[neuron], places.slot[neuron] + _ranks(neuron)
    room = mapped.shape.beta[1] if corelet.memory else 0
    for name, value in (
        ("weights", corelet.weights), ("leak", corelet.bias), ("alpha", corelet.alpha), ("v", corelet.v0),
        ("beta", np.full(corelet.size, room)), ("mode", np.full(corelet.size, int(corelet.subtract))),
    ):  # fmt: skip
        arrays[name][core, slot] = value[neuron]
    synapse = np.repeat(np.arange(corelet.size), np.diff(corelet.inputs.indptr))
    axon = _axon_slots(cut, cut.core[synapse], corelet.inputs.indices.astype(np.int64))
    for copy in range(int(cut.here.max(initial=0))):
        has = cut.here[synapse] > copy
        j = synapse[has]
        _connect(arrays["crossbar"], places.core[j], axon[has], places.slot[j] + copy)


def _write_splitters(arrays: dict[str, NDArray], cut: Cut, places: Places) -> None:
    relayed = np.flatnonzero(cut.relay_core >= 0)
    axon = _relay_axons(cut)[relayed]
    source = np.repeat(np.arange(relayed.size), cut.copies[relayed])
    core, slot = places.relay_core[relayed][source], places.relay_slot[relayed][source] + _ranks(source)
    arrays["weights"][core, slot, 0] = 1
    arrays["alpha"][core, slot] = 1
    _connect(arrays["crossbar"], core, axon[source], slot)


def _relay_axons(cut: Cut) -> NDArray[np.int64]:
    """The axon of its splitter core that each neuron drives."""
    axons = np.zeros(cut.core.size, np.int64)
    relayed = np.flatnonzero(cut.relay_core >= 0)
    axons[relayed] = _first_slots(cut.relay_core[relayed], np.ones(relayed.size, np.int64))
    return axons


@dataclass(frozen=True, eq=False)
class Driven:
    """All axons in order of the signal that drives them: core, place there, and the tick of their population."""

    signal: NDArray[np.int64]
    core: NDArray[np.int64]
    axon: NDArray[np.int64]
    at: NDArray[np.int64]


def _driven(mapped: Mapped) -> Driven:
    parts = []
    for cut in mapped.cuts:
        name = cut.corelet.name
        signal = cut.axon_column // mapped.shape.axon_types
        core = cut.axon_core + mapped.starts[name][0]
        parts.append(np.stack([signal, core, _ranks(cut.axon_core), np.full(core.size, mapped.at[name])]))
    table = np.concatenate(parts, 1)
    return Driven(*table[:, np.argsort(table[0], kind="stable")])


def _within(driven: Driven, low: int, size: int) -> slice:
    return slice(*np.searchsorted(driven.signal, (low, low + size)))


def _lines(mapped: Mapped) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int64]]:
    """The output line of every neuron, -1 where the host does not read it; and when each line answers."""
    lines, at, number = {}, [], 0
    by_host = read_by_host(mapped.layers)
    for cut in mapped.cuts:
        name = cut.corelet.name
        read = by_host.get(name)
        if read is not None:
            seen = np.flatnonzero(read)
            lines[name] = np.full(cut.corelet.size, -1)
            lines[name][seen] = number + np.arange(seen.size)
            at.append(mapped.at[name] + (cut.relay_core[seen] >= 0))
            number += seen.size
    return lines, np.concatenate(at)


def _targets(
    mapped: Mapped, places: Mapping[str, Places], driven: Driven, lines: Mapping[str, NDArray[np.int64]], total: int
) -> Targets:
    shape = (total, mapped.shape.neurons)
    core, axon, delay = np.full(shape, NO_TARGET), np.zeros(shape, np.int64), np.ones(shape, np.int64)
    for cut in mapped.cuts:
        name, place = cut.corelet.name, places[cut.corelet.name]
        here = _within(driven, mapped.first[name], cut.corelet.size)
        neuron = driven.signal[here] - mapped.first[name]
        goal = [neuron, driven.core[here], driven.axon[here], driven.at[here] - mapped.at[name]]
        if name in lines:
            read = np.flatnonzero(lines[name] >= 0)
            out = [read, np.full(read.size, OUTPUT), lines[name][read], (cut.relay_core[read] >= 0).astype(np.int64)]
            goal = [np.concatenate(pair) for pair in zip(goal, out, strict=True)]
        order = np.argsort(goal[0], kind="stable")
        neuron, to_core, to_axon, wait = (part[order] for part in goal)
        copy, relayed = _ranks(neuron) if neuron.size else neuron, cut.relay_core[neuron] >= 0
        at = (
            np.where(relayed, place.relay_core[neuron], place.core[neuron]),
            np.where(relayed, place.relay_slot[neuron], place.slot[neuron]) + copy,
        )
        core[at], axon[at], delay[at] = to_core, to_axon, wait - relayed
        first = np.flatnonzero(cut.relay_core >= 0)
        at = (place.core[first], place.slot[first])
        core[at], axon[at], delay[at] = place.relay_core[first], _relay_axons(cut)[first], 1
    return Targets(core, axon, delay)


def _routes(mapped: Mapped, driven: Driven) -> Routes:
    """Signals from outside: those of the input, then the clock."""
    outside = mapped.first[CLOCK] + 1
    here = _within(driven, 0, outside)
    ends = np.searchsorted(driven.signal[here], np.arange(outside + 1))
    return Routes(ends, driven.core[here], driven.axon[here], driven.at[here])
