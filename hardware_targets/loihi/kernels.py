"""Synapses of `reference`, restated as compiled loops: event-driven, many samples, many ticks in one call.

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
            target = arriving[b, t + 1 + delay]
            # a shift to the left may act on each part of the sum, one to the right only on the whole
            at_once = net_shift >= 0 or count <= ROWS_BEFORE_WIDENING
            if not at_once:
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
                if at_once:
                    _deliver(partial, net_shift, target)
                else:
                    for i in range(targets):
                        total[i] = np.int32(total[i] + partial[i])
            if not at_once:
                _deliver(total, net_shift, target)


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
def add_sparse(spikes, starts, targets, weights, graded, wide, net_shift, delay, arriving, first, last):
    """Synapses of source j are entries starts[j]..starts[j + 1] of targets and weights.

    wide: sums wrap at 32 bits after the exponent has acted, not before.
    """
    index = np.empty(spikes.shape[2], np.int32)
    total = np.empty(arriving.shape[2], np.int64)
    for b in range(spikes.shape[0]):
        for t in range(first, last):
            count = active(spikes[b, t], index)
            if count == 0:
                continue
            total[:] = 0
            for e in range(count):
                j = index[e]
                payload = np.int64(spikes[b, t, j]) if graded else np.int64(1)
                for s in range(starts[j], starts[j + 1]):
                    total[targets[s]] += np.int32(weights[s] * payload)
            target = arriving[b, t + 1 + delay]
            for i in range(target.size):
                x = total[i] if wide else np.int64(np.int32(total[i]))
                x = x << net_shift if net_shift >= 0 else x >> -net_shift
                target[i] = np.int32(target[i] + np.int32(x))


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


@_compiled
def tally(spikes, fired):
    """fired (batch, size) += number of non-zero spikes over time."""
    for b in range(spikes.shape[0]):
        for t in range(spikes.shape[1]):
            for i in range(fired.shape[1]):
                fired[b, i] = np.int32(fired[b, i] + (spikes[b, t, i] != 0))
