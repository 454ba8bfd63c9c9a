"""The arithmetic of `reference`, restated as compiled loops: event-driven, many samples, many ticks in one call.

Layout: spikes (batch, time, size padded to 8) with zero padding; arriving activations (batch, time + 1 + delay, size),
where slot t is what the neurons integrate at tick t, and zero again afterwards. Every kernel works on ticks
first..last - 1 and releases the GIL.
"""

from __future__ import annotations

import numpy as np
from numba import njit

LANE = 8  # spikes looked at together: a silent word of eight is skipped
ROWS_BEFORE_WIDENING = 128  # 128 weights of magnitude <= 256 add up within 16 bits

_compiled = njit(nogil=True, cache=True)
_inlined = njit(nogil=True, cache=True, inline="always")


@_compiled
def active(row, index):
    """Positions of the non-zero entries of `row` into `index`; how many. Bytes must be 0 or 1; rows are whole words."""
    words = row.view(np.uint64)
    count = 0
    if row.itemsize == 1:
        for w in range(words.size):
            word = words[w]
            while word != 0:
                lowest = word & (~word + np.uint64(1))
                # lowest is 256**k; byte 7 - k of the constant holds k and moves to the top
                index[count] = LANE * w + np.int64((lowest * np.uint64(0x0001020304050607)) >> np.uint64(56))
                count += 1
                word ^= lowest
    else:
        for i in range(row.size):
            index[count] = i
            count += row[i] != 0
    return count


@_inlined
def _deliver(total, net_shift, target):
    """target += total 2**net_shift, floor, wrapping at 32 bits."""
    if net_shift >= 0:
        scale = np.int32(1 << net_shift)
        for i in range(target.size):
            target[i] = np.int32(target[i] + np.int32(total[i] * scale))
    else:
        for i in range(target.size):
            target[i] = np.int32(target[i] + (total[i] >> -net_shift))


@_compiled
def add_dense(spikes, weights, net_shift, delay, arriving, first, last):
    """Adds rows of weights (source, target) of the active sources; int16 sums widened every 128 rows."""
    targets = weights.shape[1]
    index = np.empty(spikes.shape[2], np.int32)
    partial = np.empty(targets, np.int16)
    total = np.empty(targets, np.int32)
    for b in range(spikes.shape[0]):
        for t in range(first, last):
            count = active(spikes[b, t], index)
            if count == 0:
                continue
            total[:] = 0
            for start in range(0, count, ROWS_BEFORE_WIDENING):
                stop = min(start + ROWS_BEFORE_WIDENING, count)
                partial[:] = 0
                e = start
                while e + 8 <= stop:
                    w0, w1 = weights[index[e]], weights[index[e + 1]]
                    w2, w3 = weights[index[e + 2]], weights[index[e + 3]]
                    w4, w5 = weights[index[e + 4]], weights[index[e + 5]]
                    w6, w7 = weights[index[e + 6]], weights[index[e + 7]]
                    for i in range(targets):
                        partial[i] = np.int16(
                            partial[i] + w0[i] + w1[i] + w2[i] + w3[i] + w4[i] + w5[i] + w6[i] + w7[i]
                        )
                    e += 8
                while e < stop:
                    w0 = weights[index[e]]
                    for i in range(targets):
                        partial[i] = np.int16(partial[i] + w0[i])
                    e += 1
                for i in range(targets):
                    total[i] = np.int32(total[i] + partial[i])
            _deliver(total, net_shift, arriving[b, t + 1 + delay])


@_compiled
def add_dense_graded(spikes, weights, net_shift, delay, arriving, first, last):
    """As `add_dense`, each row multiplied by the payload of its source."""
    targets = weights.shape[1]
    index = np.empty(spikes.shape[2], np.int32)
    total = np.empty(targets, np.int32)
    for b in range(spikes.shape[0]):
        for t in range(first, last):
            count = active(spikes[b, t], index)
            if count == 0:
                continue
            total[:] = 0
            for e in range(count):
                row, payload = weights[index[e]], np.int32(spikes[b, t, index[e]])
                for i in range(targets):
                    total[i] = np.int32(total[i] + np.int32(row[i] * payload))
            _deliver(total, net_shift, arriving[b, t + 1 + delay])


@_compiled
def add_sparse(spikes, starts, targets, weights, graded, net_shift, delay, arriving, first, last):
    """Synapses of source j are entries starts[j]..starts[j + 1] of targets and weights."""
    index = np.empty(spikes.shape[2], np.int32)
    total = np.empty(arriving.shape[2], np.int32)
    for b in range(spikes.shape[0]):
        for t in range(first, last):
            count = active(spikes[b, t], index)
            if count == 0:
                continue
            total[:] = 0
            for e in range(count):
                j = index[e]
                payload = np.int32(spikes[b, t, j]) if graded else np.int32(1)
                for s in range(starts[j], starts[j + 1]):
                    total[targets[s]] = np.int32(total[targets[s]] + np.int32(weights[s] * payload))
            _deliver(total, net_shift, arriving[b, t + 1 + delay])


@_compiled
def add_conv2d(spikes, weights, geometry, graded, exponent, arriving, first, last):
    """Scatters the kernel around every active input.

    weights: (C_in, kH, kW mirrored, C_out / groups), so that at horizontal stride and dilation 1 one kernel row lands
    on consecutive sums (groups, H_out, W_out, C_out / groups).
    geometry: height, width, out_height, out_width, groups, then stride, padding, dilation, vertical before horizontal.
    """
    height, width, out_height, out_width, groups, sy, sx, py, px, dy, dx = geometry
    kernel_height, kernel_width, depth = weights.shape[1], weights.shape[2], weights.shape[3]
    area, out_area = height * width, out_height * out_width
    group_channels = weights.shape[0] // groups
    rows = weights.reshape(weights.shape[0] * kernel_height, kernel_width * depth)
    contiguous = sx == 1 and dx == 1
    index = np.empty(spikes.shape[2], np.int32)
    total = np.empty(groups * out_area * depth, np.int32)
    for b in range(spikes.shape[0]):
        for t in range(first, last):
            count = active(spikes[b, t], index)
            if count == 0:
                continue
            total[:] = 0
            for e in range(count):
                payload = np.int32(spikes[b, t, index[e]]) if graded else np.int32(1)
                channel, pixel = divmod(index[e], area)
                y, x = divmod(pixel, width)
                group = channel // group_channels
                for k in range(kernel_height):
                    at_y = y + py - dy * k
                    if at_y < 0 or at_y % sy != 0 or at_y // sy >= out_height:
                        continue
                    line = (group * out_height + at_y // sy) * out_width
                    row = rows[channel * kernel_height + k]
                    if contiguous:
                        left = x + px - kernel_width + 1
                        low, high = max(0, -left), min(kernel_width, out_width - left)
                        if low < high:
                            _add_run(
                                total, (line + left + low) * depth, row, low * depth, (high - low) * depth, payload
                            )
                    else:
                        for m in range(kernel_width):
                            at_x = x + px - dx * m
                            if at_x >= 0 and at_x % sx == 0 and at_x // sx < out_width:
                                tap = (kernel_width - 1 - m) * depth
                                _add_run(total, (line + at_x // sx) * depth, row, tap, depth, payload)
            _deliver_image(total.reshape(groups, out_area, depth), exponent, arriving[b, t + 1])


@_inlined
def _add_run(total, to, row, origin, length, payload):
    source, target = row[origin : origin + length], total[to : to + length]
    if payload == 1:
        for i in range(length):
            target[i] = np.int32(target[i] + source[i])
    else:
        for i in range(length):
            target[i] = np.int32(target[i] + np.int32(source[i] * payload))


@_compiled
def _deliver_image(total, exponent, target):
    """target (groups, depth, area) += wrap24(total (groups, area, depth) 2**exponent)."""
    groups, area, depth = total.shape
    for g in range(groups):
        for k in range(depth):
            base = (g * depth + k) * area
            for p in range(area):
                x = np.int64(total[g, p, k])
                x = x << exponent if exponent >= 0 else x >> -exponent
                word = np.int32(((x + 8388608) & 16777215) - 8388608)
                target[base + p] = np.int32(target[base + p] + word)


@_inlined
def _decay(x, keep):
    """x keep / 4096 toward zero. Split at bit 12: each partial product of the magnitude stays within 32 bits."""
    sign = np.int32(x >> 31)
    magnitude = np.uint32(np.int32(np.int32(x ^ sign) - sign))
    kept = np.uint32(np.uint32(magnitude >> 12) * keep) + np.uint32(np.uint32(magnitude & 4095) * keep >> 12)
    return np.int32(np.int32(np.int32(np.uint32(kept)) ^ sign) - sign)


@_compiled
def integrate(arriving, u, v, du, dv, bias, threshold, subtract, spikes, fired, trace_u, trace_v, first, last):
    """LIF neurons over ticks first..last - 1; u, v (batch, size) change in place. Equations in `Population`.

    Activations are consumed: their slots are zero afterwards. fired (batch, size) counts spikes. trace_u, trace_v:
    (batch, time, size), or of size 0 when nobody looks.
    Returns the active updates: those in which a neuron received a non-zero activation or spiked.
    """
    keep_u, keep_v = np.uint32(4096 - du - 1), np.uint32(4096 - dv)
    active_updates = 0
    for b in range(arriving.shape[0]):
        for t in range(first, last):
            active_updates += _tick(
                arriving[b, t], u[b], v[b], keep_u, keep_v, bias, threshold, subtract, spikes[b, t], fired[b]
            )
            if trace_u.size:
                trace_u[b, t] = u[b]
            if trace_v.size:
                trace_v[b, t] = v[b]
    return active_updates


@_compiled
def _tick(a, u, v, keep_u, keep_v, bias, threshold, subtract, spikes, fired):
    # the commonest decays, none of v and all of u, need no arithmetic; the compiler makes separate loops of the choice
    touched = np.int32(0)
    for i in range(a.size):
        current = np.int32((_decay(u[i], keep_u) if keep_u != 0 else np.int32(0)) + np.int32(a[i] << 6))
        if current > 8388608:
            current = np.int32(current - 16777216)
        elif current <= -8388608:
            current = np.int32(current + 16777216)
        voltage = np.int32(np.int32((_decay(v[i], keep_v) if keep_v != 4096 else v[i]) + current) + bias[i])
        voltage = min(max(voltage, np.int32(-8388607)), np.int32(8388607))
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
def tally(spikes, fired):
    """fired (batch, size) += number of non-zero spikes over time."""
    for b in range(spikes.shape[0]):
        for t in range(spikes.shape[1]):
            for i in range(fired.shape[1]):
                fired[b, i] = np.int32(fired[b, i] + (spikes[b, t, i] != 0))
