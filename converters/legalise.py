"""Rewrite what spikes cannot carry into what they can, with the function of the network unchanged.

After `legalise` the activations of a graph are ReLU and Clamp(0, c) only, and nothing stands behind the logits.
"""

from __future__ import annotations

import math

import torch

from converters.fold import fold
from converters.maxima import is_activation, maxima_by_relu
from neuro.errors import UnsupportedNode
from neuro.graph import Graph, Input
from neuro.nodes import (
    Add,
    Affine,
    AvgPool,
    Clamp,
    Concat,
    Conv,
    ConvTranspose,
    LeakyReLU,
    MaxPool,
    Pad,
    Permute,
    ReLU,
    Reshape,
    Scale,
    Slice,
    Softmax,
)
from neuro.rewrite import Builder, rebuild

CONVERTIBLE = (
    Input, Affine, Conv, ConvTranspose, Scale, AvgPool, MaxPool, Reshape, Permute, Pad, Slice, Add, Concat, ReLU, Clamp,
)  # fmt: skip


def legalise(graph: Graph, spikes: bool = True) -> Graph:
    """Fold, rewrite LeakyReLU and two-sided clamps by ReLU, take a last softmax away. All refusals in one message.

    With `spikes` every max-pool is made to read spikes or the input, at the cost of populations of its own, and a
    network without activations is refused.
    """
    graph = fold(_by_relu(_activations_first(fold(graph))))
    refused = [(name, node) for name, node in graph.nodes.items() if not isinstance(node, CONVERTIBLE)]
    if refused:
        lines = [f"  {name!r}: {node.kind} has no spiking form here{_hint(node.kind)}" for name, node in refused]
        raise UnsupportedNode(f"{graph.name!r}: {len(refused)} node(s) cannot be converted:\n" + "\n".join(lines))
    graph = maxima_by_relu(graph) if spikes else graph
    if spikes and not any(is_activation(node) for node in graph.nodes.values()):
        raise UnsupportedNode(f"{graph.name!r} has no ReLU to replace by neurons; a linear network needs no spikes")
    return graph


def _by_relu(graph: Graph) -> Graph:
    """The same network with ReLU and Clamp(0, c) as its only activations, and without a last softmax."""

    def rule(builder: Builder, name: str) -> object:
        node = graph.nodes[name]
        if isinstance(node, Softmax) and not graph.targets[name]:
            builder.note(name, "Softmax", "nothing", "the class is read from the logits before it")
            return builder.drop(name)
        if isinstance(node, LeakyReLU):
            _two_populations(builder, name, node.slope)
            return None
        if isinstance(node, Clamp) and (node.low != 0 or math.isinf(node.high)):
            _shifted_clamp(builder, name, node)
            return None
        return builder.keep(name)

    return rebuild(graph, rule)


def _activations_first(graph: Graph) -> Graph:
    """Put a max-pool behind the clamp that alone reads it: the maximum commutes with every rising function.

    A max-pool is exact on spikes but not on currents that change in time. Behind a LeakyReLU, which becomes two
    populations, it would not see spikes.
    """
    trades = {
        pool: readers[0]
        for pool, readers in graph.targets.items()
        if isinstance(graph.nodes[pool], MaxPool) and len(readers) == 1 and is_activation(graph.nodes[readers[0]])
    }
    if not trades:
        return graph
    partner = {**trades, **{activation: pool for pool, activation in trades.items()}}

    def rule(builder: Builder, name: str) -> object:
        if name not in partner:
            return builder.keep(name)
        if name in trades:
            builder.note(name, "MaxPool", "MaxPool", f"put behind {trades[name]!r}; the maximum commutes with it")
        builder.alias[name] = builder.add(partner[name], graph.nodes[partner[name]], builder.given(name))
        return None

    return _activations_first(rebuild(graph, rule))


def _hint(kind: str) -> str:
    hints = {
        "Softmax": "; inside a network it has no rate; end the network there or use a ReLU gate",
        **dict.fromkeys(("Sigmoid", "Tanh"), "; spikes carry no such curve: train with ReLU, Clamp(0, c) or Hardtanh"),
        "Experts": "; convert the router and each expert on their own",
        "IF": "; the network is spiking already: simulate or compile it",
        "LIF": "; the network is spiking already: simulate or compile it",
    }
    return hints.get(kind, "; replace it by a ReLU and train on")


def _two_populations(builder: Builder, name: str, slope: float) -> None:
    (source,) = builder.given(name)
    minus = builder.add(f"{name}.negated", Scale(torch.tensor(-1.0)), (source,))
    positive = builder.add(f"{name}.positive", ReLU(), (source,))
    negative = builder.add(f"{name}.negative", ReLU(), (minus,))
    weighted = builder.add(f"{name}.slope", Scale(torch.tensor(-slope)), (negative,))
    builder.alias[name] = builder.add(name, Add(), (positive, weighted))
    builder.note(name, f"LeakyReLU({slope:g})", "2 ReLU", "relu(x) - slope * relu(-x): one population for each sign")


def _shifted_clamp(builder: Builder, name: str, node: Clamp) -> None:
    (source,) = builder.given(name)
    was = f"Clamp({node.low:g}, {node.high:g})"
    if math.isinf(node.low) and math.isinf(node.high):
        builder.note(name, was, "nothing", "no limit on either side")
        builder.drop(name)
        return
    middle: ReLU | Clamp
    if math.isinf(node.low):
        sign, edge, middle, why = -1.0, node.high, ReLU(), "high - relu(high - x)"
    elif math.isinf(node.high):
        sign, edge, middle, why = 1.0, node.low, ReLU(), "low + relu(x - low)"
    else:
        sign, edge, why = 1.0, node.low, "low + clip(x - low, 0, high - low)"
        middle = Clamp(0.0, node.high - node.low)
    factor = torch.tensor(sign)
    shifted = builder.add(f"{name}.shifted", Scale(factor, torch.tensor(-sign * edge)), (source,))
    clipped = builder.add(f"{name}.clipped", middle, (shifted,))
    builder.alias[name] = builder.add(name, Scale(factor, torch.tensor(edge)), (clipped,))
    builder.note(name, was, "ReLU" if isinstance(middle, ReLU) else "Clamp(0, c)", why)
