"""What one core does in one tick, compiled: `neuron` restated for 64 neurons at a time, in vector registers.

A mask of 64 neurons is one uint64. A table comes with the row to use: a view of the row would count references,
atomically, at every core. Tables of values are (rows, width), tables of bits (rows, words), words = width / 64.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .draws import LEAK, THRESHOLD, eta64, rho64, stream_key
from .vector import (
    at_least,
    below,
    choose,
    load16,
    load32,
    maximum,
    minimum,
    popcount,
    spread,
    store,
    trailing_zeros,
    unequal,
    wide,
)

# which row of each table a core uses
WEIGHTS, LEAKS, ALPHA, FLOOR, LOW, JUMP, FALL, KEPT, LINEAR, REVERSAL, TOSSED, TOSSED_LEAK, MASK = range(13)
# sizes of a core in `sizes`: words per axon (width / 64), axon types, axons, neurons, axons whose sum fits 16 bits, and
# whether a reset can leave the register
WORDS, KINDS, AXONS, NEURONS, BURST, WILD = range(6)
AT_ONCE = 4  # set bits that are taken without asking how many there are


@njit(inline="always")
def put_indices(out, n, bits, first):
    """out[n:] = first + index of every set bit, ascending; returns the new n.

    The first four are written whether they exist or not: a branch that follows random bits costs more than they do.
    """
    rest = bits
    for k in range(AT_ONCE):
        out[n + k] = first + np.int64(trailing_zeros(rest))
        rest &= rest - np.uint64(1)
    k = n + AT_ONCE
    while rest != 0:
        out[k] = first + np.int64(trailing_zeros(rest))
        rest &= rest - np.uint64(1)
        k += 1
    return n + np.int64(popcount(bits))


@njit(inline="always")
def coin(x, rho):
    """sgn(x) if |x| >= rho, else 0, in lanes of 16 bits."""
    zero = x - x
    sign = choose(below(zero, x), zero + np.int16(1), choose(below(x, zero), zero - np.int16(1), zero))
    return choose(at_least(maximum(x, zero - x), rho), sign, zero)


@njit(inline="always")
def weighted(crossbar, word, weights, at):
    """Weights of one axon's type to 64 neurons, 0 where the crossbar is open."""
    return choose(crossbar[word], load16(weights, at), spread(np.int16(0)))


@njit(cache=True, forceinline=True)
def sum_inputs(first_axon, active, begin, end, sizes, axon_types, crossbar, weights, row, acc):
    """acc = sum over the axons active[begin:end] of their weights to every neuron, in 16 bits.   weights: (rows, G,
    width)."""
    words, kinds, zero = sizes[WORDS], sizes[KINDS], spread(np.int16(0))
    w = 0
    while w + 4 <= words:  # 256 neurons: all sums stay in registers
        s0, s1, s2, s3 = zero, zero, zero, zero
        for k in range(begin, end):
            a = first_axon + active[k]
            word, at = a * words + w, ((row * kinds + np.int64(axon_types[a])) * words + w) * 64
            s0 += weighted(crossbar, word, weights, at)
            s1 += weighted(crossbar, word + 1, weights, at + 64)
            s2 += weighted(crossbar, word + 2, weights, at + 128)
            s3 += weighted(crossbar, word + 3, weights, at + 192)
        store(acc, w * 64, s0)
        store(acc, w * 64 + 64, s1)
        store(acc, w * 64 + 128, s2)
        store(acc, w * 64 + 192, s3)
        w += 4
    while w < words:
        s0 = zero
        for k in range(begin, end):
            a = first_axon + active[k]
            at = ((row * kinds + np.int64(axon_types[a])) * words + w) * 64
            s0 += weighted(crossbar, a * words + w, weights, at)
        store(acc, w * 64, s0)
        w += 1


@njit(cache=True, forceinline=True)
def sum_tossed_inputs(
    first_axon, active, begin, end, sizes, axon_types, crossbar, weights, row, tossed, row_tossed, key, acc
):
    """`sum_inputs` where weights may be coin tosses.   tossed: (rows, G, words) bits; key: `tick_key`."""
    words, kinds = sizes[WORDS], sizes[KINDS]
    acc[:] = 0
    for k in range(begin, end):
        axon = active[k]
        a, stream = first_axon + axon, stream_key(key, axon)
        g = np.int64(axon_types[a])
        for w in range(words):
            weight = load16(weights, ((row * kinds + g) * words + w) * 64)
            toss = tossed[(row_tossed * kinds + g) * words + w]
            if toss != 0:
                weight = choose(toss, coin(weight, rho64(stream, w)), weight)
            weight = choose(crossbar[a * words + w], weight, spread(np.int16(0)))
            store(acc, w * 64, load16(acc, w * 64) + weight)


@njit(cache=True, forceinline=True)
def count_synapses(first_axon, active, begin, end, words, crossbar):
    """Closed synapses of the axons active[begin:end]."""
    count = np.uint64(0)
    for k in range(begin, end):
        for word in range((first_axon + active[k]) * words, (first_axon + active[k] + 1) * words):
            count += popcount(crossbar[word])
    return np.int64(count)


@njit(cache=True)
def add_sums(v, first, acc):
    """Take the sums over to the potentials, before they outgrow 16 bits."""
    for at in range(0, acc.size, 64):
        store(v, first + at, load32(v, first + at) + wide(load16(acc, at)))


@njit(inline="always")
def bounded(x, register):
    """Two's complement wrap, then clip; a register that does only one of the two makes the other a no-op."""
    half, mask, least, most = register
    if half != 0:
        x = ((x + half) & mask) - half
    return minimum(maximum(x, least), most)


@njit(inline="always")
def fired(x, alpha, low, floor, kept, jump, fall):
    """Threshold and reset: which neurons spike, and all potentials afterwards (outside the register, perhaps).

    jump, fall: what a neuron that spikes, or falls below low, adds to the potential that it has kept, if any.
    """
    up = at_least(x, alpha)
    down = below(x, low) & ~up
    x = maximum(x, floor)
    y = choose(up, choose(kept, x, x - x) + jump, x)
    if down != 0:
        y = choose(down, choose(kept, x, x - x) + fall, y)
    return up, y


@njit(cache=True, forceinline=True)
def settle(c, sizes, rows, tables, register, acc, v, spikes, n):
    """Leak, threshold and reset of one core; spikes are put behind spikes[:n].

    Returns the new n, and whether anything changed.
    """
    _, leak, alpha, floor, low, jump, fall, kept, _, _, _, _, _ = tables
    words, width = sizes[WORDS], sizes[WORDS] * 64
    r_leak, r_alpha, r_floor, r_low = rows[c, LEAKS], rows[c, ALPHA], rows[c, FLOOR], rows[c, LOW]
    r_jump, r_fall, r_kept = rows[c, JUMP], rows[c, FALL], rows[c, KEPT]
    changed = np.uint64(0)
    for w in range(words):
        at = w * 64
        before = load32(v, c * width + at)
        x = before + wide(load16(acc, at)) + load32(leak, r_leak * width + at)
        x = bounded(x, register)
        up, x = fired(
            x,
            load32(alpha, r_alpha * width + at),
            load32(low, r_low * width + at),
            load32(floor, r_floor * width + at),
            kept[r_kept * words + w],
            load32(jump, r_jump * width + at),
            load32(fall, r_fall * width + at),
        )
        if sizes[WILD]:
            x = bounded(x, register)
        store(v, c * width + at, x)
        changed |= unequal(x, before) | up
        n = put_indices(spikes, n, up, c * width + at)
    return n, changed != 0


@njit(cache=True, forceinline=True)
def settle_general(c, sizes, rows, tables, register, acc, v, spikes, n, key, restless):
    """`settle` with leak reversal and, if `restless`, coin tosses of the leak and noise on the thresholds."""
    _, leak, alpha, floor, low, jump, fall, kept, linear, reversal, _, tossed_leak, mask = tables
    words, width = sizes[WORDS], sizes[WORDS] * 64
    leak_key, noise_key = stream_key(key, LEAK), stream_key(key, THRESHOLD)
    changed = np.uint64(0)
    for w in range(words):
        at = w * 64
        before = load32(v, c * width + at)
        x = before + wide(load16(acc, at))
        zero = x - x
        lam, eta = load16(leak, rows[c, LEAKS] * width + at), zero
        if restless:
            lam = choose(tossed_leak[rows[c, TOSSED_LEAK] * words + w], coin(lam, rho64(leak_key, w)), lam)
            eta = eta64(noise_key, w) & load32(mask, rows[c, MASK] * width + at)
        x = bounded(leaked(x, wide(lam), reversal[rows[c, REVERSAL] * words + w]), register)
        subtracted = choose(linear[rows[c, LINEAR] * words + w], eta, zero)
        up, x = fired(
            x,
            load32(alpha, rows[c, ALPHA] * width + at) + eta,
            load32(low, rows[c, LOW] * width + at) - eta,
            load32(floor, rows[c, FLOOR] * width + at),
            kept[rows[c, KEPT] * words + w],
            load32(jump, rows[c, JUMP] * width + at) - subtracted,
            load32(fall, rows[c, FALL] * width + at) + subtracted,
        )
        x = bounded(x, register)
        store(v, c * width + at, x)
        changed |= unequal(x, before) | up
        n = put_indices(spikes, n, up, c * width + at)
    return n, changed != 0


@njit(inline="always")
def leaked(x, lam, reversal):
    """x + lam; where reversal is set, towards or away from 0, stopping at 0."""
    zero = x - x
    turned = choose(below(zero, x), x + lam, choose(below(x, zero), x - lam, zero))
    turned = choose(below(x ^ turned, zero), zero, turned)
    return choose(reversal, turned, x + lam)
