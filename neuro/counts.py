"""What a network did: operations, spikes, updates, words moved. Counted from what happened, never from rate formulas.

Conventions, stated wherever the numbers are shown:

- `macs` are the multiply-accumulates of a dense engine: stored non-zero weights times output positions, padding
  included.
- `effective_macs` leave out those whose input is zero (and the padding).
- `accumulates` are additions that a binary spike causes: one for every non-zero weight it meets, borders respected.
- Averages of spikes, and spikes that carry a number, are graded: what reads them multiplies, but only where they are
  not zero.
- `spikes` are events: a graded spike is one, whatever its value.
- `updates` are neuron-steps: every neuron of a population at every step, whether it fires or not.
- Memory words: `weight_words` read, `activation_words` read and written, `state_words` (membrane potentials) read and
  written. A dense layer reads each weight once per sample and each activation once per layer. An event-driven layer
  reads a weight and reads and writes a potential for every accumulate, as in Lemaire et al. 2022 (arXiv 2210.13107),
  sec. III.
- Light: `optical_macs` are products that light makes, `photons` those that meet the weights. `modulations` put one
  value on light (converter and modulator), `detections` read one; `phase_symbols` are phases held for one input.
- `quantum_gates` are gates of one run of a circuit. No table prices them: circuits are simulated, and what that costs
  says nothing of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import singledispatch
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from neuro.graph import Graph, Node, Shape
from neuro.nodes import (
    LI,
    LIF,
    AdaptiveLIF,
    Add,
    Affine,
    Alpha,
    AvgPool,
    BatchNorm,
    BoxLIF,
    Clamp,
    Conv,
    ConvTranspose,
    CurrentLI,
    CurrentLIF,
    Dequantise,
    Experts,
    GradedSpiking,
    Leaky,
    LeakyReLU,
    MaxPool,
    Neuron,
    OffsetIF,
    Quantise,
    ReLU,
    Requantise,
    Scale,
    Sigmoid,
    Softmax,
    Spiking,
    Staircase,
    Synaptic,
    Tanh,
)


@dataclass(frozen=True)
class Tally:
    """Sums over samples and steps. All are counts; the precision of an operation is that of its graph."""

    macs: int = 0
    effective_macs: int = 0
    accumulates: int = 0
    additions: int = 0
    multiplications: int = 0
    comparisons: int = 0
    exponentials: int = 0
    spikes: int = 0
    updates: int = 0
    updates_active: int = 0
    weight_words: int = 0
    activation_words: int = 0
    state_words: int = 0
    packets: int = 0
    hops: int = 0
    optical_macs: int = 0
    photons: int = 0
    modulations: int = 0
    detections: int = 0
    phase_symbols: int = 0
    quantum_gates: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))


@dataclass(frozen=True)
class Counts:
    """Tallies of every node over `samples` inferences of `steps` ticks each, end to end.

    `precision` names the number format that prices apply to: "float32", "int8" or the name of a chip's format.
    """

    samples: int
    steps: int
    nodes: Mapping[str, Tally] = field(default_factory=dict)
    precision: str = "float32"

    @property
    def total(self) -> Tally:
        return sum(self.nodes.values(), Tally())

    def per_sample(self, quantity: str) -> float:
        """The mean of one quantity over the samples, e.g. `counts.per_sample("accumulates")`."""
        return getattr(self.total, quantity) / max(self.samples, 1)

    def __add__(self, other: Counts) -> Counts:
        names = dict.fromkeys((*self.nodes, *other.nodes))
        merged = {name: self.nodes.get(name, Tally()) + other.nodes.get(name, Tally()) for name in names}
        return Counts(self.samples + other.samples, max(self.steps, other.steps), merged, self.precision)


_fan_outs: WeakKeyDictionary[Node, dict[Shape, Tensor]] = WeakKeyDictionary()


def fan_out(node: Node, shape: Shape) -> Tensor:
    """How many non-zero weights each input element of a linear node meets, see `_fan_out`; computed once per node."""
    known = _fan_outs.setdefault(node, {})
    if shape not in known:
        known[shape] = _fan_out(node, shape)
    return known[shape]


def _fan_out(node: Node, shape: Shape) -> Tensor:
    """How many non-zero weights each input element of a linear node meets; shape `shape`. Exact at borders.

    For a convolution it is the gradient of sum(y) with every non-zero weight replaced by one.
    """
    if isinstance(node, Affine):
        return (node.weight != 0).sum(0).to(torch.float64).expand(shape)
    if isinstance(node, Scale):
        return (node.factor != 0).to(torch.float64).expand(shape)
    if isinstance(node, AvgPool):
        return _windows_over(node, shape)
    if not isinstance(node, Conv | ConvTranspose):
        raise TypeError(f"{node.kind} is no connection")
    ones = torch.ones(1, *shape, dtype=torch.float32, requires_grad=True)
    with torch.enable_grad():
        mask = (node.weight != 0).to(torch.float32)
        reached = replace(node, weight=mask, bias=None).forward(ones)
        (gradient,) = torch.autograd.grad(reached.sum(), ones)
    return gradient[0].round().to(torch.float64)


def _windows_over(node: AvgPool, shape: Shape) -> Tensor:
    """In how many windows each element lies."""
    windows = torch.ones(shape[:1], dtype=torch.float64)
    sizes = zip(shape[1:], node.output_shape(shape)[1:], node.kernel, node.stride, node.padding, strict=True)
    for size, count, kernel, stride, padding in sizes:
        first = torch.arange(count)[:, None] * stride - padding
        place = torch.arange(size)
        windows = windows[..., None] * ((place >= first) & (place < first + kernel)).sum(0)
    return windows


@dataclass(frozen=True)
class Traffic:
    """What entered a node during a run: how often each element was not zero, and how many values entered at all.

    `active` has the feature shape of the input and sums over samples and steps; `presentations` is samples times steps
    (steps = 1 for a constant input, which is computed once and held). `binary`: all values were spikes. `graded`: they
    are sums of spikes on their way, so that zeros cause no work.
    """

    shape: Shape
    active: Tensor
    presentations: int
    binary: bool
    graded: bool = False


@singledispatch
def tally(node: Node, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    """What a stateless node did with its traffic. Moves of elements cost nothing."""
    return Tally()


def _connection(node: Node, flow: Traffic, output: Shape, weights: int, dense_macs: int, has_bias: bool) -> Tally:
    events = int((flow.active.to(torch.float64) * fan_out(node, flow.shape)).sum().item())
    outputs = math.prod(output)
    if flow.binary:
        return Tally(accumulates=events, weight_words=events, state_words=2 * events)
    if flow.graded:
        return Tally(macs=events, effective_macs=events, weight_words=events, state_words=2 * events)
    return Tally(
        macs=dense_macs * flow.presentations,
        effective_macs=events,
        additions=outputs * flow.presentations if has_bias else 0,
        weight_words=weights * flow.presentations,
        activation_words=(math.prod(flow.shape) + outputs) * flow.presentations,
    )


@tally.register
def _(node: Affine, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    used = int((node.weight != 0).sum())
    rows = math.prod(output[:-1])
    return _connection(node, traffic[0], output, used, used * rows, node.bias is not None)


@tally.register
def _(node: Conv, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    used = int((node.weight != 0).sum())
    return _connection(node, traffic[0], output, used, used * math.prod(output[1:]), node.bias is not None)


@tally.register
def _(node: ConvTranspose, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    used = int((node.weight != 0).sum())
    return _connection(node, traffic[0], output, used, used * math.prod(traffic[0].shape[1:]), node.bias is not None)


@tally.register
def _(node: Scale, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    if bool((node.factor == 1).all()) and not traffic[0].binary:
        # A bias that differs from place to place: membranes add it, a dense engine too.
        adding = node.offset is not None and not traffic[0].graded
        return Tally(additions=math.prod(output) * traffic[0].presentations if adding else 0)
    return _connection(node, traffic[0], output, node.parameters, math.prod(output), node.offset is not None)


@tally.register
def _(node: BatchNorm, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    size = math.prod(output) * traffic[0].presentations
    return Tally(multiplications=size, additions=size, weight_words=2 * node.mean.numel() * traffic[0].presentations)


@tally.register
def _(node: AvgPool, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    (flow,) = traffic
    if flow.binary or flow.graded:
        events = int((flow.active.to(torch.float64) * fan_out(node, flow.shape)).sum().item())
        return Tally(accumulates=events, state_words=2 * events)
    size = math.prod(output) * flow.presentations
    return Tally(
        additions=size * (math.prod(node.kernel) - 1),
        multiplications=size,
        activation_words=(math.prod(flow.shape) + math.prod(output)) * flow.presentations,
    )


@tally.register
def _(node: MaxPool, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    size = math.prod(output) * traffic[0].presentations
    return Tally(comparisons=size * (math.prod(node.kernel) - 1))


@tally.register
def _(node: Add, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    return Tally(additions=math.prod(output) * max(flow.presentations for flow in traffic) * (len(traffic) - 1))


@tally.register(ReLU)
@tally.register(LeakyReLU)
@tally.register(Clamp)
def _(node: Node, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    return Tally(comparisons=math.prod(output) * traffic[0].presentations)


@tally.register(Quantise)
@tally.register(Requantise)
@tally.register(Dequantise)
@tally.register(Staircase)
def _(node: Node, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    return Tally(multiplications=math.prod(output) * traffic[0].presentations)


@tally.register(Sigmoid)
@tally.register(Tanh)
@tally.register(Softmax)
def _(node: Node, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    size = math.prod(output) * traffic[0].presentations
    return Tally(exponentials=size, additions=size, multiplications=size)


_OF_ONE_UPDATE: dict[type[Node], tuple[int, int, int]] = {
    LI: (1, 1, 1), LIF: (1, 1, 1), AdaptiveLIF: (3, 2, 2), Leaky: (1, 1, 1), Synaptic: (2, 2, 2), Alpha: (3, 3, 3),
    BoxLIF: (1, 3, 1), CurrentLIF: (2, 5, 2), CurrentLI: (2, 5, 2),
}  # fmt: skip
"""Multiplications, additions and state variables of one neuron in one step, resets left out; others (0, 1, 1)."""


def tally_neurons(node: Neuron, neurons: int, samples: int, steps: int, spikes: int, touched: int | None) -> Tally:
    """What a population did: its updates, spikes and traffic of potentials (one read and one write per update).

    A graded spike divides the membrane by its threshold and subtracts the product. `OffsetIF` updates its neurons in
    the warm-up too, compares once more there, and writes and reads every current that it keeps.
    """
    late = node.warmup if isinstance(node, OffsetIF) else 0
    kept = neurons * samples * steps if late else 0
    updates = neurons * samples * (steps + late)
    products, sums, states = _OF_ONE_UPDATE.get(type(node), (0, 1, 1))
    return Tally(
        spikes=spikes,
        updates=updates,
        updates_active=updates if touched is None else touched,
        additions=sums * updates,
        multiplications=products * updates + (2 * spikes if isinstance(node, GradedSpiking) else 0),
        comparisons=updates + neurons * samples * late if isinstance(node, Spiking | GradedSpiking) else 0,
        state_words=2 * (states * updates + kept),
        activation_words=2 * spikes,
    )


def experts_counts(node: Experts, x: Tensor) -> Tally:
    """The router on every sample, each expert on the samples routed to it, and k gate products per output element."""
    from neuro.simulate import plain_counts

    _, chosen = node.route(x)
    total = plain_counts(node.router, x).total
    for number, expert in enumerate(node.experts):
        rows = (chosen == number).any(1).nonzero()[:, 0]
        if rows.numel():
            total = total + plain_counts(expert, x[rows]).total
    outputs = math.prod(node.output_shape(tuple(x.shape[1:]))) * x.shape[0] * node.k
    scores = len(node.experts) * x.shape[0]
    biased = 0 if node.selection_bias is None else scores
    return total + Tally(multiplications=outputs, additions=biased, exponentials=scores, comparisons=scores)


def active_parameters(graph: Graph) -> int:
    """Stored numbers that work on one sample: zeros and unselected experts left out (experts of equal size assumed)."""
    count = 0
    for node in graph.nodes.values():
        if isinstance(node, Experts):
            experts = sum(active_parameters(expert) for expert in node.experts)
            own = sum(tensor.numel() for _, tensor in node.tensors())
            count += active_parameters(node.router) + experts * node.k // len(node.experts) + own
        elif isinstance(node, BatchNorm):
            count += node.parameters
        else:
            count += sum(int((tensor != 0).sum()) for _, tensor in node.tensors())
    return count
