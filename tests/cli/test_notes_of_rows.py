"""What spiking rows say of themselves, word for word where numbers decide the words."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from converters import RateCode
from converters.recipes import Integer
from neuro import datasets, trace
from neuro.baselines.rival import Plan
from neuro.cli.spiking_rows import _converted, on_chip
from neuro.datasets import Split
from neuro.graph import Graph


@pytest.fixture(scope="module")
def digits() -> Split:
    return datasets.load("digits")


@pytest.fixture(scope="module")
def base(digits: Split) -> Graph:
    torch.manual_seed(0)
    return trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)), digits.train_x[:2])


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Integer(8), "Converted by Integer()."),
        (RateCode(percentile=99.0), "Converted by RateCode(percentile=99.0), 1 of 1 activation replaced by neurons."),
    ],
)
def test_a_conversion(recipe: object, said: str, base: Graph, digits: Split) -> None:
    assert _converted("row", lambda plan: recipe)(digits, 0, Plan(steps=4), base).notes == (said,)


def test_a_chip(base: Graph, digits: Split) -> None:
    snn = _converted("row", lambda plan: RateCode())(digits, 0, Plan(steps=4), base).graph
    (note,) = on_chip(snn, Plan(steps=4), digits, digits.test_x[:3]).notes
    assert note.startswith("Simulated in the chip's integers on 1 core; ")
