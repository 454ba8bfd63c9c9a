"""Spikes as bits: one word of `LANES` bits for each vector of neurons, channels of a position side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numba
import numpy as np
import torch
from torch import Tensor

from neuro.graph import Shape, Stateless
from neuro.kernels.synapses import LANES, padded
from neuro.kernels.vectors import add_bits

BLOCK = 64
"""Words per work item: the counts of their neurons stay in the first-level cache."""


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _counted(words, counts):
    steps, batch, wide = words.shape
    for block in numba.prange((wide + BLOCK - 1) // BLOCK):
        low = np.int64(block) * BLOCK
        for t in range(steps):
            for b in range(batch):
                total = counts[b if len(counts) > 1 else 0]
                for k in range(low, min(low + BLOCK, wide)):
                    add_bits(total, LANES * k, words[t, b, k])


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _unpacked(words, wide, spikes):
    rows, channels, positions = spikes.shape
    for row in numba.prange(rows):
        for c in range(channels):
            for p in range(positions):
                spikes[row, c, p] = (words[row, p * wide + c // LANES] >> np.uint16(c % LANES)) & np.uint16(1)


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _packed(spikes, wide, words):
    rows, channels, positions = spikes.shape
    for row in numba.prange(rows):
        for p in range(positions):
            for c in range(channels):
                if spikes[row, c, p] != 0:
                    words[row, p * wide + c // LANES] |= np.uint16(1 << (c % LANES))


@dataclass(frozen=True, eq=False)
class Spikes:
    """Spikes of a population over time as bits, seen through `moves` of its elements.

    words (time, batch, positions * words of a position) uint16 of features `shape` (channels, *space); bit k of a word
    is the spike of its channel k.
    """

    words: np.ndarray
    shape: Shape
    moves: tuple[Stateless, ...] = ()

    @property
    def steps(self) -> int:
        return self.words.shape[0]

    @property
    def batch(self) -> int:
        return self.words.shape[1]

    def moved(self, node: Stateless) -> Spikes:
        """The same spikes behind one more move."""
        return replace(self, moves=(*self.moves, node))

    def _through(self, value: Tensor) -> Tensor:
        times, batch = value.shape[:2]
        for node in self.moves:
            value = node.forward(value.flatten(0, 1)).unflatten(0, (times, batch))
        return value

    def _counted(self, rows: int) -> Tensor:
        counts = np.zeros((rows, self.words.shape[2] * LANES), dtype=np.int32)
        _counted(self.words, counts)
        found = torch.from_numpy(counts).reshape(1, rows, -1, padded(self.shape[0]))[..., : self.shape[0]]
        return self._through(found.transpose(2, 3).reshape(1, rows, *self.shape))

    @property
    def counts(self) -> Tensor:
        """Spikes of each neuron over time, (1, batch, *features) int32."""
        return self._counted(self.batch)

    @property
    def often(self) -> Tensor:
        """Spikes of each neuron over time and samples, (*features) int32."""
        return self._counted(1)[0, 0]

    @property
    def density(self) -> float:
        """The share of neurons that fire in a step; estimated on the first samples."""
        some = np.unpackbits(np.ascontiguousarray(self.words[:, :2]).view(np.uint8)).sum()
        return float(some) / (self.steps * min(self.batch, 2) * math.prod(self.shape))

    @cached_property
    def dense(self) -> Tensor:
        """(time, batch, *features) float32."""
        spikes = torch.empty(self.steps * self.batch, self.shape[0], math.prod(self.shape[1:]))
        words = self.words.reshape(len(spikes), -1)
        _unpacked(words, padded(self.shape[0]) // LANES, spikes.numpy())
        return self._through(spikes.reshape(self.steps, self.batch, *self.shape))


def pack(spikes: Tensor) -> Spikes:
    """Spikes (time, batch, channels, *space) of zeros and ones as bits."""
    steps, batch, *shape = spikes.shape
    flat = spikes.reshape(steps * batch, shape[0], -1).to(torch.float32).contiguous()
    wide = padded(shape[0]) // LANES
    words = np.zeros((steps * batch, flat.shape[2] * wide), dtype=np.uint16)
    _packed(flat.numpy(), wide, words)
    return Spikes(words.reshape(steps, batch, -1), tuple(shape))
