"""The TrueNorth neuron, written once as array equations; `kernels` restates it for speed and is tested equal to it.

Source: Cassidy et al., "Cognitive computing building block", IJCNN 2013, eqs. 1-8 (form recalled, each term
corroborated in the
open sources of NeMo and pytruenorth). Symbols: v potential, s synaptic weight, lambda leak, alpha and beta positive
and negative
threshold, kappa floor, gamma reset mode, epsilon leak reversal, rho random number, eta = rho & M threshold noise.
All arrays are integers and broadcast against each other; potentials are in weight units.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

RESET_TO_VALUE, RESET_SUBTRACT, RESET_NONE = 0, 1, 2


class Fired(NamedTuple):
    """What the threshold stage leaves behind: spikes (bool) and the potential after its reset."""

    spikes: Booleans
    v: Integers


def drawn(value: ArrayLike, stochastic: ArrayLike, rho: ArrayLike) -> Integers:
    """(1 - b) x + b F(x, rho) sgn(x) with F = 1 if |x| >= rho: a weight or leak, or its coin toss of mean about x /
    256.
    """
    x = np.asarray(value, dtype=np.int64)
    toss = (np.abs(x) >= np.asarray(rho)) * np.sign(x)
    return np.where(stochastic, toss, x)


def integrate(v: ArrayLike, active: ArrayLike, weights: ArrayLike) -> Integers:
    """v + sum_i A_i w_ij s_ij over axons i.   active: (axons,); weights: (axons, neurons), zero where the crossbar is
    open.
    """
    return np.asarray(v, dtype=np.int64) + np.asarray(active, dtype=np.int64) @ np.asarray(weights, dtype=np.int64)


def leak(v: ArrayLike, lam: ArrayLike, reversal: ArrayLike) -> Integers:
    """v + Omega lambda, Omega = (1 - epsilon) + epsilon sgn(v); with epsilon = 1 a leak that changes the sign of v
    stops at 0.

    The stop at 0 follows NeMo, which cites IBM's Neuron Behavior Reference. `lam` is the leak after `drawn`.
    """
    before = np.asarray(v, dtype=np.int64)
    after = before + np.where(reversal, np.sign(before), 1) * np.asarray(lam)
    return np.where(np.asarray(reversal, dtype=bool) & (before * after < 0), 0, after)


def bounded(v: ArrayLike, low: int, high: int, overflow: str) -> Integers:
    """The potential register: `saturate` clips to [low, high], `wrap` is two's complement in it, `none` keeps v."""
    x = np.asarray(v, dtype=np.int64)
    if overflow == "saturate":
        return np.clip(x, low, high)
    if overflow == "wrap":
        return (x - low) % (high - low + 1) + low
    return x


def fire(
    v: ArrayLike,
    alpha: ArrayLike,
    beta: ArrayLike,
    reset: ArrayLike,
    mode: ArrayLike,
    floor: ArrayLike,
    eta: ArrayLike = 0,
    inclusive: bool = False,
) -> Fired:
    """Threshold, spike, reset.

    v >= alpha + eta: spike, then gamma 0: v = R, 1: v -= alpha + eta, 2: v kept;
    else if v < -(beta kappa + (beta + eta)(1 - kappa)): kappa 1: v = -beta; kappa 0: gamma 0: v = -R, 1: v += beta +
    eta, 2: kept.
    `inclusive` crosses the negative threshold already at equality (the symmetric reset of RANC's simulator).
    """
    x, noise = np.asarray(v, dtype=np.int64), np.asarray(eta, dtype=np.int64)
    up = np.asarray(alpha, dtype=np.int64) + noise
    down = np.asarray(beta, dtype=np.int64) + np.where(floor, 0, noise)
    spikes = x >= up
    crossed = ~spikes & ((x <= -down) if inclusive else (x < -down))
    gamma = np.asarray(mode)
    choice = [gamma == RESET_TO_VALUE, gamma == RESET_SUBTRACT]
    after_spike = np.select(choice, [reset, x - up], x)
    after_floor = np.where(floor, -np.asarray(beta), np.select(choice, [-np.asarray(reset), x + down], x))
    return Fired(spikes, np.where(spikes, after_spike, np.where(crossed, after_floor, x)))
