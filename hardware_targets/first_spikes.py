"""Networks of first spikes (`RampFirstSpike`) in integers: a time in slots is a count that starts late.

A spike in slot k of a window of 2^n slots is worth 2^n - k of them, so its neuron owes its readers as many spikes. The
chip gives them by `schedule`, where the first of them comes in that very slot. Weights, thresholds and biases are
rounded to integers; the times are those of a clocked network with these numbers, slot for slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch

from hardware_targets.count_windows import Counting, Entry, layers_between
from hardware_targets.lower import LINEAR, Layer, Path, offset_of
from hardware_targets.quantise import QuantisationError
from hardware_targets.schedule import LARGEST_SUM
from neuro.errors import UnsupportedNode
from neuro.graph import Graph, Input, Node
from neuro.nodes import IF, MaxCount, MaxPool, Pulse, RampFirstSpike, Readout

ROOM = 1 - 1 / 2**8
"""Share of a membrane that the weights of a neuron may fill; the rest is for rounding."""

REMEDIES = {
    "MaxPool": ": before the first spikes it is no maximum of spikes; give the chip pooled data",
    "ReLU": ": convert the network first, e.g. convert(graph, FirstSpike(time_bits=4), calibration=x)",
}


@dataclass(frozen=True, eq=False)
class FirstSpikes:
    """A network of first spikes in integers.

    unit: (outputs,), the worth of one unit of the read-out's sums. errors: what rounding lost, layer by layer.
    """

    populations: tuple[Counting, ...]
    entries: Mapping[str, Entry]
    unit: np.ndarray
    errors: tuple[QuantisationError, ...]


def speaks_by_first_spikes(graph: Graph) -> bool:
    """Whether the populations of a graph say their value by the time of one spike on a ramp."""
    return any(isinstance(node, RampFirstSpike) for node in graph.nodes.values())


def lower_first_spikes(graph: Graph, step: float, low: int, high: int, weight_bits: int) -> FirstSpikes:
    """The populations of a network of first spikes.

    step: the real value of one unit of the data, whose numbers lie in low..high. Raises UnsupportedNode listing what no
    chip holds.
    """
    proxy = _with_populations(graph)
    (entry,) = (name for name, node in proxy.nodes.items() if isinstance(node, Pulse))
    size = int(np.prod(proxy.shapes[entry]))
    worth, span = {entry: np.full(size, step)}, {entry: high - low}
    populations: list[Counting] = []
    errors: list[QuantisationError] = []
    for layer in layers_between(proxy, proxy.nodes):
        if isinstance(layer.node, MaxCount):
            populations.append(Counting(layer))
            given = [(path.as_matrix(), worth[path.source]) for path in layer.paths]
            worth[layer.name] = np.max([(matrix * each).max(axis=1).toarray() for matrix, each in given], axis=0)
            span[layer.name] = max(span[path.source] for path in layer.paths)
            continue
        part, unit, error = _rounded(layer, graph, proxy, worth, span, weight_bits)
        populations.append(part)
        errors.append(error)
        if part.levels is not None:
            ramp = graph.nodes[layer.name]
            assert isinstance(ramp, RampFirstSpike)
            worth[layer.name], span[layer.name] = np.full(layer.size, ramp.window / part.levels), part.levels
    return FirstSpikes(tuple(populations), {entry: Entry(size, low, high)}, unit, tuple(errors))


def _with_populations(graph: Graph) -> Graph:
    """The graph with a population in the place of every ramp and maximum, a pulse in front and a read-out behind."""
    (given,) = graph.inputs
    nodes: dict[str, Node] = {}
    refused, spoken = [], {given: False}
    for name, node in graph.nodes.items():
        spoken[name] = isinstance(node, RampFirstSpike) or any(spoken[source] for source in graph.sources[name])
        if isinstance(node, RampFirstSpike) and node.time_bits is not None:
            nodes[name] = IF(torch.ones(()), torch.zeros(()))
        elif isinstance(node, MaxPool) and spoken[name]:
            nodes[name] = MaxCount(node.kernel, node.stride, node.padding, node.ceil)
        elif isinstance(node, (*LINEAR, Input)):
            nodes[name] = node
        elif isinstance(node, RampFirstSpike):
            refused.append(f"  {name!r}: its times are continuous and a chip has ticks; FirstSpike(time_bits=4) has 16")
        else:
            refused.append(f"  {name!r}: {node.kind}{REMEDIES.get(node.kind, ': not a linear map')}")
    if refused:
        raise UnsupportedNode(f"{graph.name!r}: {len(refused)} node(s) have no form on a chip:\n" + "\n".join(refused))
    pulse, last = f"{given}.pulse", f"{graph.output}.sum"
    sources = {name: tuple(pulse if source == given else source for source in graph.sources[name]) for name in nodes}
    nodes |= {pulse: Pulse(), last: Readout()}
    return Graph(nodes, {**sources, pulse: (given,), last: (graph.output,)}, graph.name)


def _rounded(
    layer: Layer,
    graph: Graph,
    proxy: Graph,
    worth: Mapping[str, np.ndarray],
    span: Mapping[str, int],
    weight_bits: int,
) -> tuple[Counting, np.ndarray, QuantisationError]:
    """One population in integers, the worth of its unit per neuron, and what that lost."""
    ramp = graph.nodes.get(layer.name)
    matrices = [sp.csr_array(path.as_matrix() * worth[path.source]) for path in layer.paths]
    constant = offset_of(proxy, proxy.sources[layer.name][0])
    levels, slot = 0, 0.0
    if isinstance(ramp, RampFirstSpike):
        assert ramp.time_bits is not None
        levels = 2**ramp.time_bits
        slot = ramp.window / levels
        constant = (
            constant + ramp.window + slot / 2 - ramp.theta.detach().double().expand(layer.shape).flatten().numpy()
        )
    unit = _unit(layer, matrices, [span[path.source] for path in layer.paths], levels, slot, weight_bits)
    paths, squared, total = [], 0.0, 0.0
    for path, matrix in zip(layer.paths, matrices, strict=True):
        whole = _whole(path, matrix, worth[path.source], unit, layer)
        paths.append(whole)
        squared += float((sp.diags_array(unit) @ whole.as_matrix() - matrix).power(2).sum())
        total += float(matrix.power(2).sum())
    v0 = np.rint(constant / unit).astype(np.int64)
    power = float((constant**2).sum())
    bias_error = float(np.sqrt(((v0 * unit - constant) ** 2).sum() / power)) if power else 0.0
    weight_error = float(np.sqrt(squared / total)) if total else 0.0
    whole_layer = replace(layer, paths=tuple(paths))
    if not levels:
        error = QuantisationError(layer.name, weight_error, bias_error, 0.0, 0, float(unit[0]))
        return Counting(whole_layer, v0=v0), unit, error
    theta = np.maximum(np.rint(slot / unit), 1).astype(np.int64)
    threshold_error = float(np.max(np.abs(theta * unit - slot) / slot))
    error = QuantisationError(layer.name, weight_error, bias_error, threshold_error, 0, float(np.median(unit)))
    return Counting(whole_layer, theta, v0, levels), unit, error


def _unit(
    layer: Layer, matrices: list[sp.csr_array], spans: list[int], levels: int, slot: float, weight_bits: int
) -> np.ndarray:
    """The real value of a weight step of every neuron: fine enough for the weights, coarse enough for the membrane."""
    top = 2 ** (weight_bits - 1) - 1
    largest = np.max([abs(matrix).max(axis=1).toarray() for matrix in matrices], axis=0, initial=0.0)
    reach = sum((abs(matrix).sum(axis=1) * span for matrix, span in zip(matrices, spans, strict=True)), 0.0)
    unit = np.maximum(largest / top, (reach + 2 * (levels + 1) * slot) / (LARGEST_SUM * ROOM))
    if any(path.conv is not None for path in layer.paths):
        unit = np.repeat(unit.reshape(layer.shape[0], -1).max(1), layer.size // layer.shape[0])
    unit = np.where(unit > 0, unit, max(float(unit.max(initial=0)), 1e-12))
    return unit if levels else np.full_like(unit, unit.max())


def _whole(path: Path, matrix: sp.csr_array, worth: np.ndarray, unit: np.ndarray, layer: Layer) -> Path:
    """The path in whole weight steps."""
    if path.conv is not None:
        channel = torch.from_numpy(unit.reshape(layer.shape[0], -1)[:, 0]).reshape(-1, 1, 1, 1)
        weight = (path.conv.weight.detach().double() * float(worth[0]) / channel).round().to(torch.int32)
        return replace(path, conv=replace(path.conv, weight=weight, bias=None))
    steps = sp.csr_array(sp.diags_array(1 / unit) @ matrix)
    steps.data = np.rint(steps.data)
    return replace(path, matrix=steps, affine=None)
