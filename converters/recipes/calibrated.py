"""Calibration on real spike trains: every layer is fitted to what the spikes before it really bring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from converters.calibrate import PLACES, by_channel, check_calibration, drawn, forward, last_readers, mmse
from converters.convert import apply
from converters.least_squares import refit
from converters.maxima import is_activation, reads_spikes
from converters.recipes.rate import usable
from converters.scales import channel_shape
from converters.spiking import spiking_graph
from neuro.dynamics import rest
from neuro.errors import ParameterError
from neuro.graph import Change, Graph, Input, Stateless
from neuro.kernels import run_steps
from neuro.nodes import IF, Add, Affine, Conv, ConvTranspose, MaxCount, MaxPool, Neuron, Readout, Scale
from neuro.rewrite import Builder, rebuild

SHARES = (0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5)
"""Thresholds tried on real currents, in units of the MMSE threshold."""

POTENTIALS = (0.1, 0.3, 0.5, 0.7)
"""Initial potentials tried on real currents, in thresholds."""

ROUNDS = 3
"""How often a bias is corrected: spikes do not follow it in proportion."""

FEWEST_SAMPLES = 8


@dataclass(frozen=True)
class Calibrated:
    """Rate coding calibrated for simulations of `steps` steps: SNN calibration, Li et al. 2021.

    Layers are taken in order. Each receives the real trains that the finished layers before it emit on calibration
    data, and its spikes are compared with the original activations. "light" sets thresholds of least squared error per
    channel (`mmse`), v0 = theta / 2, and moves biases until the mean output of every channel is right. "advanced"
    refits the weights as well, so that the mean currents are the original ones (closed-form ridge regression in place
    of gradient descent; a layer before an addition also makes up for what the other branch lacks), and searches
    threshold, initial potential and worth of a spike per channel on the real currents.
    image_steps: samples times steps simulated, which bounds time and memory; the samples are drawn with `seed`.
    Other numbers of steps than `steps` can be simulated afterwards, with more loss.
    """

    steps: int = 32
    method: Literal["light", "advanced"] = "advanced"
    image_steps: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ParameterError(f"Calibrated: steps must be >= 1, got {self.steps}")
        if self.method not in ("light", "advanced"):
            raise ParameterError(f"Calibrated: method must be 'light' or 'advanced', got {self.method!r}")
        if self.image_steps < 1:
            raise ParameterError(f"Calibrated: image_steps must be >= 1, got {self.image_steps}")


class Population(NamedTuple):
    """Per channel: threshold, initial potential, worth of one spike, and what is added to the input current."""

    theta: Tensor
    v0: Tensor
    worth: Tensor
    offset: Tensor


@apply.register
def _(recipe: Calibrated, plain: Graph, calibration: Tensor | None) -> Graph:
    x = check_calibration(plain, calibration)
    count = max(FEWEST_SAMPLES, recipe.image_steps // recipe.steps)
    return calibrated(recipe, plain, x[torch.randperm(len(x), generator=_generator(recipe))[:count]])


def _generator(recipe: Calibrated) -> torch.Generator:
    return torch.Generator().manual_seed(recipe.seed)


def calibrated(recipe: Calibrated, plain: Graph, x: Tensor) -> Graph:
    """The spiking graph that `recipe` makes of a legalised network on all of x (samples, *features)."""
    steps, fitted = recipe.steps, dict(plain.nodes)
    changes: list[Change] = []
    neurons: dict[str, tuple[Neuron, Tensor]] = {}
    offsets: dict[str, Tensor] = {}
    real: dict[str, Tensor] = {}
    trains: dict[str, Tensor] = {}
    """(steps, samples, *features), one step where constant; a spike has its worth as its value."""
    last = last_readers(plain)
    for name, node in plain.nodes.items():
        given, shape = plain.sources[name], plain.shapes[name]
        received = [trains[source] for source in given]
        if isinstance(node, Input):
            real[name], trains[name] = x, x[None]
        elif isinstance(node, Stateless):
            real[name] = forward(node, *(real[source] for source in given))
            if is_activation(node):
                found = _population(recipe, node, real[name], received[0])
                theta, v0, worth, offset = (channel_shape(vector, shape) for vector in found)
                neurons[name], offsets[name] = (IF(theta, v0), worth), found.offset
                trains[name] = _spikes(IF(theta, v0), received[0] + offset, steps).mul_(worth)
            elif isinstance(node, MaxPool) and reads_spikes(plain, name):
                counter = MaxCount(node.kernel, node.stride, node.padding, node.ceil)
                trains[name] = _spikes(counter, received[0], steps)
            else:
                spiking = any(len(train) > 1 for train in received) or steps == 1
                if recipe.method == "advanced" and isinstance(node, Affine | Conv) and spiking:
                    wanted = real[name] + _lacking(plain, name, real, trains)
                    fitted[name] = node = refit(node, received[0].mean(0), wanted, seed=recipe.seed)
                    changes.append(Change(name, node.kind, node.kind, f"weights refitted to trains of {steps} steps"))
                trains[name] = _in_time(node, received)
        for source in last[name]:
            del real[source], trains[source]
    output = plain.output
    if not is_activation(plain.nodes[output]):
        offsets[output] = by_channel(real[output] - trains[output].mean(0), True).mean(1)
    plain = shifted(plain.edit(*changes, nodes=fitted), offsets)
    return spiking_graph(plain.edit(name=f"{plain.name}, calibrated for {steps} steps"), neurons, Readout())


def _spikes(node: Neuron, current: Tensor, steps: int) -> Tensor:
    state = rest(node, current.shape[1], tuple(current.shape[2:]), current.dtype)
    return run_steps(node, state, current, steps)[1]


def _in_time(node: Stateless, given: list[Tensor]) -> Tensor:
    """A node without state on series (steps or 1, samples, *features)."""
    times, samples = max(len(series) for series in given), given[0].shape[1]
    rows = (series.expand(times, *series.shape[1:]).flatten(0, 1) for series in given)
    return forward(node, *rows).unflatten(0, (times, samples))


def _lacking(plain: Graph, name: str, real: Mapping[str, Tensor], trains: Mapping[str, Tensor]) -> Tensor:
    """What the other summands of the addition that alone reads a node lack, as far as they are known yet."""
    total = torch.zeros(())
    readers = plain.targets[name]
    if len(readers) == 1 and isinstance(plain.nodes[readers[0]], Add):
        for other in plain.sources[readers[0]]:
            if other != name and other in trains:
                total = total + real[other] - trains[other].mean(0)
    return total


def _population(recipe: Calibrated, node: object, wanted: Tensor, current: Tensor) -> Population:
    """The population of one activation, from some neurons of each channel with the series that they receive.

    wanted: original activations (samples, channels, ...); current (steps or 1, samples, channels, ...).
    """
    steps = recipe.steps
    target = drawn(by_channel(wanted, True), PLACES, recipe.seed)
    series = drawn(current.transpose(1, 2).flatten(2), PLACES, recipe.seed)
    theta = usable(mmse(target, steps), node)
    v0, worth, offset = theta / 2, theta, torch.zeros_like(theta)
    if recipe.method == "advanced":
        theta, v0 = _searched(series, target, theta, steps)
    for _ in range(ROUNDS):
        rate = _rates(series + offset[:, None], theta, v0, steps)
        worth = _worth(rate, target, theta) if recipe.method == "advanced" else theta
        missing = (target - worth[:, None] * rate).mean(1)
        offset = offset + missing / (rate > 0).float().mean(1).clamp(min=0.25)
    return Population(theta, v0, worth, offset)


def _rates(series: Tensor, theta: Tensor, v0: Tensor, steps: int) -> Tensor:
    """Spikes per step (channels, neurons) of neurons that receive series (steps or 1, channels, neurons)."""
    return _spikes(IF(theta[:, None], v0[:, None]), series[:, None], steps)[:, 0].mean(0)


def _worth(rate: Tensor, wanted: Tensor, theta: Tensor) -> Tensor:
    """The value of a spike that minimises |wanted - worth rate|^2 in each row, not far from theta."""
    worth = (rate * wanted).sum(1) / (rate * rate).sum(1).clamp(min=torch.finfo(rate.dtype).tiny)
    return torch.where(worth > 0, worth.clamp(0.5 * theta, 1.5 * theta), theta)


def _searched(series: Tensor, wanted: Tensor, theta: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Threshold and initial potential per channel with which the spikes on the real currents fit best."""
    best, start, least = theta, theta / 2, torch.full_like(theta, torch.inf)
    for share in SHARES:
        for potential in POTENTIALS:
            tried = theta * share
            rate = _rates(series, tried, potential * tried, steps)
            error = (wanted - _worth(rate, wanted, tried)[:, None] * rate).square().sum(1)
            better = error < least
            best, start = torch.where(better, tried, best), torch.where(better, potential * tried, start)
            least = torch.minimum(error, least)
    return best, start


def shifted(graph: Graph, offsets: Mapping[str, Tensor]) -> Graph:
    """The graph with offsets[name], one number per channel, added to what enters activation `name`, or to the output.

    It goes into the bias of a weighted node wherever nothing else would see it, and into a node of its own elsewhere.
    """
    carriers: dict[str, Tensor] = {}
    own: dict[str, Tensor] = {}
    for name, offset in offsets.items():
        into = graph.sources[name][0] if is_activation(graph.nodes[name]) else name
        carrier = _carrier(graph, into)
        if carrier is None:
            own[name] = channel_shape(offset, graph.shapes[name])
        else:
            carriers[carrier] = offset

    def rule(builder: Builder, name: str) -> object:
        node = graph.nodes[name]
        if name in carriers and isinstance(node, Affine | Conv | ConvTranspose):
            offset = carriers[name].to(node.weight.dtype)
            return builder.keep(name, replace(node, bias=offset if node.bias is None else node.bias + offset))
        if name not in own:
            return builder.keep(name)
        adding = Scale(torch.ones(()), own[name])
        if is_activation(node):
            entry = builder.add(f"{name}.offset", adding, builder.given(name))
            builder.alias[name] = builder.add(name, node, (entry,))
        else:
            builder.alias[name] = builder.add(f"{name}.offset", adding, (builder.keep(name),))
        return None

    return rebuild(graph, rule)


def _carrier(graph: Graph, name: str) -> str | None:
    """The weighted node with one bias per channel whose bias reaches the value of `name` and nothing else."""
    node = graph.nodes[name]
    if len(graph.targets[name]) > 1:
        return None
    if isinstance(node, Affine | Conv | ConvTranspose):
        return name if not isinstance(node, Affine) or len(graph.shapes[name]) == 1 else None
    if isinstance(node, Add):
        return next(filter(None, (_carrier(graph, source) for source in graph.sources[name])), None)
    return None
