"""Moves of elements: nothing is computed, nothing is lost except what a slice leaves out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Shape, Stateless


@dataclass(frozen=True, eq=False)
class Reshape(Stateless):
    """The same elements, in the same order, as features of `shape`."""

    shape: Shape

    def output_shape(self, *shapes: Shape) -> Shape:
        if math.prod(self.shape) != math.prod(shapes[0]):
            raise ShapeError(
                f"Reshape: {shapes[0]} has {math.prod(shapes[0])} elements, {self.shape} has another number"
            )
        return self.shape

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].reshape(-1, *self.shape)


@dataclass(frozen=True, eq=False)
class Permute(Stateless):
    """Feature dimensions in another order; `order` counts from 0 without the batch."""

    order: Shape

    def __post_init__(self) -> None:
        super().__post_init__()
        if sorted(self.order) != list(range(len(self.order))):
            raise ParameterError(f"Permute: order must use each of 0..{len(self.order) - 1} once, got {self.order}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != len(self.order):
            raise ShapeError(f"Permute: order {self.order} does not fit features of shape {shapes[0]}")
        return tuple(shapes[0][dim] for dim in self.order)

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].permute(0, *(dim + 1 for dim in self.order))


@dataclass(frozen=True, eq=False)
class Pad(Stateless):
    """Zeros (or `value`) around the features: `amounts` holds (before, after) for every feature dimension."""

    amounts: tuple[tuple[int, int], ...]
    value: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.value):
            raise ParameterError(f"Pad: value must be finite, got {self.value}")

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if len(shape) != len(self.amounts):
            raise ShapeError(f"Pad: amounts for {len(self.amounts)} dimensions do not fit features of shape {shape}")
        padded = tuple(size + before + after for size, (before, after) in zip(shape, self.amounts, strict=True))
        if min(padded) < 1:
            raise ShapeError(f"Pad: {self.amounts} leaves nothing of features of shape {shape}")
        return padded

    def forward(self, *inputs: Tensor) -> Tensor:
        flat = [amount for pair in reversed(self.amounts) for amount in pair]
        return F.pad(inputs[0], flat, value=self.value)


@dataclass(frozen=True, eq=False)
class Slice(Stateless):
    """x[..., start:stop:step, ...] along one feature dimension `dim` (0 is the channel)."""

    dim: int
    start: int
    stop: int
    step: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim < 0 or not 0 <= self.start < self.stop or self.step < 1:
            raise ParameterError(f"Slice: [{self.start}:{self.stop}:{self.step}] along {self.dim} selects nothing")

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if self.dim >= len(shape) or self.stop > shape[self.dim]:
            raise ShapeError(f"Slice: [{self.start}:{self.stop}] along {self.dim} leaves features of shape {shape}")
        kept = len(range(self.start, self.stop, self.step))
        return (*shape[: self.dim], kept, *shape[self.dim + 1 :])

    def forward(self, *inputs: Tensor) -> Tensor:
        index = (slice(None),) * (self.dim + 1) + (slice(self.start, self.stop, self.step),)
        return inputs[0][index]
