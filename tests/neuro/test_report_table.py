"""The terminal table: its content, its width, and names that try to be markup."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.report import Provenance, Row, table, text
from neuro.report.sheet import engineering, sheet

PAPER = Provenance("modelled", "45 nm, Horowitz 2014")
MEMORY = Provenance("recalled", "constants from memory")
ROWS = [
    Row("dense", 0.978, 0.0021, 266610, 266610, 266200, None, None, 1.2245e-6, 9.4e-6, None, 1,
        {"accuracy": PAPER, "energy_operations_J": PAPER}),
    Row("spiking, a network with a rather long name", 0.9711, None, 266610, 266610, 235200, 148320.5, 711.2, 1.26e-6,
        5.1e-6, 3.8e-6, 18, {"accuracy": PAPER, "energy_operations_J": MEMORY}, ("simulated chip", "rate code")),
]  # fmt: skip


@pytest.mark.parametrize("width", [120, 112, 100, 80])
def test_table_fits_and_says_everything(width: int) -> None:
    shown = text(ROWS, width=width)
    assert max(map(len, shown.splitlines())) <= width
    for part in ("97.80 ± 0.21", "97.11", "267 k", "266 k", "148 k", "711", "1.22 µJ", "9.40 µJ", "3.80 µJ", "18"):
        assert part in shown, part
    for note in ("simulated chip", "rate code", str(PAPER), str(MEMORY)):
        assert note in shown
    assert "…" not in shown
    words = {word.rstrip("⁰¹²³⁴⁵⁶⁷⁸⁹·") for line in shown.splitlines() for word in line[:40].split()}
    assert {"spiking,", "network", "rather", "long", "name"} <= words


def test_shared_provenance_marks_the_heading_and_its_own_marks_the_cell() -> None:
    content = sheet(ROWS)
    place = 1 + content.columns.index("accuracy")
    assert content.headings[place].marks == (1,)
    assert all(not line[place].marks for line in content.cells)
    place = 1 + content.columns.index("energy_operations_J")
    assert not content.headings[place].marks
    notes = [content.footnotes[line[place].marks[0] - 1] for line in content.cells]
    assert notes == [str(PAPER), str(MEMORY)]


def test_the_deviation_has_a_footnote_of_its_own() -> None:
    (line,) = sheet([Row("m", 0.9, 0.01, provenance={"accuracy": PAPER, "accuracy_sd": MEMORY})]).cells
    assert len(line[1].marks) == 1
    assert "the deviation is recalled" in text([Row("m", 0.9, 0.01, provenance={"accuracy_sd": MEMORY})])


FAMILIES = ("dense", "sparse", "experts", "hyperdimensional", "photonic", "quantum", "spiking")
MANY = [
    Row(
        f"{family} network number {number}", 0.9 + number / 100, 0.001, 10**5, 10**4, 2e5, family=family,
        energy_operations_J=number * 1e-8, energy_operations_J_range=(number * 5e-9, number * 2e-8),
        provenance={"accuracy": PAPER},
    )
    for number in range(1, 6) for family in FAMILIES
]  # fmt: skip


@pytest.mark.parametrize("width", [80, 120, 200])
def test_thirty_five_rows_stand_family_by_family(width: int) -> None:
    shown = text(MANY, width=width)
    assert max(map(len, shown.splitlines())) <= width
    lines = shown.splitlines()
    headings = [lines.index(family) for family in FAMILIES]
    assert headings == sorted(headings)
    for family, start, end in zip(FAMILIES, headings, [*headings[1:], len(lines)], strict=True):
        inside = " ".join(lines[start + 1 : end])
        assert inside.count("± 0.10") == 5, family
    assert ("(5.00–20.0 nJ)" in shown) == (width >= 160)
    assert ("from 160 columns on" in shown) == (width < 160)
    assert max(Counter(lines).get(family, 0) for family in FAMILIES) == 1


def test_rows_without_family_stand_last_in_order_or_under_no_heading_at_all() -> None:
    content = sheet([Row("a", family="x"), Row("b"), Row("c", family="x")])
    assert content.families == ("x", "x", "other")
    assert [line[0].text for line in content.cells] == ["a", "c", "b"]
    assert sheet([Row("a"), Row("b")]).families == ()
    assert "other" not in text([Row("a"), Row("b")]).splitlines()
    assert "other" in text([Row("a"), Row("b", family="x")]).splitlines()


def test_a_missing_price_has_its_reason() -> None:
    shown = text([Row("circuit", 0.9, family="quantum"), Row("dense", 0.9, family="dense")])
    assert shown.count("n/a") == 4, "three cells and one footnote"
    assert "n/a (simulated)" in shown
    assert "n/a" not in text([Row("dense", 0.9, family="dense")])


def test_names_are_never_markup() -> None:
    shown = text([Row("[bold red]x[/] :smile: [link=http://a]y")], width=200)
    assert "".join(shown.split()).count("[boldred]x[/]:smile:[link=http://a]y") == 1


def test_no_rows_still_have_headings() -> None:
    assert "model" in text([])
    assert table([]).row_count == 0


@given(st.floats(1e-18, 9e14))
def test_engineering_is_within_half_a_digit(value: float) -> None:
    number, *prefix = engineering(value, "J").split()
    scale = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1, "m": 1e-3, "µ": 1e-6, "n": 1e-9, "p": 1e-12,
             "f": 1e-15, "a": 1e-18}  # fmt: skip
    assert float(number) * scale[prefix[0][:-1]] == pytest.approx(value, rel=0.0051)
    assert 0.99 < float(number) < 1000


def test_engineering_at_the_edges() -> None:
    assert engineering(0, "J") == "0 J"
    assert engineering(999) == "999"
    assert engineering(1e-15, "J") == "1.00 fJ"
    assert engineering(1e-20, "J") == "1.00e-20 J"
    assert engineering(1e17) == "1.00e+17"


def test_columns_of_which_no_row_knows_anything_are_left_out() -> None:
    content = sheet([Row("a", 0.9, macs=10, energy_operations_J=1e-9), Row("b", 0.8)])
    assert content.columns == ("accuracy", "macs", "energy_operations_J")
    assert all(len(line) == 4 for line in content.cells)
    for width in (80, 120):
        shown = text([Row("a", 0.9, macs=10)], width=width)
        assert "spikes" not in shown.splitlines()[0]
        assert "MACs" in shown
    assert "energy_chip_J" in sheet([Row("circuit", family="quantum")]).columns, "a reason is something"
