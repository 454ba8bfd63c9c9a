"""Train networks whose first spikes are ReLUs (RampFirstSpike): fewer spikes, coarse weights and times in the loop."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from neuro.errors import ParameterError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph, Node
from neuro.network import Network
from neuro.nodes import RampFirstSpike, Weighted
from neuro.training.activity import fired
from neuro.training.losses import Criterion, CrossEntropy


@dataclass(frozen=True)
class SparseFirstSpikes(Criterion):
    """A criterion plus `strength` times the mean activation of all RampFirstSpike neurons, in windows.

    An activation is what a spike is worth, 0 where there is none: the penalty pushes weak ones to silence, neurons and
    samples alike. weight_bits: weights are seen rounded, as by `with_weight_bits`, their gradient as if they were not
    (Jacob et al. 2018, straight through); times are rounded by the nodes themselves. Validation sees the criterion and
    the weights as they are. A Network of a graph with RampFirstSpike nodes; UnsupportedNode for others.
    """

    strength: float
    criterion: Criterion = CrossEntropy()  # noqa: RUF009 - frozen
    weight_bits: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.strength) and self.strength >= 0):
            raise ParameterError(f"SparseFirstSpikes: strength must be finite and >= 0, got {self.strength}")
        if self.weight_bits is not None and not 2 <= self.weight_bits <= 16:
            raise ParameterError(f"SparseFirstSpikes: weight_bits must lie in 2..16, got {self.weight_bits}")

    def scores(self, outputs: Tensor) -> Tensor:
        return self.criterion.scores(outputs)

    def cost(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.criterion.cost(outputs, y)

    def __call__(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if not isinstance(network, Network):
            raise UnsupportedNode(f"SparseFirstSpikes takes a neuro.Network, got {type(network).__name__}")
        graph = network.live()
        if self.weight_bits is not None:
            graph = _rounded(graph, self.weight_bits)
        shares: list[Tensor] = []

        def observe(name: str, value: Tensor) -> None:
            node = graph.nodes[name]
            if isinstance(node, RampFirstSpike):
                shares.append(value.mean() / node.window)

        outputs = evaluate(graph, x, observe=observe)
        if not shares:
            raise UnsupportedNode(f"{graph.name!r} has no RampFirstSpike nodes; convert it with FirstSpike first")
        return self.criterion.cost(outputs, y) + self.strength * torch.stack(shares).mean()


def rounded_weight(weight: Tensor, bits: int) -> Tensor:
    """The nearest multiples of max|w| / (2^(bits-1) - 1), one scale per output; gradients pass straight through."""
    most = 2 ** (bits - 1) - 1
    scale = weight.detach().abs().flatten(1).amax(1).clamp(min=1e-30).reshape(-1, *(1,) * (weight.ndim - 1)) / most
    nearest = (weight.detach() / scale).round() * scale
    return (weight - weight.detach()) + nearest


def with_weight_bits(graph: Graph, bits: int) -> Graph:
    """The graph with all weights rounded to `bits` bits, one scale per output; biases and thresholds stay."""
    nodes = {
        name: replace(node, **{"weight": rounded_weight(node.weight, bits)}) if isinstance(node, Weighted) else node
        for name, node in graph.nodes.items()
    }
    return graph.edit(nodes=nodes)


def _rounded(graph: Graph, bits: int) -> Graph:
    """As `with_weight_bits` for a live graph, without its checks, so that gradients reach the weights."""
    nodes: dict[str, Node] = dict(graph.nodes)
    for name, node in graph.nodes.items():
        if isinstance(node, Weighted):
            other = object.__new__(type(node))
            other.__dict__.update(node.__dict__ | {"weight": rounded_weight(node.weight, bits)})
            nodes[name] = other
    found = copy.copy(graph)
    found.__dict__["nodes"] = MappingProxyType(nodes)
    return found


def spikes_per_neuron(graph: Graph, x: Tensor, batch_size: int = 500) -> float:
    """Mean number of spikes of a neuron per sample, in [0, 1], on x (samples, *features); neurons fire at most once."""
    spikes = neurons = 0

    def observe(name: str, value: Tensor) -> None:
        nonlocal spikes, neurons
        found = fired(graph.nodes[name], value)
        if found is not None:
            spikes, neurons = spikes + int(found.sum()), neurons + found.numel()

    with torch.no_grad():
        for part in x.split(batch_size):
            evaluate(graph, part, observe=observe)
    if not neurons:
        raise UnsupportedNode(f"{graph.name!r} has no neurons that fire once; convert it with FirstSpike first")
    return spikes / neurons
