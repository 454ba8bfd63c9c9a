"""Pools and exact codes: averages go into the weights behind them."""

from __future__ import annotations

import torch

from neuro.graph import Graph
from neuro.nodes import Affine, AvgPool, Permute, Reshape
from neuro.rewrite import Builder, rebuild

MOST_WEIGHTS = 2**24
"""An average stays a node of its own where the matrix behind it would grow beyond this."""


def averages_into_affine(graph: Graph) -> Graph:
    """Average pools that one matrix alone reads become part of it: spikes then meet weights, not averages."""
    merged: dict[str, str] = {}
    for name, node in graph.nodes.items():
        chain = [name]
        while isinstance(graph.nodes[chain[-1]], AvgPool | Reshape | Permute) and len(graph.targets[chain[-1]]) == 1:
            chain.append(graph.targets[chain[-1]][0])
        end = graph.nodes[chain[-1]]
        if isinstance(node, AvgPool) and name not in merged and isinstance(end, Affine):
            shape = graph.shapes[graph.sources[name][0]]
            flat = len(graph.shapes[chain[-1]]) == 1
            if flat and torch.Size(shape).numel() * len(end.weight) <= MOST_WEIGHTS:
                merged |= dict.fromkeys(chain, chain[-1])

    def rule(builder: Builder, name: str) -> object:
        if name not in merged:
            return builder.keep(name)
        node = graph.nodes[name]
        if not isinstance(node, Affine):
            if isinstance(node, AvgPool):
                builder.note(name, "AvgPool", "nothing", f"part of the weights of {merged[name]!r}")
            return builder.drop(name)
        path = [name]
        while graph.sources[path[0]][0] in merged and merged[graph.sources[path[0]][0]] == name:
            path.insert(0, graph.sources[path[0]][0])
        shape = graph.shapes[graph.sources[path[0]][0]]
        x = torch.zeros(len(node.weight), *shape, requires_grad=True)
        with torch.enable_grad():
            value = x
            for step in path[:-1]:
                value = graph.nodes[step].forward(value)  # type: ignore[attr-defined]
            (weight,) = torch.autograd.grad((value * node.weight).sum(), x)
        (source,) = builder.given(name)
        flat = builder.add(f"{name}.flat", Reshape((torch.Size(shape).numel(),)), (source,))
        builder.alias[name] = builder.add(name, Affine(weight.flatten(1), node.bias), (flat,))
        return None

    return rebuild(graph, rule) if merged else graph
