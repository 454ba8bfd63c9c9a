"""Networks that learnt raw pixels: --scale makes them fit, and without it the commands say what is probably wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from neuro import cli, datasets
from neuro.errors import ParameterError
from neuro.evaluate import evaluate
from neuro.rewrite import scaled_inputs
from neuro.trace import trace

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 10))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random features of pixels in 0..255, each firing above some thousands, and a read-out by least squares."""
    split, generator = datasets.load("mnist-5k"), torch.Generator().manual_seed(0)
    weight = torch.randn(200, 784, generator=generator) / 28
    bias = -100 * torch.rand(200, generator=generator)
    hidden = (255 * split.train_x[:1500].flatten(1) @ weight.T + bias).clamp(min=0)
    wanted = torch.nn.functional.one_hot(split.train_y[:1500], 10).float()
    readout = torch.linalg.lstsq(
        hidden.double().T @ hidden.double() + torch.eye(200), hidden.double().T @ wanted.double()
    )
    weights = {"1.weight": weight, "1.bias": bias, "3.weight": readout.solution.T.float().contiguous(),
               "3.bias": torch.zeros(10)}  # fmt: skip
    path = tmp_path_factory.mktemp("raw")
    (path / "net.py").write_text(NET)
    save_file(weights, path / "net.safetensors")
    return path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.chdir(folder)

    def command(name: str, *words: object) -> tuple[dict, str]:
        known = ["net.py:build", "--weights", "net.safetensors", "--data", "mnist-5k", "--json"]
        monkeypatch.setattr(sys, "argv", ["neuro", name, *known, *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        assert not stop.value.code, err
        return json.loads(out), " ".join(err.split())

    return command


def test_the_scaled_network_takes_what_data_sets_give() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    graph, x = trace(net, torch.zeros(1, 4)), torch.rand(5, 4)
    scaled = scaled_inputs(graph, 255)
    with torch.no_grad():
        torch.testing.assert_close(evaluate(scaled, x), net(255 * x))
    assert [change.became for change in scaled.history[-1:]] == ["255 x"]


def test_simulate_and_convert(run, tmp_path: Path) -> None:
    plain, said = run("simulate", "--samples", 200)
    assert plain["accuracy"] < 0.2
    assert "warning" in said
    assert "--scale is not given; 255 for raw pixels" in said
    right, said = run("simulate", "--samples", 200, "--scale", 255)
    assert right["accuracy"] > 0.6
    assert "warning" not in said
    words = ("--samples", 200, "--steps", 32, "--recipe", "first-spike", "--calibration", 64)
    converted, said = run("convert", *words, "--scale", 255, "--out", tmp_path / "snn.h5")
    assert converted["accuracy_dense"] == right["accuracy"]
    assert converted["accuracy_spiking"] > right["accuracy"] - 0.05
    assert "warning" not in said
    assert "--scale" in run("convert", *words)[1]


def test_what_is_no_scale(folder: Path) -> None:
    from neuro.cli.arguments import read_model

    for scale in (0.0, float("nan"), float("inf")):
        with pytest.raises(ParameterError, match="--scale must be a finite number"):
            read_model(f"{folder / 'net.py'}:build", None, None, "1,28,28", scale=scale)
