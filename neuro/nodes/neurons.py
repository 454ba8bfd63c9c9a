"""Nodes with a membrane: their equations are written once more as code in `neuro.dynamics.step`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Node, Shape, broadcast_onto
from neuro.nodes.activations import check_whole
from neuro.nodes.pooling import MaxPool

Reset = Literal["subtract", "zero"]


class Neuron(Node):
    """A population with state: one neuron per feature. Parameters are scalars or broadcast against the features."""

    def output_shape(self, *shapes: Shape) -> Shape:
        return broadcast_onto(shapes[0], self)

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return torch.float32


class Spiking(Neuron):
    """A population whose output is 0 or 1 at every step."""

    resets: ClassVar[tuple[str, ...]] = ("subtract", "zero")
    """The kinds of reset that the population knows."""

    theta: Tensor
    v0: Tensor
    reset: Reset

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool((self.theta.detach() <= 0).any()):
            raise ParameterError(f"{self.kind}: theta must be > 0, got {float(self.theta.min())}")
        self.check_reset()

    def check_reset(self) -> None:
        """Refuse a reset that the population does not know."""
        if self.reset not in self.resets:
            known = " or ".join(map(repr, self.resets))
            raise ParameterError(f"{self.kind}: reset must be {known}, got {self.reset!r}")


def check_decay(kind: str, **decays: Tensor) -> None:
    """Refuse what is no decay over one step."""
    for name, decay in decays.items():
        if bool(((decay.detach() < 0) | (decay.detach() > 1)).any()):
            raise ParameterError(f"{kind}: {name} must lie in [0, 1], got {float(decay.min())}..{float(decay.max())}")


@dataclass(frozen=True, eq=False)
class IF(Spiking):
    """v <- v + i;  z = [v >= theta];  then v <- v - theta z ("subtract") or v <- (1 - z) v ("zero").

    theta, v0 and i in the units of the pre-activation. Rueckauer et al. 2017, eq. 1-3.
    """

    theta: Tensor
    v0: Tensor
    reset: Reset = "subtract"


@dataclass(frozen=True, eq=False)
class LIF(Spiking):
    """v <- beta v + i;  z = [v >= theta];  then v <- v - theta z ("subtract") or v <- (1 - z) v ("zero").

    beta = exp(-dt / tau), the exact decay over one step. Gerstner et al. 2014, ch. 1.
    """

    beta: Tensor
    theta: Tensor
    v0: Tensor
    reset: Reset = "subtract"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_decay("LIF", beta=self.beta)


@dataclass(frozen=True, eq=False)
class LI(Neuron):
    """v <- beta v + i;  the output is v: a leaky read-out that never fires."""

    beta: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        check_decay("LI", beta=self.beta)


@dataclass(frozen=True, eq=False)
class MaxCount(Neuron):
    """S_j <- S_j + z_j;  the output is 1 when max_j S_j over the window grew in this step: a max-pool of spike counts.

    Counts grow by at most one a step, so does their maximum: the output count equals the largest input count, always.
    Window as in `MaxPool`; the input must be spikes.
    """

    kernel: Shape
    stride: Shape
    padding: Shape
    ceil: bool = False

    @property
    def window(self) -> MaxPool:
        return MaxPool(self.kernel, self.stride, self.padding, self.ceil)

    def output_shape(self, *shapes: Shape) -> Shape:
        return self.window.output_shape(*shapes)

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return dtypes[0]


@dataclass(frozen=True, eq=False)
class Readout(Neuron):
    """v <- v + i from step `start` on;  the output is v / (steps counted so far): the mean current. Never fires."""

    start: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start < 0:
            raise ParameterError(f"Readout: start must be >= 0, got {self.start}")


@dataclass(frozen=True, eq=False)
class Pulse(Neuron):
    """y = i at the first step, 0 after it: a graded value that is presented once."""

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return dtypes[0]


@dataclass(frozen=True, eq=False)
class CountThenFire(Spiking):
    """v <- v + i while t < start;  then, for `levels` steps and without input, z = [v >= theta] and v <- v - theta z.

    Silent outside its window [start, start + levels). So the number of its spikes is
    clip(floor((v0 + sum of i) / theta), 0, levels) exactly. theta, v0, v and i are integers in units of one weight
    step; t counts the steps of the whole network from 0.
    """

    theta: Tensor
    v0: Tensor
    start: int
    levels: int
    reset: Reset = "subtract"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self.kind, self.theta, self.v0, self.levels)
        if self.start < 1 or self.reset != "subtract":
            raise ParameterError(
                f"CountThenFire: start must be >= 1 and reset 'subtract', got {self.start}, {self.reset}"
            )

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        if dtypes[0].is_floating_point:
            raise ShapeError(
                "CountThenFire: counts integer currents; put a Quantise node and integer weights before it"
            )
        return torch.int32


@dataclass(frozen=True, eq=False)
class Accumulate(Neuron):
    """v <- v + i from v0 on;  the output is v, never reset: an integer read-out. Never fires."""

    v0: Tensor

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        if dtypes[0].is_floating_point or self.v0.is_floating_point():
            raise ShapeError("Accumulate: sums integers; its currents and v0 must be integers")
        return torch.int64
