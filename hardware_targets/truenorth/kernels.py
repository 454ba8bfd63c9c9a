"""One tick of a whole network, compiled. Restates `neuron` for speed; the tests hold the two equal, spike for spike.

Cost follows events: a core walks the axons that are active, adds one masked row of weights per axon to all its neurons at once
(64 neurons share one word of the crossbar), then settles all neurons in one vector pass; only neurons that cross a threshold are
visited one by one. A core without input whose last such tick changed nothing sleeps until a spike arrives.
Threads own contiguous ranges of cores and write outgoing spikes to a plane of their own; planes are OR-ed when a tick reads them,
so results depend neither on the number of threads nor on their timing.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from .draws import LEAK, THRESHOLD, hash32, stream_key
from .vector import add_where, nonzero, popcount, prefetch, trailing_zeros

# columns of `rows`: which row of each deduplicated table a core uses
WEIGHTS, LEAKS, ALPHA, FLOOR, LOW, BETA, RESET, MODE, REVERSAL, TOSSED, TOSSED_LEAK, MASK = range(12)
# core kinds
PLAIN, GENERAL, RESTLESS = 0, 1, 3
# columns of counts
SPIKES, SYNAPTIC_EVENTS, NEURON_UPDATES, ACTIVE_CORES, PACKETS, HOPS, CROSSINGS, LOST = range(8)
COLUMNS = 8
# fields of a packed target
DELAY_AT, HOPS_AT, CROSSINGS_AT, WORD_AT = 6, 14, 26, 32
NOWHERE, OFF_GRID = -1, -2
AHEAD = 12  # spikes between asking for a cache line and using it


@njit(inline="always")
def _bounded(x, half, mask, least, most):
    """Two's complement wrap, then clip; a register that does only one of the two makes the other a no-op."""
    x = np.int32(np.int32(np.int32(x + half) & mask) - half)
    return min(max(x, least), most)


# Below, a table comes with the row to use: a view of the row would count references, atomically, at every core.
# LLVM vectorises a loop only while it can tell its arrays apart with few run-time checks: hence several short loops.
@njit(cache=True)
def _add(v, c, acc):
    for j in range(acc.size):
        v[c, j] += acc[j]


@njit(cache=True)
def _add_and_leak(v, c, acc, leak, r, half, mask, least, most):
    for j in range(acc.size):
        v[c, j] = _bounded(np.int32(v[c, j] + acc[j] + leak[r, j]), half, mask, least, most)


@njit(cache=True)
def _compare(v, c, alpha, r_alpha, low, r_low, flags):
    """flags: 1 at or above alpha, else 2 below low, else 0."""
    for j in range(flags.size):
        below = np.uint8(2) if v[c, j] < low[r_low, j] else np.uint8(0)
        flags[j] = np.uint8(1) if v[c, j] >= alpha[r_alpha, j] else below


@njit(cache=True)
def _raise_to(v, c, floor, r):
    for j in range(v.shape[1]):
        v[c, j] = max(v[c, j], floor[r, j])


@njit(cache=True)
def _copy(v, c, before):
    for j in range(before.size):
        before[j] = v[c, j]


@njit(cache=True)
def _differs(v, c, before):
    change = np.int32(0)
    for j in range(before.size):
        change |= v[c, j] ^ before[j]
    return change != 0


@njit(inline="always")
def _toss(x, key, j):
    """sgn(x) if |x| >= rho, else 0."""
    rho = np.int32(hash32(key, j) >> np.uint32(24))
    return np.int32(np.int32(x > 0) - np.int32(x < 0)) if abs(x) >= rho else np.int32(0)


@njit(cache=True)
def _tossed_leak(leak, r, tossed, r_tossed, key, out):
    """Leaks after their coin tosses, where tossed."""
    for j in range(out.size):
        x = np.int32(leak[r, j])
        out[j] = np.int16(_toss(x, key, j) if tossed[r_tossed, j] != 0 else x)


@njit(cache=True)
def _tossed_weights(weights, r, tossed, r_tossed, g, key, out):
    """Weights of axon type g after their coin tosses, where tossed."""
    for j in range(out.size):
        x = np.int32(weights[r, g, j])
        out[j] = np.int16(_toss(x, key, j) if tossed[r_tossed, g, j] != 0 else x)


@njit(cache=True)
def _leak_reversed(v, c, leak, reversal, r, half, mask, least, most):
    """Leak towards or away from 0 where reversal is set, stopping at 0."""
    for j in range(leak.size):
        x, lam = v[c, j], np.int32(leak[j])
        turned = np.int32(x + lam) if x > 0 else (np.int32(x - lam) if x < 0 else np.int32(0))
        turned = np.int32(0) if np.int32(x ^ turned) < 0 else turned
        v[c, j] = _bounded(turned if reversal[r, j] != 0 else np.int32(x + lam), half, mask, least, most)


@njit(cache=True)
def _noise(mask, r, key, eta):
    for j in range(eta.size):
        eta[j] = np.int32(hash32(key, j) & np.uint32(mask[r, j]))


@njit(cache=True)
def _compare_noisy(v, c, alpha, r_alpha, low, r_low, eta, flags):
    for j in range(flags.size):
        below = np.uint8(2) if v[c, j] < np.int32(low[r_low, j] - eta[j]) else np.uint8(0)
        flags[j] = np.uint8(1) if v[c, j] >= np.int32(alpha[r_alpha, j] + eta[j]) else below


@njit(cache=True)
def _gather(pending, slot, first, words, active, half):
    """Take (and clear) the axons that are active now from all planes: indices into active[half], their number returned."""
    n = 0
    for w in range(words):
        bits = np.uint64(0)
        for plane in range(pending.shape[0]):
            bits |= pending[plane, slot, first + w]
        if bits != 0:
            for plane in range(pending.shape[0]):
                pending[plane, slot, first + w] = np.uint64(0)
            while bits != 0:
                active[half, n] = (w << 6) + np.int64(trailing_zeros(bits))
                n += 1
                bits &= bits - np.uint64(1)
    return n


@njit(cache=True, nogil=True)
def advance(begin, end, tick, net, tables, v, pending, asleep, kind, seeds, fired, count):
    """Advance cores begin..end by one tick. Leaves flat indices (core * width + neuron) of spikes in `fired`, returns their number."""
    crossbar, axon_types, rows, _, bounds, sizes = net
    weights, leak, alpha, floor, low, beta, reset, mode, reversal, tossed, tossed_leak, mask = tables
    axons, words = crossbar.shape[1], crossbar.shape[2]
    width, slots = words * 64, pending.shape[1]
    axon_words = (axons + 63) // 64
    half, wrap, least, most = bounds[0], bounds[1], bounds[2], bounds[3]
    burst, real = sizes[0], sizes[1]
    acc, row = np.empty(width, np.int16), np.empty(width, np.int16)
    flags, eta, before = np.empty(width, np.uint8), np.zeros(width, np.int32), np.empty(width, np.int32)
    slot = tick % slots
    active = np.empty((2, axons), np.int64)  # of this core and of the next, whose crossbar rows are fetched meanwhile
    n_later = _gather(pending, slot, begin * axon_words, axon_words, active, begin & 1) if begin < end else 0
    spikes, events = 0, 0
    for c in range(begin, end):
        n, n_now = 0, n_later
        if c + 1 < end:
            n_later = _gather(pending, slot, (c + 1) * axon_words, axon_words, active, (c + 1) & 1)
            for k in range(n_later):
                prefetch(crossbar, ((c + 1) * axons + active[(c + 1) & 1, k]) * words)
                prefetch(axon_types, (c + 1) * axons + active[(c + 1) & 1, k])
        if n_now == 0 and asleep[c]:
            continue
        acc[:] = 0
        general, quiet = kind[c] != PLAIN, n_now == 0
        table, r_tossed = rows[c, WEIGHTS], rows[c, TOSSED]
        for k in range(n_now):
            a = active[c & 1, k]
            g = np.int64(axon_types[c, a])
            bit_row = (c * axons + a) * words
            if n == burst:
                _add(v, c, acc)
                acc[:] = 0
                n = 0
            n += 1
            if general and tossed[r_tossed, g, width] != 0:
                _tossed_weights(weights, table, tossed, r_tossed, g, stream_key(seeds[c], tick, a), row)
                for w in range(words):
                    add_where(acc, w * 64, row, w * 64, crossbar, bit_row + w)
            else:
                start = (table * weights.shape[1] + g) * width
                for w in range(words):
                    add_where(acc, w * 64, weights, start + w * 64, crossbar, bit_row + w)
            for w in range(words):
                events += np.int64(popcount(crossbar[c, a, w]))
        r_leak, r_alpha, r_low = rows[c, LEAKS], rows[c, ALPHA], rows[c, LOW]
        if quiet:
            _copy(v, c, before)
        if general:
            _add(v, c, acc)
            _tossed_leak(leak, r_leak, tossed_leak, rows[c, TOSSED_LEAK], stream_key(seeds[c], tick, LEAK), row)
            _leak_reversed(v, c, row, reversal, rows[c, REVERSAL], half, wrap, least, most)
            _noise(mask, rows[c, MASK], stream_key(seeds[c], tick, THRESHOLD), eta)
            _compare_noisy(v, c, alpha, r_alpha, low, r_low, eta, flags)
        else:
            _add_and_leak(v, c, acc, leak, r_leak, half, wrap, least, most)
            _compare(v, c, alpha, r_alpha, low, r_low, flags)
        _raise_to(v, c, floor, rows[c, FLOOR])
        asleep[c] = quiet and kind[c] != RESTLESS and not _differs(v, c, before)
        count[NEURON_UPDATES] += real
        count[ACTIVE_CORES] += n_now > 0
        for w in range(words):
            crossed = nonzero(flags, w * 64)
            while crossed != 0:
                asleep[c] = False
                j = w * 64 + np.int64(trailing_zeros(crossed))
                crossed &= crossed - np.uint64(1)
                gamma = mode[rows[c, MODE], j]
                eta_j = eta[j] if general else np.int32(0)
                x = v[c, j]
                if flags[j] == 1:
                    fired[spikes] = c * width + j
                    spikes += 1
                    if gamma == 0:
                        x = reset[rows[c, RESET], j]
                    elif gamma == 1:
                        x = np.int32(x - alpha[r_alpha, j] - eta_j)
                elif gamma == 0:
                    x = np.int32(-reset[rows[c, RESET], j])
                elif gamma == 1:
                    x = np.int32(x + beta[rows[c, BETA], j] + eta_j)
                v[c, j] = _bounded(x, half, wrap, least, most)
    count[SPIKES] += spikes
    count[SYNAPTIC_EVENTS] += events
    return spikes


@njit(cache=True, nogil=True)
def deliver(fired, spikes, targets, slot, pending, count):
    """Send the spikes of `fired` on their way: set their bit in this thread's plane, count packets and hops."""
    slots = pending.shape[0]
    words = pending.shape[1]
    packets, hops, crossings, lost = 0, 0, 0, 0
    for k in range(spikes):
        if k + 2 * AHEAD < spikes:
            prefetch(targets, np.int64(fired[k + 2 * AHEAD]))
        if k + AHEAD < spikes:
            soon = targets[fired[k + AHEAD]]
            if soon >= 0:
                at = slot + ((soon >> DELAY_AT) & 255)
                prefetch(pending, (at - slots if at >= slots else at) * words + (soon >> WORD_AT))
        target = targets[fired[k]]
        if target >= 0:
            at = slot + ((target >> DELAY_AT) & 255)
            pending[at - slots if at >= slots else at, target >> WORD_AT] |= np.uint64(1) << np.uint64(target & 63)
            packets += 1
            hops += (target >> HOPS_AT) & 4095
            crossings += (target >> CROSSINGS_AT) & 63
        elif target == OFF_GRID:
            lost += 1
    count[PACKETS] += packets
    count[HOPS] += hops
    count[CROSSINGS] += crossings
    count[LOST] += lost


@njit(cache=True)
def _grown(buffer, needed):
    """The buffer, or a copy at least twice as long that holds `needed` entries."""
    if needed <= buffer.size:
        return buffer
    longer = np.empty(max(needed, 2 * buffer.size), buffer.dtype)
    longer[: buffer.size] = buffer
    return longer


@njit(cache=True, parallel=True)
def run_ticks(begin_tick, ticks, net, tables, v, pending, kind, seeds, input_ends, input_bits, record):
    """Run `ticks` ticks; v (cores, width) and pending (planes, slots, words) are changed in place.

    input_bits: word << 6 | bit of every incoming spike, sorted by tick; input_ends: (ticks,) how many up to each tick.
    Returns counts (ticks, COLUMNS), lines and spikes with their ends per tick (ascending within a tick).
    """
    planes, slots, all_words = pending.shape
    cores, axons = net[0].shape[0], net[0].shape[1]
    core_words = cores * ((axons + 63) // 64)
    asleep = np.zeros(cores, np.bool_)
    each = (cores + planes - 1) // planes
    targets = net[3].ravel()
    fired = np.empty((planes, each * v.shape[1]), np.int32)
    number = np.zeros((planes, 8), np.int64)
    counts = np.zeros((ticks, COLUMNS), np.int64)
    partial = np.zeros((planes, 2 * COLUMNS), np.int64)  # padded: no two threads on one cache line
    lines, line_ends = np.empty(64, np.int32), np.zeros(ticks, np.int64)
    spikes, spike_ends = np.empty(64, np.int32), np.zeros(ticks, np.int64)
    taken, n_lines, n_spikes = 0, 0, 0
    for t in range(ticks):
        tick = begin_tick + t
        slot = tick % slots
        while taken < input_ends[t]:
            bit = input_bits[taken]
            pending[0, slot, bit >> 6] |= np.uint64(1) << np.uint64(bit & 63)
            taken += 1
        if planes == 1:  # a parallel region costs more than a small network's tick
            number[0, 0] = advance(0, cores, tick, net, tables, v, pending, asleep, kind, seeds, fired[0], partial[0])
            deliver(fired[0], number[0, 0], targets, slot, pending[0], partial[0])
        else:
            for plane in prange(planes):
                first, last = min(cores, plane * each), min(cores, (plane + 1) * each)
                number[plane, 0] = advance(
                    first, last, tick, net, tables, v, pending, asleep, kind, seeds, fired[plane], partial[plane]
                )
                deliver(fired[plane], number[plane, 0], targets, slot, pending[plane], partial[plane])
        for plane in range(planes):
            for k in range(COLUMNS):
                counts[t, k] += partial[plane, k]
                partial[plane, k] = 0
            if record:
                spikes = _grown(spikes, n_spikes + number[plane, 0])
                for k in range(number[plane, 0]):
                    spikes[n_spikes] = fired[plane, k]
                    n_spikes += 1
        for w in range(core_words, all_words):
            bits = np.uint64(0)
            for plane in range(planes):
                bits |= pending[plane, slot, w]
                pending[plane, slot, w] = np.uint64(0)
            while bits != 0:
                lines = _grown(lines, n_lines + 1)
                lines[n_lines] = ((w - core_words) << 6) + np.int64(trailing_zeros(bits))
                n_lines += 1
                bits &= bits - np.uint64(1)
        line_ends[t] = n_lines
        spike_ends[t] = n_spikes
    return counts, lines[:n_lines], line_ends, spikes[:n_spikes], spike_ends
