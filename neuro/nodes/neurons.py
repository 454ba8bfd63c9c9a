"""Nodes with a membrane: their equations are written once more as code in `neuro.dynamics.step`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Node, Shape, broadcast_onto
from neuro.nodes.activations import check_whole
from neuro.nodes.pooling import MaxPool

Reset = Literal["subtract", "zero", "none"]


class Domain(NamedTuple):
    """Where a parameter may lie, both ends included, and how that is said."""

    low: float
    high: float
    rule: str


DECAY = Domain(0.0, 1.0, "must lie in [0, 1]")
"""What is left of a quantity after one step."""

POSITIVE = Domain(math.ldexp(1.0, -149), math.inf, "must be > 0")
"""From the smallest number of 32 bits on."""


class Neuron(Node):
    """A population with state: one neuron per feature. Parameters are scalars or broadcast against the features."""

    domains: ClassVar[Mapping[str, Domain]] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, domain in self.domains.items():
            value = getattr(self, name).detach()
            if bool(((value < domain.low) | (value > domain.high)).any()):
                least, most = float(value.min()), float(value.max())
                got = f"{least:g}" if least == most else f"{least:g}..{most:g}"
                raise ParameterError(f"{self.kind}: {name} {domain.rule}, got {got}")

    def bounds(self, name: str) -> tuple[Tensor | float, Tensor | float]:
        """The lowest and the highest value that a parameter may take beside the others."""
        low, high, _ = self.domains.get(name, (-math.inf, math.inf, ""))
        return low, high

    def output_shape(self, *shapes: Shape) -> Shape:
        return broadcast_onto(shapes[0], self)

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return torch.float32


class Spiking(Neuron):
    """A population whose output is 0 or 1 at every step."""

    resets: ClassVar[tuple[str, ...]] = ("subtract", "zero", "none")
    """The kinds of reset that the population knows."""

    domains: ClassVar[Mapping[str, Domain]] = {"theta": POSITIVE}

    theta: Tensor
    v0: Tensor
    reset: Reset

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reset not in self.resets:
            known = " or ".join(map(repr, self.resets))
            raise ParameterError(f"{self.kind}: reset must be {known}, got {self.reset!r}")


def exact_decay(tau: float | Tensor, dt: float) -> Tensor:
    """exp(-dt / tau), what is left after one step of dt: the exact solution of tau dv/dt = -v. tau and dt in [s]."""
    return torch.exp(-_steps(tau, dt)).float()


def euler_decay(tau: float | Tensor, dt: float) -> Tensor:
    """1 - dt / tau, what an Euler step of dt <= tau leaves of tau dv/dt = -v. tau and dt in [s]."""
    decay = 1 - _steps(tau, dt)
    if bool((decay < 0).any()):
        raise ParameterError(f"dt must be at most tau for an Euler step, got dt {dt:g} s, tau {tau} s")
    return decay.float()


def _steps(tau: float | Tensor, dt: float) -> Tensor:
    """dt / tau in 64 bits: what comes of it is rounded once."""
    tau = torch.as_tensor(tau, dtype=torch.float64)
    if not (dt > 0 and bool((tau > 0).all())):
        raise ParameterError(f"tau and dt must be > 0 s, got tau {tau.tolist()}, dt {dt}")
    return dt / tau


@dataclass(frozen=True, eq=False)
class IF(Spiking):
    """v <- v + i;  z = [v >= theta];  then v <- v - theta z ("subtract"), v <- (1 - z) v ("zero") or v ("none").

    theta, v0 and i in the units of the pre-activation. Rueckauer et al. 2017, eq. 1-3.
    """

    theta: Tensor
    v0: Tensor
    reset: Reset = "subtract"


@dataclass(frozen=True, eq=False)
class LIF(Spiking):
    """v <- beta v + i;  z = [v >= theta];  then v <- v - theta z ("subtract"), v <- (1 - z) v ("zero") or v ("none").

    beta = exp(-dt / tau) is the exact decay over one step of tau dv/dt = -v (`exact_decay`), beta = 1 - dt / tau that
    of an Euler step (`euler_decay`); the gain of the input is left to the weights. Gerstner et al. 2014, ch. 1. Without
    reset, spikes do not touch the membrane and all steps can be computed at once (`neuro.kernels.scan`).
    """

    domains: ClassVar[Mapping[str, Domain]] = {"beta": DECAY, "theta": POSITIVE}

    beta: Tensor
    theta: Tensor
    v0: Tensor
    reset: Reset = "subtract"


@dataclass(frozen=True, eq=False)
class AdaptiveLIF(Spiking):
    """v <- beta v + i;  z = [v >= theta + rise a];  a <- rho a + z;  then v <- v - theta z, (1 - z) v or v.

    Every spike raises the threshold by `rise`, which decays by rho per step: spike-frequency adaptation. Resets
    "subtract", "zero" and "none" as in `LIF`; v and a start at 0. beta and rho are decays over one step (`exact_decay`,
    `euler_decay`); theta, rise, v and i in the units of the pre-activation. Bellec et al. 2018, Long short-term memory
    and learning-to-learn in networks of spiking neurons; in the form of Bellec et al. 2020, A solution to the learning
    dilemma for recurrent networks of spiking neurons, whose alpha is our beta and whose beta is our rise [recalled].
    """

    domains: ClassVar[Mapping[str, Domain]] = {
        "beta": DECAY, "rho": DECAY, "rise": Domain(0.0, math.inf, "must be >= 0"), "theta": POSITIVE,
    }  # fmt: skip

    beta: Tensor
    rho: Tensor
    rise: Tensor
    theta: Tensor
    reset: Reset = "subtract"


@dataclass(frozen=True, eq=False)
class LI(Neuron):
    """v <- beta v + i;  the output is v: a leaky read-out that never fires. beta as in `LIF`."""

    domains: ClassVar[Mapping[str, Domain]] = {"beta": DECAY}

    beta: Tensor


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
