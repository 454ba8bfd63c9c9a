"""Populations of Loihi 2 that send whole numbers: sigma-delta coding, stateless vectors and products.

Equations follow lava-nc 0.10.0 (lava.proc.sdn, lava.proc.graded, lava.proc.prodneuron); all words are 32 bits wide and
wrap. Connections from these populations need num_message_bits > 0, or they see one bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from hardware_targets.loihi.connections import IntArray
from hardware_targets.loihi.populations import WORD, Neurons, Range

Activation = Literal["relu", "unit"]


@dataclass(frozen=True, eq=False)
class Graded(Neurons):
    """A population whose events are integers."""

    @property
    def graded(self) -> bool:
        return True

    @property
    def rest(self) -> dict[str, IntArray]:
        return {}


@dataclass(frozen=True, eq=False)
class Sigma(Graded):
    """sigma <- sigma + a, sent at every tick. Lava's PySigmaModelFixed."""

    @property
    def ranges(self) -> Mapping[str, Range]:
        return {}

    @property
    def rest(self) -> dict[str, IntArray]:
        return {"sigma": self.zeros()}


@dataclass(frozen=True, eq=False, kw_only=True)
class Delta(Graded):
    """Sends the change of x = a 2**(spike_exp + state_exp) where it is large. Lava's PyDeltaModelFixed:

        delta = x - act + residue;   act <- x
        s = delta where |delta| >= vth 2**(spike_exp + state_exp), else 0
        residue <- delta - s;   sent: s / 2**state_exp, floor

    cum_error: error <- error + delta takes the place of |delta| in the comparison, and returns to 0 where s is not 0.
    vth: >= 0, one integer for all, in units of the activation.
    """

    vth: int
    spike_exp: int = 0
    state_exp: int = 0
    cum_error: bool = False

    @property
    def ranges(self) -> Mapping[str, Range]:
        # 2**7 and 2**7 are the largest that Lava's 3-bit exponents hold; 17 bits raised by 14 still fit a word
        return {"spike_exp": (0, 7), "state_exp": (0, 7), "vth": (0, 2**17 - 1)}

    @property
    def scale(self) -> int:
        """Bits by which thresholds and biases are raised into the state."""
        return self.spike_exp + self.state_exp

    @property
    def threshold(self) -> int:
        """vth in the units of the state."""
        return self.vth << self.scale

    @property
    def rest(self) -> dict[str, IntArray]:
        return {name: self.zeros() for name in ("act", "residue", "error")}


@dataclass(frozen=True, eq=False, kw_only=True)
class SigmaDelta(Delta):
    """Adds up changes and sends the change of its activation. Lava's PySigmaDeltaModelFixed:

        sigma <- sigma + a;   x = f(sigma + bias 2**(spike_exp + state_exp)),   f = max(., 0) 'relu' or identity 'unit'

    and then as `Delta`. bias: one integer or one per neuron.
    """

    bias: IntArray | int = 0
    activation: Activation = "relu"

    per_neuron = ("bias",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choice("activation", Activation)

    @property
    def ranges(self) -> Mapping[str, Range]:
        return {**super().ranges, "bias": (-(2**17), 2**17 - 1)}

    @cached_property
    def raised_bias(self) -> IntArray:
        """bias in the units of the state, (size,)."""
        return np.left_shift(np.asarray(self.bias, np.int32), self.scale)

    @property
    def rest(self) -> dict[str, IntArray]:
        return {"sigma": self.zeros(), **super().rest}


@dataclass(frozen=True, eq=False)
class GradedVector(Graded):
    """No state: sends a where |a| > vth, or where a > vth if `rectify`.

    Lava's PyGradedVecModelFixed and PyGradedReluVecModelFixed.
    """

    vth: int = 1
    rectify: bool = False

    @property
    def ranges(self) -> Mapping[str, Range]:
        return {"vth": WORD}


@dataclass(frozen=True, eq=False)
class Product(Graded):
    """No state: p = a1 a2 / 2**exp, floor; sends p where |p| > vth. Ports 0 and 1 are the factors.

    Lava's PyProdNeuronModelFixed. The product wraps at 32 bits before the shift.
    """

    vth: int = 1
    exp: int = 0

    ports = ("a1", "a2")

    @property
    def ranges(self) -> Mapping[str, Range]:
        return {"vth": WORD, "exp": (0, 31)}
