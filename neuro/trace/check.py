"""A traced Graph must compute what its module computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from neuro.errors import UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph
from neuro.nodes import Input, Stateless

TOLERANCE = 1e-5
"""Largest difference, relative to the largest magnitude of the expected output."""


def stateless(graph: Graph) -> bool:
    """Whether the graph can be run as a plain network; one with neurons needs time and cannot be compared."""
    return all(isinstance(node, (Input, Stateless)) for node in graph.nodes.values())


def agree(
    graph: Graph, run: Callable[..., object], module: nn.Module, inputs: Sequence[Tensor], tolerance: float
) -> None:
    """Raises UnsupportedNode naming the first layer where graph and module differ on `inputs`."""
    layers: dict[str, Tensor] = {}

    def watch(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, result: object) -> None:
            if isinstance(result, Tensor):
                # In-place operations behind the layer would change what it gave.
                layers.setdefault(path, result.clone())

        return hook

    handles = [part.register_forward_hook(watch(path)) for path, part in module.named_modules() if path in graph.nodes]
    try:
        # Hugging Face models return a dataclass around their logits; a Graph has one output, so there is one tensor.
        (expected,) = (leaf.float() for leaf in tree_leaves(run(*(x.clone() for x in inputs))) if leaf is not None)
    finally:
        for handle in handles:
            handle.remove()
    differences: list[str] = []

    def compare(name: str, value: Tensor) -> None:
        if name in layers and not differences:
            said = _difference(value, layers[name].float(), tolerance)
            if said:
                differences.append(f"node {name!r} {said}")

    result = evaluate(graph, *inputs, observe=compare)
    said = _difference(result, expected, tolerance)
    if said:
        where = differences[0] if differences else f"the output {said}"
        raise UnsupportedNode(
            f"{graph.name!r}: the traced graph does not equal its module on a batch of {len(inputs[0])}: {where}; "
            "look for what depends on the batch, on chance or on earlier calls"
        )


def _difference(value: Tensor, expected: Tensor, tolerance: float) -> str:
    if value.shape != expected.shape:
        return f"has shape {tuple(value.shape)}, the module {tuple(expected.shape)}"
    if not value.numel():
        return ""
    if not bool(torch.isfinite(expected).all()):
        return "cannot be compared, because the module's own values are not finite"
    largest = expected.abs().max().item()
    error = (value - expected).abs().max().item()
    return "" if error <= tolerance * max(largest, 1e-30) else f"differs by {error:.3g} of {largest:.3g}"
