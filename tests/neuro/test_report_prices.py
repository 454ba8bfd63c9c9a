"""One rule for which of two energies is less: in the sentences about rows and in the tables of bills."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_targets import Bill, price
from hardware_targets.sensitivity import ends_of, flips, ranking, shares
from neuro.counts import Counts, Tally
from neuro.report import Row
from neuro.report.prices import Shares, difference, order
from neuro.report.verdicts import energy

# binary fractions, so that sums of them are exact
EIGHTHS = st.integers(0, 64).map(lambda number: number / 8)
SHARES = st.dictionaries(
    st.sampled_from("abcd"), st.tuples(EIGHTHS, EIGHTHS).map(lambda ends: (min(ends), max(ends))), max_size=4
)


@given(SHARES, SHARES)
def test_the_extremes_are_those_of_all_corners(one: Shares, other: Shares) -> None:
    constants = sorted({*one, *other})
    corners = [
        sum(one.get(name, (0.0, 0.0))[end] - other.get(name, (0.0, 0.0))[end] for name, end in zip(constants, ends))  # noqa: B905
        for ends in product((0, 1), repeat=len(constants))
    ]
    assert difference(one, other) == (min(corners), max(corners))
    verdict = {(-1, -1): "less", (1, 1): "more", (0, 0): "equal"}
    signs = tuple((end > 0) - (end < 0) for end in (min(corners), max(corners)))
    assert order(one, other) == verdict.get(signs, "undecided")


@given(SHARES, SHARES)
def test_the_order_turns_with_its_sides(one: Shares, other: Shares) -> None:
    turned = {"less": "more", "more": "less", "equal": "equal", "undecided": "undecided"}
    assert order(other, one) == turned[order(one, other)]
    assert order(one, one) == "equal"


def bill(macs: int, accumulates: int, precision: str = "int8") -> Bill:
    return price(Counts(1, 1, {"n": Tally(macs=macs, accumulates=accumulates)}, precision), "45nm")


def row(model: str, spent: Bill, *, shared: bool = True) -> Row:
    known = {"energy_operations_J": ends_of(shares(spent, f"{spent.table}: "))} if shared else {}
    return Row(model, 0.9, energy_operations_J=spent.per_sample, energy_operations_J_range=spent.range, shares=known)


def test_a_price_that_two_rows_share_decides_nothing_between_them() -> None:
    few, many = bill(1000, 0), bill(1100, 0)
    assert few.range[1] > many.range[0], "the ranges overlap"
    assert energy(row("few", few), row("many", many), "energy_operations_J") == "less"
    assert energy(row("few", few, shared=False), row("many", many), "energy_operations_J") == "undecided"


@given(*[st.integers(0, 50)] * 4, st.sampled_from(["int8", "float32"]))
def test_sentences_and_tables_agree(a: int, b: int, c: int, d: int, precision: str) -> None:
    one, other = bill(a, b), bill(c, d, precision)
    verdict = energy(row("one", one), row("other", other), "energy_operations_J")
    assert flips(one, other).certain == (verdict in ("less", "more"))
    assert ranking({"one": one, "other": other}).certain == (verdict in ("less", "more"),)


def test_rows_without_shares_have_ranges_of_their_own() -> None:
    column = "energy_memory_J"
    one, other = (
        Row(name, 0.9, energy_memory_J=2.0, energy_memory_J_range=(1.0, 3.0)) for name in ("one", "other")
    )  # fmt: skip
    assert energy(one, other, column) == "undecided"
    fixed = Row("fixed", energy_memory_J=2.0)
    assert energy(fixed, Row("same", energy_memory_J=2.0), column) == "equal"
    assert energy(fixed, Row("dear", energy_memory_J=2.5), column) == "less"
    assert energy(fixed, Row("none"), column) is None
    assert difference({"a": (1.0, 1.0)}, {}) == pytest.approx((1.0, 1.0))
