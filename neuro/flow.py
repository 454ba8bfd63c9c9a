"""What can be told of a graph before it runs: whether it needs time, how long an answer takes, where spikes flow."""

from __future__ import annotations

from neuro.graph import Graph, Input
from neuro.nodes import (
    Add,
    AvgPool,
    Concat,
    MaxCount,
    MaxPool,
    Neuron,
    Pad,
    Permute,
    Pulse,
    RampFirstSpike,
    Reshape,
    Scale,
    Slice,
    Spiking,
    Weighted,
)
from neuro.windows import duration


def has_neurons(graph: Graph) -> bool:
    """Whether the graph needs time steps."""
    return any(isinstance(node, Neuron) for node in graph.nodes.values())


def depth(graph: Graph) -> int:
    """The largest number of spiking populations on a path: ticks before the last one of a pipelined chip answers."""
    level: dict[str, int] = {}
    for name, node in graph.nodes.items():
        below = max((level[source] for source in graph.sources[name]), default=0)
        level[name] = below + isinstance(node, Spiking | RampFirstSpike)
    return level[graph.output]


def _slots(graph: Graph) -> int:
    """Ticks in a window of first spikes: 2^time_bits, 1 in continuous time; 0 for networks without."""
    ramps = [node for node in graph.nodes.values() if isinstance(node, RampFirstSpike)]
    return max((2 ** (node.time_bits or 0) for node in ramps), default=0)


def ticks(graph: Graph, steps: int) -> int:
    """Ticks from the first input to the answer: windows follow each other, other populations work side by side.

    First spikes in continuous time have no ticks: their windows are counted.
    """
    if duration(graph) is not None:
        return steps
    if slots := _slots(graph):
        return (depth(graph) + 1) * slots
    return steps + depth(graph) if has_neurons(graph) else 1


def carries_spikes(graph: Graph, spiking_inputs: bool = False) -> set[str]:
    """Names whose output consists of events that all weigh the same: zeros and ones at every step, or first spikes."""
    moves = (Reshape, Permute, Slice, Concat, MaxPool)
    binary: set[str] = set()
    for name, node in graph.nodes.items():
        from_spikes = all(source in binary for source in graph.sources[name])
        padded = isinstance(node, Pad) and node.value == 0
        if (
            isinstance(node, Spiking | MaxCount | RampFirstSpike)
            or (isinstance(node, Input) and spiking_inputs)
            or ((isinstance(node, moves) or padded) and from_spikes)
        ):
            binary.add(name)
    return binary


def carries_sums_of_spikes(graph: Graph, binary: set[str]) -> set[str]:
    """Names whose output is zero wherever no spike of this step has a share in it: nothing there, no work."""
    graded = set(binary)
    for name, node in graph.nodes.items():
        unbiased = isinstance(node, Weighted) and node.bias is None
        passing = isinstance(node, AvgPool | Add | Reshape | Permute | Slice | Concat | MaxPool)
        scaled = (isinstance(node, Scale) and node.offset is None) or (isinstance(node, Pad) and node.value == 0)
        linear = (unbiased or passing or scaled) and all(source in graded for source in graph.sources[name])
        if linear or isinstance(node, Pulse):
            graded.add(name)
    return graded - binary
