"""tune: which recipe, at how many steps, reaches a goal at the least cost.

Every candidate is converted once and tried at its numbers of steps: first on a part of the validation data, then,
unless it is hopeless there, on all of it. Nothing is chosen on test data; measure the winner there yourself, once.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from converters.convert import convert
from converters.diagnose import diagnose
from converters.recipes import RateCode
from converters.tuning import PERCENTILES, Candidate, Goal, Trial, Tuning, brief, candidates
from neuro.atomic import replacing
from neuro.errors import FileError, NeuroError, ParameterError
from neuro.evaluate import evaluate
from neuro.flow import bits_per_event, has_neurons
from neuro.graph import Graph
from neuro.progress import track
from neuro.simulate import simulate
from neuro.windows import duration

BATCH = 250

JUDGED = 32
"""Calibration samples that tell which layers cost most."""


def tune(
    graph: Graph,
    goal: Goal,
    *,
    calibration: Tensor,
    validation: tuple[Tensor, Tensor],
    tried: Iterable[Candidate] | None = None,
    layers: int = 0,
    screen: int = 250,
    folder: str | Path | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> Tuning:
    """Try candidates on validation data (x, y) and return every trial, the Pareto front and the best for the goal.

    tried: candidates, `candidates()` if left out. screen: samples of the first look; a trial goes on to all samples
    unless it lies more than max_loss and three standard errors below the original there. layers: how many activations
    are then given a percentile of their own, the costliest first (`diagnose`), in the rate code that just misses the
    goal (`nearest`); what helps is kept. folder: trials are kept there as they end, and a second call with the same
    network, data and goal goes on where the first stopped. jobs: worker processes (joblib). Candidates that refuse the
    network are listed with their reason. Raises ParameterError for data that do not fit.
    """
    x, y = validation
    if len(x) != len(y) or not len(y):
        raise ParameterError(f"tune: validation must be (x, y) of equal length >= 1, got {len(x)} and {len(y)}")
    if screen < 1 or jobs == 0 or layers < 0:
        raise ParameterError(
            f"tune: screen must be >= 1, jobs not 0 and layers >= 0, got {screen}, {jobs} and {layers}"
        )
    wanted = tuple(candidates() if tried is None else tried)
    with torch.no_grad():
        scores = torch.cat([evaluate(graph, part).argmax(1) for part in x.split(BATCH)])
    right = scores == y
    book = _Book(None if folder is None else Path(folder), _key(graph, goal, calibration, x, y, screen))
    work = (graph, goal, calibration, x, y, right, min(screen, len(y)))
    search = _Search(book, work, jobs, progress)
    search.all(wanted)
    found = Tuning(goal, float(right.double().mean()), search.trials(wanted), tuple(one.recipe for one in wanted))
    return search.by_layer(found, layers) if layers else found


@dataclass(frozen=True)
class _Search:
    book: _Book
    work: tuple[Any, ...]
    jobs: int
    progress: bool

    def all(self, wanted: Sequence[Candidate]) -> None:
        """Try what the book does not know yet."""
        open_ = [candidate for candidate in wanted if not self.book.knows(candidate)]
        for found in track(_map(open_, self.work, self.jobs), len(open_), "tune", self.progress):
            self.book.add(found)

    def trials(self, wanted: Sequence[Candidate]) -> tuple[Trial, ...]:
        return tuple(trial for candidate in wanted for trial in self.book.of(candidate))

    def by_layer(self, found: Tuning, layers: int) -> Tuning:
        """Other percentiles for single activations, one layer after the other; what helps is kept."""
        start = nearest(found)
        if start is None:
            return found
        graph, _, calibration, *_ = self.work
        recipe = next(one for one in found.recipes if brief(one) == start.recipe)
        assert isinstance(recipe, RateCode)
        snn = convert(graph, recipe, calibration=calibration)
        rows = diagnose(graph, snn, calibration[:JUDGED], steps=start.steps).rows
        best = start
        for row in sorted(rows, key=lambda row: -row.cost)[:layers]:
            others = (percent for percent in PERCENTILES if percent != recipe.percentile)
            ways = [replace(recipe, layers={**recipe.layers, row.layer: percent}) for percent in others]
            tried = [Candidate(way, (start.steps,)) for way in ways]
            self.all(tried)
            found = replace(found, trials=found.trials + self.trials(tried), recipes=(*found.recipes, *ways))
            for way, trial in zip(ways, self.trials(tried), strict=True):
                if trial.refused is None and (trial.samples, trial.accuracy) > (best.samples, best.accuracy):
                    recipe, best = way, trial
        return found


def nearest(found: Tuning) -> Trial | None:
    """The trial of a rate code with percentiles from which to go on layer by layer; None where there is none.

    The most accurate of those that miss the goal and cost less than the best; the most accurate of all where none does.
    """
    coded = {brief(one) for one in found.recipes if isinstance(one, RateCode) and one.thresholds == "percentile"}
    rates = [trial for trial in found.trials if trial.recipe in coded and trial.refused is None]
    limit = math.inf if found.best is None else found.best.cost
    cheap = [trial for trial in rates if trial.cost < limit and not found.meets(trial)]
    return max(cheap or rates, key=lambda trial: (trial.accuracy, -trial.cost), default=None)


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
    seconds, bits = time.perf_counter() - started, bits_per_event(spiking)
    return Trial(name, steps, samples, accuracy, cost, run.counts.steps, spikes, seconds, bits=bits)


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
