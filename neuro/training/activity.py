"""What the neurons of a network fire while it answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neuro.evaluate import evaluate
from neuro.flow import has_neurons
from neuro.graph import Graph, Node
from neuro.network import Network
from neuro.nodes import RampFirstSpike, TimedLIF, TimeToFirstSpike


class Activity(NamedTuple):
    """The outputs of a network; the spikes (time, batch, *neurons) of all its populations and of the hidden ones.

    Where neurons say their values by the times of spikes there is one step.
    """

    outputs: Tensor
    spikes: Mapping[str, Tensor]
    hidden: Mapping[str, Tensor]


def watch(network: nn.Module, x: Tensor) -> Activity:
    """Let the network answer. Only of a `neuro.Network` is it known what it fires."""
    graph = network.live() if isinstance(network, Network) else None
    if graph is None:
        return Activity(network(x), {}, {})
    outputs, spikes = network(x, record=True)[:2] if has_neurons(graph) else _in_one_go(graph, x)
    return Activity(outputs, spikes, {name: fired for name, fired in spikes.items() if name != graph.output})


def _in_one_go(graph: Graph, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The outputs of a graph whose values are not spikes in steps, and the spikes that its nodes speak of."""
    spikes: dict[str, Tensor] = {}

    def observe(name: str, value: Tensor) -> None:
        found = fired(graph.nodes[name], value)
        if found is not None:
            spikes[name] = found[None]

    return evaluate(graph, x, observe=observe), spikes


@singledispatch
def fired(node: Node, value: Tensor) -> Tensor | None:
    """Which spikes the output (batch, *features) of a node outside of time stands for; None where for none."""
    return None


@fired.register
def _(node: TimeToFirstSpike | TimedLIF, value: Tensor) -> Tensor | None:
    return torch.isfinite(value)


@fired.register
def _(node: RampFirstSpike, value: Tensor) -> Tensor | None:
    return value > 0
