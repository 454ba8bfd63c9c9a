"""The equations of `neuro.first_spike.membrane` for one neuron, compiled."""

from __future__ import annotations

import math

import numba


@numba.njit(cache=True, error_model="numpy")
def response(leak, gain, s):
    if leak == 1.0:
        return s * math.exp(-s) if s < 700.0 else 0.0
    return gain / (1.0 - leak) * (math.exp(-leak * s) - math.exp(-s))


@numba.njit(cache=True, error_model="numpy")
def decays(leak, gain, s):
    """What is left of V, passes from I to V, and is left of I after s < infinity."""
    left = math.exp(-s)
    if leak == 1.0:
        return left, s * left, left
    kept = math.sqrt(left) if leak == 0.5 and left > 0.0 else math.exp(-leak * s)
    return kept, gain / (1.0 - leak) * (kept - left), left


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
        step = 2.0 * f * below * y / (2.0 * below * below - f)
        y -= step
        if abs(step) < 1e-6 * y:  # Halley's iteration converges cubically
            break
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
        if square < 0.0 or abs(v) >= i:
            return math.inf
        return max(-2.0 * math.log1p((v - i + math.sqrt(square)) / (2.0 * i)), 0.0)
    rest = v + i - theta
    return max(-math.log(rest / i), 0.0) if rest > 0.0 else math.inf


BLOCK = 64
"""Neurons that are solved together at most."""

# where `crossings` keeps what: parts of one array, since compilers vectorise loops over few arrays only
V, CURRENT, THETA, WAIT, S, LEFT, REST, KEPT, PASSED = (BLOCK * part for part in range(9))


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def decays_of_all(leak, w, count):
    """As `decays` of the times in S, 0 <= s <= 2, to KEPT, PASSED, LEFT: by series and squaring, without a branch."""
    for j in range(count):
        h = w[S + j] / -64.0
        part = 1.0 + h * (1.0 + h * (1 / 2 + h * (1 / 6 + h * (1 / 24 + h * (1 / 120 + h * (1 / 720 + h / 5040))))))
        part *= part
        part *= part
        part *= part
        part *= part
        half = part * part
        w[KEPT + j], w[LEFT + j] = half, half * half
    if leak == 1.0:
        for j in range(count):
            w[KEPT + j], w[PASSED + j] = w[LEFT + j], w[S + j] * w[LEFT + j]
    elif leak == 0.5:
        for j in range(count):
            w[PASSED + j] = w[KEPT + j] - w[LEFT + j]
    else:
        for j in range(count):
            w[KEPT + j], w[PASSED + j] = 1.0, 1.0 - w[LEFT + j]


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def crossings(leak, gain, w, count):
    """As `crossing` for the V, CURRENT, THETA in w with V(0) < theta <= V(wait), wait <= 2; to S, with exp(-s) to LEFT.

    Halley's iteration from where the tangent at 0 crosses; its last step goes to REST. Where that is not tiny s is not
    the solution yet.
    """
    for j in range(count):
        w[S + j] = (w[THETA + j] - w[V + j]) / (gain * w[CURRENT + j] - leak * w[V + j])
    for _ in range(3):
        decays_of_all(leak, w, count)
        for j in range(count):
            above = w[KEPT + j] * w[V + j] + w[PASSED + j] * w[CURRENT + j] - w[THETA + j]
            slope = gain * w[LEFT + j] * w[CURRENT + j] - leak * (above + w[THETA + j])
            bend = -gain * w[LEFT + j] * w[CURRENT + j] - leak * slope
            step = 2.0 * above * slope / (2.0 * slope * slope - above * bend)
            w[REST + j] = step
            w[S + j] = min(max(w[S + j] - step, 0.0), w[WAIT + j])
