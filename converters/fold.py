"""Take out what only training needs: batch norm goes into the weights, dropout goes away."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from converters.scales import channel_shape, channel_vector, compressed, move_scales
from neuro.graph import Graph, Node, Shape, Stateless
from neuro.nodes import (
    Affine,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dropout,
    MaxPool,
    Pad,
    Permute,
    Reshape,
    Scale,
    Slice,
)
from neuro.rewrite import Builder, rebuild

Linear = Affine | Conv | ConvTranspose


def scale_outputs(node: Linear, factor: Tensor, offset: Tensor | None) -> Linear:
    """The node followed by y * factor + offset per output channel, as one node."""
    bias = None if node.bias is None else node.bias * factor
    if offset is not None:
        bias = offset if bias is None else bias + offset
    return replace(node, weight=node.weight * node.per_output(factor), bias=bias)


def fold(graph: Graph) -> Graph:
    """Fold BatchNorm and Scale into the weights before them, else into the weights behind them; drop Dropout.

    Backward they pass pools, forward pools and moves too. A convolution that pads with zeros keeps the image of an
    offset before it as a Scale of factor 1 behind it: biases that differ at the border. What meets no weights stays, as
    a Scale. The function of the graph is unchanged.
    """
    return _forward(_backward(_without_dropout(graph)))


def _without_dropout(graph: Graph) -> Graph:
    def rule(builder: Builder, name: str) -> object:
        if not isinstance(graph.nodes[name], Dropout):
            return builder.keep(name)
        builder.note(name, "Dropout", "nothing", "identity in inference")
        return builder.drop(name)

    return rebuild(graph, rule)


def _per_channel(tensor: Tensor, shape: Shape) -> Tensor | None:
    """The vector of a tensor that broadcasts against `shape` by its first dimension only; None where it has others."""
    if tensor.numel() == 1:
        return tensor.reshape(1).expand(shape[0])
    if tensor.ndim == len(shape) and tensor.numel() == tensor.shape[0]:
        return tensor.reshape(-1)
    return None


def _backward(graph: Graph) -> Graph:
    """Into the weighted node (or the Scale) before, where nothing else reads what lies between."""

    def rule(builder: Builder, name: str) -> object:
        node = graph.nodes[name]
        if not isinstance(node, BatchNorm | Scale):
            return builder.keep(name)
        scale = node.as_scale(len(graph.shapes[name])) if isinstance(node, BatchNorm) else node
        (source,) = graph.sources[name]
        factor = _per_channel(scale.factor, graph.shapes[name])
        offset = None if scale.offset is None else _per_channel(scale.offset, graph.shapes[name])
        if factor is not None and (scale.offset is None or offset is not None):
            while _passes_back(graph, source, bool((factor > 0).all())):
                (source,) = graph.sources[source]
            alias = builder.alias[source]
            merged = _merged(builder.nodes[alias], graph.shapes[source], factor, offset)
            if merged is not None and len(graph.targets[source]) == 1:
                builder.nodes[alias] = merged
                builder.note(name, node.kind, "nothing", f"folded into the weights of {alias!r}")
                return builder.drop(name)
        if isinstance(node, BatchNorm):
            builder.note(name, "BatchNorm", "Scale", "no weighted node before it to fold it into")
        return builder.keep(name, scale)

    return rebuild(graph, rule)


def _passes_back(graph: Graph, name: str, rising: bool) -> bool:
    """Whether factor * x + offset behind a node equals the same before it: averages of x, maxima if it is rising."""
    node = graph.nodes[name]
    whole = isinstance(node, AvgPool) and not any(node.padding) and not node.ceil
    return len(graph.targets[name]) == 1 and (whole or (isinstance(node, MaxPool) and rising))


def _merged(before: Node, shape: Shape, factor: Tensor, offset: Tensor | None) -> Node | None:
    if isinstance(before, Scale) and before.factor.is_floating_point():
        form = channel_shape(factor, shape)
        shift = None if before.offset is None else before.offset * form
        if offset is not None:
            shift = channel_shape(offset, shape) if shift is None else shift + channel_shape(offset, shape)
        return Scale(before.factor * form, shift)
    vectors = not isinstance(before, Affine) or len(shape) == 1
    if isinstance(before, Affine | Conv | ConvTranspose) and vectors and before.weight.is_floating_point():
        return scale_outputs(before, factor, offset)
    return None


def _forward(graph: Graph) -> Graph:
    """Into all weighted nodes behind, where each can take it."""
    for name, node in graph.nodes.items():
        if not isinstance(node, Scale) or not node.factor.is_floating_point():
            continue
        shape = graph.shapes[name]
        offset = torch.zeros(()) if node.offset is None else node.offset
        behind = _behind(graph, name, node.factor.expand(shape), offset.expand(shape))
        if behind:
            return _forward(_moved(graph, name, behind))
    return graph


def _weighted(node: Node) -> bool:
    return isinstance(node, Affine | Conv | ConvTranspose) and node.weight.is_floating_point()


def _behind(graph: Graph, name: str, factor: Tensor, offset: Tensor) -> dict[str, tuple[Node, Scale | None]]:
    """What the nodes behind `name` become when they see x in place of factor * x + offset, and what must follow them.

    Empty where one of them cannot take it.
    """
    found: dict[str, tuple[Node, Scale | None]] = {}
    for reader in graph.targets[name]:
        node, shape = graph.nodes[reader], graph.shapes[name]
        passing = isinstance(node, Reshape | Permute | Slice | AvgPool | MaxPool | Pad)
        moved = move_scales(node, [factor], [shape]) if passing or _weighted(node) else None
        if moved is None or not isinstance(node, Stateless):
            return {}
        if isinstance(node, MaxPool) and channel_vector(offset) is None:
            return {}
        image = node.forward(offset[None].to(factor.dtype))[0]
        if moved[1] is None:
            found[reader] = _with_bias(moved[0], image)
            continue
        further = _behind(graph, reader, moved[1], image)
        if further:
            found |= {reader: (node, None), **further}
        elif isinstance(node, MaxPool):
            found[reader] = (node, Scale(compressed(moved[1]), compressed(image)))
        else:
            return {}
    return found


def _with_bias(node: Node, image: Tensor) -> tuple[Node, Scale | None]:
    """A weighted node with constant inputs to its outputs: its bias, or a Scale behind it where borders differ."""
    form = image.reshape(-1, image.shape[-1]).T if isinstance(node, Affine) else image
    vector = channel_vector(form)
    if vector is not None:
        return replace(node, bias=vector if bool(vector.any()) else None), None  # type: ignore[call-arg]
    return replace(node, bias=None), Scale(image.new_ones(()), compressed(image))  # type: ignore[call-arg]


def _moved(graph: Graph, scale: str, behind: dict[str, tuple[Node, Scale | None]]) -> Graph:
    def rule(builder: Builder, name: str) -> object:
        if name == scale:
            weights = [reader for reader in behind if _weighted(graph.nodes[reader])]
            where = f"folded into the weights of {', '.join(map(repr, weights))}" if weights else "put behind the pool"
            builder.note(name, "Scale", "nothing" if weights else "Scale", where)
            return builder.drop(name)
        node, rest = behind.get(name, (None, None))
        builder.keep(name, node)
        if rest is not None:
            what = f"{name}.border" if _weighted(graph.nodes[name]) else f"{name}.scale"
            builder.alias[name] = builder.add(what, rest, (builder.alias[name],))
        return None

    return rebuild(graph, rule)
