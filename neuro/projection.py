"""Parameters that learn and stay where they may lie."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Within(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.ends = (low, high)
        return value.clamp(min=low).clamp(max=high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (value,), (low, high), (slope,) = ctx.saved_tensors, ctx.ends, gradients
        leaving = ((value <= low) & (slope > 0)) | ((value >= high) & (slope < 0))
        return slope.masked_fill(leaving, 0), None, None


def within(value: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """The point of [low, high] nearest to `value`; descent feels every slope but those that lead further outside.

    So an optimiser step may carry a parameter over an end, where it counts as the end itself, and the next one can
    bring it back: projected gradient descent, with the projection at the place of use.
    """
    return _Within.apply(value, low, high)
