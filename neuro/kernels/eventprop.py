"""Spike trains of leaky neurons from event to event, and their adjoint: EventProp on the CPU."""

from __future__ import annotations

import math

import numba
import numpy as np

from neuro.kernels.first_spike_delays import PARTS
from neuro.kernels.first_spike_equations import crossing, response
from neuro.kernels.time_order import in_order


@numba.njit(parallel=True, cache=True, error_model="numpy")
def ordered(events):
    """Order and number of the finite events (batch, events)."""
    order = np.empty(events.shape, dtype=np.int64)
    counts = np.empty(len(events), dtype=np.int64)
    for sample in numba.prange(len(events)):
        counts[sample] = in_order(events[sample], order[sample])
    return order, counts


@numba.njit(parallel=True, cache=True, error_model="numpy")
def forward(events, order, counts, per, weight, theta, leak, gain, most):
    """Spike times (batch, out, most) and the current I at each; events (batch, in * per) in tau_s, weight (out, in)."""
    batch, outputs = len(events), len(weight)
    spikes = np.full((batch, outputs, most), math.inf)
    currents = np.zeros((batch, outputs, most))
    for item in numba.prange(batch * outputs):
        b, j = item // outputs, item % outputs
        v = i = 0.0
        fired = 0
        for k in range(counts[b]):
            now = events[b, order[b, k]]
            i += weight[j, order[b, k] // per]
            wait = (events[b, order[b, k + 1]] if k + 1 < counts[b] else math.inf) - now
            while fired < most and wait > 0.0 and v + (gain * i - leak * v) * wait >= theta[j]:
                s = crossing(leak, v, i, theta[j])
                if not s <= wait or s == math.inf:
                    break
                i *= math.exp(-s)
                v = 0.0
                now += s
                wait -= s
                spikes[b, j, fired] = now
                currents[b, j, fired] = i
                fired += 1
            if fired == most:
                break
            if 0.0 < wait < math.inf:
                v = math.exp(-leak * wait) * v + response(leak, gain, wait) * i
                i *= math.exp(-wait)
    return spikes, currents


@numba.njit(parallel=True, cache=True, error_model="numpy")
def backward(events, order, counts, per, weight, theta, leak, gain, spikes, currents, given, flat):
    """Gradients of weight (out, in), theta (out,) and events from those of the spikes, `given` (batch, out, most).

    Between events the adjoints (a_v, a_i) decay backwards as V and I do forwards. A spike takes its gradient, less what
    its reset did to later potentials, over the slope into a_v; an input receives a_i for its weight.
    """
    batch, outputs, most = spikes.shape
    of_weight, of_theta = np.zeros(weight.shape), np.zeros(outputs)
    events_of_sample = events.shape[1]
    of_events = np.zeros((PARTS, batch, events_of_sample))
    for part in numba.prange(PARTS):
        for j in range(part, outputs, PARTS):
            for b in range(batch):
                m = most - 1
                while m >= 0 and spikes[b, j, m] == math.inf:
                    m -= 1
                if m < 0:
                    continue
                k = counts[b] - 1
                after = spikes[b, j, m]
                a_v = a_i = 0.0
                while k >= 0:
                    source = order[b, k]
                    at_spike = m >= 0 and spikes[b, j, m] > events[b, source]
                    now = spikes[b, j, m] if at_spike else events[b, source]
                    if now < after:
                        wait = after - now
                        a_i = math.exp(-wait) * a_i + response(leak, gain, wait) * a_v
                        a_v *= math.exp(-leak * wait)
                        after = now
                    if at_spike:
                        slope = gain * currents[b, j, m] - leak * theta[j]
                        wanted = given[b, j, m] - a_v * gain * currents[b, j, m]
                        a_v = -wanted / slope if slope > flat * theta[j] else 0.0
                        of_theta[j] -= a_v
                        m -= 1
                    else:
                        of_weight[j, source // per] += a_i
                        of_events[part, b, source] += weight[j, source // per] * (a_i - gain * a_v)
                        k -= 1
    return of_weight, of_theta, of_events.sum(0)
