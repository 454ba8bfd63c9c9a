"""What tune searches and what it finds: goals, candidates, trials, and the front of those that nothing beats."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

from converters.recipes import Calibrated, Exact, FirstSpike, Graded, LocalThreshold, RateCode
from neuro.errors import ParameterError
from neuro.graph import Graph
from neuro.report.pareto import pareto
from neuro.shown import Sheet, Shown
from neuro.simulate import Run

Cost = Callable[[Graph, Tensor, Run], float]
"""Spiking network, samples and their run in; what one sample costs out. It must be a function of a module, or a value
that can be pickled, where several processes work."""


@dataclass(frozen=True)
class Counted:
    """A cost that the counts of a run tell: "ticks" end to end, or one field of `neuro.counts.Tally`, per sample."""

    what: str = "ticks"

    def __call__(self, graph: Graph, x: Tensor, run: Run) -> float:
        return float(run.counts.steps) if self.what == "ticks" else run.counts.per_sample(self.what)

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class Goal:
    """At most `max_loss` (0.005 is half a point) below the original network on validation data, at the least `cost`.

    cost: "ticks", "spikes", "accumulates" or another count, or a function (graph, x, run) -> cost per sample.
    """

    max_loss: float = 0.005
    cost: str | Cost = "ticks"

    def __post_init__(self) -> None:
        if not 0 <= self.max_loss < 1:
            raise ParameterError(f"Goal: max_loss is a share of all samples in [0, 1), got {self.max_loss}")

    @property
    def measure(self) -> Cost:
        return Counted(self.cost) if isinstance(self.cost, str) else self.cost


@dataclass(frozen=True)
class Candidate:
    """A recipe and the numbers of steps to try it at; None where the recipe says itself how long it takes."""

    recipe: object
    steps: tuple[int | None, ...] = (None,)


PERCENTILES = (99.0, 99.9, 100.0)
"""Tried for every activation, and for single ones."""


def brief(recipe: object) -> str:
    """The recipe as it would be written: what differs from its defaults.

    >>> brief(RateCode(percentile=99.0))
    'RateCode(percentile=99.0)'
    """
    if not is_dataclass(recipe) or isinstance(recipe, type):
        return repr(recipe)
    said = [(item, getattr(recipe, item.name)) for item in fields(recipe)]
    told = (f"{item.name}={value!r}" for item, value in said if value != _default(item))
    return f"{type(recipe).__name__}({', '.join(told)})"


def _default(item: Field[Any]) -> object:
    return item.default if item.default_factory is MISSING else item.default_factory()


@dataclass(frozen=True)
class Trial:
    """One recipe at one number of steps on `samples` validation samples. `refused` says why there are no figures.

    ticks: end to end; bits: of the widest event.
    """

    recipe: str
    steps: int | None
    samples: int = 0
    accuracy: float = 0.0
    cost: float = math.inf
    ticks: int = 0
    spikes: float = 0.0
    seconds: float = 0.0
    refused: str | None = None
    bits: int = 1

    @property
    def name(self) -> str:
        return self.recipe if self.steps is None else f"{self.recipe} T={self.steps}"


@dataclass(frozen=True)
class Tuning(Shown):
    """What `tune` found. `front`: trials on all samples that no other beats in both accuracy and cost, cheapest first.

    `best`: the cheapest that meets the goal, None where none does.
    """

    goal: Goal
    dense: float
    trials: tuple[Trial, ...]
    recipes: tuple[object, ...] = ()

    @property
    def recipe(self) -> object | None:
        """The recipe of the best trial, ready for `convert`."""
        return None if self.best is None else next(one for one in self.recipes if brief(one) == self.best.recipe)

    @property
    def measured(self) -> tuple[Trial, ...]:
        """Trials on the whole validation data."""
        most = max((trial.samples for trial in self.trials), default=0)
        return tuple(trial for trial in self.trials if trial.refused is None and trial.samples == most)

    @property
    def front(self) -> tuple[Trial, ...]:
        found = self.measured
        return tuple(found[i] for i in pareto([(trial.cost, trial.accuracy) for trial in found]))

    def meets(self, trial: Trial) -> bool:
        """Whether a trial loses no more than the goal allows."""
        return self.dense - trial.accuracy <= self.goal.max_loss + 1e-9

    @property
    def best(self) -> Trial | None:
        good = [trial for trial in self.measured if self.meets(trial)]
        return min(good, key=lambda trial: (trial.cost, -trial.accuracy), default=None)

    def sheet(self) -> Sheet:
        front, best = set(self.front), self.best
        rows = [
            (
                "best" if trial == best else "front" if trial in front else "",
                trial.name,
                f"{100 * trial.accuracy:.2f}",
                f"{100 * (trial.accuracy - self.dense):+.2f}",
                f"{trial.cost:.4g}",
                f"{trial.ticks:,}",
                str(trial.bits),
                f"{trial.spikes:,.0f}",
                f"{trial.samples:,}",
            )
            for trial in sorted(self.trials, key=lambda trial: (-trial.samples, trial.cost, -trial.accuracy))
            if trial.refused is None
        ]
        notes = [f"dense {100 * self.dense:.2f} % on validation data; goal: at most {100 * self.goal.max_loss:g} lost"]
        notes += [f"refused: {trial.name}: {trial.refused}" for trial in self.trials if trial.refused is not None]
        if best is None:
            notes.append("no candidate meets the goal: allow more loss, or give candidates with more steps or levels")
        headings = (
            "",
            "recipe",
            "accuracy %",
            "lost",
            f"cost ({self.goal.measure})",
            "ticks",
            "bits",
            "spikes",
            "samples",
        )
        return "Recipes on validation data", headings, rows, notes

    def picture(self) -> Any:
        """Accuracy against cost, a plotly figure."""
        from neuro.report.recipes import accuracy_against_cost

        points = [(trial.name, trial.cost, trial.accuracy) for trial in self.measured]
        return accuracy_against_cost(points, dense=self.dense, cost=str(self.goal.measure))


def candidates(graded: bool = False) -> tuple[Candidate, ...]:
    """What is tried unless the caller says otherwise: recipes that need no training, with spikes of one bit.

    graded: with events of several bits too, where a step carries more.
    """
    steps = (4, 8, 16, 32, 64)
    several_bits = (Candidate(Graded(levels), (1, 2, 4)) for levels in (3, 15)) if graded else ()
    return (
        *(Candidate(Exact(levels)) for levels in (2, 4, 8, 16, 32)),
        *(Candidate(Calibrated(steps=count), (count,)) for count in (4, 8, 16, 32)),
        *(Candidate(RateCode(percentile=percent), steps) for percent in PERCENTILES),
        Candidate(LocalThreshold(), steps),
        *(Candidate(FirstSpike(time_bits=bits)) for bits in (6, 8)),
        *several_bits,
    )
