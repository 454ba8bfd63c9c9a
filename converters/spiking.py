"""From a legalised network and thresholds to a spiking graph: the part that all rate-like recipes share."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from converters.legalise import is_activation
from converters.maxima import reads_spikes
from converters.scales import compressed, move_scales
from neuro.graph import Graph
from neuro.nodes import (
    GradedSpiking,
    MaxCount,
    MaxPool,
    Neuron,
    Readout,
    Scale,
    Spiking,
)
from neuro.rewrite import Builder, append, rebuild


def spiking_graph(plain: Graph, neurons: Mapping[str, tuple[Neuron, Tensor]], readout: Readout) -> Graph:
    """Replace every activation by neurons whose spikes are worth `scale`, and read the classes from a membrane.

    `neurons[name]` holds the population and the value of one of its spikes (broadcast against the features). The values
    are then moved forward into the weights that read them.
    """

    def rule(builder: Builder, name: str) -> object:
        node = plain.nodes[name]
        if is_activation(node):
            population, scale = neurons[name]
            spikes = builder.keep(name, population)
            builder.alias[name] = builder.add(f"{name}.scale", Scale(scale), (spikes,))
            builder.note(name, node.kind, population.kind, "activation replaced by neurons")
            return None
        if isinstance(node, MaxPool) and reads_spikes(plain, name):
            builder.note(name, "MaxPool", "MaxCount", "emits the largest spike count of its window; exact for counts")
            return builder.keep(name, MaxCount(node.kernel, node.stride, node.padding, node.ceil))
        return builder.keep(name)

    graph = append(rebuild(plain, rule), "readout", readout)
    return absorb_scales(graph.edit(name=f"{plain.name}, spiking"))


def activations_replaced(graph: Graph) -> tuple[int, int]:
    """How many activations were replaced by neurons, and how many there were."""
    replaced = sum(change.why.startswith("activation replaced") for change in graph.history)
    left = sum(is_activation(node) for node in graph.nodes.values())
    return replaced, replaced + left


def absorb_scales(graph: Graph) -> Graph:
    """Move positive factors behind neurons forward: through moves and pools into the weights that read them.

    Where they cannot go further (an addition, a neuron, the read-out) they stay as Scale nodes: one-to-one synapses
    whose weight is the factor. So residual branches meet on one scale.
    """
    pending: dict[str, Tensor] = {}

    def settle(builder: Builder, name: str) -> str:
        """The current name of an old node with its pending factor made a node of its own."""
        factor = pending.get(name)
        if factor is None:
            return builder.alias[name]
        key = f"{name}.scaled"
        if key not in builder.nodes:
            builder.add(key, Scale(compressed(factor)), (builder.alias[name],))
        return key

    def rule(builder: Builder, name: str) -> object:
        node, shape = graph.nodes[name], graph.shapes[name]
        given = graph.sources[name]
        sends = bool(given) and isinstance(graph.nodes[given[0]], Spiking | GradedSpiking)
        if isinstance(node, Scale) and node.offset is None and sends:
            pending[name] = node.factor.expand(shape)
            return builder.drop(name)
        waiting = [pending.get(source) for source in given]
        if all(factor is None for factor in waiting):
            return builder.keep(name)
        moved = move_scales(node, waiting, [graph.shapes[source] for source in given])
        if moved is None:
            factor = None
            builder.alias[name] = builder.add(name, node, tuple(settle(builder, source) for source in given))
        else:
            node, factor = moved
            builder.keep(name, node)
        if factor is not None:
            pending[name] = factor
        return None

    return rebuild(graph, rule)
