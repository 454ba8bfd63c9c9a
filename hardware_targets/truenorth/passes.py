"""Vector passes over all neurons of one core: each line of `neuron`, compiled, one loop each.

A table comes with the row to use: a view of the row would count references, atomically, at every core. LLVM vectorises
a loop only while it can tell its arrays apart with few run-time checks: hence several short loops.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .draws import hash32


@njit(inline="always")
def bounded(x, half, mask, least, most):
    """Two's complement wrap, then clip; a register that does only one of the two makes the other a no-op."""
    x = np.int32(np.int32(np.int32(x + half) & mask) - half)
    return min(max(x, least), most)


@njit(cache=True)
def add(v, c, acc):
    for j in range(acc.size):
        v[c, j] += acc[j]


@njit(cache=True)
def add_and_leak(v, c, acc, leak, r, half, mask, least, most):
    for j in range(acc.size):
        v[c, j] = bounded(np.int32(v[c, j] + acc[j] + leak[r, j]), half, mask, least, most)


@njit(cache=True)
def compare(v, c, alpha, r_alpha, low, r_low, floor, r_floor, flags):
    """flags: 1 at or above alpha, else 2 below low, else 0; then v rises to its floor."""
    for j in range(flags.size):
        x = v[c, j]
        below = np.uint8(2) if x < low[r_low, j] else np.uint8(0)
        flags[j] = np.uint8(1) if x >= alpha[r_alpha, j] else below
        v[c, j] = max(x, floor[r_floor, j])


@njit(cache=True)
def raise_to(v, c, floor, r):
    for j in range(v.shape[1]):
        v[c, j] = max(v[c, j], floor[r, j])


@njit(cache=True)
def copy(v, c, before):
    for j in range(before.size):
        before[j] = v[c, j]


@njit(cache=True)
def differs(v, c, before):
    change = np.int32(0)
    for j in range(before.size):
        change |= v[c, j] ^ before[j]
    return change != 0


@njit(inline="always")
def coin(x, key, j):
    """sgn(x) if |x| >= rho, else 0."""
    rho = np.int32(hash32(key, j) >> np.uint32(24))
    return np.int32(np.int32(x > 0) - np.int32(x < 0)) if abs(x) >= rho else np.int32(0)


@njit(cache=True)
def toss_leak(leak, r, tossed, r_tossed, key, out):
    """Leaks after their coin tosses, where tossed."""
    for j in range(out.size):
        x = np.int32(leak[r, j])
        out[j] = np.int16(coin(x, key, j) if tossed[r_tossed, j] != 0 else x)


@njit(cache=True)
def toss_weights(weights, r, tossed, r_tossed, g, key, out):
    """Weights of axon type g after their coin tosses, where tossed."""
    for j in range(out.size):
        x = np.int32(weights[r, g, j])
        out[j] = np.int16(coin(x, key, j) if tossed[r_tossed, g, j] != 0 else x)


@njit(cache=True)
def leak_reversed(v, c, leak, reversal, r, half, mask, least, most):
    """Leak towards or away from 0 where reversal is set, stopping at 0."""
    for j in range(leak.size):
        x, lam = v[c, j], np.int32(leak[j])
        turned = np.int32(x + lam) if x > 0 else (np.int32(x - lam) if x < 0 else np.int32(0))
        turned = np.int32(0) if np.int32(x ^ turned) < 0 else turned
        v[c, j] = bounded(turned if reversal[r, j] != 0 else np.int32(x + lam), half, mask, least, most)


@njit(cache=True)
def noise(mask, r, key, eta):
    for j in range(eta.size):
        eta[j] = np.int32(hash32(key, j) & np.uint32(mask[r, j]))


@njit(cache=True)
def compare_noisy(v, c, alpha, r_alpha, low, r_low, eta, flags):
    for j in range(flags.size):
        below = np.uint8(2) if v[c, j] < np.int32(low[r_low, j] - eta[j]) else np.uint8(0)
        flags[j] = np.uint8(1) if v[c, j] >= np.int32(alpha[r_alpha, j] + eta[j]) else below
