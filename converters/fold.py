"""Take out what only training needs: batch norm goes into the weights, dropout goes away."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from neuro.graph import Graph, Shape
from neuro.nodes import Affine, BatchNorm, Conv, Dropout, Scale
from neuro.rewrite import Builder, rebuild


def scale_outputs(node: Affine | Conv, factor: Tensor, offset: Tensor | None) -> Affine | Conv:
    """The node followed by y * factor + offset per output channel, as one node."""
    weight = node.weight * factor.reshape(-1, *(1,) * (node.weight.ndim - 1))
    bias = None if node.bias is None else node.bias * factor
    if offset is not None:
        bias = offset if bias is None else bias + offset
    return replace(node, weight=weight, bias=bias)


def _per_channel(tensor: Tensor, shape: Shape) -> Tensor | None:
    """The vector of a tensor that broadcasts against `shape` by its first dimension only; None where it has others."""
    if tensor.numel() == 1:
        return tensor.reshape(1).expand(shape[0])
    if tensor.ndim == len(shape) and tensor.numel() == tensor.shape[0]:
        return tensor.reshape(-1)
    return None


def _without_dropout(graph: Graph) -> Graph:
    def rule(builder: Builder, name: str) -> object:
        if not isinstance(graph.nodes[name], Dropout):
            return builder.keep(name)
        builder.note(name, "Dropout", "nothing", "identity in inference")
        return builder.drop(name)

    return rebuild(graph, rule)


def fold(graph: Graph) -> Graph:
    """Fold BatchNorm and Scale into the weighted node before them where they are its only reader; drop Dropout.

    A BatchNorm with no weighted node before it becomes a Scale. The function of the graph is unchanged.
    """
    graph = _without_dropout(graph)

    def rule(builder: Builder, name: str) -> object:
        node = graph.nodes[name]
        if not isinstance(node, BatchNorm | Scale):
            return builder.keep(name)
        scale = node.as_scale(len(graph.shapes[name])) if isinstance(node, BatchNorm) else node
        (source,) = graph.sources[name]
        before = builder.nodes[builder.alias[source]]
        if isinstance(before, Affine | Conv) and len(graph.targets[source]) == 1 and before.weight.is_floating_point():
            shape = graph.shapes[source]
            in_place = isinstance(before, Conv) or len(shape) == 1
            factor = _per_channel(scale.factor, shape)
            offset = None if scale.offset is None else _per_channel(scale.offset, shape)
            if in_place and factor is not None and (scale.offset is None or offset is not None):
                builder.nodes[builder.alias[source]] = scale_outputs(before, factor, offset)
                builder.note(name, node.kind, "nothing", f"folded into the weights of {builder.alias[source]!r}")
                return builder.drop(name)
        if isinstance(node, BatchNorm):
            builder.note(name, "BatchNorm", "Scale", "no weighted node before it to fold it into")
        return builder.keep(name, scale)

    return rebuild(graph, rule)
