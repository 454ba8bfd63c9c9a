"""neuro deploy of networks that a chip holds only after a change: fewer bits, windows, first spikes, soft reset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import neuro
from converters import Exact, FirstSpike, RateCode, convert
from neuro import datasets, trace


@pytest.fixture
def run(neuro_command, tmp_path: Path):
    torch.manual_seed(0)
    seen = datasets.load("digits").train_x[:64]
    dense = trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10)), seen[:2])
    recipes = {
        "exact": Exact(levels=4, input_bits=4, potential_bits=18), "times": FirstSpike(time_bits=3), "soft": RateCode(),
    }  # fmt: skip
    for name, recipe in recipes.items():
        neuro.save(convert(dense, recipe, calibration=seen), tmp_path / f"{name}.h5")
    return neuro_command


def test_exact_networks_deploy_with_equal_answers(run) -> None:
    for chip in ("loihi1", "loihi2"):
        code, out, err = run("deploy", "exact.h5", "--chip", chip, "--data", "digits", "--samples", 60, "--json")
        assert code == 0, err
        found = json.loads(out)
        assert found["same_class"] == 1.0
        assert found["accuracy_chip"] == found["accuracy_float"]
        assert found["steps"] is None
        assert found["latency_ticks"] == 1 + (1 + 4) + 1
        assert all(layer["weight"] == 0 for layer in found["quantisation"])
        assert run("check", "exact.h5", "--chip", chip)[0] == 0


def test_first_spikes_deploy(run) -> None:
    code, out, err = run("deploy", "times.h5", "--chip", "loihi1", "--data", "digits", "--samples", 60)
    assert code == 0, err
    assert "in 11 ticks" in out


def test_soft_reset_needs_to_be_asked_for(run) -> None:
    words = ("deploy", "soft.h5", "--chip", "loihi1", "--data", "digits", "--samples", 60, "--json")
    code, _, err = run(*words)
    assert code == 2
    assert "reset subtract needed, zero available" in err
    code, out, err = run(*words, "--soft-reset", "current")
    assert code == 0, err
    assert json.loads(out)["same_class"] > 0.7


def test_fine_tuned_weights_arrive_on_the_chip_as_they_are(run, tmp_path: Path) -> None:
    words = ("deploy", "soft.h5", "--data", "digits", "--samples", 60, "--steps", 6, "--weight-bits", 3, "--json")
    code, out, err = run(*words)
    assert code == 0, err
    crude = json.loads(out)
    assert max(layer["weight"] for layer in crude["quantisation"]) > 0.05
    code, out, err = run(*words, "--qat", 2, "--tuned", "three.h5")
    assert code == 0, err
    tuned = json.loads(out)
    assert tuned["qat_epochs"] == 2
    assert max(layer["weight"] for layer in tuned["quantisation"]) < 1e-5
    assert tuned["accuracy_chip"] > crude["accuracy_chip"]
    weight = neuro.load(tmp_path / "three.h5").nodes["1"].weight
    assert len(torch.unique((weight / weight.abs().amax(1, keepdim=True) * 3).round())) <= 7


def test_refusals(run) -> None:
    deploy = ("deploy", "soft.h5", "--data", "digits")
    code, _, err = run(*deploy, "--tuned", "x.h5")
    assert code == 2
    assert "say how many epochs" in err
    code, _, err = run(*deploy, "--weight-bits", 7)
    assert code == 2
    assert "has weights of 2, 3, 4, 5, 6, 8 bits, not 7" in err
    code, _, err = run("deploy", "exact.h5", "--data", "digits", "--qat", 1)
    assert code == 2
    assert "do not train through time" in err
