"""Networks that count in windows: how long they take, and what may be carried as one sum over time.

A population of `CountThenFire` depends on the sum of its input alone, and linear maps commute with sums. So a network
of them needs one product per layer, not one per step, and still tells every spike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.errors import ParameterError
from neuro.graph import Graph
from neuro.nodes import Accumulate, Add, AvgPool, CountThenFire, MaxCount, MaxPool, Neuron, Pulse, Scale, Weighted


def duration(graph: Graph) -> int | None:
    """Steps until the last window is over; None for networks without windows."""
    ends = [node.start + node.levels for node in graph.nodes.values() if isinstance(node, CountThenFire)]
    return max(ends, default=None)


def check_steps(graph: Graph, steps: int | None, timed: bool) -> int | None:
    """The steps that the windows of a graph take, None where it has none; ParameterError where others are asked for."""
    whole = duration(graph)
    if whole is None:
        return None
    if timed:
        raise ParameterError(f"{graph.name!r} sees its input once; pass (batch, *features) without time")
    levels = {node.levels for node in graph.nodes.values() if isinstance(node, CountThenFire)}
    if steps is not None and steps != whole and steps not in levels:
        windows = "/".join(map(str, sorted(levels)))
        raise ParameterError(
            f"{graph.name!r} fires in windows of {windows} steps and takes {whole} in all; leave steps={steps} out"
        )
    return whole


def _silent_from(graph: Graph) -> dict[str, float]:
    """The step from which on a name carries zeros only."""
    end: dict[str, float] = {}
    for name, node in graph.nodes.items():
        latest = max((end[source] for source in graph.sources[name]), default=float("inf"))
        if isinstance(node, Pulse):
            end[name] = 1
        elif isinstance(node, CountThenFire):
            end[name] = node.start + node.levels
        else:
            end[name] = float("inf") if isinstance(node, Neuron) and not isinstance(node, MaxCount) else latest
    return end


def carried_as_sums(graph: Graph, binary: set[str], graded: set[str], counting: bool) -> set[str]:
    """Names for which the sum over time is all that their readers need.

    binary, graded: the names that carry spikes, and linear sums of spikes. Where work is counted (`counting`), a sum of
    spikes that a weighted node reads keeps its steps: the work depends on when it is zero.
    """
    end = _silent_from(graph)
    summed: set[str] = set()
    once: set[str] = set()
    for name, node in graph.nodes.items():
        linear = isinstance(node, MaxCount) or (name in binary | graded and not isinstance(node, Neuron | MaxPool))
        if isinstance(node, Pulse | CountThenFire) or (linear and all(s in summed for s in graph.sources[name])):
            summed.add(name)
        passing = name in graded and not isinstance(node, Neuron)
        if isinstance(node, Pulse) or (passing and all(s in once for s in graph.sources[name])):
            once.add(name)

    def enough(name: str, reader: str) -> bool:
        node = graph.nodes[reader]
        if isinstance(node, CountThenFire):
            return end[name] <= node.start
        if isinstance(node, Accumulate):
            return True
        weighing = isinstance(node, Weighted | Scale | AvgPool) and name in graded and name not in once
        adding = isinstance(node, Add) and not all(isinstance(graph.nodes[r], Neuron) for r in graph.targets[reader])
        return reader in summed and not (counting and (weighing or adding))

    for name in reversed(list(graph.nodes)):
        if name in summed and not all(enough(name, reader) for reader in graph.targets[name]):
            summed.discard(name)
    return summed


def spike_counts(node: CountThenFire, current: Tensor) -> Tensor:
    """Spikes of each neuron, (1, batch, *features) int32, from all its input, (steps or 1 sum, batch, *features)."""
    total = node.v0 + current[: node.start].sum(0, keepdim=True)
    return total.div(node.theta, rounding_mode="floor").clamp(0, node.levels).to(torch.int32)


def unfolded(node: CountThenFire, counts: Tensor, steps: int) -> Tensor:
    """Counts (1, batch, *features) as spikes (steps, batch, *features): the first so many steps of the window."""
    place = torch.arange(steps).reshape(-1, *(1,) * (counts.ndim - 1)) - node.start
    return ((place >= 0) & (place < counts)).to(torch.int32)
