"""Networks that count in windows (`CountThenFire`) as populations in integers, with the linear maps between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from hardware_targets.lower import LINEAR, Layer, Path, matrices_of, matrix_of, paths_of
from neuro.errors import UnsupportedNode
from neuro.graph import Graph, Node, Shape, Stateless
from neuro.nodes import (
    Accumulate,
    Affine,
    Conv,
    ConvTranspose,
    CountThenFire,
    MaxCount,
    Neuron,
    Pad,
    Pulse,
    Quantise,
)

REMEDIES = {
    "Readout": ": the sum of all spikes is read once; end the network in an Accumulate node",
    "MaxPool": ": no synapse takes a maximum; only spikes have one (MaxCount)",
    "AvgPool": ": shares are no integers; sum the window and put the division into the threshold",
}


@dataclass(frozen=True, eq=False)
class Counting:
    """A population in integers: what it receives from every source, and what it owes its readers.

    theta, v0: (size,) int64, in weight steps. A population that counts has all; one that passes on the union of the
    spikes that it receives has no v0; a read-out has v0 alone.
    """

    layer: Layer
    theta: np.ndarray | None = None
    v0: np.ndarray | None = None
    levels: int | None = None


@dataclass(frozen=True)
class Entry:
    """An input of a network that counts: how many whole numbers it has, and between which bounds they lie."""

    size: int
    low: int
    high: int

    @property
    def bits(self) -> int:
        """The width of a number, in two's complement where it may be negative."""
        if self.low >= 0:
            return max(1, self.high.bit_length())
        return 1 + max((-self.low - 1).bit_length(), self.high.bit_length())


def counts_in_windows(graph: Graph) -> bool:
    """Whether the populations of a graph count first and fire afterwards."""
    return any(isinstance(node, CountThenFire) for node in graph.nodes.values())


def lower_windows(graph: Graph) -> tuple[Counting, ...]:
    """The populations of a network that counts in windows, in order.

    Raises UnsupportedNode listing what no chip holds.
    """
    inside = [name for name in graph.nodes if _on_chip(graph, name)]
    refused = []
    for name in inside:
        node = graph.nodes[name]
        if not isinstance(node, (*LINEAR, Pulse, CountThenFire, MaxCount, Accumulate)):
            refused.append(f"  {name!r}: {node.kind}{REMEDIES.get(node.kind, '')}")
        elif _has_offset(node):
            refused.append(f"  {name!r}: {node.kind} with a constant part, which belongs into the initial potential")
    if refused:
        raise UnsupportedNode(f"{graph.name!r}: {len(refused)} node(s) have no form on a chip:\n" + "\n".join(refused))
    found: list[Counting] = []
    for layer in layers_between(graph, inside):
        node, shape = layer.node, layer.shape
        match node:
            case CountThenFire():
                found.append(Counting(layer, _whole(node.theta, shape), _whole(node.v0, shape), node.levels))
            case Accumulate():
                found.append(Counting(layer, v0=_whole(node.v0, shape)))
            case _:
                found.append(Counting(layer))
    return tuple(found)


def layers_between(graph: Graph, names: Iterable[str]) -> Iterator[Layer]:
    """The populations among the names with what flows into them, biases left out; maxima as unions of spikes."""
    level: dict[str, int] = {}
    for name in names:
        node, shape = graph.nodes[name], graph.shapes[name]
        if not isinstance(node, Neuron):
            continue
        if isinstance(node, Pulse):
            level[name] = 0
            continue
        (given,) = graph.sources[name]
        paths = _unions(graph, node, given, name) if isinstance(node, MaxCount) else paths_of(graph, given, name)
        level[name] = 1 + max((level[path.source] for path in paths), default=0)
        yield Layer(name, node, shape, paths, np.zeros(math.prod(shape)), level[name])


def entries(graph: Graph) -> dict[str, Entry]:
    """The pulses with which data enter, and the bounds of their numbers: those of the node that quantises them."""
    found = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Pulse):
            quantisers = [graph.nodes[before] for before in _before(graph, name)]
            bounds = [(node.low, node.high) for node in quantisers if isinstance(node, Quantise)]
            if not bounds:
                raise UnsupportedNode(f"{graph.name!r}: {name!r} is not quantised, so its payloads have no bound")
            lows, highs = zip(*bounds, strict=True)
            found[name] = Entry(math.prod(graph.shapes[name]), min(0, *lows), max(0, *highs))
    return found


def entering(graph: Graph, x: Tensor) -> dict[str, Tensor]:
    """What the pulses of a network carry for x (batch, *features): (batch, size) integers, worked out by the host."""
    values = {graph.inputs[0]: x}
    return {
        name: _forward(graph, graph.sources[name][0], values).flatten(1)
        for name, node in graph.nodes.items()
        if isinstance(node, Pulse)
    }


def leaving(graph: Graph, sums: Tensor) -> Tensor:
    """The output of the network for the sums of its read-out, (batch, *shape) integers, worked out by the host."""
    (name,) = (name for name, node in graph.nodes.items() if isinstance(node, Accumulate))
    return _forward(graph, graph.output, {name: sums})


def _forward(graph: Graph, name: str, values: dict[str, Tensor]) -> Tensor:
    if name not in values:
        node = graph.nodes[name]
        assert isinstance(node, Stateless)
        values[name] = node.forward(*(_forward(graph, source, values) for source in graph.sources[name]))
    return values[name]


def _before(graph: Graph, name: str) -> set[str]:
    given = graph.sources[name]
    return set(given).union(*(_before(graph, source) for source in given))


def _on_chip(graph: Graph, name: str) -> bool:
    """Whether a node lies between the pulses and the read-out, both included: the rest is the host's."""
    before = [graph.nodes[source] for source in _before(graph, name)]
    counted = isinstance(graph.nodes[name], Neuron) or any(isinstance(node, Neuron) for node in before)
    return counted and not any(isinstance(node, Accumulate) for node in before)


def _has_offset(node: Node) -> bool:
    constant = node.bias if isinstance(node, Affine | Conv | ConvTranspose) else getattr(node, "offset", None)
    return constant is not None or (isinstance(node, Pad) and node.value != 0)


def _whole(parameter: Tensor, shape: Shape) -> np.ndarray:
    return parameter.detach().to(torch.int64).expand(shape).flatten().numpy()


def _unions(graph: Graph, node: MaxCount, given: str, target: str) -> tuple[Path, ...]:
    """Which source neurons lie in the window of every output: 1 where they do."""
    window = window_matrix(node, graph.shapes[given])
    paths = []
    for source, matrix in matrices_of(graph, given, {}).items():
        if not bool((matrix.data == 1).all()):
            raise UnsupportedNode(f"MaxCount {target!r}: a chip takes maxima of spikes, not of their weighted sums")
        product = (window @ matrix).tocsr()
        product.data = np.minimum(product.data, 1.0)
        paths.append(Path(source, target, None, graph.shapes[source], product))
    return tuple(paths)


def window_matrix(node: MaxCount, shape: Shape) -> sp.csr_array:
    """(outputs, inputs): 1 where an input lies in the window of an output, for features (channels, *sizes)."""
    sizes = zip(node.output_shape(shape)[1:], shape[1:], node.kernel, node.stride, node.padding, strict=True)
    sides = tuple((p, (out - 1) * s + k - p - size) for out, size, k, s, p in sizes)
    padded = Pad(((0, 0), *sides))
    still = (0,) * len(sides)
    ones = Conv(torch.ones(shape[0], 1, *node.kernel), None, node.stride, still, (1,) * len(sides), shape[0])
    return sp.csr_array(matrix_of(ones, padded.output_shape(shape)) @ matrix_of(padded, shape))
