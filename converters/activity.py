"""What leaves every node of a graph on average over time: linear maps commute with means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from neuro.dynamics import rest
from neuro.graph import Graph, Node, Stateless
from neuro.kernels import run_steps
from neuro.nodes import Accumulate, Affine, Conv, MaxCount, Neuron
from neuro.simulate import simulate
from neuro.windows import duration

SERIES_BYTES = 1e8
"""Memory for the series of one node."""


def passed_on(node: Node, given: list[Tensor]) -> Tensor:
    """What a node makes of means over time, or of sums in networks that count in windows; integers need not be."""
    if isinstance(node, Affine | Conv) and not node.weight.is_floating_point() and given[0].is_floating_point():
        bias = None if node.bias is None else node.bias.double()
        node = replace(node, weight=node.weight.double(), bias=bias)
    if isinstance(node, Stateless):
        return node.forward(*given)
    if isinstance(node, MaxCount):
        return node.window.forward(*given)
    return given[0] + node.v0 if isinstance(node, Accumulate) else given[0]


def walk(graph: Graph, known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The value (batch, *features) of every node, where those in `known` are taken as they are."""
    values = dict(known)
    for name, node in graph.nodes.items():
        if name not in values:
            values[name] = passed_on(node, [values[source] for source in graph.sources[name]])
    return values


def pulled(graph: Graph, values: dict[str, Tensor], name: str) -> Tensor:
    """The value of one node, from those in `values`; what had to be computed for it joins them."""
    if name not in values:
        given = [pulled(graph, values, source) for source in graph.sources[name]]
        values[name] = passed_on(graph.nodes[name], given)
    return values[name]


def resumed(graph: Graph, values: Mapping[str, Tensor], name: str, value: Tensor) -> Tensor:
    """The output of a plain graph where `name` gives `value` and all that does not depend on it keeps its `values`."""
    changed = {name}
    for reader, given in graph.sources.items():
        if changed.intersection(given):
            changed.add(reader)
    kept = {old: kept for old, kept in values.items() if old not in changed}
    return walk(graph, {**kept, name: value})[graph.output]


def activity(snn: Graph, x: Tensor, steps: int | None) -> tuple[dict[str, Tensor], Tensor]:
    """The mean over time of what leaves every node (sums where it counts in windows), and the outputs at the end."""
    run = simulate(snn, x, steps=steps, record=("counts",), count=False, memory=2e8)
    counts = {name: value[0] for name, value in run.recordings["counts"].items()}
    if steps is not None and duration(snn) is None:
        counts = {name: value / steps for name, value in counts.items()}
    return walk(snn, {snn.inputs[0]: x, **counts}), run.outputs


def fired(node: Neuron, current: Tensor, steps: int) -> Tensor:
    """The outputs (steps, batch, *features) of a population under a current (steps or 1, batch, *features)."""
    state = rest(node, current.shape[1], tuple(current.shape[2:]), current.dtype)
    return run_steps(node, state, current, steps)[1]
