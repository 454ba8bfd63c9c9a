"""Functions of one element (softmax: of one vector), and the borders between real and integer numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Shape, Stateless


class Elementwise(Stateless):
    """A node whose output has the shape of its input."""

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]


@dataclass(frozen=True, eq=False)
class ReLU(Elementwise):
    """y = max(x, 0)."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].clamp(min=0)


@dataclass(frozen=True, eq=False)
class Clamp(Elementwise):
    """y = min(max(x, low), high); ReLU6 is Clamp(0, 6)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low < self.high:
            raise ParameterError(f"Clamp: low must be below high, got {self.low} and {self.high}")

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].clamp(self.low, self.high)


@dataclass(frozen=True, eq=False)
class LeakyReLU(Elementwise):
    """y = max(x, 0) + slope * min(x, 0)."""

    slope: float = 0.01

    def forward(self, *inputs: Tensor) -> Tensor:
        return F.leaky_relu(inputs[0], self.slope)


@dataclass(frozen=True, eq=False)
class Sigmoid(Elementwise):
    """y = 1 / (1 + exp(-x))."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sigmoid()


@dataclass(frozen=True, eq=False)
class Tanh(Elementwise):
    """y = (exp(x) - exp(-x)) / (exp(x) + exp(-x))."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].tanh()


@dataclass(frozen=True, eq=False)
class Dropout(Elementwise):
    """Identity in inference; in training each element is zeroed with probability p and the rest divided by 1 - p."""

    p: float = 0.5

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0]


@dataclass(frozen=True, eq=False)
class Softmax(Elementwise):
    """y_i = exp(x_i) / sum_j exp(x_j) along the feature dimension `dim`; its logarithm when `log`."""

    dim: int = 0
    log: bool = False

    def output_shape(self, *shapes: Shape) -> Shape:
        if not 0 <= self.dim < len(shapes[0]):
            raise ShapeError(f"Softmax: features of shape {shapes[0]} have no dimension {self.dim}")
        return shapes[0]

    def forward(self, *inputs: Tensor) -> Tensor:
        return (F.log_softmax if self.log else F.softmax)(inputs[0], dim=self.dim + 1)


def _round_clip(x: Tensor, low: int, high: int) -> Tensor:
    return torch.clamp(torch.round(x).double(), low, high).to(torch.int32)


def _check_range(kind: str, low: int, high: int) -> None:
    if not (low < high and low >= -(2**31) and high < 2**31):
        raise ParameterError(f"{kind}: low must be below high within 32 bits, got {low} and {high}")


@dataclass(frozen=True, eq=False)
class Quantise(Elementwise):
    """q = clip(round(x / step), low, high): real numbers become 32-bit integers. `step` > 0, in units of x."""

    step: float
    low: int
    high: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range("Quantise", self.low, self.high)
        if not (self.step > 0 and math.isfinite(self.step)):
            raise ParameterError(f"Quantise: step must be > 0 and finite, got {self.step}")

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return torch.int32

    def forward(self, *inputs: Tensor) -> Tensor:
        return _round_clip(inputs[0] / self.step, self.low, self.high)


@dataclass(frozen=True, eq=False)
class Requantise(Elementwise):
    """q = clip(round(m * a), low, high): integer sums become small integers; `multiplier` m per channel, in float64.

    Jacob et al. 2018 (arXiv 1712.05877), eq. 4-5; low = 0 makes the ReLU.
    """

    multiplier: Tensor
    low: int
    high: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range("Requantise", self.low, self.high)
        if self.multiplier.ndim != 1 or bool((self.multiplier <= 0).any()):
            raise ParameterError("Requantise: multiplier must be a vector of positive numbers")

    def output_shape(self, *shapes: Shape) -> Shape:
        if self.multiplier.numel() not in (1, shapes[0][0]):
            raise ShapeError(f"Requantise: {self.multiplier.numel()} multipliers for features of shape {shapes[0]}")
        return shapes[0]

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return torch.int32

    def forward(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        factor = self.multiplier.double().reshape(-1, *(1,) * (x.ndim - 2))
        return _round_clip(x.double() * factor, self.low, self.high)


@dataclass(frozen=True, eq=False)
class Dequantise(Elementwise):
    """x = step * q: integers become real numbers; `step` per channel or one for all."""

    step: Tensor

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return torch.float32

    def forward(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        return (x.double() * self.step.double().reshape(-1, *(1,) * (x.ndim - 2))).float()


def check_whole(kind: str, theta: Tensor, v0: Tensor, levels: int) -> None:
    """Refuse thresholds and potentials that are not integers, thresholds below 1 and less than one level."""
    if theta.is_floating_point() or v0.is_floating_point():
        raise ParameterError(f"{kind}: theta and v0 must be integers, got {theta.dtype} and {v0.dtype}")
    if bool((theta < 1).any()) or levels < 1:
        raise ParameterError(f"{kind}: theta and levels must be at least 1, got {int(theta.min())} and {levels}")


@dataclass(frozen=True, eq=False)
class Staircase(Elementwise):
    """q = clip(floor((v0 + a) / theta), 0, levels), in integers: the activation that `CountThenFire` counts out.

    theta and v0 broadcast against the features. With v0 = theta / 2 it rounds.
    """

    theta: Tensor
    v0: Tensor
    levels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self.kind, self.theta, self.v0, self.levels)

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        if dtypes[0].is_floating_point:
            raise ShapeError("Staircase: counts integers; put a Quantise node and integer weights before it")
        return torch.int32

    def forward(self, *inputs: Tensor) -> Tensor:
        whole = (inputs[0].long() + self.v0).div(self.theta, rounding_mode="floor")
        return whole.clamp(0, self.levels).to(torch.int32)
