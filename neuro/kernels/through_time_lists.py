"""What is not zero in a series of values, as lists: by step for sums over inputs, by input for sums over steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
from torch import Tensor

from neuro.kernels.synapses import LANES
from neuro.kernels.through_time_populations import launch
from neuro.kernels.through_time_vectors import nonzero
from neuro.kernels.vectors import PLACES, list_spikes

STEPS = 64
"""Steps of a group at most: the rows that a list by input sums stay in the first-level cache."""


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _count(x, counts, ones):
    for row in numba.prange(len(x)):
        own = x[row]
        some = alike = np.int32(0)
        for k in range(len(own)):
            some += np.int32(own[k] != 0)
            alike += np.int32(own[k] == 1)
        counts[row] = some
        ones[row] = alike


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _list(x, first, index, values, binary):
    size = x.shape[1]
    for item in numba.prange(len(x)):
        row = np.int64(item)
        own = x[row]
        found = np.empty(size + 2 * LANES, dtype=np.int32)
        count = 0
        whole = size // LANES * LANES
        for k in range(0, whole, LANES):
            word = nonzero(own, k)  # type: ignore[call-arg,var-annotated]
            if word != 0:
                count = list_spikes(word, k, 1, PLACES, found, count)
        for k in range(whole, size):
            found[count] = k
            count += int(own[k] != 0)
        low = first[row]
        for k in range(count):
            index[low + k] = found[k]
        if not binary:
            for k in range(count):
                values[low + k] = own[found[k]]


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _turn(first, index, values, binary, steps, batch, size, group, inputs, begins, entries, scales, offsets):
    groups = (steps + group - 1) // group
    for item in numba.prange(batch * groups):
        b = item // groups
        early = (item % groups) * group
        late = min(early + group, steps)
        counts = np.zeros(size, dtype=np.int32)
        for t in range(early, late):
            row = t * batch + b
            for k in range(first[row], first[row + 1]):
                counts[index[k]] += 1
        at = offsets[item]
        found = 0
        for j in range(size):
            if counts[j] > 0:
                inputs[item, found] = j
                begins[item, found] = at
                found += 1
                many = counts[j]
                counts[j] = at
                at += many
        begins[item, found] = at
        inputs[item, found] = -1
        for t in range(early, late):
            row = t * batch + b
            for k in range(first[row], first[row + 1]):
                place = counts[index[k]]
                entries[place] = t - early
                if not binary:
                    scales[place] = values[k]
                counts[index[k]] = place + 1


@dataclass(frozen=True, eq=False)
class Lists:
    """The entries of x (time, batch, inputs) that are not zero.

    Row t * batch + b lists inputs `index` [first[row], first[row + 1]) with their `values`,
    which are not kept where all are 1 (`binary`).
    """

    steps: int
    batch: int
    size: int
    first: np.ndarray
    index: np.ndarray
    values: np.ndarray
    binary: bool

    @property
    def density(self) -> float:
        """The share of entries that are not zero."""
        return len(self.index) / max(self.steps * self.batch * self.size, 1)

    @cached_property
    def by_input(self) -> tuple[np.ndarray, ...]:
        """(inputs, begins, steps of a group, values): for each sample and group of steps, what every input did.

        inputs[g, k] is an input that is active in group g = sample * groups + n, -1 after the last one; it lists the
        steps [begins[g, k], begins[g, k + 1]), counted from the start of the group.
        """
        groups = -(-self.steps // STEPS)
        rows = self.first[1:] - self.first[:-1]
        per_group = np.add.reduceat(rows.reshape(self.steps, self.batch), np.arange(0, self.steps, STEPS), axis=0)
        offsets = np.zeros(groups * self.batch + 1, dtype=np.int64)
        np.cumsum(per_group.T.reshape(-1), out=offsets[1:])
        inputs = np.empty((groups * self.batch, self.size + 1), dtype=np.int32)
        begins = np.empty((groups * self.batch, self.size + 1), dtype=np.int32)
        entries = np.empty_like(self.index)
        scales = np.empty_like(self.values)
        launch(
            _turn, self.first, self.index, self.values, self.binary, self.steps, self.batch, self.size, STEPS, inputs,
            begins, entries, scales, offsets,
        )  # fmt: skip
        return inputs, begins, entries, scales


def density(x: Tensor) -> tuple[float, bool, np.ndarray]:
    """Of x (time, batch, inputs): the share that is not zero, whether all of that is 1, and how many in each row."""
    rows = x.detach().reshape(-1, x.shape[-1]).contiguous().numpy()
    counts, ones = np.zeros((2, len(rows)), dtype=np.int32)
    launch(_count, rows, counts, ones)
    some = int(counts.sum())
    return some / max(rows.size, 1), some == int(ones.sum()), counts


def listed(x: Tensor, binary: bool, counts: np.ndarray) -> Lists:
    """The lists of x (time, batch, inputs), from what `density` found."""
    steps, batch, size = x.shape
    first = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=first[1:])
    index = np.empty(first[-1], dtype=np.int32)
    values = np.empty(0 if binary else first[-1], dtype=np.float32)
    launch(_list, x.detach().reshape(-1, size).contiguous().numpy(), first, index, values, binary)
    return Lists(steps, batch, size, first, index, values, binary)
