"""Membranes whose first threshold crossing has a closed form.

Time s = t / tau_s is counted in synaptic time constants. A spike of weight w adds w to the current I of a neuron:

    dI/ds = -I,    dV/ds = -leak V + gain I,    leak = tau_s / tau_m.

Its potential is V(s) = sum of w_i eps(s - s_i); eps is the response to one spike of weight 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from neuro.errors import ParameterError

Kind = Literal["equal", "double", "non-leaky", "alpha"]


@dataclass(frozen=True)
class Membrane:
    """leak = tau_s / tau_m and the gain of the current; time in tau_s.

    eps(s) = s exp(-s) for leak 1, exp(-s / 2) - exp(-s) for leak 1/2 and 1 - exp(-s) for leak 0. The first two are
    u g / w of Goeltz et al. 2021 (fast and deep), a potential that reaches the threshold times the leak conductance;
    the third is Mostafa 2017.
    """

    leak: float
    gain: float

    def kept(self, s: Tensor) -> Tensor:
        """Share of the potential left after s."""
        return torch.exp(-self.leak * s)

    def response(self, s: Tensor) -> Tensor:
        """eps(s) for s >= 0."""
        if self.leak == 1:
            return s * torch.exp(-s)
        return self.gain / (1 - self.leak) * (torch.exp(-self.leak * s) - torch.exp(-s))

    def slope(self, s: Tensor) -> Tensor:
        """d eps / ds for s >= 0."""
        return self.gain * torch.exp(-s) - self.leak * self.response(s)

    @property
    def peak(self) -> float:
        """Where eps is largest [tau_s]."""
        if self.leak == 1:
            return 1.0
        return -math.log(self.leak) / (1 - self.leak) if self.leak else math.inf

    def crossing(self, v: Tensor, current: Tensor, theta: Tensor) -> Tensor:
        """The first s >= 0 with V(s) = theta from V(0) = v < theta, I(0) = current and no more input; else infinity.

        leak 1: s = -W0(-(theta / I) exp(-v / I)) - v / I, with the Lambert function; leak 1/2:
        s = 2 ln(2 I / (v + I + S)), S^2 = (v + I)^2 - 4 I theta; leak 0: s = ln(I / (v + I - theta)). These are
        the formulas of Goeltz et al. 2021 (eq. 4, 5) and Mostafa 2017 (eq. 6) [recalled] with the last spike as origin,
        where no exponential can overflow.
        """
        positive = current > 0
        i = torch.where(positive, current, 1.0)
        if self.leak == 1:
            above = torch.log(i / theta) + v / i - 1
            found = positive & (above >= 0) & (v < i)
            s = minus_lambert_w0(above.clamp(min=0)) - v / i
        elif self.leak == 0.5:
            square = (v + i) ** 2 - 4 * i * theta
            found = positive & (square >= 0) & (v.abs() < i)
            s = -2 * torch.log1p((v - i + square.clamp(min=0).sqrt()) / (2 * i))
        else:
            rest = v + i - theta
            found = positive & (rest > 0)
            s = -torch.log(torch.where(found, rest, i) / i)
        return torch.where(found, s.clamp(min=0), torch.inf)


def minus_lambert_w0(q: Tensor) -> Tensor:
    """y = -W0(-exp(-1 - q)) in (0, 1] for q >= 0: the smaller solution of y exp(-y) = exp(-1 - q).

    Solved as y - ln y = 1 + q, which neither overflows nor loses digits where the potential only just reaches the
    threshold (q = 0): there the series in sqrt(2 q) is used as it is, elsewhere Halley's iteration goes on from it.
    """
    p = torch.sqrt(2 * q)
    series = 1 + p * (-1 + p * (1 / 3 + p * (-1 / 36 + p * (-1 / 270 - p / 4320))))
    z = torch.exp(-1 - q)
    y = torch.where(p < 2, series, z * (1 + z * (1 + 1.5 * z))).clamp(min=1e-300)
    for _ in range(3):
        f, below = y - torch.log(y) - 1 - q, y - 1
        y = y - 2 * f * below * y / (2 * below * below - f)
    return torch.where(p < 0.01, series, y)


MEMBRANES: dict[str, Membrane] = {
    "equal": Membrane(leak=1.0, gain=1.0),
    "double": Membrane(leak=0.5, gain=0.5),
    "non-leaky": Membrane(leak=0.0, gain=1.0),
    "alpha": Membrane(leak=1.0, gain=1.0),
}
"""By kind: tau_m = tau_s, tau_m = 2 tau_s, no leak (Mostafa 2017), alpha synapse (Comsa et al. 2020).

The alpha synapse responds to a spike with (t - t_i) exp(-(t - t_i) / tau), which is tau eps of leak 1.
"""


def membrane_of(kind: str) -> Membrane:
    """The membrane of a kind; ParameterError for an unknown one."""
    if kind not in MEMBRANES:
        raise ParameterError(f"first spike: membrane must be one of {', '.join(MEMBRANES)}, got {kind!r}")
    return MEMBRANES[kind]
