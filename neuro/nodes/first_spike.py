"""Populations that say a number by the time of one spike."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Shape
from neuro.nodes.activations import Elementwise


@dataclass(frozen=True, eq=False)
class RampFirstSpike(Elementwise):
    """dv/dt = sum of W_j (after spike j) until t_min, then dv/dt = 1;  one spike at t, the first time with v >= theta.

    At t_min the membrane holds a = sum of W_j x_j, with x_j = t_min - t_j. So t = t_min + max(theta - a, 0), and the
    spike is worth x = t_max - t, the output of the node: with theta = window - b it is clip(a + b, 0, window), a ReLU.
    No spike before t_max is worth 0; values above `window` = t_max - t_min are clipped to it. With `time_bits` n the
    time is rounded to the nearest of 2^n slots of the window. Time is in units of the activation. Stanojevic et al.
    2024, B1 model [recalled].
    """

    theta: Tensor
    window: float
    time_bits: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.window > 0 and math.isfinite(self.window)):
            raise ParameterError(f"RampFirstSpike: window must be > 0 and finite, got {self.window}")
        if self.time_bits is not None and not 1 <= self.time_bits <= 24:
            raise ParameterError(f"RampFirstSpike: time_bits must lie in 1..24, got {self.time_bits}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if torch.broadcast_shapes(shapes[0], self.theta.shape) != torch.Size(shapes[0]):
            raise ShapeError(f"RampFirstSpike: theta {tuple(self.theta.shape)} does not broadcast to {shapes[0]}")
        return shapes[0]

    def times(self, a: Tensor) -> Tensor:
        """Spike times after t_min for the potentials a at t_min, in double; infinite where there is no spike."""
        t = (self.theta.double() - a.double()).clamp(min=0)
        if self.time_bits is not None:
            slot = self.window / 2**self.time_bits
            # the nearest slot, to the bit, with the gradient of the time that was rounded
            t = (t.detach() / slot).round() * slot + (t - t.detach())
        return torch.where(t < self.window, t, torch.inf)

    def clipped(self, a: Tensor) -> int:
        """How many potentials stand above the threshold already at t_min: values too large for the window."""
        return int((a.double() > self.theta.double()).sum())

    def forward(self, *inputs: Tensor) -> Tensor:
        return (self.window - self.times(inputs[0])).clamp(min=0).to(inputs[0].dtype)
