"""Layers with weights -1, 0, 1 and binary neurons without memory: what one tick of a TrueNorth core computes.

Esser et al. 2016, Convolutional networks for fast, energy-efficient neuromorphic computing (PNAS 113), section
"Methods" [recalled]: hidden weights are real numbers that learn, used ones are rounded to -1, 0, 1 and pass their
gradient straight to the hidden ones; a neuron fires where its sum, normalised over the batch, reaches a threshold that
learns; the slope of a spike is a triangle around the threshold.

>>> from neuro import trace
>>> parts = TrinaryConv2d(1, 8, 4, stride=4), nn.Flatten(), TrinaryLinear(392, 20, groups=4), Votes(20, 10)
>>> graph = trace(nn.Sequential(*parts), torch.zeros(1, 1, 28, 28))
>>> [type(node).__name__ for node in graph.nodes.values()]
['Input', 'Conv', 'LIF', 'Reshape', 'Reshape', 'Conv', 'LIF', 'Reshape', 'Affine', 'Readout']

Such modules train by `neuro.training.fit` as any classifier: they take one tick, (batch, *features) of 0 and 1, and
`EachTick` runs all ticks of a series. The graph holds the rounded weights, and in place of norm and threshold one
whole-numbered bias per channel: a neuron fires where the sum plus its bias is at least 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Graph, Input, Node, Shape
from neuro.nodes import LIF, Affine, Conv, Readout, Reshape
from neuro.projection import within
from neuro.surrogate import Triangle, spike
from neuro.trace import register

__all__ = ["EachTick", "Ensemble", "Thermometer", "TrinaryConv2d", "TrinaryLinear", "Votes", "trinary"]

EPS = 1e-4
MOMENTUM = 0.1


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def trinary(hidden: Tensor) -> Tensor:
    """round(w) of the hidden weights w, kept in [-1, 1]: -1, 0 or 1; backward the identity on w."""
    rounded: Tensor = _Rounded.apply(within(hidden, -1.0, 1.0))
    return rounded


class Trinary(nn.Module, ABC):
    """z = [norm(W x) + offset >= 0], W trinary; norm: mean 0 and deviation 1 over the batch, as in batch norm.

    inputs: of one group. Hidden weights start uniform in [-1, 1], so that about half of the used ones are 0. width:
    half the width of the triangle that is the slope of a spike, in units of the normalised sum.
    """

    def __init__(self, outputs: int, inputs: int, kernel: Shape, groups: int, width: float) -> None:
        super().__init__()
        if groups < 1 or outputs % groups:
            raise ParameterError(f"{type(self).__name__}: {outputs} outputs do not divide into {groups} groups")
        self.groups, self.slope = groups, Triangle(width)
        self.hidden = nn.Parameter(torch.empty(outputs, inputs, *kernel).uniform_(-1, 1))
        self.offset = nn.Parameter(torch.zeros(outputs))
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("var", torch.ones(outputs))

    @abstractmethod
    def sums(self, x: Tensor, weight: Tensor) -> Tensor:
        """W x for (batch, *features), channels first."""

    @abstractmethod
    def layer(self, weight: Tensor, bias: Tensor, shape: Shape) -> dict[str, Node]:
        """The nodes between input and neurons, in order."""

    def forward(self, x: Tensor) -> Tensor:
        sums = self.sums(x, trinary(self.hidden))
        normalised = F.batch_norm(
            sums, self.mean, self.var, None, self.offset, self.training, momentum=MOMENTUM, eps=EPS
        )
        return spike(normalised, self.slope)

    def bias(self) -> Tensor:
        """1 - ceil(mean - offset deviation), (outputs,): with it, neurons fire where their sum is at least 1."""
        least = self.mean.double() - self.offset.detach().double() * (self.var.double() + EPS).sqrt()
        return (1 - least.ceil()).float()

    def graph(self, shape: Shape) -> Graph:
        """What one tick of the trained layer computes."""
        weight = trinary(self.hidden.detach())
        nodes: dict[str, Node] = {"in": Input(shape), **self.layer(weight, self.bias(), shape)}
        nodes["spikes"] = LIF(torch.zeros(()), torch.ones(()), torch.zeros(()), "zero")
        if isinstance(nodes.get("regroup"), Reshape):
            nodes["flat"] = Reshape((self.hidden.shape[0],))
        return _chain(nodes)


def _chain(nodes: Mapping[str, Node]) -> Graph:
    names = list(nodes)
    return Graph(nodes, {name: (before,) for before, name in pairwise(names)}, "trinary")


class TrinaryConv2d(Trinary):
    """A convolution with trinary weights and binary neurons. A core holds at most 128 inputs of either sign, so
    inputs / groups * kernel area should not pass 128.

    (batch, inputs, height, width) of 0 and 1 in, (batch, outputs, ...) of 0 and 1 out.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1,
        width: float = 1.0,
    ) -> None:  # fmt: skip
        if groups < 1 or inputs % groups:
            raise ParameterError(f"TrinaryConv2d: {inputs} inputs do not divide into {groups} groups")
        super().__init__(outputs, inputs // groups, (kernel, kernel), groups, width)
        self.stride, self.padding = stride, padding

    def sums(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight.to(x.dtype), None, self.stride, self.padding, 1, self.groups)

    def layer(self, weight: Tensor, bias: Tensor, shape: Shape) -> dict[str, Node]:
        return {"sum": Conv(weight, bias, (self.stride,) * 2, (self.padding,) * 2, (1, 1), self.groups)}


class TrinaryLinear(Trinary):
    """Groups of trinary weights and binary neurons side by side: inputs and outputs are cut into `groups` parts.

    (batch, inputs) of 0 and 1 in, (batch, outputs) of 0 and 1 out. inputs / groups should not pass 128, see
    `TrinaryConv2d`.
    """

    def __init__(self, inputs: int, outputs: int, groups: int = 1, width: float = 1.0) -> None:
        if groups < 1 or inputs % groups:
            raise ParameterError(f"TrinaryLinear: {inputs} inputs do not divide into {groups} groups")
        super().__init__(outputs, inputs // groups, (), groups, width)

    def sums(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.groups == 1:
            return F.linear(x, weight.to(x.dtype))
        parts = x.unflatten(1, (self.groups, -1)).transpose(0, 1)
        wide = weight.to(x.dtype).unflatten(0, (self.groups, -1)).transpose(1, 2)
        return torch.bmm(parts, wide).transpose(0, 1).flatten(1)

    def layer(self, weight: Tensor, bias: Tensor, shape: Shape) -> dict[str, Node]:
        if self.groups == 1:
            return {"sum": Affine(weight, bias)}
        grouped = Conv(weight[:, :, None, None], bias, (1, 1), (0, 0), (1, 1), self.groups)
        return {"regroup": Reshape((shape[0], 1, 1)), "sum": grouped}


class Votes(nn.Module):
    """Neuron i votes for class i mod classes: the score of a class is gain times the share of its neurons that fire.

    (batch, neurons) in, (batch, classes) out. The gain learns and stays behind: it changes no answer. In the graph an
    `Affine` counts the votes, which the host does with the spikes that leave the chip, and a `Readout` gives their mean
    over ticks.
    """

    def __init__(self, neurons: int, classes: int, gain: float = 20.0) -> None:
        super().__init__()
        if neurons < classes or neurons % classes:
            raise ParameterError(f"Votes: {neurons} neurons cannot vote for {classes} classes, equally many for each")
        self.votes: Tensor
        self.register_buffer("votes", F.one_hot(torch.arange(neurons) % classes, classes).T.float(), persistent=False)
        self.log_gain = nn.Parameter(torch.tensor(math.log(gain)))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.votes) * (self.log_gain.exp() * len(self.votes) / self.votes.shape[1])


class Ensemble(nn.Module):
    """Networks side by side, on cores of their own: one input in, their outputs one behind the other, (batch, sum).

    `Votes` behind it lets all of them vote. Train it whole, or the members first.
    """

    def __init__(self, *members: nn.Module) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([member(x) for member in self.members], 1)


class EachTick(nn.Module):
    """A module of one tick on every tick of a series: (time, batch, *features) in, (time, batch, *outputs) out."""

    def __init__(self, tick: nn.Module) -> None:
        super().__init__()
        self.tick = tick

    def forward(self, x: Tensor) -> Tensor:
        return self.tick(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@dataclass(frozen=True)
class Thermometer:
    """x in [0, 1] as `levels` bits per channel: bit k of a value is [x >= (k + 1) / (levels + 1)].

    (batch, channels, height, width) in, (batch, channels * levels, height, width) of 0 and 1 out, bits of a channel
    side by side. One tick shows an image. For `fit(encode=...)` and, as one step of a series, for `simulate` and `run`.
    """

    levels: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.levels, bool) or not isinstance(self.levels, int) or self.levels < 1:
            raise ParameterError(f"Thermometer: levels must be a whole number >= 1, got {self.levels!r}")

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if x.ndim != 4:
            raise ShapeError(f"Thermometer takes (batch, channels, height, width), got {tuple(x.shape)}")
        marks = (torch.arange(self.levels, device=x.device) + 1) / (self.levels + 1)
        return (x[:, :, None] >= marks[:, None, None]).to(x.dtype).flatten(1, 2)


def _votes(module: Votes, shape: Shape) -> Graph:
    return _chain({"in": Input(shape), "votes": Affine(module.votes.clone()), "score": Readout()})


register(Trinary, lambda part, shape: part.graph(shape))  # type: ignore[operator]
register(Votes, _votes)  # type: ignore[arg-type]
