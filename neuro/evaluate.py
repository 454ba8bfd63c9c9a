"""Run a graph without neurons as the plain network it is."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Graph, Input, Stateless


def evaluate(graph: Graph, *x: Tensor, observe: Callable[[str, Tensor], None] | None = None) -> Tensor:
    """`(batch, *features)` in, `(batch, *outputs)` out. `observe(name, value)` sees what leaves every node.

    Raises ParameterError where the graph holds neurons (those need `simulate` and a number of steps) and ShapeError
    where x does not fit.
    """
    if len(x) != len(graph.inputs):
        raise ShapeError(f"{graph.name!r} takes {len(graph.inputs)} inputs, got {len(x)}")
    entering = dict(zip(graph.inputs, x, strict=True))
    waiting = {name: len(readers) for name, readers in graph.targets.items()}
    values: dict[str, Tensor] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Input):
            value = entering[name]
            if tuple(value.shape[1:]) != node.shape:
                raise ShapeError(
                    f"{graph.name!r} takes (batch, {', '.join(map(str, node.shape))}), got {tuple(value.shape)}"
                )
        elif isinstance(node, Stateless):
            value = node.forward(*(values[source] for source in graph.sources[name]))
        else:
            raise ParameterError(
                f"{graph.name!r} holds neurons ({node.kind} {name!r}); use simulate(graph, x, steps=...)"
            )
        if observe is not None:
            observe(name, value)
        values[name] = value
        for source in graph.sources[name]:
            waiting[source] -= 1
            if not waiting[source]:
                del values[source]
    return values[graph.output]
