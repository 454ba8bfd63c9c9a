"""Exact counts: every population integrates first and fires afterwards, so that its spikes are a quantised ReLU.

The spiking network equals a quantised network in integers bit for bit (`converters.prove` shows it), at a latency of
(depth + 1) windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from converters.calibrate import by_channel, check_calibration, drawn, forward
from converters.convert import apply
from converters.integers import Integers, Sum
from converters.least_squares import refit
from converters.maxima import is_activation
from converters.pools import averages_into_affine
from converters.scales import channel_shape, compressed
from neuro.errors import ParameterError, UnsupportedNode
from neuro.graph import Graph, Input, Shape, Stateless
from neuro.nodes import (
    Accumulate,
    Add,
    Affine,
    AvgPool,
    Concat,
    Conv,
    ConvTranspose,
    CountThenFire,
    Dequantise,
    MaxCount,
    MaxPool,
    Pad,
    Permute,
    Pulse,
    Quantise,
    Reshape,
    Scale,
    Slice,
    Staircase,
)
from neuro.rewrite import Builder, rebuild

MOVES = (Reshape, Permute, Slice, Pad, Concat, MaxPool)
LARGEST_THETA = 2**30
PLACES = 8192
"""Values of each channel that set its threshold."""

SHARES = torch.linspace(1.0, 0.2, 41, dtype=torch.float64)
"""Thresholds tried, as shares of the largest activation over `levels`."""


@dataclass(frozen=True)
class Exact:
    """Integrate for a window of `levels` steps, then emit the count: clip(floor((v0 + sum) / theta), 0, levels).

    Weights are integers of `weight_bits` per output channel. Thresholds and the worth of one spike minimise, per
    channel, the squared distance to the original activation on calibration data (MMSE). Biases, and the half threshold
    that rounds, are the initial potential. The input is presented once, in integers of `input_bits`.
    potential_bits: the width of a membrane, sign included, that no input may overflow; channels that could, take
    coarser weights. 18 is what Loihi's 24 bits leave for whole weights. None: 32 bits, as in the simulator.
    calibrate: what else is set from the calibration data, layer by layer on the integers that really arrive. "bias":
    the mean of every membrane is that of the original network (Li et al. 2021, SNN calibration, "light" [recalled]).
    "weights": the weights are refitted too, so that what the activation sees is the original sum; the last summand of
    an addition makes up for what the others lack (`least_squares.refit`). "none": nothing.
    """

    levels: int = 16
    weight_bits: int = 8
    calibrate: Literal["none", "bias", "weights"] = "weights"
    input_bits: int = 8
    potential_bits: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= 2**16:
            raise ParameterError(f"Exact: levels must lie in 1..65536, got {self.levels}")
        if not 2 <= self.weight_bits <= 16:
            raise ParameterError(f"Exact: weight_bits must lie in 2..16, got {self.weight_bits}")
        if not 1 <= self.input_bits <= 16:
            raise ParameterError(f"Exact: input_bits must lie in 1..16, got {self.input_bits}")
        if self.potential_bits is not None and not 8 <= self.potential_bits <= 32:
            raise ParameterError(f"Exact: potential_bits must lie in 8..32 or be None, got {self.potential_bits}")
        if self.calibrate not in ("none", "bias", "weights"):
            raise ParameterError(f"Exact: calibrate must be 'none', 'bias' or 'weights', got {self.calibrate!r}")

    @property
    def largest_sum(self) -> float:
        """The span of a membrane's input within `potential_bits`.

        There is room for a threshold more than the levels, and a sixteenth for what rounding adds to weights and for
        biases; a chip still checks every membrane.
        """
        if self.potential_bits is None:
            return math.inf
        return 2 ** (self.potential_bits - 1) * (1 - 1 / 2**4) * self.levels / (self.levels + 1)


@apply.register
def _(recipe: Exact, plain: Graph, calibration: Tensor | None) -> Graph:
    return windowed(quantised(recipe, plain, check_calibration(plain, calibration)))


def quantised(recipe: Exact, plain: Graph, x: Tensor) -> Graph:
    """The quantised network in integers, without time, that the spiking network equals; x calibrates it."""
    plain = averages_into_affine(plain)
    builder = Builder(plain)
    integers = Integers(builder, recipe.weight_bits, recipe.largest_sum)
    seen = _Seen(builder, plain, integers, x)

    def summand(name: str) -> bool:
        """Whether an addition alone reads a node."""
        readers = plain.targets[name]
        return len(readers) == 1 and isinstance(plain.nodes[readers[0]], Add)

    for name, node in plain.nodes.items():
        given = plain.sources[name]
        shapes = [plain.shapes[source] for source in given]
        seen.advance(name)
        if isinstance(node, Input):
            integers.known[name] = _input(builder, name, node, x, recipe.input_bits)
        elif isinstance(node, Affine | Conv | ConvTranspose):
            integers.weigh(name, given[0], node, shapes[0])
            if recipe.calibrate == "weights" and not summand(name):
                seen.refit(name, name)
        elif is_activation(node):
            integers.known[name] = _population(builder, recipe, name, integers.settled(given[0]), seen)
        elif isinstance(node, AvgPool):
            integers.average(name, given[0], node, shapes[0])
        elif isinstance(node, Add):
            if recipe.calibrate == "weights":
                for source in filter(summand, given):
                    seen.refit(source, name)
            integers.add(name, given, shapes[0])
        elif isinstance(node, Scale):
            integers.scale(name, given[0], node, shapes[0])
        elif isinstance(node, MOVES):
            integers.move(name, given, node, shapes)  # type: ignore[arg-type]
        else:
            raise UnsupportedNode(f"{node.kind} {name!r} has no integer form here")
        seen.keep(name)
    last, shape = integers.settled(plain.output), plain.shapes[plain.output]
    if compressed(last.scale.expand(shape)).numel() not in (1, shape[0]) or last.scale.shape[1:].numel() > 1:
        last = integers.uniform(plain.output)
    offset = last.offset.double()
    if recipe.calibrate != "none":
        gap = (seen.real[plain.output].double() - seen.of(last.alias) * last.scale - offset).mean(0)
        offset = offset + channel_shape(gap.reshape(shape[0], -1).mean(1), shape)
    bias = _in_steps(offset, last.scale, "Accumulate")
    sums = builder.add("readout", Scale(torch.tensor(1, dtype=torch.int64), bias), (last.alias,))
    builder.add("logits", Dequantise(last.scale.reshape(-1)), (sums,))
    return builder.build().edit(name=f"{plain.name}, {recipe.levels} levels")


def _in_steps(real: Tensor, step: Tensor, what: str) -> Tensor:
    whole = (real.double() / step).round()
    if bool((whole.abs() >= 2**31).any()):
        raise ParameterError(f"{what}: an initial potential of {float(whole.abs().max()):.3g} leaves 32 bits")
    return compressed(whole.to(torch.int32))


def _input(builder: Builder, name: str, node: Input, x: Tensor, bits: int) -> Sum:
    low, high = float(x.min()), float(x.max())
    top = 2**bits - 1 if low >= 0 else max(1, 2 ** (bits - 1) - 1)
    unit = max(-low, high, 1e-12) / top
    entry = builder.add(name, node, ())
    alias = builder.add(f"{name}.quantised", Quantise(unit, 0 if low >= 0 else -top, top), (entry,))
    ones = (1,) * len(node.shape)
    return Sum(alias, torch.full(ones, unit, dtype=torch.float64), torch.zeros(node.shape))


class _Seen:
    """Values on the calibration data: of the plain network, and of the integers built so far; dropped once read."""

    def __init__(self, builder: Builder, plain: Graph, built: Integers, x: Tensor) -> None:
        self.builder, self.plain, self.built, self.x = builder, plain, built, x
        self.real: dict[str, Tensor] = {}
        self.integers: dict[str, Tensor] = {}
        self.waiting = {name: len(readers) for name, readers in plain.targets.items()}

    def advance(self, name: str) -> None:
        """Go on to a node of the plain network; what no node from here on reads is forgotten."""
        for old in [old for old, readers in self.waiting.items() if not readers and old in self.real]:
            del self.real[old]
        live = {found.alias for old, found in self.built.known.items() if old in self.real}
        self.integers = {alias: value for alias, value in self.integers.items() if alias in live}
        node = self.plain.nodes[name]
        given = [self.real[source] for source in self.plain.sources[name]]
        self.real[name] = forward(node, *given) if isinstance(node, Stateless) else self.x
        for source in self.plain.sources[name]:
            self.waiting[source] -= 1

    def of(self, alias: str) -> Tensor:
        """The integers of a node of the new network."""
        if alias not in self.integers:
            node = self.builder.nodes[alias]
            given = [self.of(source) for source in self.builder.sources[alias]]
            self.integers[alias] = forward(node, *given) if isinstance(node, Stateless) else self.x
        return self.integers[alias]

    def keep(self, name: str) -> None:
        """Work out the integers of a node of the plain network while those before it are still there."""
        if self.built.known[name].weighted is None:
            self.of(self.built.known[name].alias)

    def value(self, name: str) -> Tensor:
        """What the integers of a node of the plain network are worth."""
        found = self.built.known[name]
        if found.weighted is None:
            return self.of(found.alias) * found.scale.float() + found.offset.float()
        return forward(found.weighted, self.of(found.alias)) + found.offset.float()

    def refit(self, name: str, total: str) -> None:
        """Give a weighted node the weights with which `total`, itself or a sum, is what it was in the original network.

        The other summands are what they are in the new network.
        """
        node = self.plain.nodes[name]
        if not isinstance(node, Affine | Conv):
            return
        (source,) = self.plain.sources[name]
        rest = [self.value(other) for other in self.plain.sources[total] if total != name != other]
        rectified = all(is_activation(self.plain.nodes[reader]) for reader in self.plain.targets[total])
        fitted = refit(
            node, self.value(source), self.real[total], rectified=rectified and bool(self.plain.targets[total]),
            rest=torch.stack(rest).sum(0) if rest else None,
        )  # fmt: skip
        self.built.weigh(name, source, fitted, self.plain.shapes[source])


def _population(builder: Builder, recipe: Exact, name: str, membrane: Sum, seen: _Seen) -> Sum:
    """Threshold, initial potential and worth of a spike of one population, on the integers that reach it."""
    plain = seen.plain
    shape: Shape = plain.shapes[name]
    (source,) = plain.sources[name]

    def some(values: Tensor) -> Tensor:
        return drawn(by_channel(values, True), PLACES)

    wanted, reached = some(seen.real[name]), some(seen.value(source))
    offset = membrane.offset.double()
    if recipe.calibrate != "none":
        gap = (some(seen.real[source]) - reached).double().mean(1)
        offset, reached = offset + channel_shape(gap, shape), reached + gap.float()[:, None]
    theta = channel_shape(best_threshold(reached, wanted, recipe.levels), shape)
    steps = (theta / membrane.scale).round().clamp(1, LARGEST_THETA)
    v0 = _in_steps(offset + steps * membrane.scale / 2, membrane.scale, name)
    stairs = Staircase(compressed(steps.to(torch.int32)), v0, recipe.levels)
    alias = builder.add(name, stairs, (membrane.alias,))
    counts = some(seen.of(alias)).double()
    worth = (counts * wanted).sum(1) / (counts * counts).sum(1).clamp(min=1)
    low, high = 0.5 * theta.reshape(-1), 1.5 * theta.reshape(-1)
    worth = torch.where(worth > 0, worth.clamp(low, high), theta.reshape(-1))
    builder.note(name, plain.nodes[name].kind, "CountThenFire", "activation replaced by neurons")
    return Sum(alias, channel_shape(worth, shape), torch.zeros(shape))


def best_threshold(reached: Tensor, wanted: Tensor, levels: int) -> Tensor:
    """The threshold per row that minimises |wanted - worth * clip(round(reached / theta), 0, levels)|^2.

    For a given theta the best worth of a spike is <n, wanted> / <n, n>. Rows that are never active get the largest.
    reached, wanted (channels, samples).
    """
    reached, wanted = (drawn(rows, PLACES).float() for rows in (reached, wanted))
    largest = wanted.amax(1).double()
    best, least = largest / levels, torch.full_like(largest, torch.inf)
    for share in SHARES:
        theta = largest * share / levels
        counts = (reached / theta.clamp(min=1e-30).float()[:, None]).add_(0.5).floor_().clamp_(0, levels)
        error = -((counts * wanted).sum(1) ** 2 / (counts * counts).sum(1).clamp(min=1e-9)).double()
        best, least = torch.where(error < least, theta, best), torch.minimum(error, least)
    overall = best.max()
    return torch.where(largest > 0, best, overall if overall > 0 else torch.ones_like(overall))


def windowed(reference: Graph) -> Graph:
    """The spiking network of a quantised one: every staircase counts, then fires in the window that its depth gives."""
    once: set[str] = set()
    level: dict[str, int] = {}
    for name, node in reference.nodes.items():
        given = reference.sources[name]
        level[name] = max((level[source] for source in given), default=0) + isinstance(node, Staircase)
        if isinstance(node, (Input, Quantise, *MOVES)) and all(source in once for source in given):
            once.add(name)

    def rule(builder: Builder, name: str) -> object:
        node = reference.nodes[name]
        given = []
        for source, alias in zip(reference.sources[name], builder.given(name), strict=True):
            pulse = f"{source}.pulse"
            if source in once and name not in once:
                if pulse not in builder.nodes:
                    builder.add(pulse, Pulse(), (alias,))
                alias = pulse
            given.append(alias)
        if isinstance(node, Staircase):
            new = CountThenFire(node.theta, node.v0, level[name] * node.levels, node.levels)
        elif isinstance(node, MaxPool) and name not in once:
            new = MaxCount(node.kernel, node.stride, node.padding, node.ceil)  # type: ignore[assignment]
        elif name == reference.sources[reference.output][0]:
            assert isinstance(node, Scale)
            assert node.offset is not None
            new = Accumulate(node.offset)  # type: ignore[assignment]
        else:
            new = node  # type: ignore[assignment]
        builder.alias[name] = builder.add(name, new, given)
        return None

    return rebuild(reference, rule).edit(name=f"{reference.name}, spiking")


def without_time(spiking: Graph) -> Graph:
    """The quantised network of a spiking one that counts in windows: integers in, integers out, no steps."""

    def rule(builder: Builder, name: str) -> object:
        node = spiking.nodes[name]
        if isinstance(node, Pulse):
            return builder.drop(name)
        if isinstance(node, CountThenFire):
            return builder.keep(name, Staircase(node.theta, node.v0, node.levels))
        if isinstance(node, MaxCount):
            return builder.keep(name, node.window)
        if isinstance(node, Accumulate):
            return builder.keep(name, Scale(torch.tensor(1, dtype=torch.int64), node.v0))
        return builder.keep(name)

    return rebuild(spiking, rule).edit(name=f"{spiking.name}, without time")
