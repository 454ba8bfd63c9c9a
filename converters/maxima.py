"""Max-pools and spikes: exact where a pool sees spikes or the input, by differences and ReLU everywhere else."""

from __future__ import annotations

import math

import torch

from converters.staircase import ClipFloorShift
from neuro.graph import Graph, Input, Shape
from neuro.nodes import Add, Clamp, Concat, MaxPool, Pad, Permute, ReLU, Reshape, Scale, Slice
from neuro.rewrite import Builder, rebuild

MOVES = (Reshape, Permute, Slice, Concat, MaxPool, Pad)


def is_activation(node: object) -> bool:
    """Whether a legalised node becomes a population of neurons."""
    return isinstance(node, ReLU | Clamp | ClipFloorShift)


def reads_spikes(graph: Graph, name: str) -> bool:
    """Whether the values that a max-pool sees come from activations through moves only that keep channels apart."""

    def spikes(source: str) -> bool:
        node = graph.nodes[source]
        keeps = isinstance(node, MaxPool | Slice) or (isinstance(node, Pad) and node.value == 0)
        if keeps or (isinstance(node, Concat) and node.dim == 0):
            return all(spikes(before) for before in graph.sources[source])
        return is_activation(node)

    return spikes(graph.sources[name][0])


def maxima_by_relu(graph: Graph) -> Graph:
    """Max-pools of anything but spikes and the input become max(a, b) = b + relu(a - b), pair by pair.

    The maximum of sums that arrive in parts is not the sum of the maxima of the parts; a ReLU of their difference is.
    """
    constant: set[str] = set()
    for name, node in graph.nodes.items():
        if isinstance(node, (Input, *MOVES)) and all(source in constant for source in graph.sources[name]):
            constant.add(name)

    def rule(builder: Builder, name: str) -> object:
        node = graph.nodes[name]
        if not isinstance(node, MaxPool) or name in constant or reads_spikes(graph, name):
            return builder.keep(name)
        (source,) = graph.sources[name]
        alias, shape, goal = builder.alias[source], graph.shapes[source], graph.shapes[name]
        neurons = 0
        for dim, size in enumerate(goal[1:], 1):
            windows = _taps(builder, name, alias, shape, dim, node, size)
            shape = (*shape[:dim], size, *shape[dim + 1 :])
            neurons += (len(windows) - 1) * math.prod(shape)
            alias = _largest(builder, name, windows)
        builder.alias[name] = alias
        cost = f"max(a, b) = b + relu(a - b), for it sees sums of spikes; costs {neurons:,} neurons"
        builder.note(name, "MaxPool", "ReLU", f"{cost}; an activation before the pool would save them")
        return None

    return rebuild(graph, rule)


def _taps(builder: Builder, name: str, alias: str, shape: Shape, dim: int, node: MaxPool, size: int) -> list[str]:
    """Slices along one dimension: the first, second, ... element of each of its `size` windows.

    Elements beyond a border are the element at the border, which lies in the same window: its maximum is unchanged.
    """
    kernel, stride, padding = (part[dim - 1] for part in (node.kernel, node.stride, node.padding))
    behind = max(0, (size - 1) * stride + kernel - padding - shape[dim])
    if padding or behind:
        last = shape[dim] - 1
        first = [builder.add(f"{name}.first", Slice(dim, 0, 1), (alias,))] * padding if padding else []
        end = [builder.add(f"{name}.last", Slice(dim, last, last + 1), (alias,))] * behind if behind else []
        alias = builder.add(f"{name}.padded", Concat(dim), (*first, alias, *end))
    stops = [start + (size - 1) * stride + 1 for start in range(kernel)]
    return [builder.add(f"{name}.tap", Slice(dim, start, stop, stride), (alias,)) for start, stop in enumerate(stops)]


def _largest(builder: Builder, name: str, parts: list[str]) -> str:
    """The largest of several signals, by halves: a tree has the fewest populations on a path."""
    if len(parts) == 1:
        return parts[0]
    a, b = (_largest(builder, name, half) for half in (parts[: len(parts) // 2], parts[len(parts) // 2 :]))
    minus = builder.add(f"{name}.minus", Scale(torch.tensor(-1.0)), (b,))
    difference = builder.add(f"{name}.difference", Add(), (a, minus))
    excess = builder.add(f"{name}.excess", ReLU(), (difference,))
    return builder.add(f"{name}.max", Add(), (b, excess))
