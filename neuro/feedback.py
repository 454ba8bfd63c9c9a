"""What a recurrent population did: with its spikes known, its body is a network without loops."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neuro.counts import Tally, Traffic, tally, tally_neurons
from neuro.dynamics import rest
from neuro.flow import carries_spikes, carries_sums_of_spikes
from neuro.graph import Stateless
from neuro.kernels import run_steps
from neuro.kernels.cpu import active
from neuro.nodes import Add, Input, Neuron, Recurrent


def recurrent_counts(node: Recurrent, x: Tensor, y: Tensor) -> Tally:
    """The work of all nodes in the body; x (steps or 1, batch, *features) entered, y (steps, batch, *features) left.

    Spikes of the last step are counted as fired; the run ended before they came back.
    """
    body, steps, batch = node.body, y.shape[0], y.shape[1]
    values = dict(zip(body.inputs, (x, torch.cat((torch.zeros_like(y[:1]), y[:-1]))), strict=True))
    spikes = {name for name, value in values.items() if bool(((value == 0) | (value == 1)).all())}
    binary = carries_spikes(body, spikes)
    graded = carries_sums_of_spikes(body, binary)
    total = Tally()
    for name, inner in body.nodes.items():
        if isinstance(inner, Input):
            continue
        given = [values[source] for source in body.sources[name]]
        if isinstance(inner, Neuron):
            state = rest(inner, batch, tuple(given[0].shape[2:]), given[0].dtype)
            _, values[name], _ = run_steps(inner, state, given[0], steps)
            fired = int(values[name].sum()) if name in binary else 0
            total += tally_neurons(inner, math.prod(body.shapes[name]), batch, steps, fired, None)
        elif isinstance(inner, Stateless):
            longest = max(value.shape[0] for value in given)
            rows = [value.expand(longest, *value.shape[1:]).flatten(0, 1) for value in given]
            values[name] = inner.forward(*rows).unflatten(0, (longest, batch))
            joins = isinstance(inner, Add) and all(isinstance(body.nodes[r], Neuron) for r in body.targets[name])
            if not joins:
                flows = tuple(
                    Traffic(tuple(value.shape[2:]), active(value), value.shape[0] * batch, s in binary, s in graded)
                    for s, value in zip(body.sources[name], given, strict=True)
                )
                total += tally(inner, flows, body.shapes[name])
    return total
