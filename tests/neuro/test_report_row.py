"""Rows: one canonical JSON for equal rows, and nothing that is no number."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.errors import DataError, ParameterError
from neuro.report import Provenance, Row
from neuro.report.row import COLUMNS, ENERGIES

KEYS = [
    "model",
    "accuracy",
    "accuracy_sd",
    "parameters_stored",
    "parameters_active",
    "macs",
    "accumulates",
    "spikes",
    "energy_operations_J",
    "energy_memory_J",
    "energy_chip_J",
    "latency_ticks",
    "provenance",
    "notes",
    "family",
    "seeds",
    "energy_operations_J_range",
    "energy_memory_J_range",
    "energy_chip_J_range",
    "unpriced",
    "samples",
]
LATER = KEYS[14:]
PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
FRACTION = st.none() | st.floats(0, 1)
COUNT = st.none() | st.integers(0, 10**15)
AMOUNT = COUNT | st.floats(0, 1e15)
KNOWN = st.builds(Provenance, st.sampled_from(["measured", "modelled", "quoted", "assumed", "recalled"]), PRINTABLE)
ENERGY = st.none() | st.floats(0, 1)


@st.composite
def _rows(draw: st.DrawFn) -> Row:
    known: dict[str, object] = {column: draw(ENERGY) for column in ENERGIES}
    for column in ENERGIES:
        energy = known[column]
        if isinstance(energy, float) and draw(st.booleans()):
            known[f"{column}_range"] = (energy * draw(st.floats(0, 1)), energy * draw(st.floats(1, 9)))
    reasons = {column: draw(PRINTABLE) for column in ENERGIES if known[column] is None and draw(st.booleans())}
    return Row(
        model=draw(PRINTABLE),
        accuracy=draw(FRACTION),
        accuracy_sd=draw(FRACTION),
        parameters_stored=draw(COUNT),
        parameters_active=draw(COUNT),
        macs=draw(AMOUNT),
        accumulates=draw(AMOUNT),
        spikes=draw(AMOUNT),
        latency_ticks=draw(COUNT),
        provenance=draw(st.dictionaries(st.sampled_from(COLUMNS), KNOWN)),
        notes=tuple(draw(st.lists(PRINTABLE, max_size=3))),
        family=draw(st.none() | PRINTABLE),
        seeds=draw(st.none() | st.integers(1, 99)),
        unpriced=reasons,
        samples=draw(st.none() | st.integers(1, 10**5)),
        **known,  # type: ignore[arg-type]
    )


ROWS = _rows()


@given(ROWS)
def test_json_round_trip_keeps_row_and_bytes(row: Row) -> None:
    line = row.to_json()
    assert list(json.loads(line)) == KEYS
    assert "\n" not in line
    assert line.isascii()
    again = Row.from_json(line)
    assert again == row
    assert again.to_json() == line
    assert hash(again) == hash(row)


@given(ROWS)
def test_rows_written_before_families_still_load(row: Row) -> None:
    plain = json.loads(row.to_json())
    old = json.dumps({key: value for key, value in plain.items() if key not in LATER})
    bare = replace(
        row, family=None, seeds=None, unpriced={}, energy_operations_J_range=None, energy_memory_J_range=None,
        energy_chip_J_range=None, samples=None,
    )  # fmt: skip
    assert Row.from_json(old) == bare


def test_equal_rows_have_equal_bytes_however_their_numbers_were_made() -> None:
    a, b = Provenance("measured", "test set"), Provenance("modelled", "45 nm")
    first = Row("m", accuracy=1, macs=5.0, energy_memory_J=-0.0, provenance={"accuracy": a, "macs": b})
    second = Row(
        "m",
        accuracy=np.float64(1),
        macs=np.int64(5),  # type: ignore[arg-type]
        energy_memory_J=0,
        provenance={"macs": b, "accuracy": a},
        notes=(),
    )
    assert first == second
    assert first.to_json() == second.to_json()


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, True, "3", np.nan])
def test_what_is_no_number_is_refused(column: str, value: object) -> None:
    with pytest.raises(ParameterError, match=column):
        Row("m", **{column: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"accuracy": 97.8}, "fraction"),
        ({"parameters_stored": 1.5}, "whole"),
        ({"model": ""}, "non-empty"),
        ({"model": "\x1b[31mred"}, "printable"),
        ({"notes": ("\x00",)}, "printable"),
        ({"notes": "one text"}, "tuple"),
        ({"provenance": {"energy": Provenance("quoted", "x")}}, "columns are"),
        ({"provenance": {"macs": "measured"}}, "Provenance"),
        ({"family": ""}, "family"),
        ({"family": "\x07"}, "family"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": 2.5}, "seeds"),
        ({"seeds": True}, "seeds"),
        ({"energy_chip_J_range": (1.0, 2.0)}, "without the energy"),
        ({"energy_chip_J": 3.0, "energy_chip_J_range": (1.0, 2.0)}, "must hold the energy"),
        ({"energy_chip_J": 1.0, "energy_chip_J_range": (2.0, 1.0)}, "must hold the energy"),
        ({"energy_chip_J": 1.0, "energy_chip_J_range": (1.0,)}, "low, high"),
        ({"energy_chip_J": 1.0, "energy_chip_J_range": "12"}, "low, high"),
        ({"energy_chip_J": 1.0, "energy_chip_J_range": 1.0}, "low, high"),
        ({"energy_chip_J": 1.0, "energy_chip_J_range": (float("nan"), 2.0)}, "finite"),
        ({"unpriced": {"macs": "why"}}, "energies are"),
        ({"energy_chip_J": 1.0, "unpriced": {"energy_chip_J": "why"}}, "give one"),
        ({"unpriced": {"energy_chip_J": "\x00"}}, "printable"),
    ],
)
def test_bad_rows_are_refused_in_one_line(bad: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        Row(**{"model": "m", **bad})
    assert "\n" not in str(caught.value)


def test_provenance_is_one_of_five() -> None:
    with pytest.raises(ParameterError, match="guessed"):
        Provenance("guessed", "x")  # type: ignore[arg-type]


GOOD = Row("m").as_dict()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        json.dumps({**GOOD, "extra": 1}),
        json.dumps({key: value for key, value in GOOD.items() if key != "macs"}),
        json.dumps({**GOOD, "macs": float("nan")}),
        json.dumps({**GOOD, "provenance": ["macs"]}),
        json.dumps({**GOOD, "provenance": {"macs": {"how": "measured"}}}),
        json.dumps({**GOOD, "notes": "text"}),
        json.dumps({**GOOD, "unpriced": ["energy_chip_J"]}),
    ],
)
def test_malformed_json_is_a_data_error(line: str) -> None:
    with pytest.raises(DataError, match="row"):
        Row.from_json(line)


def test_overflowing_json_number_is_refused() -> None:
    with pytest.raises(ParameterError, match="finite"):
        Row.from_json(Row("m", macs=12345).to_json().replace("12345", "1e999"))


def test_zero_and_unknown_differ() -> None:
    silent = Row("m", spikes=0)
    assert silent.spiking
    assert not replace(silent, spikes=None).spiking


def test_why_there_is_no_price() -> None:
    simulated = Row("circuit", family="quantum")
    assert {simulated.why_unpriced(column) for column in ENERGIES} == {"simulated"}
    control = replace(simulated, energy_operations_J=1e-9)
    assert control.why_unpriced("energy_operations_J") is None
    assert control.why_unpriced("energy_chip_J") is None, "a network with a price is no simulation"
    mesh = Row("mesh", family="photonic", energy_chip_J=1e-6)
    assert "45 nm" in (mesh.why_unpriced("energy_memory_J") or "")
    assert mesh.why_unpriced("energy_chip_J") is None
    told = Row("other", unpriced={"energy_memory_J": "its traffic is not known"})
    assert told.why_unpriced("energy_memory_J") == "its traffic is not known"
    assert told.why_unpriced("energy_operations_J") is None


def test_the_range_of_an_energy() -> None:
    row = Row("m", energy_memory_J=2.0, energy_memory_J_range=(1, 4), energy_chip_J=3.0)
    assert row.range_of("energy_memory_J") == (1.0, 4.0)
    assert row.range_of("energy_chip_J") == (3.0, 3.0)
    assert row.range_of("energy_operations_J") is None
    digits = Row("m", energy_memory_J=2.0, energy_memory_J_range=(2.0000000000000004, 4))
    assert digits.range_of("energy_memory_J") == (2.0, 4.0), "an end that is the energy has its digits"


def test_shares_add_up_to_the_range_and_stay_out_of_files() -> None:
    row = Row("m", energy_memory_J=2.0, energy_memory_J_range=(2, 4), energy_chip_J=3.0)
    shared = replace(row, shares={"energy_memory_J": {"a": (1, 1), "b": (1, 3)}, "energy_chip_J": {"c": (3, 3)}})
    assert shared.shares["energy_memory_J"] == {"a": (1.0, 1.0), "b": (1.0, 3.0)}
    assert shared.to_json() == row.to_json()
    assert (shared, hash(shared)) == (row, hash(row))
    for wrong, message in (
        ({"energy_memory_J": {"a": (1, 3)}}, "add up to"),
        ({"energy_chip_J": {"a": (4, 2)}}, "low, high"),
        ({"energy_operations_J": {"a": (1, 1)}}, "without an energy"),
        ({"macs": {"a": (1, 1)}}, "energies are energy_operations_J"),
    ):
        with pytest.raises(ParameterError, match=message):
            replace(row, shares=wrong)
