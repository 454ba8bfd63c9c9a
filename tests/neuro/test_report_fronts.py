"""Energy plots with many rows: exact values, one look a family, curves over T, names that never touch."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.errors import ParameterError
from neuro.report import Provenance, Row, plots
from neuro.report.labels import Axes, box_of, line_of, placed, side, touch
from neuro.report.points import Point, series
from neuro.report.style import SYMBOLS, decades, family_colours

KNOWN = Provenance("recalled", "counts times the prices of a table whose name is long enough to need two lines here")
FAMILIES = ("dense", "sparse", "experts", "hyperdimensional", "photonic", "quantum", "spiking")
ROWS = [
    Row(f"{family} {'ABCDEF'[number]}", 0.99 - 0.01 * number - 0.002 * place, 0.001, seeds=5, family=family,
        energy_operations_J=1e-8 * 1.7 ** (number + place), energy_operations_J_range=(
            0.5e-8 * 1.7 ** (number + place), 4e-8 * 1.7 ** (number + place)),
        provenance={"energy_operations_J": KNOWN})
    for place, family in enumerate(FAMILIES) for number in range(5)
]  # fmt: skip
COLUMN = "energy_operations_J"


def marks(drawn: plots.go.Figure) -> list:
    return [trace for trace in drawn.data if trace.name != "Pareto front"]


def test_every_row_is_drawn_at_its_value_with_its_range_and_what_is_known_of_it() -> None:
    drawn = plots.accuracy_against_energy(plots.points(ROWS, COLUMN), model="A", looks=plots.looks_of(ROWS))
    found = {trace.name: trace for trace in marks(drawn)}
    assert list(found) == [row.model for row in ROWS]
    for row in ROWS:
        trace = found[row.model]
        energy = row.energy_operations_J or 0.0
        low, high = row.range_of(COLUMN) or (0.0, 0.0)
        assert list(trace.x) == [energy]
        assert energy - trace.error_x.arrayminus[0] == pytest.approx(low)
        assert energy + trace.error_x.array[0] == pytest.approx(high)
        (said,) = trace.customdata
        assert f"exactly {energy:.6g} J" in said
        assert f"{100 * (row.accuracy or 0):.2f} ± 0.10 %, 5 seeds" in said
        assert "recalled: counts times the prices of a table whose name is long" in said.replace("<br>", " ")


def test_families_have_colours_and_rows_of_one_have_symbols() -> None:
    looks = plots.looks_of(ROWS)
    colours = family_colours(ROWS)
    assert len(set(colours.values())) == len(FAMILIES)
    for family in FAMILIES:
        kin = [looks[row.model] for row in ROWS if row.family == family]
        assert {look.colour for look in kin} == {colours[family]}
        assert len({look.symbol for look in kin}) == len(kin)
    assert len(set(SYMBOLS)) == len(SYMBOLS) >= 12
    drawn = plots.accuracy_against_energy(plots.points(ROWS, COLUMN), model="A")
    titles = [trace.legendgrouptitle.text for trace in marks(drawn) if trace.legendgrouptitle.text]
    assert titles == list(FAMILIES)


def test_the_front_is_of_the_values_whatever_the_ranges() -> None:
    points = [
        Point("cheap", 1e-9, 0.9, None, (1e-10, 1e-6)), Point("dear", 2e-9, 0.9, None, (1e-12, 3e-9)),
        Point("best", 5e-9, 0.95, None, (4e-9, 6e-9)),
    ]  # fmt: skip
    drawn = plots.accuracy_against_energy(points, model="A")
    (front,) = (trace for trace in drawn.data if trace.name == "Pareto front")
    assert list(front.x) == [1e-9, 5e-9]
    said = {trace.name: trace.customdata[0] for trace in marks(drawn)}
    assert "beaten by another" in said["dear"]
    assert "on the Pareto front" in said["cheap"]


def test_time_steps_of_one_network_are_one_curve_in_their_order() -> None:
    points = [
        ("spiking T=64", 4e-8, 0.98), ("dense", 1e-7, 0.99), ("spiking T=4", 1e-8, 0.9), ("spiking T=16", 2e-8, 0.97),
        ("other T=4", 3e-8, 0.8),
    ]  # fmt: skip
    drawn = plots.accuracy_against_energy(points, model="A")
    curve, dense, other = marks(drawn)
    assert curve.name == "spiking T=4, 16, 64"
    assert list(curve.x) == [1e-8, 2e-8, 4e-8]
    assert "lines" in curve.mode
    assert (dense.name, other.name) == ("dense", "other T=4")
    assert "lines" not in dense.mode
    looks = plots.styles([name for name, _, _ in points])
    assert looks["spiking T=4"] == looks["spiking T=64"] != looks["other T=4"]


def test_names_without_their_time_steps() -> None:
    assert series("spiking loihi2 T=15") == ("spiking loihi2", 15)
    assert series("rate, T = 4") == ("rate", 4)
    assert series("DT=3") == ("DT=3", None)
    assert series("T=3") == ("T=3", 3)


def test_the_axis_of_errors_keeps_order_and_labels() -> None:
    points = [("a", 1e-9, 0.5), ("b", 2e-9, 0.98), ("c", 3e-9, 0.99)]
    drawn = plots.accuracy_against_energy(points, model="A")
    axis = drawn.layout.yaxis
    assert axis.type == "log"
    assert axis.range[0] > axis.range[1], "fewer errors stand higher"
    assert [100 - value for value in axis.tickvals] == pytest.approx([float(text) for text in axis.ticktext])
    for (_, _, accuracy), trace in zip(points, marks(drawn), strict=True):
        assert trace.y[0] == pytest.approx(100 * (1 - accuracy))
    perfect = plots.accuracy_against_energy([*points, ("d", 4e-9, 1.0)], model="A")
    assert perfect.layout.yaxis.type != "log", "no error has no logarithm"
    assert [trace.y[0] for trace in marks(perfect)] == pytest.approx([50, 98, 99, 100])


def test_ranges_down_to_zero_stay_on_the_axis() -> None:
    drawn = plots.accuracy_against_energy([Point("a", 1e-9, 0.5, None, (0.0, 2e-9))], model="A")
    (trace,) = marks(drawn)
    assert trace.x[0] - trace.error_x.arrayminus[0] > 0
    with pytest.raises(ParameterError, match="at least 0 J"):
        plots.accuracy_against_energy([("a", -1.0, 0.5)], model="A")


def test_only_rows_with_both_numbers_are_points() -> None:
    rows = [Row("a", 0.9, energy_operations_J=1e-9), Row("b", 0.9), Row("c", energy_operations_J=1e-9)]
    assert [point.name for point in plots.points(rows, COLUMN)] == ["a"]


PLACES = st.tuples(st.floats(0, 700), st.floats(0, 400))


@given(
    st.lists(st.tuples(st.text("abcdef ", min_size=1, max_size=30), PLACES), max_size=14),
    st.integers(0, 9),
    st.sets(st.integers(0, 13)),
)
def test_labels_touch_nothing(given_marks: list, lines: int, needed: set[int]) -> None:
    names, at = [name for name, _ in given_marks], [place for _, place in given_marks]
    bars = [(70.0 * line, 40.0 * line - 2, 70.0 * line + 150, 40.0 * line + 2) for line in range(lines)]
    small = Axes(at, bars, (700, 400))
    large = Axes([(1.5 * x, 1.2 * y) for x, y in at], [], (1050, 480))
    found = placed(names, [small, large], needed)
    for index, (name, place) in enumerate(zip(names, found, strict=True)):
        assert place is None or index in needed or side(name, place)
    for axes in (small, large):
        marks = enumerate(zip(names, axes.marks, found, strict=True))
        boxes = {index: box_of(name, spot, place) for index, (name, spot, place) in marks if place}
        assert not any(touch(one, other) for one, other in combinations(boxes.values(), 2))
        for index, box in boxes.items():
            assert 0 <= box[0] <= box[2] <= axes.size[0]
            assert 0 <= box[1] <= box[3] <= axes.size[1]
            assert not any(touch(box, bar) for bar in axes.obstacles)
            others = [mark for place, mark in enumerate(axes.marks) if place != index]
            assert not any(box[0] < x < box[2] and box[1] < y < box[3] for x, y in others)


def test_a_lonely_name_has_a_place_and_a_crowd_has_not() -> None:
    (place,) = placed(["name"], [Axes([(350.0, 200.0)], [], (700, 400))])
    assert place is not None
    assert side("name", place) == "middle right"
    crowd = Axes([(350.0 + i % 7, 200.0 + i // 7) for i in range(40)], [], (700, 400))
    assert 1 <= sum(place is not None for place in placed(["a long name"] * 40, [crowd])) <= 8
    needed = placed(["a long name"] * 40, [crowd], range(20, 30))
    assert all(needed[20:30]), "those that need a name find one further off"


def test_lines_to_names_avoid_other_names() -> None:
    at = [(300.0 + 16 * i, 200.0) for i in range(6)]
    names = [f"a name of some length {i}" for i in range(6)]
    found = placed(names, [Axes(at, [], (700, 400))], range(6))
    boxes = [box_of(name, spot, place) for name, spot, place in zip(names, at, found, strict=True) if place]
    assert len(boxes) == 6
    lines = [line_of(name, spot, place) for name, spot, place in zip(names, at, found, strict=True) if place]
    assert sum(map(bool, lines)) >= 2
    for index, dots in enumerate(lines):
        assert not any(touch(dot, box) for dot in dots for other, box in enumerate(boxes) if other != index)


def test_labels_of_the_front_come_first() -> None:
    rng = np.random.default_rng(0)
    many = [
        Point(f"a name of some length {i}", 10 ** rng.uniform(-8, -7.9), rng.uniform(0.90, 0.91)) for i in range(40)
    ]
    best = Point("the best", 0.9e-8, 0.95)
    drawn = plots.accuracy_against_energy([*many, best], model="A")
    (front,) = (trace for trace in marks(drawn) if trace.name == "the best")
    assert list(front.text) == ["the best"]
    assert sum(any(trace.text) for trace in marks(drawn)) < 41


def test_the_front_and_the_named_always_have_their_names() -> None:
    rng = np.random.default_rng(1)
    crowd = [Point(f"a name of some length {i}", 1e-8 * (1 + rng.uniform() / 50), 0.9 + i / 1e5) for i in range(40)]
    named = {crowd[7].name, crowd[8].name, crowd[9].name}
    front = {crowd[index].name for index in plots.pareto([(point.energy, point.accuracy) for point in crowd])}
    drawn = plots.accuracy_against_energy(crowd, model="A", named=named)
    lined = {note.text: note for note in drawn.layout.annotations if note.name == "label"}
    beside = {text for trace in marks(drawn) for text in trace.text if text}
    assert named | front <= beside | set(lined)
    assert not beside & set(lined)
    for name, note in lined.items():
        point = next(point for point in crowd if point.name == name)
        assert note.x == pytest.approx(np.log10(point.energy)), "logarithmic axes take logarithms"
        assert note.y == pytest.approx(100 * point.accuracy)


def test_ticks_of_decades_do_not_crowd() -> None:
    assert decades(-3.0, -1.0) == [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1]
    assert decades(-3.0, 0.5) == [0.001, 0.01, 0.1, 1.0]
