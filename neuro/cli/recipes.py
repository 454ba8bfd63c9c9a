"""neuro recipes: the table of recipes; and how a recipe is made from options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from converters import (
    QCFS,
    Calibrated,
    Exact,
    FirstSpike,
    Graded,
    LocalThreshold,
    OffsetSpikes,
    RateCode,
    ResidualPotential,
    SigmaDelta,
)
from converters.recipes.overview import OVERVIEW, Overview
from neuro.cli.arguments import Json, console, print_json

Name = Literal[
    "rate", "local", "calibrated", "qcfs", "offset", "residual", "exact", "first-spike", "graded", "sigma-delta", "auto"
]


Recipe = TypeVar("Recipe")


@dataclass(frozen=True)
class Settings:
    """What the options of the command line say about a recipe; each recipe takes what it knows."""

    levels: int | None = None
    steps: int = 32
    percentile: float = 99.9
    reset: Literal["subtract", "zero"] = "subtract"
    time_bits: int | None = None
    method: Literal["light", "advanced"] = "advanced"
    warmup: int = 4
    epochs: int = 10
    checkpoint: Path | None = None
    seed: int = 0
    weight_bits: int = 8
    input_bits: int = 8
    potential_bits: int | None = None

    def leveled(self, recipe: Recipe) -> Recipe:
        """The recipe with the number of levels that was asked for, if one was; recipes have defaults of their own."""
        return recipe if self.levels is None else replace(recipe, levels=self.levels)  # type: ignore[type-var]


BUILD: dict[str, Callable[[Settings], object]] = {
    "rate": lambda s: RateCode(percentile=s.percentile, reset=s.reset),
    "local": lambda s: LocalThreshold(),
    "calibrated": lambda s: Calibrated(steps=s.steps, method=s.method),
    "qcfs": lambda s: s.leveled(QCFS(epochs=s.epochs, checkpoint=s.checkpoint, seed=s.seed, progress=True)),
    "offset": lambda s: OffsetSpikes(s.warmup, RateCode(percentile=s.percentile, reset=s.reset)),
    "residual": lambda s: ResidualPotential(s.warmup, RateCode(percentile=s.percentile, reset=s.reset)),
    "exact": lambda s: s.leveled(
        Exact(weight_bits=s.weight_bits, input_bits=s.input_bits, potential_bits=s.potential_bits)
    ),
    "first-spike": lambda s: FirstSpike(time_bits=s.time_bits),
    "graded": lambda s: s.leveled(Graded(steps=s.steps)),
    "sigma-delta": lambda s: SigmaDelta(),
}


def build(name: str, settings: Settings) -> object:
    """The recipe of that name on the command line."""
    return BUILD[name](settings)


def recipes(as_json: Json = False) -> None:
    """The recipes of `neuro convert`: what spikes say, how long an answer takes, what is given up.

    Example: `neuro recipes`
    """
    if as_json:
        print_json(
            [
                {"name": e.name, "python": e.recipe.__name__, "code": e.code, "ticks": e.ticks, "gives_up": e.gives_up}
                for e in OVERVIEW
            ]
        )
        return
    console().print(Overview())
