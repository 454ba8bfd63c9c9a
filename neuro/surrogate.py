"""Spikes that let gradients through: the step of a spike forward, a smooth slope in its place backward.

Every surrogate gives `slope(u)` = dz/du, u = v - theta [potential], for the spike z = [u >= 0], and `support`: half the
width of the potentials around the threshold where the slope is not zero, or None. Where the support is compact,
gradients are exactly zero for neurons far from their threshold, and work that follows gradients is saved
(Perez-Nieves and Goodman 2021, Sparse spiking gradient descent).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from neuro.errors import ParameterError


@dataclass(frozen=True)
class Surrogate(ABC):
    """A slope for the step function; parameters are positive numbers."""

    @property
    def support(self) -> float | None:
        """The slope is exactly 0 where |u| > support; None: nowhere."""
        return None

    @abstractmethod
    def slope(self, u: Tensor) -> Tensor:
        """dz/du at u = v - theta, any shape."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not (math.isfinite(value) and value > 0):
                raise ParameterError(f"{type(self).__name__}: {item.name} must be a finite number > 0, got {value}")


@dataclass(frozen=True)
class ArcTan(Surrogate):
    """dz/du = (alpha / 2) / (1 + (pi alpha u / 2)^2), of z = atan(pi alpha u / 2) / pi + 1 / 2.

    Area 1, peak alpha / 2. Fang et al. 2021, Incorporating learnable membrane time constant, ICCV [recalled].
    """

    alpha: float = 2.0

    def slope(self, u: Tensor) -> Tensor:
        return (self.alpha / 2) / (1 + (math.pi / 2 * self.alpha * u) ** 2)


@dataclass(frozen=True)
class FastSigmoid(Surrogate):
    """dz/du = (k / 2) / (1 + k |u|)^2, of the fast sigmoid z = (1 + k u / (1 + k |u|)) / 2.

    Area 1, peak k / 2. `fast_sigmoid(slope)` of snnTorch, whose peak is 1, is SuperSpike(slope).
    """

    k: float = 2.0

    def slope(self, u: Tensor) -> Tensor:
        return (self.k / 2) / (1 + self.k * u.abs()) ** 2


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """dz/du = alpha s(u) s(-u), s(u) = 1 / (1 + exp(-alpha u)).

    Area 1, peak alpha / 4. Zenke and Vogels 2021, The remarkable robustness of surrogate gradient learning [recalled].
    """

    alpha: float = 4.0

    def slope(self, u: Tensor) -> Tensor:
        return self.alpha * torch.sigmoid(self.alpha * u) * torch.sigmoid(-self.alpha * u)


@dataclass(frozen=True)
class SuperSpike(Surrogate):
    """dz/du = 1 / (1 + beta |u|)^2.

    Area 2 / beta, peak 1. Zenke and Ganguli 2018, SuperSpike, eq. for sigma' [recalled].
    """

    beta: float = 10.0

    def slope(self, u: Tensor) -> Tensor:
        return 1 / (1 + self.beta * u.abs()) ** 2


@dataclass(frozen=True)
class Triangle(Surrogate):
    """dz/du = height max(0, 1 - |u| / width): compact.

    Area height width. Esser et al. 2016, Convolutional networks for fast, energy-efficient neuromorphic computing
    [recalled]; Bellec et al. 2018, Long short-term memory in networks of spiking neurons, take height 0.3 [recalled].
    """

    width: float = 1.0
    height: float = 1.0

    @property
    def support(self) -> float:
        return self.width

    def slope(self, u: Tensor) -> Tensor:
        return self.height * (1 - u.abs() / self.width).clamp(min=0)


@dataclass(frozen=True)
class Boxcar(Surrogate):
    """dz/du = height [|u| <= width]: compact.

    Area 2 height width. Wu et al. 2018, Spatio-temporal backpropagation, h1 [recalled].
    """

    width: float = 0.5
    height: float = 1.0

    @property
    def support(self) -> float:
        return self.width

    def slope(self, u: Tensor) -> Tensor:
        return self.height * (u.abs() <= self.width).to(u.dtype)


@dataclass(frozen=True)
class MultiGaussian(Surrogate):
    """dz/du = gain ((1 + h) N(u; 0, sigma) - h N(u; sigma, s sigma) - h N(u; -sigma, s sigma)).

    N(u; m, d) is the normal density with mean m and standard deviation d; far from the threshold the slope is below 0.
    Yin, Corradi and Bohté 2021, Accurate and efficient time-domain classification with adaptive SNNs [recalled].
    """

    sigma: float = 0.5
    h: float = 0.15
    s: float = 6.0
    gain: float = 0.5

    def slope(self, u: Tensor) -> Tensor:
        wide = self.s * self.sigma
        sides = _normal(u - self.sigma, wide) + _normal(u + self.sigma, wide)
        return self.gain * ((1 + self.h) * _normal(u, self.sigma) - self.h * sides)


def _normal(u: Tensor, deviation: float) -> Tensor:
    return torch.exp(-((u / deviation) ** 2) / 2) / (math.sqrt(2 * math.pi) * deviation)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, surrogate: Surrogate, strict: bool) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return ((u > 0) if strict else (u >= 0)).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (u,) = ctx.saved_tensors
        return gradients[0] * ctx.surrogate.slope(u), None, None


def spike(u: Tensor, surrogate: Surrogate, strict: bool = False) -> Tensor:
    """z = [u >= 0], or [u > 0] if `strict`, in the shape and dtype of u; backward dz/du = surrogate.slope(u)."""
    return _Spike.apply(u, surrogate, strict)
