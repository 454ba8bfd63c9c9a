"""The rival that energy tables like to forget: the same network in 8-bit integers, without spikes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from converters.calibrate import BATCH, check_calibration
from converters.convert import apply
from neuro.errors import ParameterError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph
from neuro.nodes import (
    Add,
    Affine,
    AvgPool,
    Clamp,
    Concat,
    Conv,
    Dequantise,
    Input,
    MaxPool,
    Pad,
    Permute,
    Quantise,
    ReLU,
    Requantise,
    Reshape,
    Scale,
    Slice,
)
from neuro.rewrite import Builder, append, rebuild

LARGEST_BIAS = 2**24
"""Integer biases stay below it: a channel of vanishing weights takes a coarser step."""

MOVES = (Reshape, Permute, Slice, MaxPool)


@dataclass(frozen=True)
class Integer:
    """Integer inference after training: weights of `bits` per output channel, activations of `bits` per layer.

    y = round(m * (W_q x_q + b_q)) with 32-bit sums: Jacob et al. 2018 (arXiv 1712.05877), eq. 4-7, symmetric, with
    steps from the largest activations on calibration data.
    """

    bits: int = 8
    spikes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ParameterError(f"Integer: bits must lie in 2..8, got {self.bits}")


def quantise_weights(weight: Tensor, bits: int, smallest: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Signed integers of `bits` per output channel and the step of each channel; weight is about step * integer.

    No step is below `smallest` (one number per channel).
    """
    top = 2 ** (bits - 1) - 1
    largest = weight.reshape(weight.shape[0], -1).abs().amax(1)
    step = torch.where(largest > 0, largest, torch.ones_like(largest)) / top
    if smallest is not None:
        step = torch.maximum(step, smallest)
    scaled = weight / step.reshape(-1, *(1,) * (weight.ndim - 1))
    return scaled.round().clamp(-top, top).to(torch.int32), step


def _ranges(plain: Graph, x: Tensor) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}

    def observe(name: str, value: Tensor) -> None:
        low, high = found.get(name, (0.0, 0.0))
        found[name] = min(low, float(value.min())), max(high, float(value.max()))

    with torch.no_grad():
        for chunk in x.split(BATCH):
            evaluate(plain, chunk, observe=observe)
    return found


@apply.register
def _(recipe: Integer, plain: Graph, calibration: Tensor | None) -> Graph:
    x = check_calibration(plain, calibration)
    ranges = _ranges(plain, x)
    top, signed_top = 2**recipe.bits - 1, 2 ** (recipe.bits - 1) - 1
    step: dict[str, Tensor] = {}
    """Real value of one integer unit of each old node: one number, or one per channel for sums not yet requantised."""

    def small(name: str) -> tuple[float, int, int]:
        """Step and limits with which the values of a node fit into `bits`."""
        low, high = ranges[name]
        if low >= 0:
            return max(high, 1e-12) / top, 0, top
        return max(-low, high) / signed_top, -signed_top, signed_top

    def requantised(builder: Builder, source: str) -> str:
        """The integers of an old node on one step within `bits`."""
        if step[source].numel() == 1 and step[source].item() == small(source)[0]:
            return builder.alias[source]
        unit, low, high = small(source)
        key = f"{source}.requantised"
        if key not in builder.nodes:
            builder.add(key, Requantise(step[source].double() / unit, low, high), (builder.alias[source],))
        return key

    def on_step(builder: Builder, source: str, unit: float, reader: str) -> str:
        """The integers of an old node on a given step, in 32 bits."""
        limit = 2**24
        node = Requantise(step[source].double() / unit, -limit, limit)
        return builder.add(f"{source}.for.{reader}", node, (builder.alias[source],))

    def rule(builder: Builder, name: str) -> None:
        node, given = plain.nodes[name], plain.sources[name]
        if isinstance(node, Input):
            unit, low, high = small(name)
            entry = builder.add(name, node, ())
            builder.alias[name] = builder.add(f"{name}.quantised", Quantise(unit, low, high), (entry,))
            step[name] = torch.tensor([unit], dtype=torch.float64)
        elif isinstance(node, Affine | Conv):
            unit = small(given[0])[0]
            smallest = None if node.bias is None else node.bias.abs() / (unit * LARGEST_BIAS)
            weight, steps = quantise_weights(node.weight, recipe.bits, smallest)
            if isinstance(node, Affine) and len(plain.shapes[name]) > 1:
                # The channel of such features is not the row of the matrix: all rows share one step.
                steps = steps.max().reshape(1)
                weight = (node.weight / steps).round().to(torch.int32)
            step[name] = steps.double() * unit
            bias = None if node.bias is None else (node.bias.double() / step[name]).round().to(torch.int32)
            builder.alias[name] = builder.add(
                name, replace(node, weight=weight, bias=bias), (requantised(builder, given[0]),)
            )
            builder.note(name, node.kind, f"int{recipe.bits} {node.kind}", "weights per output channel, 32-bit sums")
        elif isinstance(node, ReLU | Clamp):
            (source,) = given
            unit = small(name)[0]
            high = top if isinstance(node, ReLU) else min(top, round(node.high / unit))
            builder.alias[name] = builder.add(
                name, Requantise(step[source].double() / unit, 0, high), (builder.alias[source],)
            )
            step[name] = torch.tensor([unit], dtype=torch.float64)
        elif isinstance(node, AvgPool):
            _average(builder, plain, name, node, requantised)
            step[name] = torch.tensor([small(given[0])[0]], dtype=torch.float64) / math.prod(node.kernel)
        elif isinstance(node, Add | Concat):
            unit = small(name)[0] / (2**8 if isinstance(node, Add) else 1)
            builder.alias[name] = builder.add(name, node, [on_step(builder, source, unit, name) for source in given])
            step[name] = torch.tensor([unit], dtype=torch.float64)
        elif isinstance(node, MOVES) or (isinstance(node, Pad) and node.value == 0):
            source = given[0]
            per_channel = step[source].numel() > 1
            entry = requantised(builder, source) if per_channel else builder.alias[source]
            builder.alias[name] = builder.add(name, node, (entry,))
            step[name] = torch.tensor([small(source)[0]], dtype=torch.float64) if per_channel else step[source]
            ranges[name] = ranges[source]
        elif isinstance(node, Scale):
            _scale(builder, name, node, step, given[0])
        else:
            raise UnsupportedNode(f"{node.kind} {name!r} has no integer form here")

    graph = append(rebuild(plain, rule), "logits", Dequantise(step[plain.output]))
    return graph.edit(name=f"{plain.name}, int{recipe.bits}")


def _scale(builder: Builder, name: str, node: Scale, step: dict[str, Tensor], source: str) -> None:
    """A factor changes the step and the sign of its integers; an offset is added on the new step."""
    factor = node.factor.double()
    channels = builder.graph.shapes[name][0]
    per_channel = factor.numel() == channels == factor.shape[:1].numel() and factor.ndim == len(
        builder.graph.shapes[name]
    )
    if not (factor.numel() == 1 or per_channel) or bool((factor == 0).any()):
        raise UnsupportedNode(f"Scale {name!r}: factors must differ from zero and depend on the channel only")
    step[name] = step[source] * factor.abs().reshape(-1)
    offset = None
    if node.offset is not None:
        form = step[name].reshape(-1, *(1,) * (len(builder.graph.shapes[name]) - 1))
        offset = (node.offset.double() / form).round().to(torch.int32)
    builder.keep(name, Scale(factor.sign().to(torch.int32), offset))


def _average(
    builder: Builder, plain: Graph, name: str, node: AvgPool, requantised: Callable[[Builder, str], str]
) -> None:
    """An average as the sum of its window; the division is folded into the next requantisation."""
    if node.ceil or (any(node.padding) and not node.count_padding):
        raise UnsupportedNode(f"AvgPool {name!r}: windows of unequal size have no integer form here")
    (source,) = plain.sources[name]
    channels = plain.shapes[source][0]
    ones = torch.ones(channels, 1, *node.kernel, dtype=torch.int32)
    conv = Conv(ones, None, node.stride, node.padding, (1,) * len(node.kernel), channels)
    builder.alias[name] = builder.add(name, conv, (requantised(builder, source),))
    builder.note(name, "AvgPool", "window sum", "the division goes into the next requantisation")
