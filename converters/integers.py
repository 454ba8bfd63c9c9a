"""Linear maps in integers: what a node of the plain network is worth stands beside its integers.

value = scale * integer + offset, where scale and offset broadcast against the features. A scale goes into the weights
that read it before these are quantised; an offset never becomes a spike and ends in an initial potential.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from converters.scales import channel_shape, compressed, move_scales, padded_factor
from neuro.errors import UnsupportedNode
from neuro.graph import Shape
from neuro.nodes import (
    Add,
    Affine,
    AvgPool,
    Concat,
    Conv,
    ConvTranspose,
    MaxPool,
    Pad,
    Quantise,
    Scale,
    Staircase,
)
from neuro.rewrite import Builder

FINE = 64
"""Parts into which the finest summand of a sum is cut where the summands have no common step."""

LARGEST_BIAS = 2**24
"""Integer offsets stay below it: a channel of vanishing weights takes a coarser step."""


@dataclass(frozen=True, eq=False)
class Sum:
    """value = scale * integers of node `alias` + offset. `weighted`: real weights that still wait for their step.

    scale and offset have as many dimensions as the features; offset has their shape.
    """

    alias: str
    scale: Tensor
    offset: Tensor
    weighted: Affine | Conv | ConvTranspose | None = None


class Integers:
    """The integer form of a network under construction: one `Sum` for every node of the plain network done so far.

    largest_sum: no weighted sum gets a span beyond it, whatever the input: channels that could take coarser steps.
    """

    def __init__(self, builder: Builder, weight_bits: int, largest_sum: float = math.inf) -> None:
        self.builder, self.largest_sum = builder, largest_sum
        self.top = 2 ** (weight_bits - 1) - 1
        self.known: dict[str, Sum] = {}

    def settled(self, name: str, step: Tensor | None = None) -> Sum:
        """The integers of a plain node, its weights quantised now if they were still real (on `step` if given)."""
        found = self.known[name]
        if found.weighted is None:
            return found
        node = found.weighted
        step = self.step_of(name) if step is None else step
        per_weight = node.per_output(step.reshape(-1).to(node.weight.dtype))
        weight = (node.weight / per_weight).round().clamp(-self.top, self.top).to(torch.int32)
        alias = self.builder.add(name, replace(node, weight=weight, bias=None), (found.alias,))
        self.builder.note(name, node.kind, f"integer {node.kind}", "weights per output channel, bias in the potential")
        self.known[name] = Sum(alias, step, found.offset)
        return self.known[name]

    def step_of(self, name: str) -> Tensor:
        """The step of the weights of each output channel, in the form of the features."""
        found = self.known[name]
        assert found.weighted is not None
        weight, last = found.weighted.by_output(), isinstance(found.weighted, Affine)
        largest = weight.abs().amax(1).double()
        offset = found.offset.abs().double()
        offset = offset.reshape(-1, len(weight)).amax(0) if last else offset.reshape(len(weight), -1).amax(1)
        # Weights of one magnitude, as of sums and repetitions, are ones: integers stay small.
        single = ((weight == 0) | (weight.abs() == weight.abs().amax(1, keepdim=True))).all(1)
        step = torch.where(largest > 0, largest, largest.new_ones(())) / torch.where(single, 1, self.top)
        step = torch.maximum(step, offset / LARGEST_BIAS)
        if math.isfinite(self.largest_sum):
            readers = self.builder.graph.targets[name]
            summands = [
                len(self.builder.graph.sources[r]) for r in readers if isinstance(self.builder.graph.nodes[r], Add)
            ]
            span = weight.abs().sum(1).double() * self.span(found.alias) * max(summands, default=1)
            step = torch.maximum(step, span / self.largest_sum)
        dimensions = found.offset.ndim
        return step.reshape(*(1,) * (dimensions - 1), -1) if last else channel_shape(step, found.offset.shape)

    def span(self, alias: str) -> float:
        """How far apart the integers of a node of the new network can lie, 0 among them."""
        node = self.builder.nodes[alias]
        if isinstance(node, Quantise):
            return max(node.high, 0) - min(node.low, 0)
        if isinstance(node, Staircase):
            return node.levels
        given = [self.span(source) for source in self.builder.sources[alias]]
        if isinstance(node, Affine | Conv | ConvTranspose):
            return given[0] * float(node.by_output().abs().double().sum(1).max())
        if isinstance(node, Scale):
            return given[0] * float(node.factor.abs().max())
        return sum(given) if isinstance(node, Add) else max(given)

    def uniform(self, name: str) -> Sum:
        """The integers of a plain node on one scale for all elements."""
        found = self.settled(name)
        if found.scale.numel() == 1:
            return found
        step = found.scale.max().reshape((1,) * found.scale.ndim) / 2**7
        self.known[name] = self._on(found, step, name)
        return self.known[name]

    def _on(self, found: Sum, step: Tensor, name: str) -> Sum:
        factor = (found.scale / step).round().to(torch.int32)
        if bool((factor == 1).all()):
            return replace(found, scale=step)
        scaled = self.builder.add(f"{name}.scaled", Scale(factor), (found.alias,))
        return Sum(scaled, step, found.offset)

    def weigh(self, name: str, source: str, node: Affine | Conv | ConvTranspose, shape: Shape) -> None:
        """A weighted node: the scale of its input goes into its weights, its bias into the offset."""
        for find in (self.settled, self.uniform):
            found = find(source)
            done = move_scales(node, [found.scale.expand(shape).to(node.weight.dtype)], [shape])
            if done is not None:
                break
        else:
            raise UnsupportedNode(f"{node.kind} {name!r}: the scales of its inputs cannot go into its weights")
        offset = node.forward(found.offset[None].to(node.weight.dtype))[0]
        self.known[name] = Sum(found.alias, found.scale, offset, done[0])  # type: ignore[arg-type]

    def average(self, name: str, source: str, node: AvgPool, shape: Shape) -> None:
        """An average as the sum of its window; the division goes into the scale."""
        found = self.settled(source)
        ones = torch.ones(shape[0], 1, *node.kernel, dtype=torch.int32)
        conv = Conv(ones, None, node.stride, node.padding, (1,) * len(node.kernel), shape[0])
        if conv.output_shape(shape) != node.output_shape(shape):
            raise UnsupportedNode(f"AvgPool {name!r}: ceil windows that leave their input have no integer form here")
        form = found.scale.expand(shape).reshape(shape[0], -1)
        if not bool((form == form[:, :1]).all()):
            found = self.uniform(source)
        share = node.forward(torch.ones(1, *shape))[0].double() / conv.forward(torch.ones(1, *shape).int())[0]
        scale = channel_shape(found.scale.expand(shape).reshape(shape[0], -1)[:, 0], shape) * share
        alias = self.builder.add(name, conv, (found.alias,))
        self.known[name] = Sum(alias, compressed(scale), node.forward(found.offset[None])[0])

    def move(self, name: str, sources: tuple[str, ...], node: MaxPool | Concat | Pad, shapes: list[Shape]) -> None:
        """Moves of elements and maxima: integers, scales and offsets take the same way."""
        given = [self.settled(source) for source in sources]
        if isinstance(node, MaxPool) and move_scales(node, [given[0].scale.expand(shapes[0])], shapes) is None:
            scale = given[0].scale.expand(shapes[0]).reshape(shapes[0][0], -1)
            if not bool((scale == scale[:, :1]).all()):
                given = [self.uniform(sources[0])]
        silent = replace(node, value=0.0) if isinstance(node, Pad) else node
        alias = self.builder.add(name, silent, [found.alias for found in given])
        scales = [found.scale.expand(shape) for found, shape in zip(given, shapes, strict=True)]
        if isinstance(node, Pad):
            scale = padded_factor(node, scales[0])
        else:
            scale = node.forward(*(part[None] for part in scales))[0]
        offset = node.forward(*(found.offset[None] for found in given))[0]
        self.known[name] = Sum(alias, compressed(scale), offset)

    def scale(self, name: str, source: str, node: Scale, shape: Shape) -> None:
        """A factor goes into the scale, its sign into the integers."""
        found = self.settled(source)
        factor = node.factor.double().expand(shape)
        alias, sign = found.alias, compressed(node.factor.expand(shape).sign().to(torch.int32))
        if bool((sign != 1).any()):
            alias = self.builder.add(name, Scale(sign), (alias,))
        scale = compressed(found.scale * torch.where(factor == 0, 1.0, factor.abs()))
        offset = node.forward(found.offset[None])[0]
        self.known[name] = Sum(alias, scale, offset.to(torch.float32))

    def add(self, name: str, sources: tuple[str, ...], shape: Shape) -> None:
        """A sum on the step of its membrane: weights that only it reads share one, other summands are multiplied."""
        own = self.builder.graph.targets
        waiting = [s for s in dict.fromkeys(sources) if self.known[s].weighted is not None and len(own[s]) == 1]
        others = [self.settled(source).scale.expand(shape) for source in sources if source not in waiting]
        finest = torch.stack(others).amin(0) if others else None
        step = None
        if waiting:
            steps = [self.step_of(source) for source in waiting]
            step = compressed(torch.stack([part.expand(shape) for part in steps]).amax(0))
            same = all(part.shape == step.shape for part in steps) or step.numel() == 1
            if not same or (finest is not None and bool((finest < FINE / 4 * step).any())):
                step = None
        if step is not None:
            for source in waiting:
                form = self.step_of(source)
                self.settled(source, step.expand(form.shape))
        given = [self.settled(source) for source in sources]
        if step is None:
            every = torch.stack([found.scale.expand(shape) for found in given])
            step = compressed(torch.maximum(_common_step(every), every.amax(0) / 2**16))
        parts = [self._on(found, step, source) for found, source in zip(given, sources, strict=True)]
        offset = torch.stack([found.offset for found in given]).sum(0)
        self.known[name] = Sum(self.builder.add(name, Add(), [part.alias for part in parts]), step, offset)


def _common_step(scales: Tensor) -> Tensor:
    """The largest power-of-two part of the finest scale of which the others are multiples, to half a part in `FINE`."""
    parts = 1
    while True:
        step = scales.amin(0) / parts
        factor = scales / step
        if parts == FINE or bool(((factor.round() - factor).abs() <= factor / (2 * FINE)).all()):
            return step
        parts *= 2
