"""What NIR leaves open, settled: units, time step, integrator, reset and the edge of the threshold.

NIR describes membranes in continuous time (Pedersen et al. 2024, Nature Communications 15, 8122 [recalled], table 1):

    LI, LIF       tau dv/dt = (v_leak - v) + R I          CubaLI, CubaLIF: I from tau_syn dI/dt = -I + w_in S
    I, IF         dv/dt = R I                             LIF, IF, CubaLIF: z = [v > v_threshold], then v <- v_reset

Here time constants and delays are seconds and `dt` is the length of a step. The input is held over a step, so that
both integrators are one equation with another rate a:

    v <- v + a ((v_leak - v) + R I),    a = dt / tau ("euler", as Norse and snnTorch do) or 1 - exp(-dt / tau) ("exact")

A synaptic current is updated first and drives the membrane in the same step, as in Norse. I and IF know no time
constant: v <- v + R I per step, whatever dt is, as in Norse, sinabs and snnTorch. Populations start at v_leak, IF at
v_reset. Reset "zero" does what the file says, v <- v_reset; "subtract" takes off v_threshold, which no file can say.

Where a R = 1 and v_leak = v_reset = 0, as in all that snnTorch writes, the neuron is one of discrete time,
v <- (1 - a) v + I, and becomes `LIF` (or `LI`); otherwise `BoxLIF` (or `CurrentLI`), which adds as Norse does.
`LIF` and `IF` fire at v >= theta, NIR above: theta is the next larger float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from neuro.errors import ParameterError

Integrator = Literal["euler", "exact"]
NirReset = Literal["zero", "subtract"]

SAME = 1e-6
"""How far a R may be from 1: frameworks work in float32 and NIR keeps both factors apart."""


@dataclass(frozen=True)
class Units:
    """dt [s] or None where the user gave none; how membranes are integrated and reset."""

    dt: float | None
    reset: NirReset = "zero"
    integrator: Integrator = "euler"

    def __post_init__(self) -> None:
        if self.dt is not None:
            number = isinstance(self.dt, int | float) and not isinstance(self.dt, bool)
            if not number or not math.isfinite(self.dt) or self.dt <= 0:
                raise ParameterError(f"dt must be a time step in seconds > 0, e.g. dt=1e-4, got {self.dt!r}")
        if self.reset not in ("zero", "subtract"):
            raise ParameterError(f"reset must be 'zero' (to v_reset, as NIR says) or 'subtract', got {self.reset!r}")
        if self.integrator not in ("euler", "exact"):
            raise ParameterError(f"integrator must be 'euler' or 'exact', got {self.integrator!r}")

    def rate(self, tau: np.ndarray) -> np.ndarray:
        """The share a of the way to its goal that a membrane of time constant tau [s] goes in one step."""
        assert self.dt is not None
        ratio = self.dt / tau
        return ratio if self.integrator == "euler" else -np.expm1(-ratio)

    def tau(self, rate: np.ndarray) -> np.ndarray:
        """The time constant [s] of that rate; infinite where it is 0 and 0 where no time constant is so short."""
        assert self.dt is not None
        with np.errstate(divide="ignore"):
            return self.dt / (rate if self.integrator == "euler" else -np.log1p(-rate))


def above(threshold: np.ndarray) -> np.ndarray:
    """theta such that v >= theta exactly where v > threshold, for v in float32."""
    return np.nextafter(threshold.astype(np.float32), np.float32(np.inf))


def below(theta: np.ndarray) -> np.ndarray:
    """threshold such that v > threshold exactly where v >= theta, for v in float32."""
    return np.nextafter(theta.astype(np.float32), np.float32(-np.inf))


def whole_input(rate: np.ndarray, r: np.ndarray) -> bool:
    """Whether a population adds its input as it is: a R = 1."""
    return bool((np.abs(rate * r - 1) < SAME).all())
