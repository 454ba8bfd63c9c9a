"""One tick of a whole network, compiled. Restates `neuron` for speed; the tests hold the two equal, spike for spike.

Cost follows events: a core walks the axons that are active, adds one masked row of weights per axon to all its neurons
at once (64 neurons share one word of the crossbar), then settles all neurons in a few vector passes; only neurons that
cross a threshold are visited one by one. A core without input whose last such tick changed nothing sleeps until a spike
arrives. Threads (`lane` 0, 1, ...) own contiguous ranges of cores and write outgoing spikes to a plane of their own;
planes are OR-ed when a tick reads them, so results depend neither on the number of threads nor on their timing.
"""

from __future__ import annotations

import os

import numpy as np
from numba import njit, types

from .draws import LEAK, THRESHOLD, stream_key
from .passes import (
    add,
    add_and_leak,
    bounded,
    compare,
    compare_noisy,
    copy,
    differs,
    leak_reversed,
    noise,
    raise_to,
    toss_leak,
    toss_weights,
)
from .vector import add_where, atomic_add, nonzero, popcount, prefetch, trailing_zeros

# columns of `rows`: which row of each deduplicated table a core uses
WEIGHTS, LEAKS, ALPHA, FLOOR, LOW, BETA, RESET, MODE, REVERSAL, TOSSED, TOSSED_LEAK, MASK = range(12)
# core kinds
PLAIN, GENERAL, RESTLESS = 0, 1, 3
# columns of counts
SPIKES, SYNAPTIC_EVENTS, NEURON_UPDATES, ACTIVE_CORES, PACKETS, HOPS, CROSSINGS, LOST = range(8)
COLUMNS = 8
HAS_YIELD = os.name == "posix"
_sched_yield = types.ExternalFunction("sched_yield", types.int32())
# fields of a packed target
DELAY_AT, HOPS_AT, CROSSINGS_AT, WORD_AT = 6, 14, 26, 32
NOWHERE, OFF_GRID = -1, -2
FETCH = 2  # cores whose active axons are known, and their crossbar rows on the way, at any moment
AHEAD = 12  # spikes between asking for a cache line and using it


@njit(cache=True)
def _gather(pending, slot, first, words, active, place):
    """Take (and clear) the axons that are active now, from all planes, into active[place]; returns their number."""
    n = 0
    for w in range(words):
        bits = np.uint64(0)
        for plane in range(pending.shape[0]):
            bits |= pending[plane, slot, first + w]
        if bits != 0:
            for plane in range(pending.shape[0]):
                pending[plane, slot, first + w] = np.uint64(0)
            while bits != 0:
                active[place, n] = (w << 6) + np.int64(trailing_zeros(bits))
                n += 1
                bits &= bits - np.uint64(1)
    return n


@njit(cache=True, nogil=True)
def advance(begin, end, tick, net, tables, v, pending, asleep, kind, seeds, fired, count):
    """Advance cores begin..end by one tick. Leaves flat indices (core * width + neuron) of spikes in `fired`, returns
    their number.
    """
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
    active, number = np.empty((FETCH, axons), np.int64), np.zeros(FETCH, np.int64)  # of this core and of the next ones
    spikes, events = 0, np.int64(0)
    for ahead in range(begin, end + FETCH - 1):
        if ahead < end:
            place = ahead % FETCH
            number[place] = _gather(pending, slot, ahead * axon_words, axon_words, active, place)
            for k in range(number[place]):
                prefetch(crossbar, (ahead * axons + active[place, k]) * words)
                prefetch(axon_types, ahead * axons + active[place, k])
        c = ahead - FETCH + 1
        if c < begin:
            continue
        n, n_now = 0, number[c % FETCH]
        if n_now == 0 and asleep[c]:
            continue
        acc[:] = 0
        general, quiet = kind[c] != PLAIN, n_now == 0
        table, r_tossed = rows[c, WEIGHTS], rows[c, TOSSED]
        for k in range(n_now):
            a = active[c % FETCH, k]
            g = np.int64(axon_types[c, a])
            bit_row = (c * axons + a) * words
            if n == burst:
                add(v, c, acc)
                acc[:] = 0
                n = 0
            n += 1
            if general and tossed[r_tossed, g, width] != 0:
                toss_weights(weights, table, tossed, r_tossed, g, stream_key(seeds[c], tick, a), row)
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
            copy(v, c, before)
        if general:
            add(v, c, acc)
            toss_leak(leak, r_leak, tossed_leak, rows[c, TOSSED_LEAK], stream_key(seeds[c], tick, LEAK), row)
            leak_reversed(v, c, row, reversal, rows[c, REVERSAL], half, wrap, least, most)
            noise(mask, rows[c, MASK], stream_key(seeds[c], tick, THRESHOLD), eta)
            compare_noisy(v, c, alpha, r_alpha, low, r_low, eta, flags)
            raise_to(v, c, floor, rows[c, FLOOR])
        else:
            add_and_leak(v, c, acc, leak, r_leak, half, wrap, least, most)
            compare(v, c, alpha, r_alpha, low, r_low, floor, rows[c, FLOOR], flags)
        asleep[c] = quiet and kind[c] != RESTLESS and not differs(v, c, before)
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
                v[c, j] = bounded(x, half, wrap, least, most)
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


@njit(cache=True, nogil=True)
def _give_way():
    """Offer the processor to another thread, where the system has a call for it."""
    if HAS_YIELD:
        _sched_yield()


SPINS = 4000  # about 10 us of waiting before the processor is offered to somebody else


@njit(cache=True, nogil=True)
def _meet(barrier, lanes):
    """Wait until all lanes are here.   barrier: int64, [0] counts arrivals, [8] meetings (a cache line apart)."""
    meeting: int = atomic_add(barrier, 8, 0)
    if atomic_add(barrier, 0, 1) == lanes - 1:
        atomic_add(barrier, 0, -lanes)
        atomic_add(barrier, 8, 1)
        return
    spins = 0
    while atomic_add(barrier, 8, 0) == meeting:
        spins += 1
        if spins > SPINS:
            _give_way()


@njit(cache=True, nogil=True)
def run_lane(
    lane,
    barrier,
    begin_tick,
    ticks,
    net,
    tables,
    v,
    pending,
    asleep,
    kind,
    seeds,
    input_ends,
    input_bits,
    record,
    fired,
    number,
    partial,
):
    """One thread's part of `ticks` ticks; v (cores, width) and pending (lanes, slots, words) are changed in place.

    input_bits: word << 6 | bit of every incoming spike, sorted by tick; input_ends: (ticks,) how many up to each tick.
    fired: (lanes, cores * width), number: (lanes, 8), partial: (lanes, 16) are scratch.
    Lane 0 returns counts (ticks, COLUMNS), lines and spikes with their ends per tick (ascending within a tick).
    """
    lanes, slots, all_words = pending.shape
    cores, axons = net[0].shape[0], net[0].shape[1]
    core_words = cores * ((axons + 63) // 64)
    targets = net[3].ravel()
    each = (cores + lanes - 1) // lanes
    first, last = min(cores, lane * each), min(cores, (lane + 1) * each)
    counts = np.zeros((ticks, COLUMNS), np.int64)
    lines, line_ends = np.empty(64, np.int32), np.zeros(ticks, np.int64)
    spikes, spike_ends = np.empty(64, np.int32), np.zeros(ticks, np.int64)
    taken, n_lines, n_spikes = 0, 0, 0
    for t in range(ticks):
        tick = begin_tick + t
        slot = tick % slots
        if lane == 0:
            while taken < input_ends[t]:
                bit = input_bits[taken]
                pending[0, slot, bit >> 6] |= np.uint64(1) << np.uint64(bit & 63)
                taken += 1
        if lanes > 1:
            _meet(barrier, lanes)
        number[lane, 0] = advance(
            first, last, tick, net, tables, v, pending, asleep, kind, seeds, fired[lane], partial[lane]
        )
        deliver(fired[lane], number[lane, 0], targets, slot, pending[lane], partial[lane])
        if lanes > 1:
            _meet(barrier, lanes)
        if lane > 0:
            continue
        for other in range(lanes):
            for k in range(COLUMNS):
                counts[t, k] += partial[other, k]
                partial[other, k] = 0
            if record:
                spikes = _grown(spikes, n_spikes + number[other, 0])
                for k in range(number[other, 0]):
                    spikes[n_spikes] = fired[other, k]
                    n_spikes += 1
        for w in range(core_words, all_words):
            bits = np.uint64(0)
            for other in range(lanes):
                bits |= pending[other, slot, w]
                pending[other, slot, w] = np.uint64(0)
            while bits != 0:
                lines = _grown(lines, n_lines + 1)
                lines[n_lines] = ((w - core_words) << 6) + np.int64(trailing_zeros(bits))
                n_lines += 1
                bits &= bits - np.uint64(1)
        line_ends[t] = n_lines
        spike_ends[t] = n_spikes
    return counts, lines[:n_lines], line_ends, spikes[:n_spikes], spike_ends
