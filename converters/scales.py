"""Factors on their way through a network: where they pass, where they become part of the weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from neuro.graph import Node, Shape
from neuro.nodes import (
    Affine,
    AvgPool,
    Concat,
    Conv,
    ConvTranspose,
    MaxCount,
    MaxPool,
    Pad,
    Permute,
    Reshape,
    Scale,
    Slice,
)


def channel_shape(vector: Tensor, shape: Shape) -> Tensor:
    """A vector per channel (or one number) in a form that broadcasts against features of `shape`."""
    return vector.reshape(-1, *(1,) * (len(shape) - 1))


def compressed(tensor: Tensor) -> Tensor:
    """The same tensor with every dimension along which it is constant reduced to one."""
    for dim in range(tensor.ndim):
        first = tensor.narrow(dim, 0, 1)
        if tensor.shape[dim] > 1 and bool((tensor == first).all()):
            tensor = first
    return tensor.contiguous()


def channel_vector(tensor: Tensor) -> Tensor | None:
    """The number of each channel, or None where it varies within a channel."""
    flat = tensor.reshape(tensor.shape[0], -1)
    return flat[:, 0] if bool((flat == flat[:, :1]).all()) else None


def padded_factor(node: Pad, factor: Tensor) -> Tensor:
    """Factors of features with silence around them, where any factor will do: the channel's own, or the largest."""
    vector, shape = channel_vector(factor), tuple(factor.shape)
    if vector is not None and not any(node.amounts[0]):
        return channel_shape(vector, shape).expand(node.output_shape(shape))
    return replace(node, value=float(factor.max())).forward(factor[None])[0]


def move_scales(node: Node, waiting: list[Tensor | None], shapes: list[Shape]) -> tuple[Node, Tensor | None] | None:
    """The node with the factors of its inputs moved into it, and the factor left behind; None where they must stay."""
    factor = waiting[0]
    if isinstance(node, Reshape | Permute | Slice) and factor is not None:
        return node, node.forward(factor[None])[0]
    if isinstance(node, Pad) and node.value == 0 and factor is not None:
        return node, padded_factor(node, factor)
    if isinstance(node, Concat):
        parts = [torch.ones(shape) if part is None else part for part, shape in zip(waiting, shapes, strict=True)]
        return node, node.forward(*(part[None] for part in parts))[0]
    if isinstance(node, Scale) and factor is not None:
        return replace(node, factor=compressed(node.factor * factor)), None
    vector = None if factor is None else channel_vector(factor)
    rising = isinstance(node, MaxCount | MaxPool) and vector is not None and bool((vector > 0).all())
    if (isinstance(node, AvgPool) or rising) and vector is not None:
        return node, channel_shape(vector, shapes[0]).expand(node.output_shape(*shapes))
    if isinstance(node, Conv | ConvTranspose) and vector is not None:
        return replace(node, weight=node.weight * node.per_input(vector)), None
    if isinstance(node, Affine) and factor is not None:
        rows = factor.reshape(-1, factor.shape[-1])
        if bool((rows == rows[:1]).all()):
            return replace(node, weight=node.weight * rows[0]), None
    return None
