"""Several inputs become one output."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from neuro.errors import ShapeError
from neuro.graph import Shape, Stateless


@dataclass(frozen=True, eq=False)
class Add(Stateless):
    """y = x1 + x2 + ...; all of one shape."""

    arity: ClassVar[int | None] = None

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(set(shapes)) != 1:
            raise ShapeError(f"Add: inputs have different shapes {', '.join(map(str, shapes))}")
        return shapes[0]

    def forward(self, *inputs: Tensor) -> Tensor:
        return reduce(torch.add, inputs)


@dataclass(frozen=True, eq=False)
class Concat(Stateless):
    """Inputs one behind the other along the feature dimension `dim` (0 is the channel)."""

    dim: int = 0
    arity: ClassVar[int | None] = None

    def output_shape(self, *shapes: Shape) -> Shape:
        rest = {(*shape[: self.dim], *shape[self.dim + 1 :]) for shape in shapes if 0 <= self.dim < len(shape)}
        if len(rest) != 1 or any(self.dim >= len(shape) for shape in shapes):
            raise ShapeError(f"Concat along {self.dim}: shapes {', '.join(map(str, shapes))} do not line up")
        first = shapes[0]
        return (*first[: self.dim], sum(shape[self.dim] for shape in shapes), *first[self.dim + 1 :])

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, dim=self.dim + 1)
