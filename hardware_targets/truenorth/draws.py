"""Random numbers of the stochastic modes. IBM's generator (polynomial, draw order) is unpublished: this one is ours.

Counter based: each draw is a hash of (seed of the core, tick, stream, neuron), so it does not depend on the order of
evaluation,
on the number of threads or on what else is drawn, and a checkpoint needs no generator state. Streams: axon index for
synapses,
then LEAK and THRESHOLD behind all axons. The key is splitmix64 (Steele et al. 2014), the per-neuron step the 32-bit
finaliser
"lowbias32" (Wellons 2018). Bits 24..31 are the 8-bit rho of synapse and leak; the low bits, masked, are eta.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

LEAK, THRESHOLD = 1 << 20, (1 << 20) + 1


@numba.njit(inline="always")
def splitmix64(x):
    """64-bit finaliser: uint64 -> uint64."""
    x = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@numba.njit(inline="always")
def stream_key(seed, tick, stream):
    """The 32-bit key that all neurons of one core share in one stream of one tick."""
    return np.uint32(splitmix64(splitmix64(np.uint64(seed) ^ splitmix64(np.uint64(tick))) ^ np.uint64(stream)))


@numba.njit(inline="always")
def hash32(key, neuron):
    """Uniform 32 bits for one neuron under a stream key."""
    x = np.uint32(key + np.uint32(np.uint32(neuron) * np.uint32(0x9E3779B9)))
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(x ^ np.uint32(x >> np.uint32(16)))


@numba.njit(cache=True)
def _draws(seed, tick, stream, neurons):
    key = stream_key(seed, tick, stream)
    out = np.empty(neurons, np.uint32)
    for j in range(neurons):
        out[j] = hash32(key, j)
    return out


def draw(seed: int, tick: int, stream: int, neurons: int) -> NDArray[np.uint32]:
    """The draws of one stream: (neurons,) uint32. Any value can be recomputed at any time from its indices."""
    return np.asarray(_draws(np.uint64(seed), tick, stream, neurons))
