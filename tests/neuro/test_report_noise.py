"""Accuracy against an imperfection, as a figure."""

from __future__ import annotations

import pytest

from neuro.errors import ParameterError, ShapeError
from neuro.report.noise import accuracy_against_noise

CURVES = {"mesh <b>": ((0.1, 1.0, 10.0), (0.1, 0.5, 0.95))}


def test_values_and_levels_are_drawn() -> None:
    drawn = accuracy_against_noise(CURVES, "photons per MAC", levels={"dense": 0.96}, logarithmic=True)
    curve, level = drawn.data
    assert list(curve.x) == [0.1, 1.0, 10.0]
    assert list(curve.y) == [10.0, 50.0, 95.0]
    assert curve.name == "mesh &lt;b&gt;"
    assert (list(level.x), list(level.y)) == ([0.1, 10.0], [96.0, 96.0])
    assert drawn.layout.xaxis.type == "log"
    assert drawn.layout.yaxis.title.text == "validation accuracy (%)"


def test_ticks_of_two_decades_are_whole_numbers_apart() -> None:
    drawn = accuracy_against_noise(
        {"mesh": ((0.001, 0.01, 0.1), (0.9, 0.8, 0.5))}, "phase noise (rad)", logarithmic=True
    )
    axis = drawn.layout.xaxis
    assert list(axis.ticktext) == ["0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1"]
    assert [float(text) for text in axis.ticktext] == list(axis.tickvals)


def test_nothing_says_so() -> None:
    drawn = accuracy_against_noise({}, "phase bits")
    assert drawn.layout.annotations[0].text == "no curve was recorded"


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ShapeError, match="2 values but 1"):
        accuracy_against_noise({"a": ((1, 2), (0.5,))}, "phase bits")
    with pytest.raises(ParameterError, match="no place for 0"):
        accuracy_against_noise({"a": ((0, 2), (0.5, 0.6))}, "phase noise", logarithmic=True)
