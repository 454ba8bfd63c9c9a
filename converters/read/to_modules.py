"""A Graph as modules of another library, to be trained there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import singledispatch

import torch
from torch import Tensor, nn

from neuro.errors import UnsupportedNode
from neuro.graph import Graph, Input, Node, Shape
from neuro.nodes import (
    Add,
    Affine,
    AvgPool,
    BatchNorm,
    Clamp,
    Concat,
    Conv,
    ConvTranspose,
    Dropout,
    LeakyReLU,
    MaxPool,
    Neuron,
    Permute,
    ReLU,
    Reshape,
    Scale,
    Softmax,
)


class NoForm(Exception):
    """A node cannot be said in the other library; the message says why."""


class Scaled(nn.Module):
    """y = factor * x + offset, element by element, both learnt."""

    def __init__(self, factor: Tensor, offset: Tensor | None) -> None:
        super().__init__()
        self.factor = nn.Parameter(factor.detach().clone())
        self.offset = None if offset is None else nn.Parameter(offset.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor if self.offset is None else x * self.factor + self.offset


class Permuted(nn.Module):
    """Feature dimensions in another order."""

    def __init__(self, order: Shape) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, *(dim + 1 for dim in self.order))


class Added(nn.Module):
    """The sum of the inputs."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return sum(inputs[1:], inputs[0])


class Joined(nn.Module):
    """The inputs one behind the other."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.dim + 1)


class Wired(nn.Module):
    """One step of a network whose modules are no chain.

    `forward(x)`; with `stateful`, the numbers of modules that take and give a state, `forward(x, state=None)` which
    returns what comes out and the states, one for each module.
    """

    def __init__(self, parts: Sequence[nn.Module], sources: Sequence[tuple[int, ...]], stateful: Sequence[int]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.sources, self.stateful = tuple(sources), frozenset(stateful)

    def forward(self, x: Tensor, state: list | None = None) -> Tensor | tuple[Tensor, list]:
        values, states = [x], [None] * len(self.parts) if state is None else list(state)
        for number, (part, sources) in enumerate(zip(self.parts, self.sources, strict=True)):
            given = [values[source] for source in sources]
            if number in self.stateful:
                result, states[number] = part(*given, states[number])
            else:
                result = part(*given)
            values.append(result)
        return (values[-1], states) if self.stateful else values[-1]


def parts_of(
    graph: Graph, library: str, neuron: Callable[[Neuron, Shape], nn.Module]
) -> tuple[list[nn.Module], list[tuple[int, ...]]]:
    """Modules in the order of the graph, and for each the numbers of its inputs: 0 is what enters, n + 1 module n.

    `neuron(node, shape)` makes a population or raises NoForm. Raises UnsupportedNode listing every node without a form.
    """
    if len(graph.inputs) != 1:
        raise UnsupportedNode(
            f"{graph.name!r} has {len(graph.inputs)} inputs; {library} networks written here take one"
        )
    numbers, parts, sources, refused = {graph.inputs[0]: 0}, [], [], []
    last = graph.output
    for name in (*(n for n in graph.nodes if n != last), last):
        node = graph.nodes[name]
        if isinstance(node, Input):
            continue
        entering = graph.shapes[graph.sources[name][0]]
        try:
            parts.append(neuron(node, entering) if isinstance(node, Neuron) else layer(node, entering))
        except NoForm as reason:
            refused.append(f"  {name!r}: {node.kind}: {reason}")
        numbers[name] = len(numbers)
        sources.append(tuple(numbers[source] for source in graph.sources[name]))
    if refused:
        raise UnsupportedNode(
            f"{graph.name!r}: {len(refused)} node(s) have no form in {library}\n" + "\n".join(refused)
        )
    return parts, sources


def is_chain(sources: Sequence[tuple[int, ...]]) -> bool:
    """Whether every module reads the one before it."""
    return all(given == (number,) for number, given in enumerate(sources))


@singledispatch
def layer(node: Node, entering: Shape) -> nn.Module:
    """The torch module of a stateless node whose input has features of shape `entering`; NoForm otherwise."""
    raise NoForm("no torch module does this")


def _filled(module: nn.Module, **tensors: Tensor | None) -> nn.Module:
    for name, tensor in tensors.items():
        if tensor is not None:
            if not tensor.is_floating_point():
                raise NoForm("integer weights cannot be trained")
            own = tensor.detach().clone()
            setattr(module, name, own if name in module._buffers else nn.Parameter(own))
    return module


@layer.register
def _(node: Affine, entering: Shape) -> nn.Module:
    linear = nn.utils.skip_init(nn.Linear, *reversed(node.weight.shape), bias=node.bias is not None)
    return _filled(linear, weight=node.weight, bias=node.bias)


@layer.register
def _(node: Conv, entering: Shape) -> nn.Module:
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[node.weight.ndim - 3]
    made = nn.utils.skip_init(
        kind, node.weight.shape[1] * node.groups, node.weight.shape[0], tuple(node.weight.shape[2:]), node.stride,
        node.padding, node.dilation, node.groups, node.bias is not None,
    )  # fmt: skip
    return _filled(made, weight=node.weight, bias=node.bias)


@layer.register
def _(node: ConvTranspose, entering: Shape) -> nn.Module:
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[node.weight.ndim - 3]
    made = nn.utils.skip_init(
        kind, node.weight.shape[0], node.weight.shape[1] * node.groups, tuple(node.weight.shape[2:]), node.stride,
        node.padding, node.output_padding, node.groups, node.bias is not None, node.dilation,
    )  # fmt: skip
    return _filled(made, weight=node.weight, bias=node.bias)


@layer.register
def _(node: BatchNorm, entering: Shape) -> nn.Module:
    kind = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[len(entering) - 1]
    made = kind(node.mean.numel(), node.eps)
    return _filled(made, running_mean=node.mean, running_var=node.var, weight=node.weight, bias=node.bias)


@layer.register
def _(node: AvgPool, entering: Shape) -> nn.Module:
    kind = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[len(node.kernel) - 1]
    return kind(node.kernel, node.stride, node.padding, node.ceil, node.count_padding)  # type: ignore[arg-type]


@layer.register
def _(node: MaxPool, entering: Shape) -> nn.Module:
    kind = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[len(node.kernel) - 1]
    return kind(node.kernel, node.stride, node.padding, ceil_mode=node.ceil)


@layer.register
def _(node: Reshape, entering: Shape) -> nn.Module:
    if node.shape == (math.prod(entering),):
        return nn.Flatten()
    return (
        nn.Unflatten(1, node.shape) if len(entering) == 1 else nn.Sequential(nn.Flatten(), nn.Unflatten(1, node.shape))
    )


@layer.register
def _(node: Permute, entering: Shape) -> nn.Module:
    return Permuted(node.order)


@layer.register
def _(node: Scale, entering: Shape) -> nn.Module:
    if not node.factor.is_floating_point():
        raise NoForm("integer weights cannot be trained")
    return Scaled(node.factor, node.offset)


@layer.register
def _(node: ReLU, entering: Shape) -> nn.Module:
    return nn.ReLU()


@layer.register
def _(node: LeakyReLU, entering: Shape) -> nn.Module:
    return nn.LeakyReLU(node.slope)


@layer.register
def _(node: Clamp, entering: Shape) -> nn.Module:
    return nn.Hardtanh(node.low, node.high)


@layer.register
def _(node: Softmax, entering: Shape) -> nn.Module:
    return (nn.LogSoftmax if node.log else nn.Softmax)(node.dim + 1)


@layer.register
def _(node: Dropout, entering: Shape) -> nn.Module:
    return nn.Dropout(node.p)


@layer.register
def _(node: Add, entering: Shape) -> nn.Module:
    return Added()


@layer.register
def _(node: Concat, entering: Shape) -> nn.Module:
    return Joined(node.dim)
