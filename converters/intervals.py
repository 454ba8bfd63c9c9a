"""What every node can reach at most: interval arithmetic through a legalised network."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from neuro.graph import Graph, Input, Node, Stateless
from neuro.nodes import Affine, Conv, ConvTranspose, Scale


def bounds(graph: Graph, low: float, high: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Smallest and largest value of every element of every node, for inputs with all elements in [low, high].

    Rigorous up to the rounding of float32. Each node is bounded on its own, so that bounds grow with depth. Moore 1966
    [recalled].
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}
    with torch.no_grad():
        for name, node in graph.nodes.items():
            given = [found[source] for source in graph.sources[name]]
            if isinstance(node, Input):
                found[name] = torch.full((1, *node.shape), low), torch.full((1, *node.shape), high)
            elif isinstance(node, Affine | Conv | ConvTranspose | Scale):
                ((least, most),) = given
                centre, radius = node.forward((most + least) / 2), _magnitude(node).forward((most - least) / 2)
                found[name] = centre - radius, centre + radius
            else:
                assert isinstance(node, Stateless)
                # Every other node of a legalised network rises with its inputs.
                found[name] = node.forward(*(pair[0] for pair in given)), node.forward(*(pair[1] for pair in given))
    return found


def _magnitude(node: Node) -> Stateless:
    if isinstance(node, Scale):
        return Scale(node.factor.abs())
    assert isinstance(node, Affine | Conv | ConvTranspose)
    return replace(node, weight=node.weight.abs(), bias=None)
