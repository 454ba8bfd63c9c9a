"""Corelets are cut to the size of cores, and neurons doubled or relayed until every axon has one that drives it.

A neuron has one target. One that is read by k axons becomes k copies side by side, or one that drives a splitter: a
core whose neurons each pass on one axon, a tick later. Copies cost neurons; where these overflow into more cores, those
cores ask the population before for more copies in turn, which splitters end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from hardware_targets.placement import Violation
from hardware_targets.truenorth.core import CoreShape
from hardware_targets.truenorth.corelets import Corelet

BLOCKS = (1, 2, 3, 4, 5, 6, 8)


@dataclass(frozen=True, eq=False)
class Cut:
    """A corelet on cores of its own, numbered from 0.

    core: (N,) where each neuron is.  copies: (N,) how often, or how often its relay is where `relayed`.
    axon_core, axon_column: the axons of all cores, ordered; column as in `Corelet.inputs`.
    relay_core: (N,) the splitter core of each neuron, from 0, or -1 where the neuron drives its target itself.
    """

    corelet: Corelet
    core: NDArray[np.int64]
    copies: NDArray[np.int64]
    axon_core: NDArray[np.int64]
    axon_column: NDArray[np.int64]
    relay_core: NDArray[np.int64]

    @property
    def cores(self) -> int:
        return int(self.core.max()) + 1

    @property
    def splitters(self) -> int:
        return int(self.relay_core.max(initial=-1)) + 1

    @property
    def relayed(self) -> bool:
        return self.splitters > 0

    @property
    def here(self) -> NDArray[np.int64]:
        """How often each neuron itself is on its core."""
        return np.where(self.relay_core >= 0, 1, self.copies)


def cut_all(
    corelets: Sequence[Corelet], first: Mapping[str, int], read: Mapping[str, NDArray[np.int64]], shape: CoreShape
) -> tuple[tuple[Cut, ...], tuple[Violation, ...]]:
    """All corelets, in their order. first: the lowest signal of each; read: (N,) output lines that each neuron drives.

    Populations are relayed where that takes fewer cores in all, or where a core cannot hold a neuron's copies.
    """
    violations = tuple(broken for corelet in corelets for broken in _too_many_axons(corelet, shape))
    orders = {corelet.name: list(_orders(corelet)) for corelet in corelets}
    relayed: frozenset[str] = frozenset()
    cuts = _backward(corelets, first, read, shape, orders, relayed)
    for cut in reversed(cuts):
        if cut.copies.max() > 1 and not cut.relayed:
            tried = _backward(corelets, first, read, shape, orders, relayed | {cut.corelet.name})
            if _total(tried) < _total(cuts):
                cuts, relayed = tried, relayed | {cut.corelet.name}
    most = [(cut.corelet.name, int(cut.copies.max())) for cut in cuts]
    remedy = "let each neuron reach fewer cores: fewer channels or neurons in the next layer"
    stuck = (Violation(name, None, "targets", n, shape.neurons, remedy) for name, n in most if n > shape.neurons)
    return tuple(cuts), (*violations, *stuck)


def _total(cuts: Sequence[Cut]) -> int:
    return sum(cut.cores + cut.splitters for cut in cuts)


def _too_many_axons(corelet: Corelet, shape: CoreShape) -> Iterator[Violation]:
    axons = int(np.diff(corelet.inputs.indptr).max(initial=0))
    if axons > shape.axons:
        remedy = f"give its neurons at most {shape.axons} axons: {shape.axons // 2} inputs of either sign (groups)"
        yield Violation(corelet.name, None, "fan_in", axons, shape.axons, remedy)


def _backward(
    corelets: Sequence[Corelet],
    first: Mapping[str, int],
    read: Mapping[str, NDArray[np.int64]],
    shape: CoreShape,
    orders: Mapping[str, list[NDArray[np.int64]]],
    relayed: frozenset[str],
) -> list[Cut]:
    """From the last corelet to the first, so that the axons which each neuron has to drive are known."""
    cuts: list[Cut] = []
    for corelet in reversed(corelets):
        low = first[corelet.name]
        driven = read.get(corelet.name, np.zeros(corelet.size, np.int64)).copy()
        for later in cuts:
            signal = later.axon_column // shape.axon_types - low
            driven += np.bincount(signal[(signal >= 0) & (signal < corelet.size)], minlength=corelet.size)
        copies = np.maximum(driven, 1)
        relay = copies > 1 if corelet.name in relayed else copies > shape.neurons
        cuts.append(_cut(corelet, copies, relay, shape, orders[corelet.name]))
    return cuts[::-1]


def _cut(
    corelet: Corelet, copies: NDArray[np.int64], relay: NDArray[np.bool_], shape: CoreShape, orders: list[NDArray]
) -> Cut:
    here = np.where(relay, 1, copies)
    inputs, best = corelet.inputs, np.zeros(0, np.int64)
    indptr, indices = inputs.indptr.astype(np.int64), inputs.indices.astype(np.int64)
    for order in orders:
        tried = _fill(order, indptr, indices, here, shape.axons, shape.neurons, inputs.shape[1])
        if not best.size or tried.max() < best.max():
            best = tried
    keys = np.unique(np.repeat(best, np.diff(indptr)) * inputs.shape[1] + indices)
    order = np.lexsort((np.arange(corelet.size), best))
    order = order[relay[order]]
    relay_core = np.full(corelet.size, -1)
    one = np.arange(order.size + 1)
    if order.size:
        whole = np.minimum(copies[order], shape.neurons)
        relay_core[order] = _fill(one[:-1], one, one[:-1], whole, shape.axons, shape.neurons, order.size)
    return Cut(corelet, best, copies, keys // inputs.shape[1], keys % inputs.shape[1], relay_core)


@njit(cache=True)
def _fill(order, indptr, indices, copies, axons, neurons, columns):
    """Neurons in `order`, each on the present core if its axons and copies still fit there, else on a new one."""
    core = np.zeros(order.size, np.int64)
    seen = np.full(columns, -1, np.int64)
    now, used_axons, used_neurons = 0, 0, 0
    for j in order:
        new = 0
        for e in range(indptr[j], indptr[j + 1]):
            new += seen[indices[e]] != now
        if used_neurons > 0 and (used_axons + new > axons or used_neurons + copies[j] > neurons):
            now, used_axons, used_neurons = now + 1, 0, 0
            new = indptr[j + 1] - indptr[j]
        for e in range(indptr[j], indptr[j + 1]):
            seen[indices[e]] = now
        used_axons += new
        used_neurons += copies[j]
        core[j] = now
    return core


def _orders(corelet: Corelet) -> Iterator[NDArray[np.int64]]:
    """Orders in which neighbours read the same inputs: as they are, and by blocks of positions in a channel group."""
    yield np.arange(corelet.size)
    if len(corelet.shape) < 2:
        return
    channels, space = corelet.shape[0], corelet.shape[1:]
    area = int(np.prod(space))
    channel, position = np.divmod(np.arange(corelet.size), area)
    group = _groups(corelet.inputs, channels, area)[channel]
    if area == 1:
        yield np.lexsort((channel, group))
        return
    place = np.stack(np.unravel_index(position, space))
    for size in BLOCKS:
        for sizes in {(size,) * len(space), (*(size,) * (len(space) - 1), size + 1)}:
            block = np.ravel_multi_index(
                tuple(p // s for p, s in zip(place, sizes, strict=True)),
                tuple(-(-n // s) for n, s in zip(space, sizes, strict=True)),
            )
            yield np.lexsort((channel, position, block, group))
        if size >= max(space):
            break


def _groups(inputs: sp.csr_array, channels: int, area: int) -> NDArray[np.int64]:
    """Which output channels hang together: those that share an input, directly or through others."""
    by_channel = inputs.tocoo()
    rows = by_channel.row // area
    together = sp.csr_array((np.ones(rows.size, bool), (rows, by_channel.col)), shape=(channels, inputs.shape[1]))
    _, label = connected_components(together @ together.T, directed=False)
    return label
