"""neuro recipes, tune and convert --recipe ...: what they print and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from converters.recipes.overview import OVERVIEW
from neuro import datasets
from neuro.cli.recipes import BUILD, Settings, build
from neuro.training import fit

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    fit(net, datasets.load("digits"), epochs=8, threads=1)
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    save_file(net.state_dict(), path)
    return path


@pytest.fixture
def run(neuro_command, tmp_path: Path, weights: Path):
    (tmp_path / "net.py").write_text(NET)

    def command(verb: str, *words: object) -> tuple[int, str, str]:
        model = () if verb == "recipes" else ("net.py:build", "--weights", weights, "--data", "digits")
        return neuro_command(verb, *model, *words)

    return command


def test_every_recipe_of_the_table_can_be_built_and_the_other_way_round() -> None:
    assert {entry.name for entry in OVERVIEW} == set(BUILD)
    for entry in OVERVIEW:
        assert type(build(entry.name, Settings())) is entry.recipe


def test_the_table_of_recipes(run) -> None:
    code, out, _ = run("recipes")
    assert code == 0
    assert all(entry.name in out for entry in OVERVIEW)
    code, out, _ = run("recipes", "--json")
    assert [row["name"] for row in json.loads(out)] == [entry.name for entry in OVERVIEW]


@pytest.mark.parametrize(
    "recipe",
    ["local", "calibrated", "offset", "residual", "exact", "first-spike", "graded", "sigma-delta", "qcfs"],
)
def test_convert_with_every_recipe(run, recipe: str) -> None:
    code, out, err = run("convert", "--recipe", recipe, "--steps", 8, "--epochs", 3, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["activations_replaced"] == result["activations"] == 1
    assert result["latency_ticks"] >= 2
    assert result["bits_per_event"] >= 1
    assert result["accuracy_spiking"] > result["accuracy_dense"] - 0.1


def test_a_recipe_is_told_by_what_differs_from_its_defaults(run) -> None:
    for options, said in (((), "recipe: RateCode()\n"), (("--percentile", 99), "recipe: RateCode(percentile=99.0)\n")):
        code, out, err = run("convert", *options)
        assert code == 0, err
        assert said in out


def test_auto_takes_the_cheapest_within_the_loss(run) -> None:
    code, out, err = run("convert", "--recipe", "auto", "--max-loss", 1, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["accuracy_spiking"] > result["accuracy_dense"] - 0.05
    assert "Recipes on validation data" in err
    code, _, err = run("convert", "--recipe", "auto", "--max-loss", -1)
    assert code == 2
    assert "max_loss" in err


def test_tune_writes_a_page_and_goes_on(run, tmp_path: Path) -> None:
    code, out, err = run("tune", "--cost", "45nm", "--folder", "trials", "--out", "tune.html", "--samples", 100)
    assert code == 0, err
    assert "best" in out
    assert "J per sample" in out
    assert "plotly" in (tmp_path / "tune.html").read_text()
    code, out, err = run("tune", "--cost", "45nm", "--folder", "trials", "--json", "--samples", 100)
    assert code == 0, err
    found = json.loads(out)
    assert found["best"]["cost"] == min(t["cost"] for t in found["trials"] if t["accuracy"] >= found["dense"] - 0.005)
    assert run("tune", "--cost", "nonsense")[0] == 2
