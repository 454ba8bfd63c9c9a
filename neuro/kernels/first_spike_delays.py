"""First spikes where every synapse has a delay of its own: every neuron has its own order of inputs."""

from __future__ import annotations

import math

import numba
import numpy as np

from neuro.kernels.first_spike_equations import crossing, response
from neuro.kernels.time_order import in_order

PARTS = 8
"""Neurons are dealt to so many parts, which sum the gradients of their inputs apart."""


@numba.njit(parallel=True, cache=True, error_model="numpy")
def forward(times, weight, delay, theta, leak, gain):
    """As `neuro.kernels.first_spike.forward`; weight and delay (out, in)."""
    batch, inputs = times.shape
    outputs = len(weight)
    spikes = np.full((batch, outputs), math.inf)
    slopes = np.ones((batch, outputs))
    for item in numba.prange(batch * outputs):
        b, j = item // outputs, item % outputs
        arrivals = times[b] + delay[j]
        order = np.empty(inputs, dtype=np.int64)
        count = in_order(arrivals, order)
        v = i = 0.0
        for k in range(count):
            i += weight[j, order[k]]
            wait = (arrivals[order[k + 1]] if k + 1 < count else math.inf) - arrivals[order[k]]
            if wait <= 0.0:
                continue
            if v + (gain * i - leak * v) * wait >= theta[j]:
                s = crossing(leak, v, i, theta[j])
                if s <= wait and s < math.inf:
                    spikes[b, j] = arrivals[order[k]] + s
                    slopes[b, j] = gain * i * math.exp(-s) - leak * theta[j]
                    break
            if wait < math.inf:
                v = math.exp(-leak * wait) * v + response(leak, gain, wait) * i
                i *= math.exp(-wait)
    return spikes, slopes


@numba.njit(parallel=True, cache=True, error_model="numpy")
def largest_responses(times, delay, leak, gain, spikes):
    """max over causal inputs of eps(spike - arrival), (batch, out); 0 for silent neurons."""
    batch, outputs = spikes.shape
    most = np.zeros((batch, outputs))
    for b in numba.prange(batch):
        for j in range(outputs):
            for k in range(times.shape[1]):
                s = spikes[b, j] - times[b, k] - delay[j, k]
                if s > 0.0 and s < math.inf and spikes[b, j] < math.inf:
                    most[b, j] = max(most[b, j], response(leak, gain, s))
    return most


@numba.njit(parallel=True, cache=True, error_model="numpy")
def backward(times, weight, delay, leak, gain, spikes, pull):
    """Gradients of weight and delay (out, in) and of times (batch, in) from the adjoint of V at the spikes."""
    batch, inputs = times.shape
    outputs = len(weight)
    of_weight, of_delay = np.zeros((outputs, inputs)), np.zeros((outputs, inputs))
    of_times = np.zeros((PARTS, batch, inputs))
    for part in numba.prange(PARTS):
        for j in range(part, outputs, PARTS):
            for b in range(batch):
                if pull[b, j] == 0.0 or spikes[b, j] == math.inf:
                    continue
                for k in range(inputs):
                    s = spikes[b, j] - times[b, k] - delay[j, k]
                    if s > 0.0 and s < math.inf:
                        passed = response(leak, gain, s)
                        moved = -pull[b, j] * weight[j, k] * (gain * math.exp(-s) - leak * passed)
                        of_weight[j, k] += pull[b, j] * passed
                        of_delay[j, k] += moved
                        of_times[part, b, k] += moved
    return of_weight, of_delay, of_times.sum(0)
