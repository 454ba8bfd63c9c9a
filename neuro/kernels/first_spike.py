"""First spikes on the CPU: inputs walked in time order, all neurons of a block at once, exponentials only per input.

An input of weight w that comes d after an origin acts as if the state at the origin had been larger by

    I += w a,   V -= w b,   a = exp(d), b = eps(d) a / kept(d),

so an input costs a neuron two multiply-adds, and two more say whether the tangent of V, which is concave while it
rises, reaches the threshold before the next input: only then is the crossing solved. Origins move on before
exponentials grow. The way back is the adjoint of the same state (Wunderlich and Pehle 2021), with the same a and b.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from neuro.kernels import first_spike_equations as solve
from neuro.kernels.first_spike_equations import BLOCK, crossing, crossings, decays, response
from neuro.kernels.first_spike_vectors import LANES, learn, receive, receive_and_watch, trailing_zeros
from neuro.kernels.time_order import in_order

SPAN = 4.0
"""An origin serves inputs that come up to so many tau_s after it: exponentials there cost less than two digits."""

PARTS = 16
"""Samples and blocks are dealt to so many parts, each with its own room to work in."""

FAR = 2.0
"""Crossings up to so many tau_s ahead are solved together."""

LONG = 1e3
"""A wait [tau_s] after which no potential rises."""

# what `prepared` says of an input
WAIT, OFFSET, MOVED, KEPT, PASSED, LEFT, LATER_V, LATER_I, TO_I, TO_V, OF_I, OF_V, RISE = range(13)


@numba.njit(parallel=True, cache=True, error_model="numpy")
def prepared(times, leak, gain):
    """For every sample (batch, in): inputs in order, how many, and (batch, most, 13) what the walk needs of each.

    WAIT until the next input, OFFSET d from the origin, MOVED: by how much the origin moves on before it, KEPT, PASSED,
    LEFT: `decays` of d, LATER_V and LATER_I: what the potential at the next input takes of the state, OF_V and OF_I:
    what the tangent there takes of it, TO_I and TO_V: a and b, RISE: gain / kept(d).
    """
    batch, inputs = times.shape
    order = np.empty((batch, inputs), dtype=np.int64)
    counts = np.empty(batch, dtype=np.int64)
    for sample in numba.prange(batch):
        counts[sample] = in_order(times[sample], order[sample])
    steps = np.empty((batch, counts.max() if batch else 0, 13))
    for sample in numba.prange(batch):
        b = np.int64(sample)
        count = counts[b]
        d, now, later = 0.0, (1.0, 0.0, 1.0), (1.0, 0.0, 1.0)
        for k in range(count):
            step = steps[b, k]
            moved = d > SPAN
            step[MOVED] = d if moved else 0.0
            if moved:
                d, now = 0.0, (1.0, 0.0, 1.0)
            wait = times[b, order[b, k + 1]] - times[b, order[b, k]] if k + 1 < count else LONG
            later = decays(leak, gain, d + wait) if wait > 0.0 else now
            kept, passed, left = now
            step[WAIT], step[OFFSET] = wait, d
            step[KEPT], step[PASSED], step[LEFT] = now
            step[LATER_V], step[LATER_I] = later[0], later[1]
            step[TO_I], step[TO_V] = 1.0 / left, passed / (left * kept)
            remains = 1.0 - leak * wait
            step[OF_V], step[OF_I] = remains * kept, remains * passed + gain * wait * left
            step[RISE] = gain / kept
            d, now = d + wait, later
    return order, counts, steps


# Loops over arrays of their own become vector instructions.
@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def pass_on(v, i, kept, passed, left):
    for j in range(len(v)):
        v[j] = kept * v[j] + passed * i[j]
        i[j] = left * i[j]


@numba.njit(cache=True, error_model="numpy")
def walk(times, order, count, steps, weight, low, theta, leak, gain, state, found, chosen, spikes, slopes, last):
    """`forward` for one sample and the neurons of one block, those from `low` on; arrays are rows of that sample.

    Potentials that are above the threshold when the next input comes are solved together at the end, others at once.
    state (3, BLOCK), found (9 BLOCK,) and chosen (BLOCK,) are room to work in.
    """
    width = min(BLOCK, weight.shape[1] - low)
    size = min(width, len(theta) - low)
    v, i, level = state[0], state[1], state[2]
    v[:] = 0.0
    i[:] = 0.0
    level[:size] = theta[low : low + size]
    level[size:] = math.inf
    waiting, several = size, 0
    for k in range(count):
        step = steps[k]
        moved, wait, ends = step[MOVED], step[WAIT], k + 1 == count
        if moved > 0.0:
            kept, passed, left = decays(leak, gain, moved)
            pass_on(v, i, kept, passed, left)
        row = weight[order[k], low : low + width]
        if wait <= 0.0:
            for at in range(0, width, LANES):
                receive(v, i, at, row, step[TO_V], step[TO_I])
            continue
        for at in range(0, width, LANES):
            near = receive_and_watch(v, i, level, at, row, step[TO_V], step[TO_I], step[OF_V], step[OF_I])
            while near != np.uint64(0):
                j = at + trailing_zeros(near)
                near &= near - np.uint64(1)
                now_v, now_i = step[KEPT] * v[j] + step[PASSED] * i[j], step[LEFT] * i[j]
                if wait <= FAR and step[LATER_V] * v[j] + step[LATER_I] * i[j] >= level[j] > now_v:
                    chosen[several], found[solve.V + several], found[solve.CURRENT + several] = j, now_v, now_i
                    found[solve.THETA + several], found[solve.WAIT + several] = level[j], wait
                    several += 1
                else:
                    s = crossing(leak, now_v, now_i, level[j])
                    if s == math.inf or (s > wait and not ends):
                        continue
                    spikes[low + j] = times[order[k]] + s
                    slopes[low + j] = gain * now_i * math.exp(-s) - leak * level[j]
                last[low + j] = k
                level[j] = math.inf
                waiting -= 1
        if waiting == 0:
            break
    if several > 0:
        crossings(leak, gain, found, several)
        for m in range(several):
            j = low + chosen[m]
            ahead, left, current = found[solve.S + m], found[solve.LEFT + m], found[solve.CURRENT + m]
            if not abs(found[solve.REST + m]) < 1e-10:
                ahead = min(crossing(leak, found[solve.V + m], current, theta[j]), found[solve.WAIT + m])
                left = math.exp(-ahead)
            spikes[j] = times[order[last[j]]] + ahead
            slopes[j] = gain * current * left - leak * theta[j]
    for j in range(low, low + size):  # an input at the very time of the spike is not before it
        while last[j] >= 0 and times[order[last[j]]] >= spikes[j]:
            last[j] -= 1


@numba.njit(parallel=True, cache=True, error_model="numpy")
def forward(times, order, counts, steps, weight, theta, leak, gain):
    """Times (batch, out), slopes dV/ds at them, and the place in the order of the last input before each, -1 for none.

    times (batch, in) in tau_s, +inf silent; theta (out,); weight (in, out) with columns up to a multiple of LANES.
    """
    batch, outputs = len(times), len(theta)
    items = batch * -(-weight.shape[1] // BLOCK)
    spikes = np.full((batch, outputs), math.inf)
    slopes = np.ones((batch, outputs))
    last = np.full((batch, outputs), -1, dtype=np.int32)
    for part in numba.prange(PARTS):
        state, found, chosen = np.empty((3, BLOCK)), np.empty(9 * BLOCK), np.empty(BLOCK, dtype=np.int32)
        for item in range(part, items, PARTS):
            b, low = item % batch, (item // batch) * BLOCK
            walk(
                times[b], order[b], counts[b], steps[b], weight, low, theta, leak, gain, state, found, chosen,
                spikes[b], slopes[b], last[b],
            )  # fmt: skip
    return spikes, slopes, last


@numba.njit(cache=True, error_model="numpy")
def largest_response(leak, gain, peak, times, order, count, spike):
    """The largest eps(spike - t_i) over the first `count` inputs: one of the two next to the peak."""
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
    if low < count:
        most = max(most, response(leak, gain, spike - times[order[low]]))
    return most


@numba.njit(parallel=True, cache=True, error_model="numpy")
def limited(times, order, leak, gain, peak, spikes, last, pull, limit):
    """`pull` (batch, out) without those whose |pull| max over causal inputs of eps(spike - t_i) is above `limit`."""
    found = pull.copy()
    highest = response(leak, gain, peak) if peak < math.inf else gain
    for b in numba.prange(len(pull)):
        for j in range(pull.shape[1]):
            force = abs(pull[b, j])
            if force * highest > limit:
                most = largest_response(leak, gain, peak, times[b], order[b], last[b, j] + 1, spikes[b, j])
                if force * most > limit:
                    found[b, j] = 0.0
    return found


@numba.njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def along(row, adjoint):
    total = 0.0
    for j in range(len(row)):
        total += row[j] * adjoint[j]
    return total


@numba.njit(parallel=True, cache=True, error_model="numpy")
def backward(times, order, steps, weight, leak, gain, spikes, last, pull, want_times):
    """Gradients of weight, of its shape, and of times (blocks, batch, in), still to be summed over blocks.

    pull (batch, out): -dL/ds over the slope at the spike, the adjoint of V there; 0 for silent neurons. of_v and of_i
    are the adjoints of the state at the origin, which an input moved by -w b and w a.
    """
    batch, inputs = times.shape
    outputs, columns = spikes.shape[1], weight.shape[1]
    blocks = -(-columns // BLOCK)
    of_weight = np.zeros_like(weight)
    of_times = np.zeros((blocks if want_times else 0, batch, inputs))
    for item in numba.prange(blocks):
        block = np.int64(item)
        low = block * BLOCK
        high = min(low + BLOCK, columns)
        size = min(high, outputs) - low
        of_v, of_i = np.empty(high - low, dtype=weight.dtype), np.empty(high - low, dtype=weight.dtype)
        enter, other = np.full(inputs, -1, dtype=np.int32), np.empty(size, dtype=np.int32)
        for b in range(batch):
            of_v[:] = 0.0
            of_i[:] = 0.0
            end = -1
            for j in range(size):
                place = last[b, low + j]
                if place >= 0 and pull[b, low + j] != 0.0:
                    other[j], enter[place] = enter[place], j
                    end = max(end, place)
            for k in range(end, -1, -1):
                step = steps[b, k]
                source = order[b, k]
                j = enter[k]
                enter[k] = -1
                while j >= 0:
                    since = spikes[b, low + j] - times[b, source] + step[OFFSET]
                    kept, passed, left = decays(leak, gain, since)
                    of_v[j], of_i[j] = pull[b, low + j] * kept, pull[b, low + j] * passed
                    j = other[j]
                of_row = of_weight[source, low:high]
                for at in range(0, high - low, LANES):
                    learn(of_row, of_v, of_i, at, step[TO_V], step[TO_I])
                if want_times:
                    row = weight[source, low:high]
                    of_times[block, b, source] = step[TO_I] * along(row, of_i) - (step[TO_V] + step[RISE]) * along(
                        row, of_v
                    )
                moved = step[MOVED]
                if moved > 0.0:
                    kept, passed, left = decays(leak, gain, moved)
                    pass_on(of_i, of_v, left, passed, kept)
    return of_weight, of_times
