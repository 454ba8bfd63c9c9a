"""neuro train from argument to network: what it trains runs, fits and deploys as it is."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from torch import nn

import neuro
from neuro import cli, datasets
from neuro.modules import LIF
from neuro.training.tasks import NETWORKS, TASKS, Plan, Task, through_time

SMALL = ("--epochs", 2, "--samples", 300, "-T", 5, "--threads", 1, "--device", "cpu")


class Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, " ".join(err.split())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setitem(NETWORKS, "narrow", narrow_mlp)
    narrow = {name: replace(task, network="narrow") for name, task in TASKS.items() if task.network == "mlp"}
    for name, task in narrow.items():
        monkeypatch.setitem(TASKS, name, task)

    def command(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["neuro", *map(str, words)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        return Outcome(code, *capfd.readouterr())

    return command


def narrow_mlp(features: tuple[int, ...], classes: int, last: nn.Module) -> nn.Module:
    """The network of a task with fewer neurons."""
    return nn.Sequential(nn.Linear(features[0], 40), LIF(0.9), nn.Linear(40, classes), last)


def test_what_is_trained_runs_fits_and_deploys(run, tmp_path: Path) -> None:
    result = run("train", "yin-yang", *SMALL, "--out", "net.h5", "--log", "net.jsonl", "--curves", "net.html", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.h5", "net.html", "net.jsonl"]
    lines = [json.loads(line) for line in Path("net.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == [1, 2]
    best = lines[found["kept_epoch"] - 1]
    assert best["validation_accuracy"] == max(line["validation_accuracy"] for line in lines)
    assert found["accuracy_validation"] == best["validation_accuracy"]
    assert found["spikes_per_neuron_and_step"] == best["spike_rates"]
    assert f"{100 * found['accuracy_test']:.2f} %" in Path("net.html").read_text()

    shown = ("net.h5", "--data", "yin-yang", "--steps", 5, "--json")
    simulated = json.loads(run("simulate", *shown).out)
    assert simulated["accuracy"] == pytest.approx(found["accuracy_test"])
    split = datasets.load("yin-yang")
    spikes = neuro.simulate(neuro.load("net.h5"), split.validation_x, steps=5, record=["spikes"]).recordings["spikes"]
    for name, rate in found["spikes_per_neuron_and_step"].items():
        assert rate == pytest.approx(float(spikes[name].double().mean()), abs=1e-9)
    assert run("check", "net.h5", "--chip", "loihi2").code == 0
    deployed = run("deploy", *shown, "--chip", "loihi2", "--samples", 50)
    assert deployed.code == 0, deployed.err
    few = json.loads(run("simulate", *shown, "--samples", 50).out)
    assert json.loads(deployed.out)["accuracy_float"] == pytest.approx(few["accuracy"])


def test_text_says_the_test_accuracy_once(run) -> None:
    result = run("train", "yin-yang", *SMALL, "--out", "net.h5", "--loss", "rate", "--encoder", "rate")
    assert result.code == 0, result.err
    assert result.out.count("test samples") == 1
    assert "written: net.h5" in result.out
    assert "rate coding" in result.err


@dataclass(frozen=True)
class PressesCtrlC:
    """Sends Ctrl-C to this process after so many updates; one training, whatever it does."""

    updates: list[int]

    def __call__(self, module: nn.Module) -> None:
        self.updates[0] -= 1
        if self.updates[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)

    def __repr__(self) -> str:
        return "PressesCtrlC"


def test_ctrl_c_keeps_the_training_and_resume_ends_with_the_same_bytes(run, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [0]

    def pressed(task: Task, split: datasets.Split) -> Plan:
        return replace(through_time(task, split), after_step=PressesCtrlC(left))

    monkeypatch.setitem(TASKS, "yin-yang", replace(TASKS["yin-yang"], plan=pressed))
    whole = run("train", "yin-yang", *SMALL, "--out", "whole.h5", "--json")
    assert whole.code == 0, whole.err
    left[0] = 3
    stopped = run("train", "yin-yang", *SMALL, "--out", "net.h5")
    assert stopped.code == 130
    assert "--resume goes on" in stopped.err
    assert not Path("net.h5").exists()
    assert Path("net.training.safetensors").exists()
    refused = run("train", "yin-yang", *SMALL, "--out", "net.h5")
    assert refused.code == 2
    assert "add --resume" in refused.err
    other = run("train", "yin-yang", *SMALL, "--seed", 1, "--out", "net.h5", "--resume")
    assert other.code == 2
    assert "another network, data or settings" in other.err
    resumed = run("train", "yin-yang", *SMALL, "--out", "net.h5", "--resume", "--json")
    assert resumed.code == 0, resumed.err
    assert Path("net.h5").read_bytes() == Path("whole.h5").read_bytes()
    one, two = json.loads(whole.out), json.loads(resumed.out)
    assert {**two, "seconds": 0, "out": ""} == {**one, "seconds": 0, "out": ""}
    assert not Path("net.training.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nonsense",), "no task 'nonsense'"),
        (("yin-yang", "--network", "nonsense"), "no network"),
        (("yin-yang", "--network", "cnn"), "images"),
        (("yin-yang", "--encoder", "nonsense"), "no encoder"),
        (("yin-yang", "--surrogate", "nonsense"), "no surrogate"),
        (("yin-yang", "--loss", "nonsense"), "no loss"),
        (("yin-yang", "-T", 0), "--steps"),
        (("yin-yang", "--learning-rate", -1), "learning_rate"),
        (("yin-yang", "--log", "nowhere/log.jsonl"), "no folder"),
        (("yin-yang", "--out", "nowhere/net.h5"), "no folder"),
    ],
)
def test_refusals_leave_nothing_behind(run, tmp_path: Path, words: tuple, said: str) -> None:
    result = run("train", "--out", "net.h5", *words)
    assert result.code == 2
    assert said in result.err
    assert not list(tmp_path.iterdir())


def test_help_has_examples(run) -> None:
    result = run("train", "--help")
    assert result.code == 0
    assert "neuro train mnist-5k" in result.out


def test_a_task_may_be_given_either_way_and_must_be_given(run) -> None:
    result = run("train", "--task", "yin-yang", *SMALL, "--json")
    assert result.code == 0, result.err
    assert Path("yin-yang.h5").exists()
    for wrong in ((), ("yin-yang", "--task", "yin-yang")):
        refused = run("train", *wrong)
        assert refused.code == 2
        assert "give one task" in refused.err
