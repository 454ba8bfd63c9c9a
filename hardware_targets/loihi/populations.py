"""What every population of a Loihi program has, and the current-based LIF neuron.

Populations are values: their equations are in `dynamics` (NumPy) and again, compiled, in `neuron_kernels`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hardware_targets.loihi.connections import IntArray
from neuro.errors import ParameterError, ShapeError

Reset = Literal["zero", "subtract", "none"]
Range = tuple[int, int]

VOLTAGE_LIMIT = 2**23 - 1  # u and v are 24-bit words
DECAY_UNITY = 2**12
STATE_SHIFT = 6  # activations and thresholds enter 24-bit state shifted left by six
LAST_TICK = 2**31 - 1
WORD = (-(2**31), 2**31 - 1)


@dataclass(frozen=True, eq=False)
class Neurons(ABC):
    """`size` neurons of one kind. Before tick `start` they are not updated and what arrives is lost.

    Fields listed in `ranges` are integers within these bounds; those in `per_neuron` may be one integer or one per
    neuron and are kept as int32 arrays (size,). ports: what arrives, by the number a connection gives as `port`.
    """

    name: str
    size: int

    start: int = field(default=0, kw_only=True)

    per_neuron: ClassVar[tuple[str, ...]] = ()
    ports: ClassVar[tuple[str, ...]] = ("a",)

    def __post_init__(self) -> None:
        place = f"{type(self).__name__} '{self.name}'"
        if self.size < 1:
            raise ParameterError(f"{place}: size must be at least 1, got {self.size}")
        for what, (low, high) in {"start": (0, LAST_TICK), **self.ranges}.items():
            values = _integers(getattr(self, what), f"{place}: {what}")
            if values.size and (values.min() < low or values.max() > high):
                worst = values.min() if values.min() < low else values.max()
                raise ParameterError(f"{place}: {what} must lie in {low}..{high}, got {worst}")
            if what not in self.per_neuron:
                if values.ndim:
                    raise ShapeError(f"{place}: {what} must be one integer, got shape {values.shape}")
                object.__setattr__(self, what, int(values))
            elif values.shape not in ((), (1,), (self.size,)):
                raise ShapeError(f"{place}: {what} must be one integer or {self.size}, got shape {values.shape}")
            else:
                object.__setattr__(self, what, _frozen_copy(np.broadcast_to(values.astype(np.int32), (self.size,))))

    @property
    @abstractmethod
    def ranges(self) -> Mapping[str, Range]:
        """Smallest and largest value of every integer field."""

    @property
    def graded(self) -> bool:
        """Whether events carry a payload."""
        return False

    @property
    @abstractmethod
    def rest(self) -> dict[str, IntArray]:
        """Every variable that a neuron keeps from tick to tick, with its first value, (size,) int32."""

    def check_choice(self, what: str, options: Any) -> None:
        """ParameterError unless the field holds one of the values of the Literal `options`."""
        if getattr(self, what) not in get_args(options):
            raise ParameterError(
                f"{type(self).__name__} '{self.name}': {what} must be one of {', '.join(map(str, get_args(options)))},"
                f" got {getattr(self, what)!r}"
            )

    def zeros(self) -> IntArray:
        return np.zeros(self.size, np.int32)


@dataclass(frozen=True, eq=False)
class Population(Neurons):
    """Current-based LIF neurons in fixed point, as lava-nc's PyLifModelBitAcc updates them:

        u <- wrap24( u (4096 - du - 1) / 4096 + 64 a )          division rounds toward zero, wrap24 subtracts 2**24 once
        v <- clip( v (4096 - dv) / 4096 + u + bias_mant 2**bias_exp, -(2**23 - 1), 2**23 - 1 )
        spike if v > 64 vth, strictly; then reset 'zero': v <- 0; 'subtract': v <- v - 64 vth

    `reset='none'` never fires: an integrator whose v is read out.
    vth_low (PyTernLifModelFixed): also sends -1 where v < 64 vth_low, and resets.
    refractory (PyLifRefractoryModelFloat, on these integers): v stays for so many ticks after a spike, u goes on.
    reset_interval (PyLifResetModelBitAcc): on Lava's steps t = tick + 1 with t mod reset_interval = reset_offset mod
    reset_interval, u and v are 0 before the update; 0 is never.
    Lava has no fixed-point LIF that subtracts, never fires, waits or starts later: 'subtract', 'none', `refractory`
    and `start` need the chip's own means or Loihi 2 microcode.

    On the chip du and dv have 12 bits, vth 17, bias_mant 13 and bias_exp 3; Lava's CPU model computes with any vth that
    fits 32 bits when raised by 64, int16 mantissas and any exponent, and so does this: `leaves_common_subset` tells.
    vth, vth_low, biases, u0 and v0 are one integer or one per neuron.
    """

    vth: IntArray | int = 10
    du: int = 4095
    dv: int = 0
    bias_mant: IntArray | int = 0
    bias_exp: IntArray | int = 0
    reset: Reset = "zero"
    v0: IntArray | int = 0
    u0: IntArray | int = 0
    vth_low: IntArray | int | None = None
    refractory: int = 0
    reset_interval: int = 0
    reset_offset: int = 0

    per_neuron = ("vth", "vth_low", "bias_mant", "bias_exp", "v0", "u0")

    @property
    def ranges(self) -> Mapping[str, Range]:
        bounds = {
            "du": (0, 4095),
            "dv": (0, 4095),
            "vth": (-(2**25), 2**25 - 1),
            "bias_mant": (-(2**15), 2**15 - 1),
            "bias_exp": (-15, 15),
            "v0": (-VOLTAGE_LIMIT, VOLTAGE_LIMIT),
            "u0": (-VOLTAGE_LIMIT, VOLTAGE_LIMIT),
            "refractory": (0, LAST_TICK),
            "reset_interval": (0, LAST_TICK),
            "reset_offset": (0, LAST_TICK),
        }
        return bounds if self.vth_low is None else bounds | {"vth_low": (-(2**25), 2**25 - 1)}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choice("reset", Reset)
        if self.vth_low is not None and np.any(np.asarray(self.vth_low) > self.vth):
            raise ParameterError(f"Population '{self.name}': vth_low must not lie above vth")

    @property
    def graded(self) -> bool:
        return self.vth_low is not None

    @property
    def plain(self) -> bool:
        """Whether this is the LIF neuron without a lower threshold, refractory period or periodic reset."""
        return self.vth_low is None and not self.refractory and not self.reset_interval

    @property
    def rest(self) -> dict[str, IntArray]:
        state = {"u": np.asarray(self.u0), "v": np.asarray(self.v0)}
        return state | {"refractory": self.zeros()} if self.refractory else state

    @cached_property
    def bias(self) -> IntArray:
        """bias_mant 2**bias_exp, (size,), floor where the exponent is negative."""
        mantissa, exponent = np.asarray(self.bias_mant, np.int32), np.asarray(self.bias_exp, np.int32)
        raised = np.left_shift(mantissa, np.maximum(exponent, 0))
        return np.right_shift(raised, np.maximum(-exponent, 0))

    @cached_property
    def threshold(self) -> IntArray:
        """vth in the units of v, (size,); the largest int32, which v never exceeds, where the neuron does not fire."""
        if self.reset == "none":
            return np.full(self.size, WORD[1], np.int32)
        return np.left_shift(np.asarray(self.vth, np.int32), STATE_SHIFT)

    @cached_property
    def low_threshold(self) -> IntArray:
        """vth_low in the units of v, (size,); the smallest int32 where there is none."""
        if self.vth_low is None or self.reset == "none":
            return np.full(self.size, WORD[0], np.int32)
        return np.left_shift(np.asarray(self.vth_low, np.int32), STATE_SHIFT)


def _frozen_copy(values: NDArray[np.int32]) -> IntArray:
    copy = values.copy()
    copy.setflags(write=False)
    return copy


def _integers(value: ArrayLike, place: str) -> NDArray[np.int64]:
    array = np.asarray(value)
    if array.dtype == bool or not np.issubdtype(array.dtype, np.integer):
        raise ParameterError(f"{place} must be integer, got {array.dtype}; quantise first")
    return array.astype(np.int64)
