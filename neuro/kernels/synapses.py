"""Linear maps as lists of runs: what one spike adds, and where, with the channels of a position side by side.

Features (channels, *space) are laid out as (positions, channels), channels padded to whole vectors of `LANES`. A linear
map is then a set of taps: tap k adds column c of its matrix at the position `target[k, p]` for a spike of channel c at
position p. Taps that reach neighbouring positions join into one run: a 3x3 convolution of stride 1 has three runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from neuro.graph import Shape, Stateless
from neuro.nodes import Affine, AvgPool, Conv, Scale

LANES = 16
"""Floats of a vector: a word of spikes holds one bit for each."""

LARGEST = 2**24
"""Numbers in the table of a map at most; larger ones (wide grouped convolutions) stay dense."""


def padded(channels: int) -> int:
    """Channels rounded up to whole vectors."""
    return -(-channels // LANES) * LANES


class Taps(NamedTuple):
    """matrices (taps, out channels, in channels), targets (taps, in positions): a position, or -1 for none."""

    matrices: Tensor
    targets: np.ndarray


@dataclass(frozen=True, eq=False)
class Runs:
    """The table of one map. Position p owns the runs first[p]..first[p + 1] - 1.

    A run adds `vectors` vectors of the weights of channel c, from c * block + start on, at `target`, all in floats.
    block 0: the map is one to one, and each channel adds its own weight at its own place behind `target`.
    """

    first: np.ndarray
    target: np.ndarray
    start: np.ndarray
    vectors: np.ndarray
    block: int
    weights: np.ndarray

    @property
    def per_spike(self) -> float:
        """Floats that one spike adds, the mean over positions."""
        floats = float(self.vectors.sum()) * LANES if self.block else float(len(self.target))
        return floats / max(len(self.first) - 1, 1)


@singledispatch
def taps(node: Stateless, shape: Shape) -> Taps | None:
    """The taps of the linear part of a node on features of `shape`; None where it is no such map."""
    return None


def _reach(sizes: Shape, counts: Shape, offset: Shape, stride: Shape, padding: Shape) -> np.ndarray:
    """The window, of those that start at multiples of `stride`, in which each position has the place `offset`."""
    reached = np.zeros((1,), dtype=np.int64)
    inside = np.ones((1,), dtype=bool)
    for size, count, place, step, pad in zip(sizes, counts, offset, stride, padding, strict=True):
        at = np.arange(size) + pad - place
        fits = (at % step == 0) & (at >= 0) & (at // step < count)
        reached = (reached[:, None] * count + at // step).reshape(-1)
        inside = (inside[:, None] & fits).reshape(-1)
    return np.where(inside, reached, -1)


@taps.register
def _(node: Conv, shape: Shape) -> Taps | None:
    out, into, *kernel = node.weight.shape
    counts = node.output_shape(shape)[1:]
    if math.prod(kernel) * out * shape[0] > LARGEST:
        return None
    every = itertools.product(*(range(size - 1, -1, -1) for size in kernel))
    # From the last place of the window to the first one, those that one position reaches together: neighbours join.
    places = sorted(
        every, key=lambda place: [i * d % s for i, d, s in zip(place, node.dilation, node.stride, strict=True)]
    )
    full = node.weight.new_zeros(node.groups, out // node.groups, node.groups, into, *kernel)
    for group, weight in enumerate(node.weight.detach().reshape(node.groups, -1, into, *kernel)):
        full[group, :, group] = weight
    full = full.reshape(out, shape[0], *kernel)
    steps = [tuple(i * d for i, d in zip(place, node.dilation, strict=True)) for place in places]
    targets = [_reach(shape[1:], counts, step, node.stride, node.padding) for step in steps]
    return Taps(
        full.flatten(2)[..., torch.from_numpy(np.ravel_multi_index(np.array(places).T, kernel))].permute(2, 0, 1),
        np.stack(targets),
    )


@taps.register
def _(node: Affine, shape: Shape) -> Taps | None:
    return Taps(node.weight.detach()[None], np.zeros((1, 1), dtype=np.int64)) if len(shape) == 1 else None


@taps.register
def _(node: AvgPool, shape: Shape) -> Taps | None:
    if node.ceil or (any(node.padding) and not node.count_padding):
        return None
    counts = node.output_shape(shape)[1:]
    places = itertools.product(*(range(size - 1, -1, -1) for size in node.kernel))
    targets = np.stack([_reach(shape[1:], counts, place, node.stride, node.padding) for place in places])
    if ((targets >= 0).sum(0) <= 1).all():
        targets = targets.max(0, keepdims=True)
    if len(targets) * shape[0] ** 2 > LARGEST:
        return None
    return Taps((torch.eye(shape[0]) / math.prod(node.kernel)).expand(len(targets), -1, -1), targets)


@taps.register
def _(node: Scale, shape: Shape) -> Taps | None:
    factor = node.factor.detach().expand(shape).reshape(shape[0], -1)
    if shape[0] ** 2 > LARGEST or not bool((factor == factor[:, :1]).all()):
        return None
    return Taps(torch.diag(factor[:, 0])[None], np.arange(factor.shape[1])[None])


def behind(found: Taps, shape: Shape, moves: Sequence[Stateless]) -> Taps | None:
    """The taps of a map that reads features of `shape` through moves of elements."""
    if not moves:
        return found
    channels, positions = shape[0], math.prod(shape[1:])
    index = torch.arange(1, channels * positions + 1, dtype=torch.int64).reshape(1, *shape)
    for node in moves:
        index = node.forward(index)
    came = index[0].reshape(index.shape[1], -1).numpy() - 1
    reach, (count, out, _) = found.targets, found.matrices.shape
    if came.shape[1] == 1 and positions > 1:
        if positions * count * out * channels > LARGEST:
            return None
        matrices = torch.zeros(positions, count, out, channels)
        there = np.flatnonzero(came[:, 0] >= 0)
        channel, place = np.divmod(came[there, 0], positions)
        matrices[torch.from_numpy(place), :, :, torch.from_numpy(channel)] = found.matrices[
            :, :, torch.from_numpy(there)
        ].permute(2, 0, 1)
        targets = np.where(np.eye(positions, dtype=bool)[:, None], reach[None], -1)
        return Taps(matrices.flatten(0, 1), targets.reshape(-1, positions))
    channel, place = np.where(came >= 0, came // positions, -1).max(1), np.where(came >= 0, came % positions, -1).max(0)
    both = (channel >= 0)[:, None] & (place >= 0)
    if not np.array_equal(came, np.where(both, channel[:, None] * positions + place, -1)):
        return None
    matrices = torch.zeros(count, out, channels)
    kept = np.flatnonzero(channel >= 0)
    matrices[:, :, torch.from_numpy(channel[kept])] = found.matrices[:, :, torch.from_numpy(kept)]
    targets = np.full((count, positions), -1)
    kept = np.flatnonzero(place >= 0)
    targets[:, place[kept]] = reach[:, kept]
    return Taps(matrices, targets)


def _one_to_one(matrices: Tensor) -> int | None:
    """By how many channels a single tap shifts the channels without mixing them; None where it does something else."""
    count, out, channels = matrices.shape
    for shift in range(max(out - channels + 1, 0) if count == 1 else 0):
        own = matrices[0].diagonal(-shift)[:channels]
        if int((own != 0).sum()) == int((matrices != 0).sum()) > 0:
            return shift
    return None


def runs(found: Taps) -> Runs:
    """The table of a map: neighbouring targets joined."""
    count, out, channels = found.matrices.shape
    wide = padded(out)
    shift = _one_to_one(found.matrices)
    if shift is not None:
        (place,) = np.nonzero(found.targets[0] >= 0)
        first = np.searchsorted(place, np.arange(found.targets.shape[1] + 1))
        own = np.zeros(padded(channels), dtype=np.float32)
        own[:channels] = found.matrices[0].sum(0).numpy()
        target = found.targets[0, place] * wide + shift
        return Runs(first, target, 0 * target, np.full(len(place), len(own) // LANES), 0, own)
    weights = np.zeros((padded(channels), count, wide), dtype=np.float32)
    weights[:channels, :, :out] = found.matrices.permute(2, 0, 1).numpy()
    place, tap = np.nonzero(found.targets.T >= 0)
    target = found.targets.T[place, tap]
    fresh = np.ones(len(place), dtype=bool)
    fresh[1:] = (np.diff(place) != 0) | (np.diff(tap) != 1) | (np.diff(target) != 1)
    begins = np.flatnonzero(fresh)
    lengths = np.diff(np.append(begins, len(place)))
    first = np.searchsorted(place[begins], np.arange(found.targets.shape[1] + 1))
    return Runs(
        first, target[begins] * wide, tap[begins] * wide, lengths * (wide // LANES), count * wide, weights.ravel()
    )


_Known = dict[tuple[Shape, tuple[Stateless, ...]], tuple[tuple[int, ...], Runs | None]]
_tables: WeakKeyDictionary[Stateless, _Known] = WeakKeyDictionary()


def table(node: Stateless, shape: Shape, moves: tuple[Stateless, ...] = ()) -> Runs | None:
    """The runs of a linear node behind moves of features of `shape`; None where it has none.

    Made once per node, and again where training has changed its weights in place.
    """
    known = _tables.setdefault(node, {})
    versions = tuple(0 if tensor.is_inference() else tensor._version for _, tensor in node.tensors())
    if (shape, moves) not in known or known[shape, moves][0] != versions:
        known[shape, moves] = (versions, _table(node, shape, moves))
    return known[shape, moves][1]


def _table(node: Stateless, shape: Shape, moves: tuple[Stateless, ...]) -> Runs | None:
    entering = shape
    for move in moves:
        entering = move.output_shape(entering)
    found = taps(node, entering)
    if found is None or found.matrices.dtype != torch.float32:
        return None
    through = behind(found, shape, moves)
    return None if through is None else runs(through)
