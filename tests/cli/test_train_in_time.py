"""neuro train on data that bring their own time: the file runs, fits and deploys with the recorded steps."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from neuro import cli
from neuro.datasets.mnist_dvs import FILE
from neuro.modules import LIF, Recurrent
from neuro.training.tasks import NETWORKS, TASKS

FAST = ("--epochs", "1", "--loss", "rate", "--threads", "1", "--device", "cpu")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A hundred made recordings in the form of MNIST-DVS: a digit is a column of pixels that flickers."""
    rng = np.random.default_rng(0)
    label, events = np.repeat(np.arange(10), 10), 300
    columns = 12 * label[:, None] + rng.integers(0, 8, (100, events))
    folder = tmp_path / "mnist-dvs"
    folder.mkdir()
    np.savez(
        folder / FILE,
        x=columns.ravel().astype(np.uint8),
        y=rng.integers(0, 128, 100 * events).astype(np.uint8),
        t_us=np.sort(rng.integers(0, 200_000, (100, events)), axis=1).ravel().astype(np.int32),
        p=rng.integers(0, 2, 100 * events).astype(np.uint8),
        offset=np.arange(101) * events,
        label=label.astype(np.uint8),
    )
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recordings: Path):
    monkeypatch.chdir(recordings)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setitem(NETWORKS, "strided", strided)
    monkeypatch.setitem(NETWORKS, "looped", looped)

    def command(network: str, *words: str) -> tuple[int, dict, str]:
        monkeypatch.setitem(TASKS, "mnist-dvs", replace(TASKS["mnist-dvs"], network=network))
        monkeypatch.setattr(sys, "argv", ["neuro", *words])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        out, err = capfd.readouterr()
        return code, json.loads(out) if out.startswith("{") else {}, " ".join(err.split())

    return command


def strided(features: tuple[int, ...], classes: int, last: nn.Module) -> nn.Module:
    conv = nn.Conv2d(features[0], 4, 4, stride=4)
    return nn.Sequential(conv, LIF(0.9), nn.Flatten(), nn.Linear(256, classes), last)


def looped(features: tuple[int, ...], classes: int, last: nn.Module) -> nn.Module:
    loop = Recurrent(nn.Linear(16, 16), LIF(0.9))
    return nn.Sequential(nn.Flatten(), nn.Linear(2048, 16), loop, nn.Linear(16, classes), last)


def test_a_network_of_events_deploys_as_it_is(run) -> None:
    where = ("--data-root", ".", "--json")
    code, trained, err = run("strided", "train", "mnist-dvs", *FAST, "--out", "net.h5", *where)
    assert code == 0, err
    assert trained["steps"] == 20
    code, simulated, err = run("strided", "simulate", "net.h5", "--data", "mnist-dvs", *where)
    assert code == 0, err
    assert simulated["accuracy"] == pytest.approx(trained["accuracy_test"])
    assert run("strided", "check", "net.h5", "--chip", "loihi2")[0] == 0
    code, deployed, err = run("strided", "deploy", "net.h5", "--chip", "loihi2", "--data", "mnist-dvs", *where)
    assert code == 0, err
    assert deployed["steps"] == 20
    assert deployed["accuracy_float"] == pytest.approx(trained["accuracy_test"])
    assert deployed["same_class"] >= 0.8
    assert deployed["spikes"] > 0
    assert deployed["energy_chip_J"] > 0


def test_what_the_chip_cannot_hold_is_refused_with_the_reason(run) -> None:
    code, _, err = run("looped", "train", "mnist-dvs", *FAST, "--out", "net.h5", "--data-root", ".", "--json")
    assert code == 0, err
    for words in (("check", "net.h5"), ("deploy", "net.h5", "--data", "mnist-dvs", "--data-root", ".")):
        code, _, err = run("looped", *words, "--chip", "loihi2")
        assert code == 2
        assert "Recurrent: loops within a population are not compiled yet" in err
    code, _, err = run("strided", "train", "mnist-dvs", *FAST, "--out", "other.h5", "--data-root", ".", "--json")
    assert code == 0, err
    code, _, err = run("strided", "deploy", "other.h5", "--chip", "loihi1", "--data", "mnist-dvs", "--data-root", ".")
    assert code == 2
    assert "reset subtract needed" in err
