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
from neuro.report.row import COLUMNS

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
]
PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
FRACTION = st.none() | st.floats(0, 1)
COUNT = st.none() | st.integers(0, 10**15)
AMOUNT = COUNT | st.floats(0, 1e15)
KNOWN = st.builds(Provenance, st.sampled_from(["measured", "modelled", "quoted", "assumed", "recalled"]), PRINTABLE)
ROWS = st.builds(
    Row,
    model=PRINTABLE,
    accuracy=FRACTION,
    accuracy_sd=FRACTION,
    parameters_stored=COUNT,
    parameters_active=COUNT,
    macs=AMOUNT,
    accumulates=AMOUNT,
    spikes=AMOUNT,
    energy_operations_J=st.none() | st.floats(0, 1),
    energy_memory_J=st.none() | st.floats(0, 1),
    energy_chip_J=st.none() | st.floats(0, 1),
    latency_ticks=COUNT,
    provenance=st.dictionaries(st.sampled_from(COLUMNS), KNOWN),
    notes=st.lists(PRINTABLE, max_size=3).map(tuple),
)


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
