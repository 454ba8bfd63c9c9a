"""neuro check and neuro deploy on a chip of small cores."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from neuro import cli, datasets, save, trace
from neuro.training import fit
from neuro.trinary import Thermometer, TrinaryConv2d, TrinaryLinear, Votes


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def command(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["neuro", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return command


def trained(levels: int) -> nn.Module:
    digits = datasets.load("mnist-5k")
    torch.manual_seed(0)
    net = nn.Sequential(
        TrinaryConv2d(levels, 8, 4, stride=4), nn.Flatten(), TrinaryLinear(8 * 49, 7 * 30, groups=7), Votes(7 * 30, 10)
    )
    few = digits.train_x[:1000], digits.train_y[:1000]
    fit(net, few, epochs=3, learning_rate=1e-2, encode=Thermometer(levels), threads=1)
    save(trace(net, Thermometer(levels)(digits.train_x[:2]), name="small"), "net.h5")
    return net


@pytest.mark.parametrize("levels", [1, 2])
def test_a_trinary_network_deploys(run, levels: int) -> None:
    """Images become as many bits per channel as the network takes."""
    net = trained(levels)
    code, out, err = run("check", "net.h5", "--chip", "truenorth", "--json")
    assert code == 0, err
    fit_said = json.loads(out)
    code, out, err = run(
        "deploy",
        "net.h5",
        "--chip",
        "truenorth",
        "--data",
        "mnist-5k",
        "--steps",
        1,
        "--samples",
        60,
        "--picture",
        "chip.html",
        "--json",
        "--picture",
        "chip.html",
    )
    assert code == 0, err
    assert "synaptic events" in Path("chip.html").read_text()
    assert "synaptic events" in Path("chip.html").read_text(encoding="utf-8")
    found = json.loads(out)
    digits = datasets.load("mnist-5k")
    with torch.no_grad():
        answers = net(Thermometer(levels)(digits.test_x[:60])).argmax(1)
    assert found["accuracy_chip"] == pytest.approx(float((answers == digits.test_y[:60]).float().mean()))
    assert found["accuracy_chip"] == found["accuracy_float"] > 0.3
    assert found["same_class"] == 1
    assert found["cores"] == fit_said["cores"] > 0
    assert found["latency_ticks"] == 2
    assert found["energy_chip_J"] == pytest.approx(26e-12 * found["synaptic_events"])


def test_what_does_not_fit_is_refused_with_exit_code_2(run) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.ReLU(), nn.Linear(10, 10))
    save(trace(net, torch.zeros(1, 1, 28, 28), name="usual"), "net.h5")
    code, out, err = run("check", "net.h5", "--chip", "truenorth")
    assert code == 2
    assert "1,568 needed, 256 available" in " ".join(out.split())
    code, _, err = run("deploy", "net.h5", "--chip", "truenorth", "--data", "mnist-5k", "--samples", 5)
    assert code == 2
    assert "ReLU" in err
