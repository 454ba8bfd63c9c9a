"""tune: which recipe, at how many steps, reaches a goal at the least cost.

Every candidate is converted once and tried at its numbers of steps: first on a part of the validation data, then,
unless it is hopeless there, on all of it. Nothing is chosen on test data; measure the winner there yourself, once.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from converters.convert import convert
from converters.recipes import Calibrated, Exact, FirstSpike, Graded, LocalThreshold, RateCode
from neuro.atomic import replacing
from neuro.errors import FileError, NeuroError, ParameterError
from neuro.evaluate import evaluate
from neuro.flow import has_neurons
from neuro.graph import Graph
from neuro.progress import track
from neuro.report.pareto import pareto
from neuro.shown import Sheet, Shown
from neuro.simulate import Run, simulate
from neuro.windows import duration

Cost = Callable[[Graph, Tensor, Run], float]
"""Spiking network, samples and their run in; what one sample costs out. It must be a function of a module, or a value
that can be pickled, where several processes work."""

BATCH = 250


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


def brief(recipe: object) -> str:
    """The recipe as it would be written: what differs from its defaults.

    >>> brief(RateCode(percentile=99.0))
    'RateCode(percentile=99.0)'
    """
    if not is_dataclass(recipe) or isinstance(recipe, type):
        return repr(recipe)
    said = [(item, getattr(recipe, item.name)) for item in fields(recipe)]
    told = (f"{item.name}={value!r}" for item, value in said if item.default is MISSING or value != item.default)
    return f"{type(recipe).__name__}({', '.join(told)})"


@dataclass(frozen=True)
class Trial:
    """One recipe at one number of steps on `samples` validation samples. `refused` says why there are no figures."""

    recipe: str
    steps: int | None
    samples: int = 0
    accuracy: float = 0.0
    cost: float = math.inf
    ticks: int = 0
    spikes: float = 0.0
    seconds: float = 0.0
    refused: str | None = None

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

    @property
    def best(self) -> Trial | None:
        good = [trial for trial in self.measured if self.dense - trial.accuracy <= self.goal.max_loss + 1e-9]
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
        headings = ("", "recipe", "accuracy %", "lost", f"cost ({self.goal.measure})", "ticks", "spikes", "samples")
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
        *(Candidate(RateCode(percentile=percent), steps) for percent in (99.0, 99.9, 100.0)),
        Candidate(LocalThreshold(), steps),
        *(Candidate(FirstSpike(time_bits=bits)) for bits in (6, 8)),
        *several_bits,
    )


def tune(
    graph: Graph,
    goal: Goal,
    *,
    calibration: Tensor,
    validation: tuple[Tensor, Tensor],
    tried: Iterable[Candidate] | None = None,
    screen: int = 250,
    folder: str | Path | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> Tuning:
    """Try candidates on validation data (x, y) and return every trial, the Pareto front and the best for the goal.

    tried: candidates, `candidates()` if left out. screen: samples of the first look; a trial goes on to all samples
    unless it lies more than max_loss and three standard errors below the original there. folder: trials are kept there
    as they end, and a second call with the same network, data and goal goes on where the first stopped. jobs: worker
    processes (joblib). Candidates that refuse the network are listed with their reason. Raises ParameterError for data
    that do not fit.
    """
    x, y = validation
    if len(x) != len(y) or not len(y):
        raise ParameterError(f"tune: validation must be (x, y) of equal length >= 1, got {len(x)} and {len(y)}")
    if screen < 1 or jobs == 0:
        raise ParameterError(f"tune: screen must be >= 1 and jobs not 0, got {screen} and {jobs}")
    wanted = tuple(candidates() if tried is None else tried)
    with torch.no_grad():
        scores = torch.cat([evaluate(graph, part).argmax(1) for part in x.split(BATCH)])
    right = scores == y
    book = _Book(None if folder is None else Path(folder), _key(graph, goal, calibration, x, y, screen))
    open_ = [candidate for candidate in wanted if not book.knows(candidate)]
    work = (graph, goal, calibration, x, y, right, min(screen, len(y)))
    results = _map(open_, work, jobs)
    for found in track(results, len(open_), "tune", progress):
        book.add(found)
    trials = tuple(trial for candidate in wanted for trial in book.of(candidate))
    return Tuning(goal, float(right.double().mean()), trials, tuple(candidate.recipe for candidate in wanted))


def _map(wanted: Sequence[Candidate], work: tuple[Any, ...], jobs: int) -> Iterable[list[Trial]]:
    if jobs == 1:
        return (_try(candidate, *work) for candidate in wanted)
    from joblib import Parallel, delayed

    calls = (delayed(_alone)(candidate, *work) for candidate in wanted)
    return Parallel(n_jobs=jobs, return_as="generator_unordered")(calls)  # type: ignore[no-any-return]


def _alone(candidate: Candidate, *work: Any) -> list[Trial]:
    """One candidate in a process of its own, on one thread: the processes share the cores."""
    torch.set_num_threads(1)
    return _try(candidate, *work)


def _try(
    candidate: Candidate,
    graph: Graph,
    goal: Goal,
    calibration: Tensor,
    x: Tensor,
    y: Tensor,
    right: Tensor,
    screen: int,
) -> list[Trial]:
    """All trials of one candidate."""
    name = brief(candidate.recipe)
    try:
        spiking = convert(graph, candidate.recipe, calibration=calibration)
        own = not has_neurons(spiking) or duration(spiking) is not None
        return [_measure(spiking, name, None if own else steps, goal, x, y, right, screen) for steps in candidate.steps]
    except NeuroError as error:
        why = str(error).splitlines()[0]
        return [Trial(name, steps, refused=why) for steps in candidate.steps]


def _measure(
    spiking: Graph, name: str, steps: int | None, goal: Goal, x: Tensor, y: Tensor, right: Tensor, screen: int
) -> Trial:
    started = time.perf_counter()
    run = simulate(spiking, x[:screen], steps=steps)
    correct = run.outputs.argmax(1) == y[:screen]
    cost = goal.measure(spiking, x[:screen], run)
    lost = right[:screen].double() - correct.double()
    slack = 3 * float(lost.std(correction=0)) / math.sqrt(screen) if screen > 1 else 1.0
    samples = screen
    if float(lost.mean()) <= goal.max_loss + slack and screen < len(y):
        rest = simulate(spiking, x[screen:], steps=steps, count=False).outputs.argmax(1) == y[screen:]
        correct, samples = torch.cat([correct, rest]), len(y)
    accuracy = int(correct.sum()) / samples
    spikes = run.counts.per_sample("spikes")
    return Trial(name, steps, samples, accuracy, cost, run.counts.steps, spikes, time.perf_counter() - started)


def _key(graph: Graph, goal: Goal, *tensors: Tensor | int) -> str:
    """What the trials depend on, besides the candidate."""
    digest = hashlib.sha256(f"{goal.max_loss} {goal.measure}".encode())
    for name, node in graph.nodes.items():
        digest.update(f"{name} {node.kind} {graph.sources[name]}".encode())
        for _, tensor in node.tensors():
            _feed(digest, tensor)
    for part in tensors:
        _feed(digest, part) if isinstance(part, Tensor) else digest.update(str(part).encode())
    return digest.hexdigest()[:16]


def _feed(digest: Any, tensor: Tensor) -> None:
    digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(tensor.detach().contiguous().numpy().tobytes())


class _Book:
    """Trials by recipe and steps, in memory and, where there is a folder, in one file that is always whole."""

    def __init__(self, folder: Path | None, key: str) -> None:
        self.path = None if folder is None else folder / f"trials-{key}.jsonl"
        self.trials: dict[tuple[str, int | None], Trial] = {}
        if folder is not None and not folder.is_dir():
            raise FileError(f"{folder}: there is no such folder; make it first")
        if self.path is not None and self.path.exists():
            for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), 1):
                try:
                    trial = Trial(**json.loads(line))
                except (ValueError, TypeError) as error:
                    raise FileError(f"{self.path}: line {number} is no trial ({error}); delete the file") from error
                self.trials[trial.recipe, trial.steps] = trial

    def of(self, candidate: Candidate) -> list[Trial]:
        name = brief(candidate.recipe)
        places = dict.fromkeys([*((name, steps) for steps in candidate.steps), (name, None)])
        return [self.trials[place] for place in places if place in self.trials]

    def knows(self, candidate: Candidate) -> bool:
        name = brief(candidate.recipe)
        return (name, None) in self.trials or all((name, steps) in self.trials for steps in candidate.steps)

    def add(self, found: Sequence[Trial]) -> None:
        for trial in found:
            self.trials[trial.recipe, trial.steps] = trial
        if self.path is not None:
            lines = (json.dumps(asdict(trial)) for trial in self.trials.values())
            with replacing(self.path) as partial:
                partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
