"""The mesh between cores: one grid of (x, y) positions over all chips, packets go along x first, then along y.

Dimension-order routing as in Merolla et al., Science 345 (2014); RANC's routers do the same. A hop is one step between
neighbouring cores; a crossing is a hop that leaves a chip.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def path(source: tuple[int, int], target: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Positions that a packet visits after `source`, ending in `target`."""
    (x, y), (tx, ty) = source, target
    while x != tx:
        x += 1 if tx > x else -1
        yield x, y
    while y != ty:
        y += 1 if ty > y else -1
        yield x, y


def hops(source: Integers, target: Integers) -> Integers:
    """Manhattan distance between positions (..., 2)."""
    return np.abs(np.asarray(target) - np.asarray(source)).sum(-1)


def crossings(source: Integers, target: Integers, chip: tuple[int, int]) -> Integers:
    """Chip borders that the packet crosses when every chip holds chip[0] x chip[1] cores."""
    size = np.asarray(chip)
    return np.abs(np.asarray(target) // size - np.asarray(source) // size).sum(-1)
