"""Populations are cut into the fewest slices that each fit a core."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hardware_targets.chip import Chip
from hardware_targets.core_needs import CoreNeeds, reached_sources
from hardware_targets.demand import Demand
from hardware_targets.placement import NETWORK, REMEDIES, Slice, Violation


def cut(
    demand: Demand, chip: Chip, allowed: Mapping[str, Mapping[str, int]]
) -> tuple[dict[str, list[Slice]], list[Violation]]:
    """Long slices that keep the limits, targets before sources, so that output axons are known when they are needed.

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
            slices[population.name] = _best_slices(needs, limits)
        acyclic = not before and _is_ordered(demand)
        if acyclic or before == {name: [p.neurons.tobytes() for p in pieces] for name, pieces in slices.items()}:
            return slices, stuck
    stuck.append(Violation(NETWORK, None, "out_axons", "a loop that settles", "none", REMEDIES["out_axons"]))
    return slices, stuck


def _is_ordered(demand: Demand) -> bool:
    rank = {population.name: number for number, population in enumerate(demand.populations)}
    return all(rank.get(link.source, -1) < rank[link.target] for link in demand.links)


def _best_slices(needs: CoreNeeds, limits: Mapping[str, int]) -> list[Slice]:
    """The fewest slices over a few orders of the neurons: as they are, or neurons that read the same sources together.

    Behind a convolution the latter keeps all channels of a few positions on one core, so that their common sources pay
    one axon; in blocks of channels where kernels or thresholds of all do not fit.
    """
    size = needs.population.size
    first = np.zeros(size, np.int64)
    for link in needs.demand.into(needs.population.name)[:1]:
        first = link.reach.first()
    together = np.argsort(first, kind="stable")
    starts = np.flatnonzero(np.diff(first[together], prepend=-1))
    rank = np.empty(size, np.int64)
    rank[together] = np.arange(size) - np.repeat(starts, np.diff(np.append(starts, size)))
    best: list[Slice] = []
    block = int(rank.max()) + 1
    kinds = limits.get("threshold_formats", size)
    if len(np.unique(needs.population.thresholds)) > kinds:
        block = min(block, kinds)
    while block >= 4 and len(starts) > 1:
        order = np.lexsort((np.arange(size), first, rank // block))
        tried = _slices(needs, order, limits, len(best) - 1 if best else size)
        if best and not tried:
            break
        best = tried
        block //= 2
    return _slices(needs, np.arange(size), limits, len(best) or size) or best


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
