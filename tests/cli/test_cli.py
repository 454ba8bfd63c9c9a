"""The commands from argument to exit code: what they print, what they write, and what they refuse."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import neuro
from converters import RateCode, convert
from neuro import cli, datasets, trace

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))

class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(28, 8, batch_first=True)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        h, _ = self.rnn(x)
        return self.attend(h, h, h, need_weights=False)[0]

def refused():
    return Both()
"""


class Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def command(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["neuro", *map(str, words)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return command


@pytest.fixture(scope="module")
def snn():
    torch.manual_seed(0)
    digits = datasets.load("mnist-5k")
    net = nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    return convert(trace(net, digits.train_x[:2]), RateCode(), calibration=digits.train_x[:64])


@pytest.fixture
def files(tmp_path: Path, snn) -> Path:
    (tmp_path / "net.py").write_text(NET)
    neuro.save(snn, tmp_path / "snn.h5")
    return tmp_path


def test_convert_then_simulate_then_deploy(run, files: Path) -> None:
    done = run(
        "convert", "net.py:build", "--data", "mnist-5k", "--samples", 60, "--steps", 8, "--out", "new.h5", "--json"
    )
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert (result["activations_replaced"], result["activations"]) == (1, 1)
    assert (result["latency_ticks"], result["bits_per_event"]) == (9, 1)
    assert (files / "new.h5").exists()
    simulated = run("simulate", "new.h5", "--data", "mnist-5k", "--samples", 60, "--steps", 8, "--json")
    assert json.loads(simulated.out)["accuracy"] == pytest.approx(result["accuracy_spiking"])
    deployed = run("deploy", "new.h5", "--data", "mnist-5k", "--samples", 60, "--steps", 8, "--json", "--out", "d.json")
    assert deployed.code == 0, deployed.err
    on_chip = json.loads(deployed.out)
    assert json.loads((files / "d.json").read_text()) == on_chip
    assert on_chip["accuracy_float"] == pytest.approx(result["accuracy_spiking"])
    assert on_chip["same_class"] > 0.9
    assert on_chip["energy_status"] == "assumed"


def test_tables_for_people(run, files: Path) -> None:
    for words in (
        ("simulate", "snn.h5", "--data", "mnist-5k", "--samples", 20, "-T", 4),
        ("deploy", "snn.h5", "--data", "mnist-5k", "--samples", 20, "-T", 4),
        ("check", "net.py:build", "--shape", "1,28,28", "--chip", "loihi2"),
        ("inspect", "snn.h5"),
        ("chips",),
        ("chips", "--show", "loihi2"),
        ("data",),
    ):
        done = run(*words)
        assert done.code == 0, (words, done.err)
        assert done.out.strip()


def test_check_says_no_with_exit_code_two(run, files: Path) -> None:
    done = run("check", "snn.h5", "--chip", "loihi1", "--json")
    assert done.code == 2
    verdict = json.loads(done.out)
    assert not verdict["ok"]
    assert any("reset" in line for line in verdict["violations"])


def _digest(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


class Payload:
    def __reduce__(self):
        return os.system, ("touch canary",)


def test_refusals_are_one_line_and_write_nothing(run, files: Path) -> None:
    (files / "evil.pt").write_bytes(pickle.dumps(Payload()))
    bad = {name: tensor.clone() for name, tensor in _state().items()}
    bad["0.weight"][0, 0, 0, 0] = float("nan")
    torch.save(bad, files / "nan.pt")
    (files / "cut.h5").write_bytes((files / "snn.h5").read_bytes()[:-1000])
    data = ("--data", "mnist-5k", "--samples", 10)
    cases = {
        "--steps must": ("convert", "net.py:build", *data, "--steps", 0, "--out", "x.h5"),
        "NaN": ("convert", "net.py:build", *data, "--weights", "nan.pt", "--out", "x.h5"),
        "evil.pt": ("convert", "net.py:build", *data, "--weights", "evil.pt", "--out", "x.h5"),
        "cut.h5": ("inspect", "cut.h5"),
        "there is no chip": ("deploy", "snn.h5", *data, "--chip", "loihi9", "--out", "x.json"),
        "takes (batch": ("simulate", "snn.h5", "--data", "digits", "--samples", 10),
        "data": ("simulate", "snn.h5", "--data", "no-such-set"),
        "percentile": ("convert", "net.py:build", *data, "--percentile", 0, "--out", "x.h5"),
        "there is no folder": ("convert", "net.py:build", *data, "--out", "nowhere/x.h5"),
        "--hidden": ("compare", "--hidden", "64,x", "--out", "fresh"),
        "there is no row": ("compare", "--rows", "dense,magic", "--out", "fresh"),
    }  # fmt: skip
    before = _digest(files)
    for expected, words in cases.items():
        done = run(*words)
        assert done.code == 2, (words, done.code, done.err)
        lines = [line for line in done.err.splitlines() if line.strip()]
        assert len(lines) == 1, (words, done.err)
        assert expected in lines[0], (expected, lines)
        assert "Traceback" not in done.err
    after = _digest(files)
    assert {k: v for k, v in after.items() if "__pycache__" not in k} == {
        k: v for k, v in before.items() if "__pycache__" not in k
    }
    assert not (files / "canary").exists()
    assert not (files / "fresh").exists()


def test_every_refused_operation_in_one_message(run, files: Path) -> None:
    done = run("check", "net.py:refused", "--shape", "5,28")
    assert done.code == 2
    for name in ("lstm", "attention", "net.py:"):
        assert name in done.err.lower(), done.err


def _state() -> dict[str, torch.Tensor]:
    return nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)).state_dict()


def test_usage_errors_exit_with_two(run) -> None:
    assert run("convert").code == 2
    assert run("no-such-command").code == 2


def test_help_has_examples(run) -> None:
    for command in ("demo", "convert", "simulate", "check", "deploy", "compare", "inspect", "chips"):
        done = run(command, "--help")
        assert done.code == 0
        assert "Example" in done.out, command


def test_graph_files_are_identical(snn, tmp_path: Path) -> None:
    neuro.save(snn, tmp_path / "a.h5")
    neuro.save(snn, tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
