"""Simulated annealing of cores over the sites of a mesh: a quadratic assignment, one swap at a time.

Kirkpatrick, Gelatt and Vecchi 1983 (Science 220); the schedule follows Connolly 1990 (EJOR 46) in spirit: temperatures
from the size of random changes, then a descent until no swap helps.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Whole = NDArray[np.int64]

LEVELS = 60
COLDEST = 1e-3
"""Last temperature over the first."""
MOVES_PER_CORE = 1000
MOST_STEPS = 4.0e8
"""Additions that one annealing may take at effort 1, so that its time is bounded: a second or so."""

_compiled = njit(cache=True)


def anneal(flow: Reals, entering: Reals, places: Whole, start: Whole, *, seed: int, effort: float = 1.0) -> Whole:
    """The site of every core, so that flow times distance is small; never worse than `start`.

    flow: (cores, cores) symmetric, what passes between two cores. entering: (cores,), what comes from outside at place
    (0, 0). places: (sites, 2), column and row of every site of the mesh; several sites may share one. start: (cores,),
    a site for every core, all different. Equal seeds give equal results. Time grows with `effort`, 0 keeps `start`.
    """
    cores, sites = len(start), len(places)
    site_of, core_at = start.copy(), np.full(sites, -1)
    core_at[start] = np.arange(cores)
    rng = np.random.default_rng(seed)
    moves = int(effort * min(MOVES_PER_CORE * cores, MOST_STEPS / LEVELS / max(cores, 1)))
    if not moves or not cores:
        return start.copy()

    def draws() -> tuple[Whole, Whole, Reals]:
        return rng.integers(0, cores, moves), rng.integers(0, sites, moves), rng.random(moves)

    hot = _typical_change(flow, entering, places, site_of, core_at, *draws()[:2])
    if hot == 0:
        return start.copy()
    best, above = start.copy(), 0.0
    for temperature in hot * np.geomspace(1, COLDEST, LEVELS):
        above = _level(flow, entering, places, site_of, core_at, *draws(), temperature, best, above)
    core_at[:] = -1
    core_at[best] = np.arange(cores)
    _descend(flow, entering, places, best, core_at)
    return best


def cost(flow: Reals, entering: Reals, places: Whole, site_of: Whole) -> float:
    """Flow times distance, each pair of cores once."""
    here = places[site_of]
    distance = np.abs(here[:, None, :] - here[None]).sum(2)
    return float((flow * distance).sum() / 2 + entering @ here.sum(1))


@_compiled
def _change(flow, entering, places, site_of, core_at, core, site):
    """What swapping `core` with whatever is at `site` adds to the cost."""
    old = site_of[core]
    x_new, y_new = places[site, 0], places[site, 1]
    x_old, y_old = places[old, 0], places[old, 1]
    if x_new == x_old and y_new == y_old:
        return 0.0
    other = core_at[site]
    shift = x_new + y_new - x_old - y_old
    total = entering[core] * shift
    if other >= 0:
        total -= entering[other] * shift
    for c in range(site_of.size):
        if c != core and c != other:
            x, y = places[site_of[c], 0], places[site_of[c], 1]
            farther = abs(x - x_new) + abs(y - y_new) - abs(x - x_old) - abs(y - y_old)
            weight = flow[core, c]
            if other >= 0:
                weight -= flow[other, c]
            total += weight * farther
    return total


@_compiled
def _swap(site_of, core_at, core, site):
    old, other = site_of[core], core_at[site]
    site_of[core], core_at[site], core_at[old] = site, core, other
    if other >= 0:
        site_of[other] = old


@_compiled
def _typical_change(flow, entering, places, site_of, core_at, cores, sites):
    total, count = 0.0, 0
    for i in range(min(cores.size, 500)):
        change = abs(_change(flow, entering, places, site_of, core_at, cores[i], sites[i]))
        total += change
        count += change > 0
    return total / max(count, 1)


@_compiled
def _level(flow, entering, places, site_of, core_at, cores, sites, luck, temperature, best, above):
    """Moves at one temperature; keeps the `best` sites seen, and returns by how much the last ones cost more."""
    for i in range(cores.size):
        change = _change(flow, entering, places, site_of, core_at, cores[i], sites[i])
        if change <= 0 or luck[i] < np.exp(-change / temperature):
            _swap(site_of, core_at, cores[i], sites[i])
            above += change
            if above < 0:
                best[:] = site_of
                above = 0.0
    return above


@_compiled
def _descend(flow, entering, places, site_of, core_at):
    improved = True
    while improved:
        improved = False
        for core in range(site_of.size):
            for site in range(core_at.size):
                change = _change(flow, entering, places, site_of, core_at, core, site)
                if change < -1e-9 * (1 + abs(change)):
                    _swap(site_of, core_at, core, site)
                    improved = True
