"""Populations whose events carry a whole number: several spikes at once, or a change of the activation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neuro.errors import ParameterError
from neuro.nodes.neurons import Neuron


class GradedSpiking(Neuron):
    """A population whose output is a whole number at every step: a graded spike, or nothing where it is 0.

    The number multiplies the weights that it meets. It lies in [-levels, levels], or in [0, levels].
    """

    levels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.levels, bool) or not isinstance(self.levels, int) or not 1 <= self.levels < 2**24:
            raise ParameterError(f"{self.kind}: levels must be an integer in 1..2^24-1, got {self.levels!r}")
        for name in ("theta", "step"):
            value = getattr(self, name, None)
            if value is not None and bool((value.detach() <= 0).any()):
                raise ParameterError(f"{self.kind}: {name} must be > 0, got {float(value.min())}")

    @property
    def bits(self) -> int:
        """Bits of the number that one event carries, its sign included."""
        return (2 * self.levels).bit_length()


@dataclass(frozen=True, eq=False)
class GradedIF(GradedSpiking):
    """v <- v + i;  n = clip(floor(v / theta), 0, levels);  v <- v - n theta;  the output is n. Starts at v = v0.

    An integrate-and-fire neuron that may send a burst of up to `levels` spikes in one step (multi-level or burst
    spikes; AdaFire, AAAI 2025 [recalled]); with levels = 1 it is `IF`. With `signed` the lower bound is not 0 but
    -min(N, levels), where N is the sum of all n before: what was sent too early is taken back, and N never falls below
    0 (ST-BIF, SpikeZIP-TF [recalled]). Then N = max(floor((v0 + sum of i) / theta), 0), the quantised ReLU of all that
    came, after every step except where a step would need more than `levels`. theta, v0 and i in the units of the
    pre-activation.
    """

    theta: Tensor
    v0: Tensor
    levels: int
    signed: bool = False

    @property
    def bits(self) -> int:
        """Bits of the number that one event carries, its sign included."""
        return super().bits if self.signed else self.levels.bit_length()


class Differences(GradedSpiking):
    """A population that sends quantised changes of a value `a` (delta modulation).

    N counts what was sent, so that every reader knows r = N step. Where |a - r| >= theta the event is
    n = clip(round((a - r) / step), -levels, levels), and N <- N + n. So |a - r| < theta after every step in which n did
    not meet its bounds, and a value that stays is not sent again. theta, step and a in the units of the activation.
    """

    theta: Tensor
    step: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool((2 * self.theta.detach() <= self.step.detach()).any()):
            raise ParameterError(f"{self.kind}: theta must be above step / 2, or its events would round to nothing")


@dataclass(frozen=True, eq=False)
class Delta(Differences):
    """a = i: the changes of an input, as `Differences` sends them. Lava's Delta process [recalled]."""

    theta: Tensor
    step: Tensor
    levels: int


@dataclass(frozen=True, eq=False)
class SigmaDeltaReLU(Differences):
    """s <- s + i, from v0 on (sigma);  a = clip(s, 0, high);  its changes are sent as in `Differences` (delta).

    i holds the changes that arrive, so that s is the pre-activation of now and v0 its constant part, the bias. Lava's
    SigmaDelta process; Brehove et al. 2025, sigma-delta networks on Loihi 2 [recalled].
    """

    v0: Tensor
    theta: Tensor
    step: Tensor
    levels: int
    high: float = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.high > 0:
            raise ParameterError(f"SigmaDeltaReLU: high must be > 0, got {self.high}")


@dataclass(frozen=True, eq=False)
class Sigma(Neuron):
    """v <- v + i from v0 on;  the output is v: a read-out that adds up changes. Never fires."""

    v0: Tensor

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return dtypes[0]
