"""Where the cores of a placement sit on the mesh, and what its links carry."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hardware_targets.anneal import anneal
from hardware_targets.cut import Rates
from hardware_targets.placement import Placement, tiles_of
from neuro.errors import ParameterError


@dataclass(frozen=True, eq=False)
class Traffic:
    """Packets: `between` (cores, cores), from row to column, and `entering` (cores,), from outside."""

    between: NDArray[np.float64]
    entering: NDArray[np.float64]


def traffic(placement: Placement, rates: Rates = None) -> Traffic:
    """What the cores of a placement send each other, one packet per spike and core that it goes to.

    rates: spikes of every neuron and input, {part: (size,)}; left out, one each.
    """
    cores = placement.cores
    between, entering = np.zeros((len(cores), len(cores))), np.zeros(len(cores))
    fired = {
        name: np.ones(len(reach)) if rates is None else np.asarray(rates[name], np.float64)
        for name, reach in placement.reach.items()
    }
    for name, reach in placement.reach.items():
        outside = placement.homes[name] < 0
        entering += fired[name][outside] @ reach[outside]
    for number, core in enumerate(cores):
        for piece in core.slices:
            between[number] += fired[piece.population][piece.neurons] @ placement.reach[piece.population][piece.neurons]
    return Traffic(between, entering)


def settle(placement: Placement, rates: Rates = None, *, effort: float = 1.0, seed: int = 0) -> Placement:
    """The same cores at other places of the mesh, so that packets take few hops; never more than before.

    ParameterError for an effort that is negative or no number.
    """
    if not 0 <= effort < float("inf"):
        raise ParameterError(f"effort must be a number >= 0, got {effort!r}")
    if effort == 0:
        return placement
    chip = placement.chip
    numbers = np.array([core.number for core in placement.cores], np.int64)
    every = np.arange(chip.limit("cores") * chip.limit("chips"))
    flow = traffic(placement, rates)
    symmetric = flow.between + flow.between.T
    np.fill_diagonal(symmetric, 0)
    found = anneal(symmetric, flow.entering, tiles_of(chip, every), numbers, seed=seed, effort=effort)
    moved = tuple(replace(core, number=int(site)) for core, site in zip(placement.cores, found, strict=True))
    return replace(placement, cores=moved)


@dataclass(frozen=True, eq=False)
class Links:
    """Packets over the links of the mesh, (height, width): `east[y, x]` from tile (x, y) to (x + 1, y), and so on."""

    east: NDArray[np.float64]
    west: NDArray[np.float64]
    south: NDArray[np.float64]
    north: NDArray[np.float64]

    @property
    def busiest(self) -> float:
        """Packets over the link that carries most."""
        return float(max(part.max(initial=0.0) for part in (self.east, self.west, self.south, self.north)))

    @property
    def hops(self) -> float:
        """Packets over all links."""
        return float(sum(part.sum() for part in (self.east, self.west, self.south, self.north)))


def links(placement: Placement, rates: Rates = None) -> Links:
    """What every link of the mesh carries: packets go along their row first, then along the column."""
    chip = placement.chip
    width, height = chip.limit("mesh_width") * chip.limit("chips"), chip.limit("mesh_height")
    flow = traffic(placement, rates)
    east, west, south, north = (np.zeros((height, width)) for _ in range(4))
    corner = np.zeros((1, 2), np.int64)
    starts, ends = np.concatenate([placement.tiles, corner]), placement.tiles
    for (x, y), sent in zip(starts, [*flow.between, flow.entering], strict=True):
        for (to_x, to_y), packets in zip(ends, sent, strict=True):
            east[y, x:to_x] += packets
            west[y, to_x + 1 : x + 1] += packets
            south[y:to_y, to_x] += packets
            north[to_y + 1 : y + 1, to_x] += packets
    return Links(east, west, south, north)
