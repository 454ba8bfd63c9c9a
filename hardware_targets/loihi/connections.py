"""Synapses in Loihi's integers: dense, sparse and convolutional, with the chip's weight formats.

Equations follow lava-nc 0.10.0: PyDenseModelBitAcc, PyDelayDenseModelBitAcc, PySparseModelBitAcc, PyConvModelFixed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import ParameterError, ShapeError

SignMode = Literal["mixed", "excitatory", "inhibitory"]
IntArray = NDArray[np.integer[Any]]
Pair = tuple[int, int]

MAX_DELAY = 63


@dataclass(frozen=True, eq=False, kw_only=True)
class Connection(ABC):
    """What every connection has: two ends, weights and their format.

    weights: integers on the scale of 8-bit magnitudes (mixed -256..255, excitatory 0..255, inhibitory -255..0) before
        the exponent. weight_exp: -8..7, shifts the *sum*, floor. num_weight_bits: 1..8 stored bits.
    sign_mode: None lets the weights decide, as Lava does: none negative is excitatory, none positive inhibitory.
    num_message_bits: 0 reads a spike as one bit whatever its payload; above 0 the payload multiplies the weight.
    port: which input of the target it feeds, where the target has several.
    """

    source: str
    target: str
    weights: IntArray
    weight_exp: int = 0
    num_weight_bits: int = 8
    sign_mode: SignMode | None = None
    num_message_bits: int = 0
    port: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", f"{self.source}->{self.target}")
        object.__setattr__(self, "weights", _frozen(self.weights, f"{self.place}: weights"))
        ranges = {"weight_exp": (-8, 7), "num_weight_bits": (1, 8), "num_message_bits": (0, 32), "port": (0, 1)}
        for what, (low, high) in ranges.items():
            value = getattr(self, what)
            if not isinstance(value, int | np.integer) or not low <= value <= high:
                raise ParameterError(f"{self.place}: {what} must be an integer in {low}..{high}, got {value!r}")
        if self.sign_mode is not None and self.sign_mode not in get_args(SignMode):
            raise ParameterError(
                f"{self.place}: sign_mode must be {', '.join(get_args(SignMode))} or None, got {self.sign_mode!r}"
            )

    @property
    def place(self) -> str:
        return f"Connection '{self.name}'"

    @property
    @abstractmethod
    def source_size(self) -> int:
        """Neurons that the connection comes from."""

    @property
    @abstractmethod
    def target_size(self) -> int:
        """Neurons that it reaches."""

    @property
    def max_delay(self) -> int:
        """Ticks beyond the one that every connection takes."""
        return 0

    @property
    def sign_mode_used(self) -> SignMode:
        """The given sign mode, or the one the weights imply."""
        if self.sign_mode is not None:
            return self.sign_mode
        if self.weights.size == 0 or self.weights.min() >= 0:
            return "excitatory"
        return "inhibitory" if self.weights.max() <= 0 else "mixed"

    @property
    def dropped_bits(self) -> int:
        """Low bits that the format does not store: 8 - num_weight_bits, and one more for the sign in mixed mode."""
        return 8 - self.num_weight_bits + (self.sign_mode_used == "mixed")

    @cached_property
    def effective_weights(self) -> IntArray:
        """Weights as the chip holds them: clipped to the sign mode's range, low bits cut (toward minus infinity in
        mixed mode, toward zero otherwise). Before the exponent; same shape as `weights`."""
        sign = -1 if self.sign_mode_used == "inhibitory" else 1
        lowest = -256 if self.sign_mode_used == "mixed" else 0
        magnitude = np.clip(sign * self.weights, lowest, 255)
        return sign * ((magnitude >> self.dropped_bits) << self.dropped_bits)

    @cached_property
    @abstractmethod
    def fan_out(self) -> NDArray[np.int64]:
        """Synapses with a non-zero weight that a spike of each source neuron reaches, (source_size,)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Connection):
    """All to all: a[i] = (sum_j weights[i, j] s[j]) 2**weight_exp, weights (target_size, source_size).

    delays: extra ticks 0..63, one or one per weight (Loihi 2; Lava's DelayDense): the exponent then acts on the sum of
    each delay by itself. Equal delays from one source are the chip's axonal delays.
    """

    delays: IntArray | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights.ndim != 2 or 0 in self.weights.shape:
            raise ShapeError(f"{self.place}: weights must be (targets, sources), got shape {self.weights.shape}")
        object.__setattr__(self, "delays", _delays(self.delays, self.weights.shape, self.place))

    @property
    def source_size(self) -> int:
        return int(self.weights.shape[1])

    @property
    def target_size(self) -> int:
        return int(self.weights.shape[0])

    @property
    def max_delay(self) -> int:
        return 0 if self.delays is None else int(self.delays.max())

    @cached_property
    def fan_out(self) -> NDArray[np.int64]:
        return np.count_nonzero(self.effective_weights, axis=0).astype(np.int64)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sparse(Connection):
    """The synapses that exist: weights (synapses,) from `columns` (source) to `rows` (target), each pair once.

    shape: (target_size, source_size). delays: as for `Dense`, one or one per synapse.
    """

    rows: IntArray
    columns: IntArray
    shape: tuple[int, int]
    delays: IntArray | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights.ndim != 1:
            raise ShapeError(f"{self.place}: weights must be (synapses,), got shape {self.weights.shape}")
        for end, what in enumerate(("rows", "columns")):
            indices = _frozen(getattr(self, what), f"{self.place}: {what}")
            if indices.shape != self.weights.shape:
                raise ShapeError(f"{self.place}: {what} must be {self.weights.shape} like weights, got {indices.shape}")
            if indices.size and not (indices.min() >= 0 and indices.max() < self.shape[end]):
                raise ParameterError(f"{self.place}: {what} must lie in 0..{self.shape[end] - 1}")
            object.__setattr__(self, what, indices)
        pairs = self.rows.astype(np.int64) * self.shape[1] + self.columns
        if np.unique(pairs).size != pairs.size:
            raise ParameterError(
                f"{self.place}: a (row, column) pair appears twice; add the weights or use a second one"
            )
        object.__setattr__(self, "delays", _delays(self.delays, self.weights.shape, self.place))

    @property
    def source_size(self) -> int:
        return int(self.shape[1])

    @property
    def target_size(self) -> int:
        return int(self.shape[0])

    @property
    def max_delay(self) -> int:
        return 0 if self.delays is None or not self.delays.size else int(self.delays.max())

    @cached_property
    def fan_out(self) -> NDArray[np.int64]:
        return np.bincount(self.columns[self.effective_weights != 0], minlength=self.source_size)


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv2d(Connection):
    """Cross-correlation of (channels, height, width), flattened in that order.

    weights: (C_out, C_in / groups, kH, kW).
    stride, padding, dilation: (vertical, horizontal) or one integer for both, as torch.nn.functional.conv2d.
    Lava's CPU model of Conv neither clips nor cuts weights and ignores weight_exp and num_weight_bits: so weights act
    as given here (beyond -256..255 is refused), the exponent shifts the sum, and the result wraps to 24 bits signed.
    """

    input_shape: tuple[int, int, int]
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    output_shape: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights.ndim != 4 or 0 in self.weights.shape:
            raise ShapeError(f"{self.place}: weights must be (C_out, C_in/groups, kH, kW), got {self.weights.shape}")
        if self.weights.min() < -256 or self.weights.max() > 255:
            raise ParameterError(f"{self.place}: convolution weights must lie in -256..255, they are not clipped")
        for what, lowest in (("stride", 1), ("padding", 0), ("dilation", 1)):
            value = getattr(self, what)
            pair = (value, value) if isinstance(value, int | np.integer) else tuple(value)
            if len(pair) != 2 or any(x < lowest for x in pair):
                raise ParameterError(f"{self.place}: {what} must be one or two integers >= {lowest}, got {value}")
            object.__setattr__(self, what, (int(pair[0]), int(pair[1])))
        channels, *image = self.input_shape
        out_channels, group_channels, *kernel = self.weights.shape
        if self.groups < 1 or out_channels % self.groups or group_channels * self.groups != channels:
            raise ShapeError(
                f"{self.place}: {channels} input and {out_channels} output channels do not fit weights"
                f" {self.weights.shape} in {self.groups} groups"
            )
        grid = tuple(
            (size + 2 * p - d * (k - 1) - 1) // s + 1
            for size, k, s, p, d in zip(image, kernel, self.stride, self.padding, self.dilation, strict=True)
        )
        if min(grid) < 1:
            raise ShapeError(f"{self.place}: kernel {tuple(kernel)} does not fit into the image {tuple(image)}")
        object.__setattr__(self, "input_shape", tuple(int(n) for n in self.input_shape))
        object.__setattr__(self, "output_shape", (int(out_channels), *grid))

    @property
    def source_size(self) -> int:
        return int(np.prod(self.input_shape))

    @property
    def target_size(self) -> int:
        return int(np.prod(self.output_shape))

    @cached_property
    def effective_weights(self) -> IntArray:
        return self.weights

    @cached_property
    def fan_out(self) -> NDArray[np.int64]:
        _, channels, height, width = self.weights.shape
        taps = np.count_nonzero(self.weights.reshape(self.groups, -1, channels, height, width), axis=1)
        taps = taps.reshape(-1, height, width)  # non-zero outputs per input channel and tap
        vertical = _reached(self.input_shape[1], self.output_shape[1], height, *(x[0] for x in self.geometry))
        horizontal = _reached(self.input_shape[2], self.output_shape[2], width, *(x[1] for x in self.geometry))
        return np.einsum("ckl,yk,xl->cyx", taps, vertical, horizontal).reshape(-1)

    @property
    def geometry(self) -> tuple[Pair, Pair, Pair]:
        """stride, padding, dilation."""
        return self.stride, self.padding, self.dilation


def _reached(size: int, out_size: int, kernel: int, stride: int, padding: int, dilation: int) -> NDArray[np.int64]:
    """1 where input position i meets an output position through tap k, (size, kernel)."""
    position = np.arange(size)[:, None] + padding - dilation * np.arange(kernel)[None, :]
    return ((position >= 0) & (position % stride == 0) & (position // stride < out_size)).astype(np.int64)


def _frozen(value: ArrayLike, place: str) -> IntArray:
    array = np.asarray(value)
    if array.dtype == bool or not np.issubdtype(array.dtype, np.integer):
        raise ParameterError(f"{place} must be integer, got {array.dtype}; quantise first")
    if array.size and (array.min() < -(2**31) or array.max() >= 2**31):
        raise ParameterError(f"{place} must fit 32 bits, got {array.min()}..{array.max()}")
    array = array.astype(np.int32)
    array.setflags(write=False)
    return array


def _delays(value: ArrayLike | None, shape: tuple[int, ...], place: str) -> IntArray | None:
    if value is None:
        return None
    delays = _frozen(value, f"{place}: delays")
    if delays.shape not in ((), shape):
        raise ShapeError(f"{place}: delays must be one integer or {shape} like weights, got {delays.shape}")
    if delays.size and (delays.min() < 0 or delays.max() > MAX_DELAY):
        raise ParameterError(f"{place}: delays must lie in 0..{MAX_DELAY}, got {delays.min()}..{delays.max()}")
    return _frozen(np.broadcast_to(delays, shape), place)
