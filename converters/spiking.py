"""From a legalised network and thresholds to a spiking graph: the part that all rate-like recipes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from converters.legalise import is_activation
from neuro.errors import UnsupportedNode
from neuro.graph import Graph, Node, Shape
from neuro.nodes import (
    Affine,
    AvgPool,
    Concat,
    Conv,
    MaxCount,
    MaxPool,
    Neuron,
    Pad,
    Permute,
    Readout,
    Reshape,
    Scale,
    Slice,
    Spiking,
)
from neuro.rewrite import Builder, append, rebuild


def channel_shape(vector: Tensor, shape: Shape) -> Tensor:
    """A vector per channel (or one number) in a form that broadcasts against features of `shape`."""
    return vector.reshape(-1, *(1,) * (len(shape) - 1))


def spiking_graph(plain: Graph, neurons: Mapping[str, tuple[Neuron, Tensor]], readout: Readout) -> Graph:
    """Replace every activation by neurons whose spikes are worth `scale`, and read the classes from a membrane.

    `neurons[name]` holds the population and the value of one of its spikes (broadcast against the features). The values
    are then moved forward into the weights that read them. Raises UnsupportedNode for max-pools of anything but spikes.
    """
    _check_pools(plain)

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


def reads_spikes(graph: Graph, name: str) -> bool:
    """Whether the values that a max-pool sees come from activations through moves only that keep channels apart."""

    def spikes(source: str) -> bool:
        node = graph.nodes[source]
        keeps = isinstance(node, MaxPool | Slice) or (isinstance(node, Pad) and node.value == 0)
        if keeps or (isinstance(node, Concat) and node.dim == 0):
            return all(spikes(before) for before in graph.sources[source])
        return is_activation(node)

    return spikes(graph.sources[name][0])


def _check_pools(graph: Graph) -> None:
    """Refuse max-pools of currents that change in time: the maximum at every step is not the maximum of the means."""
    changing: set[str] = set()
    refused = []
    for name, node in graph.nodes.items():
        if is_activation(node) or any(source in changing for source in graph.sources[name]):
            changing.add(name)
            if isinstance(node, MaxPool) and not reads_spikes(graph, name):
                refused.append(f"  {name!r}: MaxPool of sums of spikes; put an activation or an average pool before it")
    if refused:
        raise UnsupportedNode(f"{graph.name!r}: {len(refused)} node(s) cannot be converted:\n" + "\n".join(refused))


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
            builder.add(key, Scale(_compressed(factor)), (builder.alias[name],))
        return key

    def rule(builder: Builder, name: str) -> object:
        node, shape = graph.nodes[name], graph.shapes[name]
        given = graph.sources[name]
        if isinstance(node, Scale) and node.offset is None and isinstance(graph.nodes[given[0]], Spiking):
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


def _compressed(factor: Tensor) -> Tensor:
    """The same factor with every dimension along which it is constant reduced to one."""
    for dim in range(factor.ndim):
        first = factor.narrow(dim, 0, 1)
        if factor.shape[dim] > 1 and bool((factor == first).all()):
            factor = first
    return factor.contiguous()


def _channel_vector(factor: Tensor) -> Tensor | None:
    """The factor of each channel, or None where it varies within a channel."""
    flat = factor.reshape(factor.shape[0], -1)
    return flat[:, 0] if bool((flat == flat[:, :1]).all()) else None


def move_scales(node: Node, waiting: list[Tensor | None], shapes: list[Shape]) -> tuple[Node, Tensor | None] | None:
    """The node with the factors of its inputs moved into it, and the factor left behind; None where they must stay."""
    factor = waiting[0]
    if isinstance(node, Reshape | Permute | Slice) and factor is not None:
        return node, node.forward(factor[None])[0]
    if isinstance(node, Pad) and node.value == 0 and factor is not None:
        return node, replace(node, value=1.0).forward(factor[None])[0]
    if isinstance(node, Concat):
        parts = [torch.ones(shape) if part is None else part for part, shape in zip(waiting, shapes, strict=True)]
        return node, node.forward(*(part[None] for part in parts))[0]
    vector = None if factor is None else _channel_vector(factor)
    if isinstance(node, AvgPool | MaxCount) and vector is not None:
        return node, channel_shape(vector, shapes[0]).expand(node.output_shape(*shapes))
    if isinstance(node, Conv) and vector is not None:
        groups = vector.reshape(node.groups, 1, -1).expand(-1, node.weight.shape[0] // node.groups, -1)
        per_weight = groups.reshape(node.weight.shape[0], -1, *(1,) * (node.weight.ndim - 2))
        return replace(node, weight=node.weight * per_weight), None
    if isinstance(node, Affine) and factor is not None:
        rows = factor.reshape(-1, factor.shape[-1])
        if bool((rows == rows[:1]).all()):
            return replace(node, weight=node.weight * rows[0]), None
    return None
