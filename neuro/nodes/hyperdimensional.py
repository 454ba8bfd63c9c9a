"""Hypervectors: an encoder that binds and bundles, and the functions of one element that follow encoders."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Shape, Stateless
from neuro.nodes.activations import Elementwise

BIPOLAR_BITS = 8
"""Elements -1 and 1 that fit in a byte, the word of the integer networks."""


@dataclass(frozen=True, eq=False)
class IDLevel(Stateless):
    """h = sum over features f of id_f * level(x_f): every value is bound to its place, and all are bundled.

    level(x) is row clip(round((L - 1) (x - low) / (high - low)), 0, L - 1) of `levels`. ids (features, D) and levels
    (L, D) hold -1 and 1 as int8 (multiply-add-permute, MAP); h (D,) is int32. Kanerva 2009 [recalled]; `hash_table`
    over `Level` of torch-hd.
    """

    ids: Tensor
    levels: Tensor
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, tensor in self.tensors():
            if tensor.ndim != 2 or tensor.dtype != torch.int8 or not bool((tensor.abs() == 1).all()):
                raise ParameterError(f"IDLevel: {name} must be a matrix of -1 and 1 as int8, got {tensor.dtype}")
        if self.ids.shape[1] != self.levels.shape[1] or len(self.levels) < 2:
            raise ParameterError(
                f"IDLevel: needs two levels or more, as long as the ids, got {tuple(self.levels.shape)} "
                f"for ids {tuple(self.ids.shape)}"
            )
        if not (self.low < self.high and math.isfinite(self.high - self.low)):
            raise ParameterError(f"IDLevel: low must be below high, got {self.low} and {self.high}")

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if shape != (len(self.ids),):
            raise ShapeError(f"IDLevel: {len(self.ids)} ids cannot take features of shape {shape}; flatten them")
        return (self.ids.shape[1],)

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return torch.int32

    def forward(self, *inputs: Tensor) -> Tensor:
        """Level by level: what changes in h where x reaches it. Far fewer products than D per feature; exact."""
        (x,) = inputs
        top = len(self.levels) - 1
        reached = (top * (x.float() - self.low) / (self.high - self.low)).round()
        ids = self.ids.float()
        h = (ids.sum(0) * self.levels[0]).repeat(len(x), 1)
        steps = self.levels[1:].float() - self.levels[:-1].float()
        for level, step in enumerate(steps, start=1):
            (changed,) = step.nonzero(as_tuple=True)
            if len(changed):
                h[:, changed] += (reached >= level).float() @ (ids[:, changed] * step[changed])
        return h.round().to(torch.int32)


@dataclass(frozen=True, eq=False)
class Sign(Elementwise):
    """y = sign(x): -1, 0 or 1. What is left of a bundle when its elements become bipolar again."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sign()


@dataclass(frozen=True, eq=False)
class Sine(Elementwise):
    """y = sin(x), x in radians."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sin()
