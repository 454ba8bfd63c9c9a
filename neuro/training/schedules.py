"""Learning rates that change from step to step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from neuro.errors import ParameterError

Schedule = Callable[[float, int, int], float]
"""schedule(peak, step, total): the learning rate of update `step` = 0, 1, ..., total - 1."""


@dataclass(frozen=True)
class OneCycle:
    """From peak / 25 up to the peak in a share `rise` of the steps, and down to peak / 250,000, both along a cosine.

    Smith and Topin 2017 (arXiv 1708.07120); the numbers are those of torch.optim.lr_scheduler.OneCycleLR.
    """

    rise: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.rise < 1:
            raise ParameterError(f"OneCycle: rise must lie between 0 and 1, got {self.rise}")

    def __call__(self, peak: float, step: int, total: int) -> float:
        planned = total + 1  # the last, smallest rate is never used
        top = max(self.rise * planned, 2) - 1  # the rise needs a step of its own, however short the training
        start = peak / 25
        if step <= top:
            return _between(start, peak, step / top)
        return _between(peak, start / 1e4, (step - top) / (planned - 1 - top))


@dataclass(frozen=True)
class Cosine:
    """From the peak to zero along half a cosine, after a straight rise from zero in a share `warmup` of the steps.

    Loshchilov and Hutter 2017 (arXiv 1608.03983), eq. 5, without restarts.
    """

    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise ParameterError(f"Cosine: warmup must lie in [0, 1), got {self.warmup}")

    def __call__(self, peak: float, step: int, total: int) -> float:
        rising = self.warmup * total
        if step < rising:
            return peak * (step + 1) / (rising + 1)
        return _between(peak, 0.0, (step - rising) / (total - rising))


@dataclass(frozen=True)
class Constant:
    """The peak, always."""

    def __call__(self, peak: float, step: int, total: int) -> float:
        return peak


def _between(start: float, end: float, share: float) -> float:
    """From start to end along half a cosine."""
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)
