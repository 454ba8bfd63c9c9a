"""Populations are cut into the fewest slices that each fit a core."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hardware_targets.chip import Chip
from hardware_targets.core_needs import CoreNeeds, reached_sources
from hardware_targets.demand import Demand, Kernel
from hardware_targets.orders import bands, by_position, by_rate, by_source
from hardware_targets.placement import NETWORK, REMEDIES, Slice, Violation

SMALLEST_BLOCK = 4
"""Channels of a position that stay on one core at least: smaller blocks repeat the same sources on more cores."""

Rates = Mapping[str, NDArray[np.float64]] | None
"""Spikes of every neuron or input (size,), by the name of its part, in any unit of time; None takes them as equal."""


def cut(
    demand: Demand,
    chip: Chip,
    allowed: Mapping[str, Mapping[str, int]],
    rates: Rates = None,
    sequential: bool = False,
) -> tuple[dict[str, list[Slice]], list[Violation]]:
    """Long slices that keep the limits, targets before sources, so that output axons are known when they are needed.
    `sequential` takes the neurons in the order of their numbers, as a mapper without a notion of traffic does.

    In a loop some targets are cut later than their sources; then all is cut again until nothing changes.
    """
    slices: dict[str, list[Slice]] = {}
    for _ in range(8):
        before = {name: [piece.neurons.tobytes() for piece in pieces] for name, pieces in slices.items()}
        stuck: list[Violation] = []
        for population in reversed(demand.populations):
            copies = np.zeros(population.size, np.int64)
            for target in dict.fromkeys(link.target for link in demand.links if link.source == population.name):
                for piece in slices.get(target, ()):
                    copies += reached_sources(demand, piece).get(population.name, 0)
            needs = CoreNeeds(demand, population, chip, copies)
            limits = dict(allowed[population.name])
            if "out_axons" in limits and copies.max() > limits["out_axons"]:
                most, available = int(copies.max()), limits.pop("out_axons")
                stuck.append(Violation(population.name, None, "out_axons", most, available, REMEDIES["out_axons"]))
            slices[population.name] = _best_slices(needs, limits, rates, sequential)
        acyclic = not before and _is_ordered(demand)
        if acyclic or before == {name: [p.neurons.tobytes() for p in pieces] for name, pieces in slices.items()}:
            return slices, stuck
    stuck.append(Violation(NETWORK, None, "out_axons", "a loop that settles", "none", REMEDIES["out_axons"]))
    return slices, stuck


def _is_ordered(demand: Demand) -> bool:
    rank = {population.name: number for number, population in enumerate(demand.populations)}
    return all(rank.get(link.source, -1) < rank[link.target] for link in demand.links)


def _best_slices(needs: CoreNeeds, limits: Mapping[str, int], rates: Rates, sequential: bool) -> list[Slice]:
    """The fewest slices over a few orders of the neurons; of equally many, those that cause the fewest packets."""
    population = needs.population
    links = needs.demand.into(population.name)
    best: list[Slice] = []
    least = (np.inf, np.inf)

    def improves(order: NDArray[np.int64]) -> bool:
        nonlocal best, least
        tried = _slices(needs, order, limits, len(best) or population.size)
        traffic = _traffic(needs.demand, tried, rates)
        if not tried or (len(tried) == len(best) and traffic >= least):
            return False
        best, least = tried, traffic
        return True

    kernel = next((link.reach for link in links if isinstance(link.reach, Kernel)), None)
    if kernel is not None and not sequential:
        kinds = limits.get("threshold_formats", population.size)
        block = len(kernel.channels)
        if len(np.unique(population.thresholds)) > kinds:
            block = min(block, kinds)
        chosen = [band for band in bands(kernel) if improves(by_position(kernel, band, block))][-1]
        while block // 2 >= SMALLEST_BLOCK and improves(by_position(kernel, chosen, block // 2)):
            block //= 2
    improves(np.arange(population.size))
    if kernel is None and not sequential:
        own = None if rates is None else rates[population.name]
        for order in (*(by_source(links[0].reach) if links else ()), *by_rate(own)):
            improves(order)
    return best


def _traffic(demand: Demand, slices: list[Slice], rates: Rates) -> tuple[float, float]:
    """Packets that arrive at the slices, to one per cent, and how evenly the slices send: the smaller the better."""
    arriving = 0.0
    for piece in slices:
        for source, mask in reached_sources(demand, piece).items():
            arriving += float(mask.sum() if rates is None else np.asarray(rates[source])[mask].sum())
    packets = round(float(np.log1p(arriving)), 2)
    if rates is None:
        return packets, 0.0
    sent = [float(np.asarray(rates[piece.population])[piece.neurons].sum()) for piece in slices]
    return packets, -float(np.square(sent).sum())


def _slices(needs: CoreNeeds, order: NDArray[np.int64], limits: Mapping[str, int], most: int) -> list[Slice]:
    """`order` cut into the longest pieces that keep the limits; nothing where that takes more than `most` pieces."""
    found: list[Slice] = []
    start = length = 0
    while start < len(order):
        if len(found) == most:
            return []
        length, bound = _longest(needs, order[start:], limits, length)
        found.append(Slice(needs.population.name, np.sort(order[start : start + length]), bound))
        start += length
    return found


def _longest(needs: CoreNeeds, neurons: NDArray[np.int64], limits: Mapping[str, int], guess: int) -> tuple[int, str]:
    """How many of the neurons, from the first, fit on a core, and the resource that allows no more.

    All needs grow with the slice, so the end can be found by bisection; `guess` is tried first. One neuron always
    fits: what it breaks alone has been reported and left out of `limits`.
    """
    good, (longest, bound) = 1, _bounded_by_neurons(needs, neurons, limits)
    bad = longest + 1
    probes = [guess + 1, guess, longest]
    while bad - good > 1:
        probe = probes.pop() if probes else (good + bad) // 2
        if not good < probe < bad:
            continue
        used = needs.of(neurons[:probe])
        exceeded = next((name for name, limit in limits.items() if used[name] > limit), "")
        if exceeded:
            bad, bound = probe, exceeded
        else:
            good = probe
    return good, bound


def _bounded_by_neurons(needs: CoreNeeds, neurons: NDArray[np.int64], limits: Mapping[str, int]) -> tuple[int, str]:
    """The longest slice by what can be told without looking at synapses, and the resource that allows no more."""
    window = neurons[: limits["neurons"] + 1]
    seen = np.zeros(len(window), np.int64)
    seen[np.unique(needs.population.thresholds[window], return_index=True)[1]] = 1
    running = {"neurons": np.arange(1, len(window) + 1), "threshold_formats": seen.cumsum()}
    if needs.copies is not None:
        running["out_axons"] = needs.copies[window].cumsum()
    ends = {
        name: int(np.searchsorted(used, limits[name], side="right")) for name, used in running.items() if name in limits
    }
    name = min(ends, key=lambda name: ends[name])
    return max(ends[name], 1), name if ends[name] < len(neurons) else ""
