"""Inputs of mean 0 and deviation 1 while a network learns, and none of it in the network that is counted."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from neuro.errors import ParameterError, UnsupportedNode
from neuro.graph import Graph, Node
from neuro.nodes import Affine, AvgPool, Experts, Reshape


class Standardise(nn.Module):
    """y = (x - mean) / deviation, one number each for all features."""

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        if not deviation > 0:
            raise ParameterError(f"Standardise: deviation must be > 0, got {deviation}")
        self.mean = mean
        self.deviation = deviation

    @classmethod
    def of(cls, x: Tensor) -> Standardise:
        """By the mean and deviation of all numbers in x, the training part."""
        return cls(float(x.mean()), float(x.std()))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation

    def into(self, graph: Graph) -> Graph:
        """The network that does on x what `graph` does on the standardised x: its first sums take it over.

        W' = W / deviation, b' = b - mean W' 1: zero weights stay zero. Averages on the way are passed. Raises
        UnsupportedNode where the input meets anything but an `Affine`, or `Experts` that begin with one.
        """
        nodes: dict[str, Node] = dict(graph.nodes)
        reading = list(graph.targets[graph.inputs[0]])
        while reading:
            name = reading.pop()
            node = nodes[name]
            if isinstance(node, Reshape) or (isinstance(node, AvgPool) and not any(node.padding)):
                reading += graph.targets[name]
            elif isinstance(node, Affine):
                weight = node.weight / self.deviation
                bias = torch.zeros_like(weight[:, 0]) if node.bias is None else node.bias
                nodes[name] = Affine(weight, bias - self.mean * weight.sum(1))
            elif isinstance(node, Experts):
                experts = tuple(self.into(expert) for expert in node.experts)
                nodes[name] = replace(node, router=self.into(node.router), experts=experts)
            else:
                raise UnsupportedNode(f"{node.kind} {name!r} cannot take over the standardising of the input")
        return replace(graph, nodes=nodes)
