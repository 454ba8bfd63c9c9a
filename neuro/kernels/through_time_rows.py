"""One step of a row of neurons, forward and backward, for the kernels that fuse training over time.

Each equation is that of `neuro.dynamics.step`, restated in float32 in the same order of operations, so spikes are the
same bit for bit; the backward steps are its derivative, with the slope of a surrogate for that of the spike and what a
reset takes off as a constant. Loops are short and write few arrays each: more, and LLVM gives up proving that they do
not overlap, and vectors.
"""

from __future__ import annotations

import math

import numba
import numpy as np

IMMEDIATE, LATE, LATE_CURRENT, EULER, LEAK, EULER_LEAK = range(6)
"""Families: IF and LIF; Leaky; Synaptic; CurrentLIF; LI; CurrentLI."""

SUBTRACT, ZERO, NONE = range(3)
"""Resets; ZERO takes the membrane of an EULER population to v_reset."""

DECAY_SYNAPSE, DECAY, THETA, LEAK_TO, RESET_TO = range(5)
"""Rows of the parameters: alpha or rate_syn, beta or rate_mem, theta, v_leak, v_reset."""

ARCTAN, FAST_SIGMOID, SIGMOID, SUPER_SPIKE, TRIANGLE, BOXCAR, MULTI_GAUSSIAN = range(7)

_1 = np.float32(1)
_0 = np.float32(0)
_HALF = np.float32(0.5)
_HALF_PI = np.float32(math.pi / 2)
_PER_LN2 = np.float32(1 / math.log(2))
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_SERIES = tuple(np.float32(1 / math.factorial(k)) for k in range(8))
_PER_ROOT_2PI = np.float32(1 / math.sqrt(2 * math.pi))


@numba.njit(inline="always", error_model="numpy")
def _exp(x):
    """exp(x) in float32 without a call, so that loops of it become vectors: 2^n times a series on |r| < ln 2 / 2."""
    x = min(max(x, np.float32(-87)), np.float32(88))
    n = np.floor(x * _PER_LN2 + _HALF)
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    series = _SERIES[7]
    series = series * r + _SERIES[6]
    series = series * r + _SERIES[5]
    series = series * r + _SERIES[4]
    series = series * r + _SERIES[3]
    series = series * r + _SERIES[2]
    series = series * r + _SERIES[1]
    series = series * r + _SERIES[0]
    return series * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@numba.njit(inline="always", error_model="numpy")
def _normal(u, deviation):
    q = u / deviation
    return _exp(-_HALF * q * q) * _PER_ROOT_2PI / deviation


@numba.njit(error_model="numpy")
def copy(to, given):
    """to[:] = given, without the checks for overlap that numba makes of it."""
    for k in range(len(to)):
        to[k] = given[k]


@numba.njit(error_model="numpy")
def slopes(surrogate, p, v, theta, out):
    """out = dz/du of `neuro.surrogate` at u = v - theta; p holds its parameters in the order of their definition."""
    a, b, c, d = p[0], p[1], p[2], p[3]
    if surrogate == ARCTAN:
        for k in range(len(out)):
            q = _HALF_PI * a * (v[k] - theta[k])
            out[k] = _HALF * a / (_1 + q * q)
    elif surrogate == FAST_SIGMOID:
        for k in range(len(out)):
            q = _1 + a * abs(v[k] - theta[k])
            out[k] = _HALF * a / (q * q)
    elif surrogate == SIGMOID:
        for k in range(len(out)):
            q = _exp(-a * abs(v[k] - theta[k]))
            out[k] = a * q / ((_1 + q) * (_1 + q))
    elif surrogate == SUPER_SPIKE:
        for k in range(len(out)):
            q = _1 + a * abs(v[k] - theta[k])
            out[k] = _1 / (q * q)
    elif surrogate == TRIANGLE:
        for k in range(len(out)):
            out[k] = b * max(_1 - abs(v[k] - theta[k]) / a, _0)
    elif surrogate == BOXCAR:
        for k in range(len(out)):
            out[k] = b if abs(v[k] - theta[k]) <= a else _0
    else:
        for k in range(len(out)):
            u = v[k] - theta[k]
            sides = _normal(u - a, c * a) + _normal(u + a, c * a)
            out[k] = d * ((_1 + b) * _normal(u, a) - b * sides)


@numba.njit(error_model="numpy")
def forward(family, reset, delay, i, v, s, p, z):
    """One step: current i (n,); membrane v and synaptic current s (n,) advance in place; z (n,) is the output."""
    a, b, theta, leak, at_reset = p[0], p[1], p[2], p[3], p[4]
    if family == IMMEDIATE:
        for k in range(len(z)):
            v[k] = b[k] * v[k] + i[k]
        for k in range(len(z)):
            z[k] = _1 if v[k] >= theta[k] else _0
        if reset == SUBTRACT:
            for k in range(len(z)):
                v[k] = v[k] - theta[k] * z[k]
        elif reset == ZERO:
            for k in range(len(z)):
                v[k] = v[k] * (_1 - z[k])
    elif family == LEAK:
        for k in range(len(z)):
            v[k] = b[k] * v[k] + i[k]
        copy(z, v)
    elif family in (EULER, EULER_LEAK):
        for k in range(len(z)):
            s[k] = s[k] + i[k]
        for k in range(len(z)):
            v[k] = v[k] + b[k] * ((leak[k] - v[k]) + s[k])
        for k in range(len(z)):
            s[k] = s[k] - a[k] * s[k]
        if family == EULER_LEAK:
            copy(z, v)
        else:
            for k in range(len(z)):
                z[k] = _1 if v[k] > theta[k] else _0
            for k in range(len(z)):
                after = v[k] - theta[k] if reset == SUBTRACT else at_reset[k]
                v[k] = after if z[k] > _0 else v[k]
    else:
        drive = i
        if family == LATE_CURRENT:
            for k in range(len(z)):
                s[k] = a[k] * s[k] + i[k]
            drive = s
        for k in range(len(z)):
            z[k] = _1 if v[k] > theta[k] else _0
        late_potential(family, reset, drive, v, b, theta, z, v)
        late_reset(reset, delay, v, theta, z)


@numba.njit(error_model="numpy")
def late_potential(family, reset, drive, v, b, theta, r, u):
    """u = the potential that decides on the spike; r: what fired before."""
    if reset == SUBTRACT:
        for k in range(len(u)):
            x = b[k] * v[k] + drive[k]
            u[k] = x - theta[k] if r[k] > _0 else x
    elif reset == ZERO and family == LATE:
        for k in range(len(u)):
            u[k] = b[k] * (_0 if r[k] > _0 else v[k]) + drive[k]
    else:
        for k in range(len(u)):
            x = b[k] * v[k] + drive[k]
            u[k] = _0 if reset == ZERO and r[k] > _0 else x


@numba.njit(error_model="numpy")
def late_reset(reset, delay, v, theta, r):
    """r becomes the spikes z of this step, v the potential after it."""
    if delay or reset == NONE:
        for k in range(len(r)):
            r[k] = _1 if v[k] > theta[k] else _0
    else:
        for k in range(len(r)):
            z = _1 if v[k] > theta[k] else _0
            more = z - r[k]
            r[k] = z
            v[k] = v[k] - more * (theta[k] if reset == SUBTRACT else v[k])


@numba.njit(error_model="numpy")
def backward(family, reset, delay, i, v, s, p, surrogate, shape, gz, gv, gs, gi, gp, learn, scratch):
    """The derivative of `forward` at v and s, the states before the step.

    gz: of the output; gv and gs: of the states after the step, and when it returns of those before it; gi: of the
    current. If `learn`, adds that of the parameters to gp (5, n). scratch (5, n).
    """
    a, b, theta, leak, at_reset = p[0], p[1], p[2], p[3], p[4]
    if family == LEAK:
        for k in range(len(gi)):
            gi[k] = gv[k] + gz[k]
        if learn:
            _gather(gp[DECAY], gi, v)
        for k in range(len(gi)):
            gv[k] = b[k] * gi[k]
    elif family == IMMEDIATE:
        _immediate(reset, i, v, b, theta, surrogate, shape, gz, gv, gi, gp, learn, scratch[0], scratch[1])
    elif family in (EULER, EULER_LEAK):
        _euler(
            family, reset, i, v, s, a, b, theta, leak, at_reset, surrogate, shape, gz, gv, gs, gi, gp, learn, scratch
        )
    else:
        _late(family, reset, delay, i, v, s, a, b, theta, surrogate, shape, gz, gv, gs, gi, gp, learn, scratch)


@numba.njit(error_model="numpy")
def _gather(out, g, x):
    for k in range(len(out)):
        out[k] += g[k] * x[k]


@numba.njit(error_model="numpy")
def _immediate(reset, i, v, b, theta, surrogate, shape, gz, gv, gi, gp, learn, u, e):
    for k in range(len(gi)):
        u[k] = b[k] * v[k] + i[k]
    slopes(surrogate, shape, u, theta, e)
    for k in range(len(gi)):
        e[k] = e[k] * gz[k]
    if learn:
        of_theta = gp[THETA]
        for k in range(len(gi)):
            of_theta[k] -= e[k] + (gv[k] if reset == SUBTRACT and u[k] >= theta[k] else _0)
    if reset == ZERO:
        for k in range(len(gi)):
            gi[k] = (_0 if u[k] >= theta[k] else gv[k]) + e[k]
    else:
        for k in range(len(gi)):
            gi[k] = gv[k] + e[k]
    if learn:
        _gather(gp[DECAY], gi, v)
    for k in range(len(gi)):
        gv[k] = b[k] * gi[k]


@numba.njit(error_model="numpy")
def _euler(family, reset, i, v, s, a, b, theta, leak, at_reset, surrogate, shape, gz, gv, gs, gi, gp, learn, scratch):
    full, towards, x, e = scratch[0], scratch[1], scratch[2], scratch[3]
    for k in range(len(gi)):
        full[k] = s[k] + i[k]
    for k in range(len(gi)):
        towards[k] = (leak[k] - v[k]) + full[k]
    if family == EULER_LEAK:
        for k in range(len(gi)):
            gv[k] += gz[k]
    else:
        for k in range(len(gi)):
            x[k] = v[k] + b[k] * towards[k]
        slopes(surrogate, shape, x, theta, e)
        for k in range(len(gi)):
            e[k] = e[k] * gz[k]
        if learn:
            of_theta, of_reset = gp[THETA], gp[RESET_TO]
            for k in range(len(gi)):
                of_theta[k] -= e[k] + (gv[k] if reset == SUBTRACT and x[k] > theta[k] else _0)
            for k in range(len(gi)):
                of_reset[k] += gv[k] if reset == ZERO and x[k] > theta[k] else _0
        for k in range(len(gi)):
            gv[k] = (_0 if reset == ZERO and x[k] > theta[k] else gv[k]) + e[k]
    if learn:
        of_synapse = gp[DECAY_SYNAPSE]
        for k in range(len(gi)):
            of_synapse[k] -= gs[k] * full[k]
        _gather(gp[DECAY], gv, towards)
        _gather(gp[LEAK_TO], gv, b)
    for k in range(len(gi)):
        gi[k] = gs[k] - a[k] * gs[k] + b[k] * gv[k]
    for k in range(len(gi)):
        gv[k] = gv[k] - b[k] * gv[k]
    copy(gs, gi)


@numba.njit(error_model="numpy")
def _late(family, reset, delay, i, v, s, a, b, theta, surrogate, shape, gz, gv, gs, gi, gp, learn, scratch):
    r, u, e, drive, more = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    of_theta = gp[THETA]
    for k in range(len(gi)):
        r[k] = _1 if v[k] > theta[k] else _0
    copy(drive, i)
    if family == LATE_CURRENT:
        for k in range(len(gi)):
            drive[k] += a[k] * s[k]
    late_potential(family, reset, drive, v, b, theta, r, u)
    slopes(surrogate, shape, u, theta, e)
    for k in range(len(gi)):
        e[k] = e[k] * gz[k]
    if not delay and reset != NONE:
        for k in range(len(gi)):
            more[k] = (_1 if u[k] > theta[k] else _0) - r[k]
        if reset == ZERO:
            for k in range(len(gi)):
                gv[k] = gv[k] * (_1 - more[k])
        elif learn:
            for k in range(len(gi)):
                of_theta[k] -= more[k] * gv[k]
    for k in range(len(gi)):
        gv[k] += e[k]
    if learn:
        for k in range(len(gi)):
            of_theta[k] -= e[k] + (r[k] * gv[k] if reset == SUBTRACT else _0)
    copy(gi, gv)
    if reset == ZERO:
        for k in range(len(gi)):
            gv[k] = _0 if r[k] > _0 else gv[k]
    if family == LATE_CURRENT:
        for k in range(len(gi)):
            gi[k] = gs[k] + gv[k]
        if learn:
            _gather(gp[DECAY_SYNAPSE], gi, s)
        for k in range(len(gi)):
            gs[k] = a[k] * gi[k]
    if learn:
        _gather(gp[DECAY], gv, v)
    for k in range(len(gi)):
        gv[k] = b[k] * gv[k]
