"""One tick of a whole network, compiled. Restates `neuron` for speed; the tests hold the two equal, spike for spike.

Cost follows events: a core walks the axons that are active, adds one masked row of weights per axon to all its neurons
at once (64 neurons share one word of the crossbar), then settles them in one vector pass. What the next cores will need
is asked for ahead: waiting for memory costs more than everything else. A core without input whose last such tick
changed nothing sleeps until a spike arrives. Threads (`lane` 0, 1, ...) own contiguous ranges of cores and write
outgoing spikes to a plane of their own; planes are OR-ed when a tick reads them, so results depend neither on the
number of threads nor on their timing.
"""

from __future__ import annotations

import os

import numpy as np
from numba import njit, types

from . import passes
from .draws import tick_key
from .passes import AXONS, BURST, NEURONS, TOSSED, WEIGHTS, WORDS
from .vector import atomic_add, prefetch, prefetch_to_write, trailing_zeros

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
FETCH = 8  # cores whose active axons are known, and their crossbar rows on the way, at any moment
AHEAD = 12  # spikes between asking for a cache line and using it


@njit(cache=True, forceinline=True)
def _gather(pending, slot, first, words, active, n):
    """Take (and clear) the axons of one core that are active now, from all planes, into active[n:]; returns its end."""
    for w in range(words):
        bits = np.uint64(0)
        for plane in range(pending.shape[0]):
            bits |= pending[plane, slot, first + w]
            pending[plane, slot, first + w] = np.uint64(0)
        n = passes.put_indices(active, n, bits, w << 6)
    return n


@njit(cache=True, nogil=True)
def advance(begin, end, tick, net, tables, v, pending, asleep, kind, seeds, fired, count):
    """Advance cores begin..end by one tick. Leaves flat indices (core * width + neuron) of spikes in `fired`, returns
    their number.
    """
    crossbar, axon_types, rows, _, bounds, sizes = net
    weights, tossed = tables[0], tables[10]
    words, axons, burst = sizes[WORDS], sizes[AXONS], sizes[BURST]
    width, axon_words, slot = words * 64, (axons + 63) // 64, tick % pending.shape[1]
    register = (bounds[0], bounds[1], bounds[2], bounds[3])
    acc = np.zeros(width, np.int16)
    room = axons + 64
    active, ends = np.empty(FETCH * room, np.int64), np.zeros(FETCH, np.int64)  # of this core and the next ones
    spikes, events = 0, np.int64(0)
    for ahead in range(begin, end + FETCH - 1):
        if ahead < end:
            first = ahead % FETCH * room
            stop = _gather(pending, slot, ahead * axon_words, axon_words, active, first)
            ends[ahead % FETCH] = stop
            for k in range(first, stop):
                prefetch(crossbar, (ahead * axons + active[k]) * words)
                prefetch(axon_types, ahead * axons + active[k])
        c = ahead - FETCH + 1
        if c < begin:
            continue
        done, last = c % FETCH * room, ends[c % FETCH]
        quiet = done == last
        if quiet and asleep[c]:
            continue
        events += passes.count_synapses(c * axons, active, done, last, words, crossbar)
        key = tick_key(seeds[c], tick) if kind[c] != PLAIN else np.uint64(0)
        while True:
            some = min(last, done + burst)
            if kind[c] != PLAIN:
                passes.sum_tossed_inputs(
                    c * axons, active, done, some, sizes, axon_types, crossbar, weights, rows[c, WEIGHTS], tossed,
                    rows[c, TOSSED], key, acc,
                )  # fmt: skip
            else:
                passes.sum_inputs(
                    c * axons, active, done, some, sizes, axon_types, crossbar, weights, rows[c, WEIGHTS], acc
                )
            done = some
            if done == last:
                break
            passes.add_sums(v, c * width, acc)
        if kind[c] == PLAIN:
            spikes, changed = passes.settle(c, sizes, rows, tables, register, acc, v, fired, spikes)
        else:
            spikes, changed = passes.settle_general(
                c, sizes, rows, tables, register, acc, v, fired, spikes, key, kind[c] == RESTLESS
            )
        asleep[c] = quiet and not changed and kind[c] != RESTLESS
        count[NEURON_UPDATES] += sizes[NEURONS]
        count[ACTIVE_CORES] += not quiet
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
                prefetch_to_write(pending, (at - slots if at >= slots else at) * words + (soon >> WORD_AT))
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
    fired: (lanes, at least the neurons of a lane + 64), number: (lanes, 8), partial: (lanes, 16) are scratch.
    Lane 0 returns counts (ticks, COLUMNS), lines and spikes with their ends per tick (ascending within a tick).
    """
    lanes, slots, all_words = pending.shape
    cores, targets = net[2].shape[0], net[3]
    core_words = cores * ((net[5][AXONS] + 63) // 64)
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
