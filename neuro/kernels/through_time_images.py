"""Populations over images, fused with what is around them: average pools behind, and convolutions of events before.

Channels of a position lie side by side. A work item is one row of windows of one sample: its spikes are pooled as they
come, and never written at full size; backward, the gradient of a window spreads over its neurons as it is read. Before
the population, either currents are in memory, or each event of the input adds its weights to the rows that it reaches,
forward and once more backward, so that currents are never written either.
"""

from __future__ import annotations

import numba
import numpy as np

from neuro.kernels import through_time_rows as rows
from neuro.kernels.through_time_populations import back_in_time
from neuro.kernels.through_time_vectors import scaled_sum1, scaled_sum2, scaled_sum4, sum1, sum2, sum4


@numba.njit(error_model="numpy")
def _pool(z, across, channels, share, out):
    for k in range(len(z) // (across * channels)):
        to = out[k * channels : (k + 1) * channels]
        for j in range(across):
            given = z[(k * across + j) * channels : (k * across + j + 1) * channels]
            for c in range(channels):
                to[c] += share * given[c]


@numba.njit(error_model="numpy")
def _unpool(g, across, channels, share, gz):
    for k in range(len(gz) // (across * channels)):
        given = g[k * channels : (k + 1) * channels]
        for j in range(across):
            to = gz[(k * across + j) * channels : (k * across + j + 1) * channels]
            for c in range(channels):
                to[c] = share * given[c]


@numba.njit(parallel=True, cache=True, error_model="numpy")
def pooled_forward(form, current, steps, size, v, s, p, out):
    """Spikes of currents (time or 1, batch, neurons), pooled to out (time, batch, rows, columns * channels) of windows.

    size: rows and columns of a window, neurons of an image row, channels.
    """
    family, reset, delay = form
    down, across, wide, channels = size
    share = np.float32(1 / (down * across))
    windows = out.shape[2]
    for item in numba.prange(len(v) * windows):
        b, window = np.int64(item) // windows, np.int64(item) % windows
        z = np.empty(wide, dtype=np.float32)
        for y in range(window * down, (window + 1) * down):
            low, high = y * wide, (y + 1) * wide
            own = p[:, low:high].copy()
            for t in range(steps):
                i = current[t if len(current) > 1 else 0, b, low:high]
                rows.forward(family, reset, delay, i, v[b, low:high], s[b, low:high], own, z)
                _pool(z, across, channels, share, out[t, b, window])


@numba.njit(parallel=True, cache=True, error_model="numpy")
def pooled_backward(form, current, size, v, s, p, surrogate, shape, g, gv, gs, gi, gp, learn):
    """The derivative of `pooled_forward`: g as its out, gi as its current but for all steps."""
    down, across, wide, channels = size
    share = np.float32(1 / (down * across))
    steps, batch, windows, _ = g.shape
    for item in numba.prange(batch * windows):
        b, window = np.int64(item) // windows, np.int64(item) % windows
        gz = np.empty((steps, 1, wide), dtype=np.float32)
        scratch = np.empty((5, wide), dtype=np.float32)
        before = np.empty((2, steps, wide), dtype=np.float32)
        of_own = np.zeros((len(p), wide), dtype=np.float32)
        for t in range(steps):
            _unpool(g[t, b, window], across, channels, share, gz[t, 0])
        for y in range(window * down, (window + 1) * down):
            low, high = y * wide, (y + 1) * wide
            of_own[:] = 0
            back_in_time(
                form, current, (b, low), wide, v[b, low:high], s[b, low:high], p[:, low:high].copy(), surrogate, shape,
                gz, (0, 0), gv[b, low:high], gs[b, low:high], gi, (b, low), of_own, learn, before, scratch,
            )  # fmt: skip
            if learn:
                gp[b, :, low:high] = of_own


@numba.njit(error_model="numpy")
def _run(binary, target, at, table, base, stride, length, index, values, low, high):
    """target[at : at + length] += the sum of listed rows of the table."""
    done = 0
    if binary:
        while length - done >= 64:
            sum4(target, at + done, table, base + done, stride, index, values, low, high)
            done += 64
        if length - done >= 32:
            sum2(target, at + done, table, base + done, stride, index, values, low, high)
            done += 32
        if length - done >= 16:
            sum1(target, at + done, table, base + done, stride, index, values, low, high)
    else:
        while length - done >= 64:
            scaled_sum4(target, at + done, table, base + done, stride, index, values, low, high)
            done += 64
        if length - done >= 32:
            scaled_sum2(target, at + done, table, base + done, stride, index, values, low, high)
            done += 32
        if length - done >= 16:
            scaled_sum1(target, at + done, table, base + done, stride, index, values, low, high)


@numba.njit(error_model="numpy")
def _convolved(lists, b, y, size, weights, bias, padded):
    """Row y of the currents of sample b for all steps, between margins: padded (time, 1, margin + row + margin)."""
    first, index, values, binary, batch = lists
    height, inputs, channels, padding, margin = size
    down, _, length = weights.shape
    flat, into = weights.reshape(-1), padded.reshape(-1)
    wide = padded.shape[2]
    for t in range(len(padded)):
        row = padded[t, 0]
        for k in range(0, wide, channels):
            for c in range(channels):
                row[k + c] = bias[c]
        for dy in range(down):
            source = y + dy - padding
            if source < 0 or source >= height:
                continue
            r = (t * batch + b) * height + source
            k = first[r]
            while k < first[r + 1]:
                x = index[k] // inputs
                end = k + 1
                while end < first[r + 1] and index[end] // inputs == x:
                    end += 1
                # Rows of the table are those of the channels at x: the index counts all inputs of an image row.
                base = (dy * inputs - x * inputs) * length
                _run(binary, into, t * wide + x * channels + margin, flat, base, length, length, index, values, k, end)
                k = end


@numba.njit(error_model="numpy")
def _of_weights(lists, b, y, size, padded, total):
    """Adds to total (kernel rows, inputs, run) the gradients of row y of the currents, for events that reached it."""
    first, index, values, binary, batch = lists
    height, inputs, channels, padding, margin = size
    down, _, length = total.shape
    flat, given = total.reshape(-1), padded.reshape(-1)
    wide = padded.shape[2]
    for t in range(len(padded)):
        for dy in range(down):
            source = y + dy - padding
            if source < 0 or source >= height:
                continue
            r = (t * batch + b) * height + source
            base = t * wide + margin
            if inputs == 1:
                _run(binary, flat, dy * length, given, base, channels, length, index, values, first[r], first[r + 1])
            else:
                for k in range(first[r], first[r + 1]):
                    x, c = index[k] // inputs, index[k] % inputs
                    here = base + (x - np.int64(index[k])) * channels
                    at = (dy * inputs + c) * length
                    _run(binary, flat, at, given, here, channels, length, index, values, k, k + 1)


@numba.njit(parallel=True, cache=True, error_model="numpy")
def events_forward(form, lists, size, window, weights, bias, v, s, p, out):
    """A population on a convolution of events, pooled: from lists by image row to out (time, batch, rows, row).

    lists: first, index, values, binary, batch. size: rows and channels of the input, channels of the output, padding,
    and where the run of the event at x = 0 begins in a padded row. window: rows and columns of the pool. weights
    (kernel rows, inputs, kernel columns * channels), columns turned round.
    """
    family, reset, delay = form
    down, across = window
    channels, edge = size[2], weights.shape[2] - size[2]
    share = np.float32(1 / (down * across))
    steps, batch, windows, _ = out.shape
    wide = out.shape[3] * across
    for item in numba.prange(batch * windows):
        b, place = np.int64(item) // windows, np.int64(item) % windows
        z = np.empty(wide, dtype=np.float32)
        current = np.empty((steps, 1, wide + 2 * edge), dtype=np.float32)
        for y in range(place * down, (place + 1) * down):
            low, high = y * wide, (y + 1) * wide
            own = p[:, low:high].copy()
            _convolved(lists, b, y, size, weights, bias, current)
            for t in range(steps):
                i = current[t, 0, edge : edge + wide]
                rows.forward(family, reset, delay, i, v[b, low:high], s[b, low:high], own, z)
                _pool(z, across, channels, share, out[t, b, place])


@numba.njit(parallel=True, cache=True, error_model="numpy")
def events_backward(
    form, lists, size, window, weights, bias, v, s, p, surrogate, shape, g, gv, gs, gp, learn, total, of_bias
):  # fmt: skip
    """The derivative of `events_forward`, but not of its events; total (parts, *weights), of_bias (parts, channels)."""
    down, across = window
    channels, edge = size[2], weights.shape[2] - size[2]
    share = np.float32(1 / (down * across))
    steps, batch, windows, _ = g.shape
    wide = g.shape[3] * across
    parts = len(total)
    for item in numba.prange(parts):
        part = np.int64(item)
        gz = np.empty((steps, 1, wide), dtype=np.float32)
        gi = np.zeros((steps, 1, wide + 2 * edge), dtype=np.float32)
        current = np.empty((steps, 1, wide + 2 * edge), dtype=np.float32)
        scratch = np.empty((5, wide), dtype=np.float32)
        before = np.empty((2, steps, wide), dtype=np.float32)
        of_own = np.zeros((len(p), wide), dtype=np.float32)
        bias_ = of_bias[part]
        for b in range(part * batch // parts, (part + 1) * batch // parts):
            for place in range(windows):
                for t in range(steps):
                    _unpool(g[t, b, place], across, channels, share, gz[t, 0])
                for y in range(place * down, (place + 1) * down):
                    low, high = y * wide, (y + 1) * wide
                    _convolved(lists, b, y, size, weights, bias, current)
                    of_own[:] = 0
                    back_in_time(
                        form, current, (0, edge), wide, v[b, low:high], s[b, low:high], p[:, low:high].copy(),
                        surrogate, shape, gz, (0, 0), gv[b, low:high], gs[b, low:high], gi, (0, edge), of_own, learn,
                        before, scratch,
                    )  # fmt: skip
                    if learn:
                        gp[b, :, low:high] = of_own
                    _of_weights(lists, b, y, size, gi, total[part])
                    for t in range(steps):
                        for k in range(0, wide, channels):
                            for c in range(channels):
                                bias_[c] += gi[t, 0, edge + k + c]
