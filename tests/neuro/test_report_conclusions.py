"""Sentences follow from the numbers: turn the numbers and the sentences turn."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from neuro.report import Provenance, Row, conclusions

DENSE = Row("dense", 0.98, macs=1000, energy_operations_J=4e-9, energy_memory_J=9e-9, latency_ticks=1)
INT8 = replace(DENSE, model="dense int8", accuracy=0.975, energy_operations_J=2e-10, energy_memory_J=3e-9)
SPIKING = Row(
    "spiking", 0.97, accumulates=500, spikes=40, energy_operations_J=1e-9, energy_memory_J=1e-9, latency_ticks=18
)


def said(*rows: Row) -> str:
    return "\n".join(conclusions(rows))


def test_unfavourable_numbers_are_said() -> None:
    text = said(DENSE, INT8, SPIKING)
    assert "Least energy under A (operations): 'dense int8' with 200 pJ" in text
    assert "Least energy under B (operations and memory): 'spiking' with 1.00 nJ" in text
    assert "depends on the energy model: 'dense int8' under A, 'spiking' once memory" in text
    assert "Energy A (operations) against 'dense int8': 'spiking' 5 times as much (it loses)" in text
    assert "Energy B (operations and memory) against 'dense int8': 'spiking' 0.333 times as much (it wins)" in text
    assert "'spiking' handles 0.5 spikes per synapse" in text
    assert "behind the best: 'spiking' by 1.00 points" in text
    assert "energy A (operations): 'dense int8' and 'dense'; no spiking network is on it" in text
    assert "'spiking' after 18 ticks" in text


def test_the_other_numbers_give_the_other_sentences() -> None:
    text = said(DENSE, INT8, replace(SPIKING, energy_operations_J=1e-10, accuracy=0.99, accumulates=50))
    assert "Least energy under A (operations): 'spiking'" in text
    assert "'spiking' 0.5 times as much (it wins)" in text
    assert "loses" not in text
    assert "no spiking network" not in text
    assert "0.05 spikes per synapse" in text
    assert "depends on the energy model" not in text


def test_a_tie_has_no_single_winner() -> None:
    text = said(INT8, replace(SPIKING, energy_operations_J=2e-10))
    assert "'dense int8' and 'spiking' with 200 pJ per inference." in text
    assert "(a draw)" in text


def test_missing_prices_and_unconfirmed_numbers_are_said() -> None:
    guess = Provenance("assumed", "a guess")
    text = said(DENSE, INT8, replace(SPIKING, energy_memory_J=None, provenance={"macs": guess, "accuracy": guess}))
    assert "Without a price under B (operations and memory): 'spiking'" in text
    assert "accuracy % of 'spiking' (assumed: a guess)" in text
    assert "MACs" not in text.split("Unconfirmed")[1], "a column without a number is not in doubt"


def test_active_and_stored_parameters() -> None:
    assert "stores 412 k parameters for the 57.2 k" in said(
        replace(DENSE, parameters_stored=412_400, parameters_active=57_200)
    )
    assert "stores" not in said(replace(DENSE, parameters_stored=100, parameters_active=90))


AMOUNTS = st.none() | st.floats(0, 1)


ROWS = st.builds(
    Row,
    st.sampled_from(["a", "b int8"]),
    AMOUNTS,
    macs=AMOUNTS,
    accumulates=AMOUNTS,
    spikes=AMOUNTS,
    energy_operations_J=AMOUNTS,
    energy_memory_J=AMOUNTS,
    energy_chip_J=AMOUNTS,
)


@given(st.lists(ROWS, max_size=4))
def test_any_rows_give_finite_sentences(rows: list[Row]) -> None:
    for sentence in conclusions(rows):
        assert sentence.endswith(".")
        assert "nan" not in sentence.split()
        assert "None" not in sentence
