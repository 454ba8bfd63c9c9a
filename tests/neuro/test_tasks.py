"""Trainings by name: every one builds a network that answers samples like those of its data set."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from neuro import simulate
from neuro.datasets import SOURCES, Split
from neuro.errors import ParameterError, ShapeError
from neuro.training import Encoded, Regularised, TimeFirst, UpperRate, fit
from neuro.training.tasks import LOSSES, NETWORKS, SURROGATES, TASKS, planned, through_time

SHAPES = {
    "mnist-5k": (1, 28, 28),
    "mnist": (1, 28, 28),
    "fashion-mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "fsdd": (100, 80),
    "mnist-dvs": (20, 2, 32, 32),
    "yin-yang": (4,),
}
TIMED = ("fsdd", "mnist-dvs")


def like(data: str, count: int = 6) -> Split:
    """Samples of the shape of a data set, and of few steps where they have time."""
    shape = SHAPES[data]
    shape = (3, *shape[1:]) if data in TIMED else shape
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, *shape, generator=generator)
    y = x.flatten(1)[:, :3].argmax(1)
    return Split(data, x, y, x, y, x, y, ("a", "b", "c"), "made here", timed=data in TIMED)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.plan is None])
def test_every_task_builds_a_network_for_its_data(name: str) -> None:
    task = TASKS[name]
    assert task.data in SOURCES
    split = like(task.data)
    task = task if split.timed else replace(task, steps=3)
    plan = planned(task, split)
    assert isinstance(plan.encode, TimeFirst if split.timed else Encoded)
    shown = plan.encode(split.train_x, torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = plan.network(shown)
    assert found.shape == (3, 6, 3)
    run = simulate(plan.network.graph, shown.float())
    torch.testing.assert_close(run.outputs, plan.loss.scores(found), rtol=1e-4, atol=1e-5)


def test_seeds_say_the_first_weights_and_leave_the_global_state_alone() -> None:
    task, split = TASKS["yin-yang"], like("yin-yang")
    before = torch.random.get_rng_state()
    one, same, other = (planned(task, split, seed).network.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("surrogate", ["arctan", "triangle"])
def test_every_loss_has_its_output_and_learns(loss: str, surrogate: str) -> None:
    split = like("yin-yang", 24)
    task = replace(TASKS["yin-yang"], steps=4, loss=loss, surrogate=surrogate)
    plan = through_time(task, split)
    history = fit(plan.network, split, epochs=25, batch_size=24, learning_rate=2e-3, loss=plan.loss, encode=plan.encode)
    assert history.epochs[-1].train_loss < history.epochs[0].train_loss


def test_bounds_lower_what_is_fired() -> None:
    split = like("yin-yang", 24)
    task = replace(TASKS["yin-yang"], steps=4)
    rates = []
    for bounded in (task, replace(task, most_fired=0.02, bound_weight=100.0)):
        plan = planned(bounded, split)
        history = fit(
            plan.network, split, epochs=30, batch_size=24, learning_rate=5e-3, loss=plan.loss, encode=plan.encode
        )
        rates.append(history.epochs[-1].spike_rate)
    assert isinstance(plan.loss, Regularised)
    assert plan.loss.bounds == (UpperRate(0.02, 100.0),)
    assert rates[1] < rates[0] / 2


@pytest.mark.parametrize(
    ("task", "data", "changed", "error", "words"),
    [
        ("fsdd", "fsdd", {"steps": 5}, ParameterError, "steps of their own"),
        ("fsdd", "fsdd", {"encoder": "rate"}, ParameterError, "spikes already"),
        ("yin-yang", "yin-yang", {"steps": None}, ParameterError, "no time"),
        ("yin-yang", "yin-yang", {"network": "cnn"}, ShapeError, "images"),
    ],
)
def test_what_does_not_fit_is_refused(task: str, data: str, changed: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        planned(replace(TASKS[task], **changed), like(data))
    assert "\n" not in str(caught.value)


def test_names_are_known_or_refused() -> None:
    assert set(SURROGATES) >= {"arctan", "fast-sigmoid", "superspike", "triangle"}
    for what in ("network", "encoder", "surrogate", "loss"):
        with pytest.raises(ParameterError, match=f"no {what} 'nonsense'"):
            replace(TASKS["mnist"], **{what: "nonsense"})
    assert set(NETWORKS) >= {task.network for task in TASKS.values()}
