"""Numbers into series of spikes: an encoder maps `x` to (time, batch, *features), time first.

>>> import torch
>>> from neuro.encode import LinearLatency
>>> LinearLatency()(torch.tensor([[1.0, 0.5, 0.0]]), steps=3)[:, 0]
tensor([[1., 0., 0.],
        [0., 1., 0.],
        [0., 0., 0.]])

Every encoder is frozen data and is called as `encoder(x, steps, generator)`. All randomness comes from `generator`, so
the same seed gives the same spikes; longer series begin as shorter ones do, except where a formula says T. Memory is
that of the series, `steps` times the size of x, plus a few times x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from neuro.errors import ParameterError, ShapeError


class Encoder(Protocol):
    """What turns x into a series of `steps` steps."""

    def __call__(self, x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Constant:
    """The same current at every step, z[t] = x: the first layer turns it into spikes. Also called direct coding.

    x (batch, *features), any finite numbers -> (steps, batch, *features), a view of x that takes no memory of its own
    and must not be written to. Rueckauer et al. 2017, section 2.2 (analog input) [recalled].
    """

    def __call__(self, x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        _check(x, steps)
        return x.expand(steps, *x.shape)


@dataclass(frozen=True)
class Rate:
    """A spike at each step with probability P(z[t] = 1) = peak x, independently: a Bernoulli process.

    x (batch, *features) in [0, 1] -> 0 or 1, (steps, batch, *features), in the type of x. A neuron spikes peak x T
    times on average, with variance T peak x (1 - peak x); it approximates a Poisson process of rate peak x / dt while
    peak x is small (Dayan and Abbott 2001, section 1.4 [recalled]). `peak`: probability at x = 1, in (0, 1].
    ParameterError without a generator.
    """

    peak: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.peak <= 1.0:
            raise ParameterError(f"Rate: peak must be a probability in (0, 1], got {self.peak}")

    def __call__(self, x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        _check(x, steps, unit=True)
        if generator is None:
            raise ParameterError("Rate draws at random; pass generator=torch.Generator().manual_seed(seed)")
        spikes = x.new_empty(steps, *x.shape)
        for z in spikes:  # step by step, so that a longer series begins as a shorter one does
            draw = torch.rand(x.shape, generator=generator, dtype=torch.float32, device=generator.device)
            z.copy_(draw.to(x.device) < self.peak * x)
        return spikes


@dataclass(frozen=True)
class LinearLatency:
    """One spike per number, the larger the earlier: at step t = round((1 - x) (T - 1)), T = `steps`; none for x = 0.

    x (batch, *features) in [0, 1] -> 0 or 1, (steps, batch, *features), in the type of x. Numbers of `silent` and
    below never spike. Time to first spike: Thorpe, Delorme and van Rullen 2001 [recalled]; the formula is snnTorch's
    spikegen.latency(linear=True, normalize=True).
    """

    silent: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.silent < 1.0:
            raise ParameterError(f"LinearLatency: silent must lie in [0, 1), got {self.silent}")

    def __call__(self, x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        _check(x, steps, unit=True)
        time = ((1.0 - x) * (steps - 1)).round()
        return _one_spike(time, x > self.silent, steps)


@dataclass(frozen=True)
class LogarithmicLatency:
    """One spike per number, when a leaky integrator driven by it reaches threshold: t = tau ln(x / (x - theta)).

    tau dv/dt = x - v from v = 0 reaches theta at that time, and never for x <= theta; the spike falls into step
    floor(t), and there is none where floor(t) >= T = `steps`. x (batch, *features) in [0, 1] -> 0 or 1,
    (steps, batch, *features), in the type of x. `tau` in steps, `theta` in units of x, in (0, 1). Even x = 1 takes
    tau ln(1 / (1 - theta)). Neftci, Mostafa and Zenke 2019 (their tutorial: tau = 20, theta = 0.2) [recalled].
    """

    tau: float = 20.0
    theta: float = 0.2

    def __post_init__(self) -> None:
        if not (self.tau > 0.0 and math.isfinite(self.tau)):
            raise ParameterError(f"LogarithmicLatency: tau must be > 0 steps and finite, got {self.tau}")
        if not 0.0 < self.theta < 1.0:
            raise ParameterError(f"LogarithmicLatency: theta must lie in (0, 1), got {self.theta}")

    def __call__(self, x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        _check(x, steps, unit=True)
        above = x > self.theta
        time = (-self.tau * torch.log1p(-self.theta / x.where(above, 1.0))).floor()
        return _one_spike(time, above, steps)


@dataclass(frozen=True)
class Delta:
    """Spikes where a signal has moved: +1 and -1 steps of size `theta` follow it (delta modulation, send on delta).

    Per channel and step, with a reference r: on = [x[t] - r >= theta], off = [r - x[t] >= theta], then
    r += theta (on - off). So r = r0 + theta (sum of on - sum of off), and |x[t] - r| < theta as long as the signal
    moves by at most theta per step; faster ones are followed late (slope overload).
    x (batch, steps, *features), any finite numbers -> 0 or 1, (steps, batch, 2, *features): 0 on, 1 off.
    `start`: r0, or None for x[0], as a pixel of an event camera starts (Lichtsteiner, Posch and Delbruck 2008
    [recalled]). ShapeError where x has not `steps` steps.
    """

    theta: float = 0.1
    start: float | None = None

    def __post_init__(self) -> None:
        if not (self.theta > 0.0 and math.isfinite(self.theta)):
            raise ParameterError(f"Delta: theta must be > 0 and finite, got {self.theta}")
        if self.start is not None and not math.isfinite(self.start):
            raise ParameterError(f"Delta: start must be finite, got {self.start}")

    def __call__(self, x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        _check(x, steps)
        if x.ndim < 2 or x.shape[1] != steps:
            raise ShapeError(f"Delta encodes a signal over time, (batch, {steps}, *features), got {tuple(x.shape)}")
        spikes = x.new_empty(steps, x.shape[0], 2, *x.shape[2:])
        start = x[:, 0] if self.start is None else torch.full_like(x[:, 0], self.start)
        level = torch.zeros_like(start)  # whole number of thetas: sums of theta itself would drift
        for t in range(steps):
            moved = x[:, t] - (start + self.theta * level)
            on, off = moved >= self.theta, moved <= -self.theta
            spikes[t, :, 0], spikes[t, :, 1] = on, off
            level += on.to(x.dtype) - off.to(x.dtype)
        return spikes


#: Encoders with their usual parameters, by name.
ENCODERS: MappingProxyType[str, Encoder] = MappingProxyType(
    {
        "constant": Constant(),
        "rate": Rate(),
        "latency": LinearLatency(),
        "log-latency": LogarithmicLatency(),
        "delta": Delta(),
    }
)


def _one_spike(time: Tensor, spikes: Tensor, steps: int) -> Tensor:
    """(steps, *shape): 1 at the step `time` where `spikes`."""
    clock = torch.arange(steps, device=time.device, dtype=time.dtype).reshape(steps, *(1,) * time.ndim)
    return ((time == clock) & spikes).to(time.dtype)


def _check(x: Tensor, steps: int, unit: bool = False) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ParameterError(f"steps must be a whole number >= 1, got {steps!r}")
    if not x.is_floating_point() or x.ndim < 1:
        raise ShapeError(f"an encoder takes floating-point x (batch, *features), got {x.dtype} {tuple(x.shape)}")
    if not x.numel():
        return
    low, high = (float(bound) for bound in x.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ParameterError(f"x must be finite, its values run from {low:g} to {high:g}")
    if unit and not (low >= 0.0 and high <= 1.0):
        raise ParameterError(f"x must lie in [0, 1], its values run from {low:g} to {high:g}; rescale them first")
