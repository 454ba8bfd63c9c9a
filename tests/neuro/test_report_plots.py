"""Figures hold the numbers they were given, at every size; a Pareto front is exactly what nothing beats."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.errors import ParameterError, ShapeError
from neuro.report import plots
from neuro.report.style import PALETTE, literal

POINTS = st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)), max_size=12)


def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(POINTS)
def test_pareto_is_exactly_the_set_that_nothing_dominates(points: list[tuple[float, float]]) -> None:
    front = plots.pareto(points)
    unbeaten = {i for i, point in enumerate(points) if not any(beats(other, point) for other in points)}
    assert set(front) == unbeaten
    assert len(front) == len(unbeaten)
    costs = [points[i][0] for i in front]
    assert costs == sorted(costs)
    assert bool(front) == bool(points)


@given(POINTS, st.randoms(use_true_random=False))
def test_pareto_does_not_depend_on_order(points: list[tuple[float, float]], random: object) -> None:
    shuffled = list(points)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sorted(points[i] for i in plots.pareto(points)) == sorted(shuffled[i] for i in plots.pareto(shuffled))


def test_pareto_refuses_nan() -> None:
    with pytest.raises(ParameterError, match="NaN"):
        plots.pareto([(float("nan"), 1.0)])


def test_curves_and_dense_line() -> None:
    drawn = plots.accuracy_against_time({"snn": ([1, 2, 4], [0.1, 0.5, 0.9])}, dense={"dense": 0.95})
    curve, level = drawn.data
    assert list(curve.x) == [1, 2, 4]
    assert list(curve.y) == pytest.approx([10, 50, 90])
    assert list(level.y) == pytest.approx([95, 95])
    assert "%" in drawn.layout.yaxis.title.text
    with pytest.raises(ShapeError, match="3 values of T but 2"):
        plots.accuracy_against_time({"snn": ([1, 2, 4], [0.1, 0.5])})
    with pytest.raises(ParameterError, match="at least 1"):
        plots.accuracy_against_time({"snn": ([0], [0.1])})


def test_energy_plot_draws_its_front_and_names_what_it_cannot_draw() -> None:
    points = [("a", 1e-9, 0.9), ("b", 2e-9, 0.8), ("c", 5e-9, 0.95), ("free", 0.0, 0.1)]
    drawn = plots.accuracy_against_energy(points, model="A (operations)")
    front = next(trace for trace in drawn.data if trace.name == "Pareto front")
    assert list(front.x) == [1e-9, 5e-9]
    assert {trace.name for trace in drawn.data} == {"Pareto front", "a", "b", "c"}
    assert "free" in drawn.layout.annotations[0].text
    low, high = drawn.layout.xaxis.range
    assert low < -9
    assert high > np.log10(5e-9)
    assert "A (operations)" in drawn.layout.xaxis.title.text


def test_few_steps_have_one_tick_each() -> None:
    assert plots.spike_raster([0, 3], [0, 1], steps=4, population=9, layer="fc1").layout.xaxis.dtick == 1
    assert plots.spike_raster([0, 3], [0, 1], steps=64, population=9, layer="fc1").layout.xaxis.dtick is None


@pytest.mark.parametrize(("population", "spikes"), [(1, 0), (1, 3), (100_000, 0), (100_000, 500), (7, 30)])
def test_raster_keeps_every_spike(population: int, spikes: int) -> None:
    rng = np.random.default_rng(0)
    t, n = rng.integers(0, 16, spikes), rng.integers(0, population, spikes)
    drawn = plots.spike_raster(t, n, steps=16, population=population, layer="fc1")
    assert np.array_equal(drawn.data[0].x, t)
    assert np.array_equal(drawn.data[0].y, n)
    assert ("no spike" in str(drawn.layout.annotations)) == (spikes == 0)


@pytest.mark.parametrize(("steps", "population"), [(16, 1), (1000, 1), (5, 100_000), (317, 1234), (1, 1)])
def test_dense_raster_becomes_an_image_that_loses_no_spike(steps: int, population: int) -> None:
    rng = np.random.default_rng(0)
    spikes = 120_000
    t, n = rng.integers(0, steps, spikes), rng.integers(0, population, spikes)
    (image,) = plots.spike_raster(t, n, steps=steps, population=population, layer="fc1").data
    assert image.type == "heatmap"
    z = np.asarray(image.z, dtype=float)
    assert max(z.shape) <= 200
    width, height = (
        np.diff(np.unique(np.linspace(0, size, min(size, 200) + 1).round())) for size in (steps, population)
    )
    assert (z * height[:, None] * width[None]).sum() == pytest.approx(spikes, rel=1e-5)


def test_image_of_a_layer_that_always_fires_is_one_everywhere() -> None:
    t, n = (part.ravel() for part in np.mgrid[0:301, 0:307])
    (image,) = plots.spike_raster(t, n, steps=301, population=307, layer="fc1").data
    assert np.allclose(image.z, 1)


def test_raster_refuses_what_lies_outside() -> None:
    with pytest.raises(ParameterError, match="0 to 15"):
        plots.spike_raster([16], [0], steps=16, population=1, layer="fc1")
    with pytest.raises(ShapeError, match="1 times but 2 neurons"):
        plots.spike_raster([1], [0, 0], steps=16, population=1, layer="fc1")


def test_cores_stand_where_they_were_placed() -> None:
    drawn = plots.core_loads([0, 2], [1, 0], [0.25, 1.5], ["first", "second"], mesh=(3, 2))
    load = drawn.data[-1]
    assert np.asarray(load.z)[1, 0] == 25
    assert np.asarray(load.z)[0, 2] == 150
    assert np.isnan(np.asarray(load.z)).sum() == 4
    assert load.zmax == 150
    assert load.customdata[1][0] == "first"
    with pytest.raises(ParameterError, match="share one place"):
        plots.core_loads([0, 0], [0, 0], [1, 1], ["a", "b"])
    with pytest.raises(ParameterError, match="outside"):
        plots.core_loads([3], [0], [1], ["a"], mesh=(3, 2))
    with pytest.raises(ShapeError, match="1 labels"):
        plots.core_loads([0, 1], [0, 0], [1, 1], ["a"])


def test_bars_keep_values_and_order() -> None:
    (bar,) = plots.activity_per_layer({"snn": {"b": 0.1, "a": 0.0}}).data
    assert list(bar.x) == [0.1, 0.0]
    assert list(bar.customdata) == ["b", "a"]
    drawn = plots.quantisation_error({"snn": {"1": 0.5}})
    assert list(drawn.layout.yaxis.ticktext) == ["1"]


def test_nothing_at_all_can_be_drawn() -> None:
    for drawn in (
        plots.accuracy_against_time({}),
        plots.accuracy_against_energy([], model="A"),
        plots.activity_per_layer({}),
        plots.quantisation_error({}),
        plots.core_loads([], [], [], []),
    ):
        assert len(drawn.layout.annotations) == 1


def test_a_model_keeps_its_colour_everywhere() -> None:
    looks = plots.styles(["a", "b", "c"])
    energy = plots.accuracy_against_energy([("c", 1e-9, 0.5)], model="A", looks=looks)
    bars = plots.activity_per_layer({"c": {"fc": 0.1}}, looks=looks)
    curve = plots.accuracy_against_time({"c": ([1], [0.5])}, looks=looks)
    found = {energy.data[-1].marker.color, bars.data[0].marker.color, curve.data[0].line.color}
    assert found == {looks["c"].colour}
    assert len({look.colour for look in looks.values()}) == 3


def test_equal_data_give_equal_bytes() -> None:
    def draw() -> str:
        return plots.spike_raster(np.arange(9), np.arange(9), steps=9, population=9, layer="fc1").to_json()

    assert draw() == draw()


@pytest.mark.parametrize("paper", ["#ffffff", "#14171a"])
def test_palette_is_readable_on_light_and_dark(paper: str) -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    for colour in PALETTE:
        light, dark = sorted((luminance(colour), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, colour


EVIL = "<script>alert(1)</script><a href='http://x'>$a$ %{x}"


def test_names_reach_plotly_as_plain_text() -> None:
    figures = [
        plots.accuracy_against_time({EVIL: ([1], [0.5])}, dense={EVIL + "2": 0.5}),
        plots.accuracy_against_energy([(EVIL, 1e-9, 0.5), (EVIL, 0.0, 0.5)], model=EVIL),
        plots.spike_raster([0], [0], steps=1, population=1, layer=EVIL),
        plots.spike_raster([], [], steps=1, population=1, layer=EVIL),
        plots.activity_per_layer({EVIL: {EVIL: 0.1}}),
        plots.quantisation_error({EVIL: {EVIL: 0.1}}, quantity=EVIL),
        plots.core_loads([0], [0], [0.5], [EVIL], resource=EVIL),
    ]
    for drawn in figures:
        strings = json.loads(drawn.to_json())
        flat = (
            json.dumps(strings, ensure_ascii=False).replace("<br>", "").replace("<extra>", "").replace("</extra>", "")
        )
        assert "<" not in flat
        assert "$" not in flat
    assert literal("<b>") == "&lt;b&gt;"
