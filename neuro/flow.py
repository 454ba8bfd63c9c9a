"""What can be told of a graph before it runs: whether it needs time, how long an answer takes, where spikes flow."""

from __future__ import annotations

from collections.abc import Callable, Collection

from neuro.graph import Graph, Input, Node
from neuro.nodes import (
    Add,
    AvgPool,
    Concat,
    Delay,
    GradedSpiking,
    MaxCount,
    MaxPool,
    Neuron,
    OffsetIF,
    Pad,
    Permute,
    Pulse,
    RampFirstSpike,
    Reshape,
    ResidualIF,
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
    return _longest(graph, lambda node: int(isinstance(node, Spiking | GradedSpiking | RampFirstSpike)))


def _longest(graph: Graph, ticks_of: Callable[[Node], int]) -> int:
    """The largest sum of ticks on a path to the output."""
    latest: dict[str, int] = {}
    for name, node in graph.nodes.items():
        latest[name] = max((latest[source] for source in graph.sources[name]), default=0) + ticks_of(node)
    return latest[graph.output]


def lead(graph: Graph) -> int:
    """Steps that the whole network takes before those that count: the warm-up of `ResidualIF`."""
    return max((node.warmup for node in graph.nodes.values() if isinstance(node, ResidualIF)), default=0)


def bits_per_event(graph: Graph) -> int:
    """Bits of the widest event between populations: 1 for spikes, more for graded ones, 0 where nothing fires."""
    graded = (node.bits for node in graph.nodes.values() if isinstance(node, GradedSpiking))
    spiking = any(isinstance(node, Spiking | RampFirstSpike) for node in graph.nodes.values())
    return max(graded, default=int(spiking))


def rehearsal(graph: Graph) -> int:
    """The longest warm-up of an `OffsetIF`: populations run at least so long, or what reads them could not rehearse."""
    return max((node.warmup for node in graph.nodes.values() if isinstance(node, OffsetIF)), default=0)


def _slots(graph: Graph) -> int:
    """Ticks in a window of first spikes: 2^time_bits, 1 in continuous time; 0 for networks without."""
    ramps = [node for node in graph.nodes.values() if isinstance(node, RampFirstSpike)]
    return max((2 ** (node.time_bits or 0) for node in ramps), default=0)


def ticks(graph: Graph, steps: int) -> int:
    """Ticks from the first input to the answer: windows follow each other, other populations work side by side.

    First spikes in continuous time have no ticks: their windows are counted. Warm-ups take time: once for the whole
    network (`lead`), or in each population whose clock runs late (`OffsetIF`), one after the other.
    """
    if duration(graph) is not None:
        return steps
    if slots := _slots(graph):
        return (depth(graph) + 1) * slots
    steps += lead(graph)
    late = _longest(graph, lambda node: node.warmup if isinstance(node, OffsetIF) else 0)
    return steps + late + depth(graph) if has_neurons(graph) else 1


def carries_spikes(graph: Graph, spiking_inputs: bool | Collection[str] = False) -> set[str]:
    """Names whose output consists of events that all weigh the same: zeros and ones at every step, or first spikes.

    spiking_inputs: whether the inputs do, or the names of those that do.
    """
    moves = (Reshape, Permute, Slice, Concat, MaxPool, MaxCount, Delay)
    entering = spiking_inputs if not isinstance(spiking_inputs, bool) else graph.inputs if spiking_inputs else ()
    binary: set[str] = set()
    for name, node in graph.nodes.items():
        from_spikes = all(source in binary for source in graph.sources[name])
        padded = isinstance(node, Pad) and node.value == 0
        if (
            isinstance(node, Spiking | RampFirstSpike)
            or (isinstance(node, Input) and name in entering)
            or ((isinstance(node, moves) or padded) and from_spikes)
        ):
            binary.add(name)
    return binary


def carries_sums_of_spikes(graph: Graph, binary: set[str]) -> set[str]:
    """Names whose output is zero wherever no spike of this step has a share in it: nothing there, no work.

    Graded spikes and sums of spikes, that is; what reads them multiplies.
    """
    graded = set(binary)
    for name, node in graph.nodes.items():
        unbiased = isinstance(node, Weighted) and node.bias is None
        passing = isinstance(node, AvgPool | Add | Reshape | Permute | Slice | Concat | MaxPool | MaxCount | Delay)
        scaled = (isinstance(node, Scale) and node.offset is None) or (isinstance(node, Pad) and node.value == 0)
        linear = (unbiased or passing or scaled) and all(source in graded for source in graph.sources[name])
        if linear or isinstance(node, Pulse | GradedSpiking):
            graded.add(name)
    return graded - binary
