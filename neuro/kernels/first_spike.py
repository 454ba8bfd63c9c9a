"""First spikes on the CPU: inputs walked in time order, state (V, I) from spike to spike, no exponential of a time.

All neurons of a block share the order of their inputs, so an input costs each of them three multiply-adds; a crossing
is solved only where the tangent of V, which is concave while it rises, reaches the threshold before the next input.
Work ends with the last spike of the block. The way back is the adjoint of the same state (Wunderlich and Pehle 2021).
"""

from __future__ import annotations

import math

import numba
import numpy as np

BLOCK = 64
"""Neurons that are walked together: their state stays in the first-level cache."""

CROWD = 32
"""More inputs than that in one of as many intervals as there are inputs are sorted by merging."""


@numba.njit(cache=True, error_model="numpy")
def response(leak, gain, s):
    if leak == 1.0:
        return s * math.exp(-s) if s < 700.0 else 0.0
    return gain / (1.0 - leak) * (math.exp(-leak * s) - math.exp(-s))


@numba.njit(cache=True, error_model="numpy")
def minus_lambert_w0(q):
    p = math.sqrt(2.0 * q)
    if p < 2.0:
        y = 1.0 + p * (-1.0 + p * (1.0 / 3.0 + p * (-1.0 / 36.0 + p * (-1.0 / 270.0 - p / 4320.0))))
        if p < 0.01:
            return y
    else:
        z = math.exp(-1.0 - q)
        y = z * (1.0 + z * (1.0 + 1.5 * z))
    y = max(y, 1e-300)
    for _ in range(3):
        f = y - math.log(y) - 1.0 - q
        below = y - 1.0
        y -= 2.0 * f * below * y / (2.0 * below * below - f)
    return y


@numba.njit(cache=True, error_model="numpy")
def crossing(leak, v, i, theta):
    """As `Membrane.crossing`, for one neuron."""
    if not i > 0.0:
        return math.inf
    if leak == 1.0:
        above = math.log(i / theta) + v / i - 1.0
        if above < 0.0 or v >= i:
            return math.inf
        return max(minus_lambert_w0(above) - v / i, 0.0)
    if leak == 0.5:
        square = (v + i) ** 2 - 4.0 * i * theta
        if square < 0.0 or v >= i:
            return math.inf
        return max(-2.0 * math.log1p((v - i + math.sqrt(square)) / (2.0 * i)), 0.0)
    rest = v + i - theta
    return max(-math.log(rest / i), 0.0) if rest > 0.0 else math.inf


@numba.njit(cache=True, error_model="numpy")
def in_order(times, order):
    """Fill `order` with the finite inputs of one sample by time, ties by number; how many there are.

    Inputs fall into as many equal intervals as there are inputs; what shares one is then sorted by insertion.
    """
    count = 0
    first, last = math.inf, -math.inf
    for k in range(len(times)):
        if times[k] < math.inf:
            count += 1
            first, last = min(first, times[k]), max(last, times[k])
    scale = (count - 1) / (last - first) if last > first else 0.0
    if not scale < math.inf:
        scale = 0.0
    start = np.zeros(count + 1, dtype=np.int64)
    for k in range(len(times)):
        if times[k] < math.inf:
            start[int((times[k] - first) * scale) + 1] += 1
    crowd = 0
    for place in range(count):
        crowd = max(crowd, start[place + 1])
        start[place + 1] += start[place]
    for k in range(len(times)):
        if times[k] < math.inf:
            place = int((times[k] - first) * scale)
            order[start[place]] = k
            start[place] += 1
    if crowd > CROWD and last > first:
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


@numba.njit(parallel=True, cache=True, error_model="numpy")
def prepared(times, leak, gain):
    """For every sample (batch, in): inputs in order, how many, and what happens until the next of them.

    The last, (batch, in, 4), is the time until then and what is left of V, passes from I to V, is left of I.
    """
    batch, inputs = times.shape
    order = np.empty((batch, inputs), dtype=np.int64)
    counts = np.empty(batch, dtype=np.int64)
    steps = np.zeros((batch, inputs, 4))
    for sample in numba.prange(batch):
        b = np.int64(sample)
        count = in_order(times[b], order[b])
        counts[b] = count
        for k in range(count):
            wait = (times[b, order[b, k + 1]] if k + 1 < count else math.inf) - times[b, order[b, k]]
            steps[b, k, 0] = wait
            if wait < math.inf:
                steps[b, k, 1] = math.exp(-leak * wait)
                steps[b, k, 2] = response(leak, gain, wait)
                steps[b, k, 3] = math.exp(-wait)
    return order, counts, steps


# Loops of a fixed length on arrays of their own become vector instructions.
@numba.njit(cache=True, error_model="numpy")
def receive(i, row):
    for j in range(BLOCK):
        i[j] += row[j]


@numba.njit(cache=True, error_model="numpy")
def tangents_above(v, i, level, leak, gain, wait):
    count = 0
    for j in range(BLOCK):
        count += 1 if v[j] + (gain * i[j] - leak * v[j]) * wait >= level[j] else 0
    return count


@numba.njit(cache=True, error_model="numpy")
def pass_on(v, i, kept, passed, left):
    for j in range(BLOCK):
        v[j] = kept * v[j] + passed * i[j]
        i[j] = left * i[j]


@numba.njit(parallel=True, cache=True, error_model="numpy")
def forward(times, order, counts, steps, weight, theta, leak, gain):
    """Times (batch, out) and slopes dV/ds at them.

    times (batch, in) in tau_s, +inf silent; theta (out,); weight (in, out) with columns up to a multiple of BLOCK.
    """
    batch, outputs = len(times), len(theta)
    blocks = weight.shape[1] // BLOCK
    spikes = np.full((batch, outputs), math.inf)
    slopes = np.ones((batch, outputs))
    for item in numba.prange(batch * blocks):
        b = item // blocks
        low = (item % blocks) * BLOCK
        size = min(BLOCK, outputs - low)
        v, i, level = np.zeros(BLOCK), np.zeros(BLOCK), np.full(BLOCK, math.inf)
        level[:size] = theta[low : low + size]
        waiting = size
        for k in range(counts[b]):
            receive(i, weight[order[b, k], low : low + BLOCK])
            wait = steps[b, k, 0]
            if wait <= 0.0:
                continue
            if tangents_above(v, i, level, leak, gain, wait) > 0:
                for j in range(size):
                    if not v[j] + (gain * i[j] - leak * v[j]) * wait >= level[j] or level[j] == math.inf:
                        continue
                    s = crossing(leak, v[j], i[j], level[j])
                    if s <= wait and s < math.inf:
                        spikes[b, low + j] = times[b, order[b, k]] + s
                        slopes[b, low + j] = gain * i[j] * math.exp(-s) - leak * level[j]
                        level[j] = math.inf
                        waiting -= 1
                if waiting == 0:
                    break
            pass_on(v, i, steps[b, k, 1], steps[b, k, 2], steps[b, k, 3])
    return spikes, slopes


@numba.njit(cache=True, error_model="numpy")
def largest_response(leak, gain, peak, times, order, count, spike):
    """The largest eps(spike - t_i) over causal inputs: one of the two next to the peak."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if times[order[middle]] < spike - peak:
            low = middle + 1
        else:
            high = middle
    most = 0.0
    if low > 0:
        most = response(leak, gain, spike - times[order[low - 1]])
    if low < count and times[order[low]] < spike:
        most = max(most, response(leak, gain, spike - times[order[low]]))
    return most


@numba.njit(parallel=True, cache=True, error_model="numpy")
def largest_responses(times, order, counts, leak, gain, peak, spikes):
    """max over causal inputs of eps(spike - t_i), (batch, out); 0 for silent neurons."""
    batch, outputs = spikes.shape
    most = np.zeros((batch, outputs))
    for b in numba.prange(batch):
        for j in range(outputs):
            if spikes[b, j] < math.inf:
                most[b, j] = largest_response(leak, gain, peak, times[b], order[b], counts[b], spikes[b, j])
    return most


@numba.njit(cache=True, error_model="numpy")
def of_time(own, of_v, of_i, gain):
    total = 0.0
    for j in range(BLOCK):
        total += own[j] * (of_i[j] - gain * of_v[j])
    return total


@numba.njit(parallel=True, cache=True, error_model="numpy")
def backward(times, order, counts, steps, weight, leak, gain, spikes, pull, want_times):
    """Gradients of weight, of its shape, and of times (blocks, batch, in), still to be summed over blocks.

    pull (batch, out): -dL/ds over the slope at the spike, the adjoint of V there; 0 for silent neurons. Backwards from
    it, adjoints decay as the state does; an input receives that of I for its weight.
    """
    batch, inputs = times.shape
    outputs = spikes.shape[1]
    blocks = weight.shape[1] // BLOCK
    of_weight = np.zeros_like(weight)
    of_times = np.zeros((blocks if want_times else 0, batch, inputs))
    for item in numba.prange(blocks):
        block = np.int64(item)
        low = block * BLOCK
        size = min(BLOCK, outputs - low)
        of_v, of_i = np.empty(BLOCK), np.empty(BLOCK)
        for b in range(batch):
            of_v[:] = 0.0
            of_i[:] = 0.0
            latest = np.argsort(-spikes[b, low : low + size])
            entered = 0
            while entered < size and spikes[b, low + latest[entered]] == math.inf:
                entered += 1
            begun = False
            for k in range(counts[b] - 1, -1, -1):
                source = order[b, k]
                now = times[b, source]
                if begun and steps[b, k, 0] > 0.0:
                    pass_on(of_i, of_v, steps[b, k, 3], steps[b, k, 2], steps[b, k, 1])
                while entered < size and spikes[b, low + latest[entered]] > now:
                    j = latest[entered]
                    wait = spikes[b, low + j] - now
                    of_v[j] = pull[b, low + j] * math.exp(-leak * wait)
                    of_i[j] = pull[b, low + j] * response(leak, gain, wait)
                    entered += 1
                    begun = True
                if begun:
                    receive(of_weight[source, low : low + BLOCK], of_i)
                    if want_times:
                        of_times[block, b, source] = of_time(weight[source, low : low + BLOCK], of_v, of_i, gain)
    return of_weight, of_times
