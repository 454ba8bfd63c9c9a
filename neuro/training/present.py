"""How a batch of samples is shown to a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuro.encode import Encoder
from neuro.errors import ParameterError, ShapeError

Encode = Callable[[Tensor, torch.Generator], Tensor]
"""x of one batch, (batch, *features), and a generator on its device in; what the network takes out."""


@dataclass(frozen=True)
class Encoded:
    """x (batch, *features) as the series of an encoder, (steps, batch, *features); see `neuro.encode`."""

    encoder: Encoder
    steps: int

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ParameterError(f"Encoded: steps must be a whole number >= 1, got {self.steps!r}")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.encoder(x, self.steps, generator)


@dataclass(frozen=True)
class TimeFirst:
    """Samples that have a time axis already: x (batch, time, *features) as (time, batch, *features)."""

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if x.ndim < 3:
            raise ShapeError(f"TimeFirst takes (batch, time, *features), got {tuple(x.shape)}")
        return x.transpose(0, 1)
