"""One tick after the other of every kind of neuron, as compiled loops over many samples: `dynamics` restated.

Every kernel is called as kernel(ports, state, constants, spikes, fired, traces, tick, first, last):
ports: arriving activations, (batch, time + 1 + delay, size) each, consumed: zero afterwards. state: the variables in
the order of `Neurons.rest`, (batch, size) each, changed in place. spikes: (batch, time, size padded) written.
fired: (batch, size) counts events. traces: (batch, time, size) per variable, or of size 0 when nobody looks.
tick: number of the first tick of the run; the kernel works on ticks first..last - 1 after it.
Returns the active updates: those in which a neuron received a non-zero activation or sent an event.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_compiled = njit(nogil=True, cache=True)
_inlined = njit(nogil=True, cache=True, inline="always")


@_inlined
def _record(state, traces, b, t):
    for k in range(len(state)):
        if traces[k].size:
            traces[k][b, t] = state[k][b]


@_inlined
def _decay(x, keep):
    """x keep / 4096 toward zero. Split at bit 12: each partial product of the magnitude stays within 32 bits."""
    sign = np.int32(x >> 31)
    magnitude = np.uint32(np.int32(np.int32(x ^ sign) - sign))
    kept = np.uint32(np.uint32(magnitude >> 12) * keep) + np.uint32(np.uint32(magnitude & 4095) * keep >> 12)
    return np.int32(np.int32(np.int32(np.uint32(kept)) ^ sign) - sign)


@_inlined
def _current(u, a, keep):
    """u after one tick: decayed, 64 a added, wrapped once."""
    current = np.int32((_decay(u, keep) if keep != 0 else np.int32(0)) + np.int32(a << 6))
    if current > 8388608:
        current = np.int32(current - 16777216)
    elif current <= -8388608:
        current = np.int32(current + 16777216)
    return current


@_inlined
def _voltage(v, current, bias, keep):
    """v after one tick, before it fires: decayed, driven, clipped."""
    voltage = np.int32(np.int32((_decay(v, keep) if keep != 4096 else v) + current) + bias)
    return min(max(voltage, np.int32(-8388607)), np.int32(8388607))


@_compiled
def lif(ports, state, constants, spikes, fired, traces, tick, first, last):
    """LIF neurons without refractory period, lower threshold or periodic reset."""
    (arriving,) = ports
    u, v = state
    keep_u, keep_v, bias, threshold, subtract = constants
    active = 0
    for b in range(arriving.shape[0]):
        for t in range(first, last):
            active += _lif_tick(
                arriving[b, t], u[b], v[b], keep_u, keep_v, bias, threshold, subtract, spikes[b, t], fired[b]
            )
            _record(state, traces, b, t)
    return active


@_compiled
def _lif_tick(a, u, v, keep_u, keep_v, bias, threshold, subtract, spikes, fired):
    # the commonest decays, none of v and all of u, need no arithmetic; the compiler makes separate loops of the choice
    touched = np.int32(0)
    for i in range(a.size):
        current = _current(u[i], a[i], keep_u)
        voltage = _voltage(v[i], current, bias[i], keep_v)
        spike = voltage > threshold[i]
        back = threshold[i] if subtract else voltage
        u[i] = current
        v[i] = np.int32(voltage - back) if spike else voltage
        spikes[i] = spike
        fired[i] = np.int32(fired[i] + spike)
        touched = np.int32(touched + ((a[i] != 0) | spike))
        a[i] = 0
    return touched


@_compiled
def lif_in_full(ports, state, constants, spikes, fired, traces, tick, first, last):
    """LIF neurons with any of them; the state has a third variable where there is a refractory period."""
    (arriving,) = ports
    keep_u, keep_v, bias, threshold, low, subtract, refractory, interval, offset = constants
    u, v, waiting = state[0], state[1], state[len(state) - 1]
    active = 0
    for b in range(arriving.shape[0]):
        for t in range(first, last):
            if interval and (tick + t + 1 - offset) % interval == 0:
                u[b] = 0
                v[b] = 0
            a = arriving[b, t]
            for i in range(a.size):
                current = _current(u[b, i], a[i], keep_u)
                held = refractory > 0 and waiting[b, i] > 0
                voltage = v[b, i] if held else _voltage(v[b, i], current, bias[i], keep_v)
                spike = np.int32(np.int32(voltage > threshold[i]) - np.int32(voltage < low[i]))
                if spike != 0:
                    passed = threshold[i] if voltage > threshold[i] else low[i]
                    voltage = np.int32(voltage - passed) if subtract else np.int32(0)
                u[b, i] = current
                v[b, i] = voltage
                if refractory > 0:
                    waiting[b, i] = refractory if spike != 0 else max(waiting[b, i] - 1, 0)
                spikes[b, t, i] = spike
                fired[b, i] += spike != 0
                active += (a[i] != 0) | (spike != 0)
                a[i] = 0
            _record(state, traces, b, t)
    return active


@_compiled
def sigma(ports, state, constants, spikes, fired, traces, tick, first, last):
    (arriving,) = ports
    (total,) = state
    active = 0
    for b in range(arriving.shape[0]):
        for t in range(first, last):
            a = arriving[b, t]
            for i in range(a.size):
                total[b, i] = np.int32(total[b, i] + a[i])
                active += _send(total[b, i], a[i], spikes[b, t], fired[b], i)
                a[i] = 0
            _record(state, traces, b, t)
    return active


@_compiled
def delta(ports, state, constants, spikes, fired, traces, tick, first, last):
    (arriving,) = ports
    act, residue, error = state
    threshold, scale, state_exp, cumulative = constants
    active = 0
    for b in range(arriving.shape[0]):
        for t in range(first, last):
            a = arriving[b, t]
            for i in range(a.size):
                x = np.int32(np.int64(a[i]) << scale)
                sent = _change(x, act[b], residue[b], error[b], threshold, cumulative, i)
                active += _send(np.int32(sent >> state_exp), a[i], spikes[b, t], fired[b], i)
                a[i] = 0
            _record(state, traces, b, t)
    return active


@_compiled
def sigma_delta(ports, state, constants, spikes, fired, traces, tick, first, last):
    (arriving,) = ports
    total, act, residue, error = state
    threshold, bias, rectify, state_exp, cumulative = constants
    active = 0
    for b in range(arriving.shape[0]):
        for t in range(first, last):
            a = arriving[b, t]
            for i in range(a.size):
                total[b, i] = np.int32(total[b, i] + a[i])
                x = np.int32(total[b, i] + bias[i])
                x = np.int32(0) if rectify and x < 0 else x
                sent = _change(x, act[b], residue[b], error[b], threshold, cumulative, i)
                active += _send(np.int32(sent >> state_exp), a[i], spikes[b, t], fired[b], i)
                a[i] = 0
            _record(state, traces, b, t)
    return active


@_inlined
def _change(x, act, residue, error, threshold, cumulative, i):
    """What is sent of the change to x, in units of the state; act, residue and error of neuron i change."""
    change = np.int32(np.int32(x - act[i]) + residue[i])
    act[i] = x
    if cumulative:
        error[i] = np.int32(error[i] + change)
        sent = change if _magnitude(error[i]) >= threshold else np.int32(0)
        error[i] = np.int32(0) if _magnitude(sent) > 0 else error[i]
    else:
        sent = change if _magnitude(change) >= threshold else np.int32(0)
    residue[i] = np.int32(change - sent)
    return sent


@_inlined
def _magnitude(x):
    """|x| as a 32-bit word: that of -2**31 is -2**31."""
    return np.int32(-np.int64(x)) if x < 0 else np.int32(x)


@_inlined
def _send(event, a, spikes, fired, i):
    spikes[i] = event
    fired[i] += event != 0
    return (a != 0) | (event != 0)


@_compiled
def graded_vector(ports, state, constants, spikes, fired, traces, tick, first, last):
    (arriving,) = ports
    threshold, rectify = constants
    active = 0
    for b in range(arriving.shape[0]):
        for t in range(first, last):
            a = arriving[b, t]
            for i in range(a.size):
                large = (a[i] if rectify else _magnitude(a[i])) > threshold
                active += _send(a[i] if large else np.int32(0), a[i], spikes[b, t], fired[b], i)
                a[i] = 0
    return active


@_compiled
def product(ports, state, constants, spikes, fired, traces, tick, first, last):
    left, right = ports
    threshold, exponent = constants
    active = 0
    for b in range(left.shape[0]):
        for t in range(first, last):
            for i in range(left.shape[2]):
                p = np.int32(np.int32(np.int64(left[b, t, i]) * np.int64(right[b, t, i])) >> exponent)
                event = p if _magnitude(p) > threshold else np.int32(0)
                active += _send(event, left[b, t, i] | right[b, t, i], spikes[b, t], fired[b], i)
                left[b, t, i] = 0
                right[b, t, i] = 0
    return active


@_compiled
def resonator(ports, state, constants, spikes, fired, traces, tick, first, last):
    a_real, a_imag = ports
    real, imag = state
    cosine, sine, bits, state_exp, threshold, by_phase = constants
    active = 0
    for b in range(a_real.shape[0]):
        for t in range(first, last):
            for i in range(a_real.shape[2]):
                x, y = np.int64(real[b, i]), np.int64(imag[b, i])
                c, s = np.int64(cosine[i]), np.int64(sine[i])
                drive_x = np.int32(np.int64(a_real[b, t, i]) << state_exp)
                drive_y = np.int32(np.int64(a_imag[b, t, i]) << state_exp)
                new_x = _toward_zero(c * x, bits) - _toward_zero(s * y, bits) + drive_x
                new_y = _toward_zero(s * x, bits) + _toward_zero(c * y, bits) + drive_y
                new_x = min(max(new_x, -8388607), 8388607)
                new_y = min(max(new_y, -8388607), 8388607)
                if by_phase:
                    spike = new_x >= threshold and new_y >= 0 and y < 0
                else:
                    spike = new_y >= threshold
                    if spike:
                        new_x, new_y = 0, threshold - 1
                real[b, i], imag[b, i] = new_x, new_y
                event = np.int32(1) if spike else np.int32(0)
                active += _send(event, a_real[b, t, i] | a_imag[b, t, i], spikes[b, t], fired[b], i)
                a_real[b, t, i] = 0
                a_imag[b, t, i] = 0
            _record(state, traces, b, t)
    return active


@_inlined
def _toward_zero(x, bits):
    return -(-x >> bits) if x < 0 else x >> bits


@_compiled
def phase_vector(ports, state, constants, spikes, fired, traces, tick, first, last):
    a_u, a_v = ports
    u, v = state
    cosine, sine, threshold = constants
    active = 0
    for b in range(a_u.shape[0]):
        for t in range(first, last):
            for i in range(a_u.shape[2]):
                x, y = u[b, i], v[b, i]
                new_x = np.int32(_turned(x, cosine[i]) - _turned(y, sine[i]) + a_u[b, t, i])
                new_y = np.int32(_turned(y, cosine[i]) + _turned(x, sine[i]) + a_v[b, t, i])
                event = new_x if new_x > threshold and new_y >= 0 and y < 0 else np.int32(0)
                u[b, i], v[b, i] = new_x, new_y
                active += _send(event, a_u[b, t, i] | a_v[b, t, i], spikes[b, t], fired[b], i)
                a_u[b, t, i] = 0
                a_v[b, t, i] = 0
            _record(state, traces, b, t)
    return active


@_inlined
def _turned(x, part):
    """x part / 2**15, floor, of the product's lowest 32 bits."""
    return np.int32(np.int64(x) * np.int64(part)) >> 15
