"""Orders in which a population may be cut into slices, so that neurons that share sources share a core.

An axon serves a whole core: a spike costs one packet per core that it goes to, whatever the number of its targets there
(Ronzani and Silvano 2026, arXiv 2601.16118: hyperedges weighted by spike rates).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hardware_targets.demand import Kernel, Reach

NARROWEST_BAND = 4
"""Columns of a feature map that stay together at least."""

Order = NDArray[np.int64]


def by_position(kernel: Kernel, band: int, block: int) -> Order:
    """Behind a convolution: `block` channels of a position together, and positions row by row in bands of `band`
    columns, so that slices are near squares and few sources reach two of them."""
    channel, position = np.divmod(np.arange(len(kernel.channels) * kernel.area), kernel.area)
    row, column = np.divmod(position, len(kernel.columns))
    return np.lexsort((channel, column, row, column // band, channel // block))


def bands(kernel: Kernel) -> list[int]:
    """Widths of bands worth a try, the widest first: the whole feature map, and down to a quarter of it."""
    width = len(kernel.columns)
    parts = dict.fromkeys(-(-width // count) for count in (1, 2, 3, 4))
    return [band for band in parts if band == width or band >= NARROWEST_BAND]


def by_source(reach: Reach) -> Iterator[Order]:
    """Neurons with the same first source together, if they do not all share it."""
    first = reach.first()
    if first.any():
        yield np.argsort(first, kind="stable")


def by_rate(rates: NDArray[np.float64] | None) -> Iterator[Order]:
    """From the most active neuron to the least, so that few cores send much, if the rates differ."""
    if rates is not None and rates.min() < rates.max():
        yield np.argsort(-rates, kind="stable")
