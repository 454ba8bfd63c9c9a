"""A whole first-spike network in the order of its spikes: one queue of events, no clock, no layers."""

from __future__ import annotations

import heapq
import math

import numba
import numpy as np

from neuro.kernels.first_spike_equations import crossing, response

ARRIVES = 0
REACHES = 1
FIRES = 2
"""Kinds of event: a spike at all its synapses, at one of them, and a crossing that is expected."""


@numba.njit(cache=True, error_model="numpy")
def _send(queue, source, now, start, width, weight_at, axonal, synaptic, delayed, layer):
    at = now + axonal[source]
    if not delayed[layer]:
        heapq.heappush(queue, (at, ARRIVES, source, 0))
        return
    row = weight_at[layer] + (source - start[layer]) * width[layer + 1]
    for j in range(width[layer + 1]):
        heapq.heappush(queue, (at + synaptic[row + j], REACHES, source, j))


@numba.njit(cache=True, error_model="numpy")
def run(first, start, width, weight_at, weight, axonal, synaptic, delayed, theta, leak, gain, tau, to_decision):
    """Spike times of all neurons of one sample, and per layer the synaptic events at waiting and at fired neurons.

    first (inputs,): times of the input. Layer l has width[l] neurons from start[l] on; layer 0 is the input. Weights of
    l to l + 1 lie at weight_at[l], by source; synaptic delays likewise where delayed[l]. theta by neuron; leak, gain,
    tau by layer. to_decision: end with the first spike of the last layer.
    """
    layers = len(width) - 1
    total = int(start[layers] + width[layers])
    layer_of = np.empty(total, dtype=np.int64)
    for layer in range(layers + 1):
        layer_of[start[layer] : start[layer] + width[layer]] = layer
    times = np.full(total, math.inf)
    v, i, last = np.zeros(total), np.zeros(total), np.zeros(total)
    version = np.zeros(total, dtype=np.int64)
    updates, ignored = np.zeros(layers + 1, dtype=np.int64), np.zeros(layers + 1, dtype=np.int64)
    queue = [(math.inf, ARRIVES, np.int64(0), np.int64(0))]
    for place in range(width[0]):
        times[place] = first[place]
        if first[place] < math.inf:
            _send(queue, np.int64(place), first[place], start, width, weight_at, axonal, synaptic, delayed, 0)
    while True:
        now, kind, source, number = heapq.heappop(queue)
        if now == math.inf:
            break
        layer = layer_of[source]
        if kind == FIRES:
            if version[source] != number or times[source] < math.inf:
                continue
            times[source] = now
            if layer == layers:
                if to_decision:
                    break
            else:
                _send(queue, source, now, start, width, weight_at, axonal, synaptic, delayed, layer)
            continue
        above = layer + 1
        low, high = (number, number + 1) if kind == REACHES else (0, width[above])
        row = weight_at[layer] + (source - start[layer]) * width[above]
        for j in range(low, high):
            w = weight[row + j]
            if w == 0.0:
                continue
            target = start[above] + j
            if times[target] < math.inf:
                ignored[above] += 1
                continue
            updates[above] += 1
            s = (now - last[target]) / tau[above]
            v[target] = math.exp(-leak[above] * s) * v[target] + response(leak[above], gain[above], s) * i[target]
            i[target] = math.exp(-s) * i[target] + w
            last[target] = now
            version[target] += 1
            ahead = crossing(leak[above], v[target], i[target], theta[target])
            if ahead < math.inf:
                heapq.heappush(queue, (now + tau[above] * ahead, FIRES, np.int64(target), version[target]))
    return times, updates, ignored
