"""Random numbers of the stochastic modes. IBM's generator (polynomial, draw order) is unpublished: this one is ours.

Counter based: each draw is a hash of (seed of the core, tick, stream, neuron), so it does not depend on the order of
evaluation, on the number of threads or on what else is drawn, and a checkpoint needs no generator state. Streams: axon
index for synapses, then LEAK and THRESHOLD behind all axons. The key is splitmix64 (Steele et al. 2014), the step below
it the 32-bit finaliser "lowbias32" (Wellons 2018). rho of synapse and leak has 8 bits: neuron j takes byte j % 4 of
hash j // 4. eta is masked from the low bits of hash j.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from .vector import bytes_of, ramp16, ramp64, store

LEAK, THRESHOLD = 1 << 20, (1 << 20) + 1


@numba.njit(inline="always")
def splitmix64(x):
    """64-bit finaliser: uint64 -> uint64."""
    x = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@numba.njit(inline="always")
def tick_key(seed, tick):
    """The 64-bit key of one core in one tick."""
    return splitmix64(np.uint64(seed) ^ splitmix64(np.uint64(tick)))


@numba.njit(inline="always")
def stream_key(key, stream):
    """The 32-bit key that all neurons of one core share in one stream of one tick.   key: `tick_key`."""
    return np.uint32(splitmix64(key ^ np.uint64(stream)))


@numba.njit(inline="always")
def hashed(key, index):
    """Uniform 32 bits in each lane.   index: lanes of 32 bits."""
    x = index * np.uint32(0x9E3779B9) + key
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


@numba.njit(inline="always")
def rho64(key, w):
    """rho (0..255) of neurons 64 w to 64 w + 63, in lanes of 16 bits."""
    return bytes_of(hashed(key, ramp16(np.uint32(16 * w))))


@numba.njit(inline="always")
def eta64(key, w):
    """The bits of eta, before the mask, of neurons 64 w to 64 w + 63, in lanes of 32 bits."""
    return hashed(key, ramp64(np.uint32(64 * w)))


@numba.njit(cache=True)
def _draws(seed, tick, stream, words):
    key = stream_key(tick_key(seed, tick), stream)
    rho, eta = np.empty(64 * words, np.uint16), np.empty(64 * words, np.uint32)
    for w in range(words):
        store(rho, 64 * w, rho64(key, w))
        store(eta, 64 * w, eta64(key, w))
    return rho, eta


def draw_rho(seed: int, tick: int, stream: int, neurons: int) -> NDArray[np.uint16]:
    """rho of one stream: (neurons,) in 0..255. Any value can be recomputed at any time from its indices."""
    return np.asarray(_draws(np.uint64(seed), tick, stream, -(-neurons // 64))[0][:neurons])


def draw_eta(seed: int, tick: int, stream: int, neurons: int) -> NDArray[np.uint32]:
    """The bits of eta of one stream, before the mask: (neurons,) uint32."""
    return np.asarray(_draws(np.uint64(seed), tick, stream, -(-neurons // 64))[1][:neurons])
