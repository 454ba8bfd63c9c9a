"""Spikes of one sample by their time."""

from __future__ import annotations

import math

import numba
import numpy as np

CROWD = 64
"""Where an input shares its interval with more others than that on average, all are sorted by merging."""


@numba.njit(cache=True, error_model="numpy")
def in_order(times, order):
    """Fill `order` with the finite inputs of one sample by time, ties by number; how many there are.

    Inputs fall into as many equal intervals as there are inputs; what shares one is then sorted by insertion.
    """
    finite, count = np.empty(len(times), dtype=np.int64), 0
    for k in range(len(times)):
        finite[count] = k
        count += times[k] < math.inf
    first, last = math.inf, -math.inf
    for k in finite[:count]:
        first, last = min(first, times[k]), max(last, times[k])
    scale = (count - 1) / (last - first) if last > first else 0.0
    if not scale < math.inf:
        scale = 0.0
    start = np.zeros(count + 1, dtype=np.int64)
    for k in finite[:count]:
        start[int((times[k] - first) * scale) + 1] += 1
    crowd = 0
    for place in range(count):
        crowd += start[place + 1] ** 2
        start[place + 1] += start[place]
    for k in finite[:count]:
        place = int((times[k] - first) * scale)
        order[start[place]] = k
        start[place] += 1
    if crowd > CROWD * count and last > first:
        order[:count].sort()
        order[:count] = order[:count][np.argsort(times[order[:count]], kind="mergesort")]
        return count
    for k in range(1, count):
        own, now, place = order[k], times[order[k]], k
        while place > 0 and times[order[place - 1]] > now:
            order[place] = order[place - 1]
            place -= 1
        order[place] = own
    return count
