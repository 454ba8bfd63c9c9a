"""tune: trials, front, goal, resuming, refusals; every figure checked against a conversion of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from converters import Candidate, Exact, Goal, RateCode, convert, tune
from converters.legalise import is_activation
from converters.tune import nearest
from converters.tuning import PERCENTILES, Counted, Trial, Tuning, brief, candidates
from neuro import datasets, simulate, trace
from neuro.errors import FileError, ParameterError
from neuro.training import accuracy, fit

FEW = (Candidate(RateCode(), (1, 8)), Candidate(Exact(4)), Candidate(RateCode(reset="zero"), (8,)))


@pytest.fixture(scope="module")
def task():
    """Real 8x8 digits, a network trained on them for a second, calibration and validation data."""
    torch.manual_seed(0)
    data = datasets.load("digits")
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 10))
    fit(net, data, epochs=12, threads=1)
    graph = trace(net, data.train_x[:2])
    return graph, data.train_x[:128], (data.validation_x, data.validation_y)


def test_trials_are_what_a_conversion_gives(task) -> None:
    graph, calibration, (x, y) = task
    tuned = tune(graph, Goal(1 - 1e-9), calibration=calibration, validation=(x, y), tried=FEW)
    assert tuned.dense == accuracy(graph, x, y)
    assert [(trial.recipe, trial.steps) for trial in tuned.trials] == [
        ("RateCode()", 1), ("RateCode()", 8), ("Exact(levels=4)", None), ("RateCode(reset='zero')", 8),
    ]  # fmt: skip
    for candidate in FEW:
        snn = convert(graph, candidate.recipe, calibration)
        for steps in candidate.steps:
            run = simulate(snn, x, steps=steps)
            (trial,) = [t for t in tuned.trials if (t.recipe, t.steps) == (brief(candidate.recipe), steps)]
            assert trial.accuracy == pytest.approx(float((run.outputs.argmax(1) == y).double().mean()))
            assert (trial.ticks, trial.samples) == (run.counts.steps, len(y))
            assert trial.cost == trial.ticks
    assert "Recipes on validation data" in str(tuned)
    assert "<table>" in tuned._repr_html_()


def test_the_best_is_the_cheapest_that_meets_the_goal(task) -> None:
    graph, calibration, validation = task
    tuned = tune(graph, Goal(0.02, "spikes"), calibration=calibration, validation=validation, tried=FEW)
    assert tuned.best is not None
    meeting = [t for t in tuned.measured if tuned.dense - t.accuracy <= 0.02 + 1e-9]
    assert tuned.best.cost == min(t.cost for t in meeting)
    assert tuned.recipe in [candidate.recipe for candidate in FEW]
    best = convert(graph, tuned.recipe, calibration)
    run = simulate(best, validation[0], steps=tuned.best.steps)
    assert tuned.dense - float((run.outputs.argmax(1) == validation[1]).double().mean()) <= 0.02 + 1e-9


def test_front_holds_what_nothing_beats() -> None:
    trials = tuple(Trial(name, None, 10, accuracy, cost) for name, accuracy, cost in (
        ("a", 0.9, 1.0), ("b", 0.95, 2.0), ("c", 0.94, 3.0),
    ))  # fmt: skip
    some = (*trials, Trial("screened", None, 5, 1.0, 0.1), Trial("refused", None, refused="no"))
    tuned = Tuning(Goal(0.0), 0.95, some)
    assert [trial.recipe for trial in tuned.front] == ["a", "b"]
    assert tuned.best is not None
    assert tuned.best.recipe == "b"
    assert Tuning(Goal(0.0), 0.99, some).best is None
    assert "no candidate meets the goal" in str(Tuning(Goal(0.0), 0.99, some))
    assert "refused: no" in str(tuned).replace("refused: refused:", "refused:")
    assert len(tuned.picture().data) == 1 + 3


def test_the_hopeless_are_dropped_after_the_first_look(task) -> None:
    graph, calibration, (x, y) = task
    tuned = tune(graph, Goal(0.0), calibration=calibration, validation=(x, y), tried=FEW[:1], screen=60)
    coarse, fine = tuned.trials
    assert coarse.samples == 60 or coarse.accuracy >= tuned.dense - 0.2
    assert fine.samples == len(y)


def test_a_second_call_goes_on_from_the_first(task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, calibration, validation = task
    call = {"calibration": calibration, "validation": validation, "folder": tmp_path}
    first = tune(graph, Goal(0.1), tried=FEW[:2], **call)
    monkeypatch.setattr(sys.modules["converters.tune"], "convert", lambda *a, **k: pytest.fail("tried again"))
    again = tune(graph, Goal(0.1), tried=FEW[:2], **call)
    assert again.trials == first.trials
    (file,) = tmp_path.iterdir()
    file.write_text("{}\n")
    with pytest.raises(FileError, match="line 1"):
        tune(graph, Goal(0.1), tried=FEW[:2], **call)


def test_another_network_starts_anew(task, tmp_path: Path) -> None:
    graph, calibration, validation = task
    tune(graph, Goal(0.1), calibration=calibration, validation=validation, tried=FEW[1:2], folder=tmp_path)
    tune(graph, Goal(0.1), calibration=calibration[:64], validation=validation, tried=FEW[1:2], folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_processes_give_the_same_trials(task) -> None:
    graph, calibration, validation = task
    call = {"calibration": calibration, "validation": validation, "tried": FEW}
    alone, together = tune(graph, Goal(0.1), **call), tune(graph, Goal(0.1), jobs=2, **call)
    plain = [(t.name, t.accuracy, t.cost, t.spikes) for t in alone.trials]
    assert [(t.name, t.accuracy, t.cost, t.spikes) for t in together.trials] == plain


def test_a_recipe_that_refuses_is_listed_with_its_reason(task) -> None:
    graph, calibration, validation = task
    wrong = (Candidate("no recipe"), *FEW[1:2])
    tuned = tune(graph, Goal(0.5), calibration=calibration, validation=validation, tried=wrong)
    assert "is no recipe" in (tuned.trials[0].refused or "")
    assert tuned.best is not None
    assert "is no recipe" in str(tuned)


def test_bad_use_is_refused(task) -> None:
    graph, calibration, (x, y) = task
    with pytest.raises(ParameterError, match="max_loss"):
        Goal(2.0)
    with pytest.raises(ParameterError, match="equal length"):
        tune(graph, Goal(), calibration=calibration, validation=(x, y[:3]))
    with pytest.raises(ParameterError, match="screen"):
        tune(graph, Goal(), calibration=calibration, validation=(x, y), screen=0)


def test_default_candidates_are_all_different() -> None:
    names = [brief(candidate.recipe) for candidate in candidates()]
    assert len(set(names)) == len(names) > 10
    assert str(Counted("ticks")) == "ticks"


def test_layers_get_percentiles_of_their_own(task, tmp_path: Path) -> None:
    graph, calibration, validation = task
    rough = (Candidate(RateCode(percentile=60.0), (2,)),)
    call = {"calibration": calibration, "validation": validation, "tried": rough, "folder": tmp_path}
    plain, tuned = tune(graph, Goal(0.0), **call), tune(graph, Goal(0.0), layers=2, **call)
    assert nearest(plain) == plain.trials[0]
    assert tuned.trials[:1] == plain.trials
    own = [one.layers for one in tuned.recipes if one.layers]
    assert len(own) == 2 * len(PERCENTILES)
    assert {name for layers in own for name in layers} == {n for n, node in graph.nodes.items() if is_activation(node)}
    assert max(trial.accuracy for trial in tuned.trials) > plain.trials[0].accuracy
    best = max(tuned.trials, key=lambda trial: trial.accuracy)
    recipe = next(one for one in tuned.recipes if brief(one) == best.recipe)
    run = simulate(convert(graph, recipe, calibration), validation[0], steps=2)
    assert best.accuracy == pytest.approx(float((run.outputs.argmax(1) == validation[1]).double().mean()))
    with pytest.raises(ParameterError, match="layers"):
        tune(graph, Goal(0.0), layers=-1, **call)


def test_the_rate_code_to_go_on_from() -> None:
    recipes = (RateCode(), RateCode(percentile=99.0), Exact(4))
    near, far, good, other = (
        Trial(brief(recipe), steps, 10, accuracy, cost)
        for recipe, steps, accuracy, cost in (
            (recipes[0], 8, 0.90, 8.0), (recipes[1], 4, 0.80, 4.0),
            (recipes[0], 32, 0.99, 32.0), (recipes[2], None, 0.9, 1.0),
        )
    )  # fmt: skip
    assert nearest(Tuning(Goal(0.01), 0.99, (near, far, good, other), recipes)) == near
    assert nearest(Tuning(Goal(0.01), 0.99, (good,), recipes)) == good
    assert nearest(Tuning(Goal(0.01), 0.99, (other,), recipes)) is None
