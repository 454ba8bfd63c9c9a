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


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def decays_of_all(leak, s, kept, passed, left):
    """As `decays`, of arrays, for 0 <= s <= 2: by series and squaring, without a branch, so that vectors do it."""
    for j in range(len(s)):
        h = s[j] / -64.0
        part = 1.0 + h * (1.0 + h * (1 / 2 + h * (1 / 6 + h * (1 / 24 + h * (1 / 120 + h * (1 / 720 + h / 5040))))))
        part *= part
        part *= part
        part *= part
        part *= part
        kept[j] = part * part
        left[j] = kept[j] * kept[j]
    if leak == 1.0:
        for j in range(len(s)):
            kept[j], passed[j] = left[j], s[j] * left[j]
    elif leak == 0.5:
        for j in range(len(s)):
            passed[j] = kept[j] - left[j]
    else:
        for j in range(len(s)):
            kept[j], passed[j] = 1.0, 1.0 - left[j]


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def crossings(leak, gain, v, i, theta, wait, s, left, step, kept, passed):
    """As `crossing` for arrays whose V(0) < theta <= V(wait), wait <= 2: fills s, left and the last step of s.

    Halley's iteration from where the tangent at 0 crosses. Where the last step is not tiny s is not the solution yet.
    """
    for j in range(len(v)):
        s[j] = (theta[j] - v[j]) / (gain * i[j] - leak * v[j])
    for _ in range(3):
        decays_of_all(leak, s, kept, passed, left)
        for j in range(len(v)):
            above = kept[j] * v[j] + passed[j] * i[j] - theta[j]
            slope = gain * left[j] * i[j] - leak * (above + theta[j])
            bend = -gain * left[j] * i[j] - leak * slope
            step[j] = 2.0 * above * slope / (2.0 * slope * slope - above * bend)
            s[j] = min(max(s[j] - step[j], 0.0), wait[j])
