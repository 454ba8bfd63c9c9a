"""What the neurons of a network fire while it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from neuro.flow import has_neurons
from neuro.network import Network


class Activity(NamedTuple):
    """The outputs of a network; the spikes (time, batch, *neurons) of all its populations and of the hidden ones."""

    outputs: Tensor
    spikes: Mapping[str, Tensor]
    hidden: Mapping[str, Tensor]


def watch(network: nn.Module, x: Tensor) -> Activity:
    """Let the network answer. Only of a `neuro.Network` is it known what it fires."""
    graph = network.live() if isinstance(network, Network) else None
    if graph is None or not has_neurons(graph):
        return Activity(network(x), {}, {})
    outputs, spikes, _ = network(x, record=True)
    return Activity(outputs, spikes, {name: fired for name, fired in spikes.items() if name != graph.output})
