"""Sentences follow from the numbers: turn the numbers and the sentences turn."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from neuro.report import Provenance, Row, conclusions
from neuro.report.sheet import significant
from neuro.report.verdicts import cheapest, energy, gap, reference, standard_error

DENSE = Row("dense", 0.98, macs=1000, energy_operations_J=4e-9, energy_memory_J=9e-9, latency_ticks=1)
INT8 = replace(DENSE, model="dense int8", accuracy=0.975, energy_operations_J=2e-10, energy_memory_J=3e-9)
SPIKING = Row(
    "spiking", 0.97, accumulates=500, spikes=40, energy_operations_J=1e-9, energy_memory_J=1e-9, latency_ticks=18
)


def said(*rows: Row) -> str:
    return "\n".join(conclusions(rows))


def test_unfavourable_numbers_are_said() -> None:
    text = said(DENSE, INT8, SPIKING)
    assert (
        "Least energy under A (operations) within one point of 'dense': 'dense int8' with 200 pJ per inference, "
        "0.05 times that of 'dense'." in text
    )
    assert "under B (operations and memory) within one point of 'dense': 'spiking' with 1.00 nJ" in text
    assert "depends on the energy model: 'dense int8' under A, 'spiking' once memory" in text
    assert (
        "against 'dense int8' under A (operations), in multiples of its energy: none wins; loses: 'spiking' 5." in text
    )
    assert (
        "against 'dense int8' under B (operations and memory), in multiples of its energy: none wins; "
        "cheaper but less accurate: 'spiking' 0.333." in text
    )
    assert "Spikes per synapse and inference (accumulates for each MAC of 'dense'): 'spiking' 0.5." in text
    assert "behind the best: 'spiking' by 1.00 points" in text
    assert "energy A (operations): 'dense int8' and 'dense'; no spiking network is on it" in text
    assert "'spiking' after 18 ticks" in text


def test_the_other_numbers_give_the_other_sentences() -> None:
    text = said(DENSE, INT8, replace(SPIKING, energy_operations_J=1e-10, accuracy=0.99, accumulates=50))
    assert "Least energy under A (operations) within one point of 'dense': 'spiking'" in text
    assert "in multiples of its energy: wins: 'spiking' 0.5." in text
    assert "loses" not in text
    assert "no spiking network" not in text
    assert "MAC of 'dense'): 'spiking' 0.05." in text
    assert "depends on the energy model" not in text


def test_a_tie_has_no_single_winner() -> None:
    text = said(INT8, replace(SPIKING, energy_operations_J=2e-10))
    assert "'dense int8' and 'spiking' with 200 pJ per inference." in text
    assert "a draw: 'spiking' 1." in text


def test_missing_prices_and_unconfirmed_numbers_are_said() -> None:
    guess = Provenance("assumed", "a guess")
    text = said(DENSE, INT8, replace(SPIKING, energy_memory_J=None, provenance={"macs": guess, "accuracy": guess}))
    assert "Without a price under B (operations and memory): 'spiking'" in text
    assert "accuracy % of 'spiking' (assumed: a guess)" in text
    assert "MACs" not in text.split("Unconfirmed")[1], "a column without a number is not in doubt"


def test_active_and_stored_parameters() -> None:
    assert "'dense' 412 k for 57.2 k" in said(replace(DENSE, parameters_stored=412_400, parameters_active=57_200))
    assert "stored" not in said(replace(DENSE, parameters_stored=100, parameters_active=90))


A, B = "energy_operations_J", "energy_memory_J"


def exchanged(one: Row, other: Row, *columns: str) -> tuple[Row, Row]:
    """The two rows, each with the numbers of the other in `columns`."""
    return (
        replace(one, **{column: getattr(other, column) for column in columns}),
        replace(other, **{column: getattr(one, column) for column in columns}),
    )


def test_ranges_that_overlap_are_undecided() -> None:
    spiking = replace(SPIKING, energy_operations_J_range=(1e-10, 2e-9))
    text = said(DENSE, INT8, spiking)
    assert "0.05 times that of 'dense', undecided within the ranges of prices against 'spiking'." in text
    assert "undecided within the ranges of prices: 'spiking' 5." in text
    apart = said(DENSE, INT8, replace(SPIKING, energy_operations_J_range=(9e-10, 2e-9)))
    assert "undecided" not in apart
    assert "loses: 'spiking' 5." in apart


def test_the_best_of_each_family_is_cheap_and_about_as_accurate() -> None:
    dense = Row("dense", 0.98, family="dense", macs=10, energy_operations_J=4e-9)
    one, two = (Row(n, 0.975, family="sparse", energy_operations_J=e) for n, e in (("one", 1e-9), ("two", 2e-9)))
    far = Row("far", 0.90, family="hyperdimensional", energy_operations_J=1e-12)
    text = said(dense, one, two, far)
    best = "Best of each family under A (operations), within one point of 'dense': "
    assert f"{best}dense 'dense' 4.00 nJ; sparse 'one' 1.00 nJ." in text
    assert "none so accurate, by their best: hyperdimensional 'far' (8.00 points below)." in text
    assert f"{best}dense 'dense' 4.00 nJ; sparse 'two' 1.00 nJ" in said(dense, *exchanged(one, two, A), far)
    assert f"{best}dense 'dense' 4.00 nJ; sparse 'two' 2.00 nJ" in said(dense, replace(one, accuracy=0.96), two, far)
    assert "hyperdimensional 'far' 1.00 pJ" in said(dense, one, two, replace(far, accuracy=0.98))


def test_winners_at_equal_storage() -> None:
    dense = Row("dense", 0.98, family="dense", macs=10, parameters_stored=1000, energy_operations_J=4e-9)
    wide = Row("wide", 0.985, family="sparse", parameters_stored=950, energy_operations_J=1e-9)
    spiking = Row("spiking", 0.97, family="spiking", spikes=4, parameters_stored=1000, energy_operations_J=2e-9)
    far = Row("far", 0.99, parameters_stored=5000)
    text = "\n".join(conclusions([dense], at_equal_parameters=[dense, wide, spiking, far]))
    start = "Storing as much as 'dense' (1.00 k parameters, within a tenth): most accurate "
    assert f"{start}'wide' (98.50 %); the best spiking network, 'spiking', is 1.50 points below." in text
    assert "within a tenth), least energy under A (operations): 'wide' with 1.00 nJ" in text
    assert "Not built to that size within a tenth: 'far'." in text
    turned = "\n".join(conclusions([dense, *exchanged(wide, spiking, "accuracy", A)]))
    assert f"{start}'dense' (98.00 %)" not in turned
    assert f"{start}'spiking' (98.50 %)." in turned
    assert "within a tenth), least energy under A (operations): 'spiking' with 1.00 nJ" in turned
    assert "Storing" not in said(dense, far)


def test_rows_without_a_price_say_why() -> None:
    rows = [
        Row("dense", 0.9, energy_operations_J=1e-9), Row("circuit", 0.8, family="quantum"),
        Row("mesh", 0.9, family="photonic"), Row("told", 0.9, unpriced={A: "its encoder is not counted"}),
        Row("silent", 0.9),
    ]  # fmt: skip
    assert (
        "Without a price under A (operations): 'circuit' (simulated); 'mesh' (optics have no price at 45 nm); "
        "'told' (its encoder is not counted); 'silent'." in said(*rows)
    )
    assert "Without a price" not in said(rows[0], replace(rows[4], energy_operations_J=1e-9))


POSITIVE = st.floats(1e-12, 1e-3)
SPREADS = st.none() | st.tuples(st.floats(0.1, 1), st.floats(1, 10))


@st.composite
def priced_rows(draw: st.DrawFn, name: str) -> Row:
    joules, spread = draw(POSITIVE), draw(SPREADS)
    ends = None if spread is None else (joules * spread[0], joules * spread[1])
    return Row(name, draw(st.floats(0, 1)), draw(st.floats(0, 0.1)), energy_operations_J=joules,
               energy_operations_J_range=ends, seeds=draw(st.integers(1, 9)))  # fmt: skip


@given(priced_rows("a"), priced_rows("b"))
def test_every_verdict_turns_with_the_order(one: Row, other: Row) -> None:
    turned = {"less": "more", "more": "less", "equal": "equal", "undecided": "undecided"}
    assert energy(other, one, A) == turned[energy(one, other, A) or ""]
    here, there = gap(one, other), gap(other, one)
    assert here is not None
    assert there is not None
    assert (here.ahead, here.level, here.behind) == (there.behind, there.level, there.ahead)
    assert here.ahead + here.level + here.behind == 1
    first, open_ = cheapest([one, other], A)
    assert min(one.energy_operations_J or 0, other.energy_operations_J or 0) == first[0].energy_operations_J
    assert not set(map(id, first)) & set(map(id, open_))


@given(st.permutations(["a", "b", "c"]), st.lists(POSITIVE, min_size=3, max_size=3, unique=True))
def test_the_winner_follows_the_number(models: list[str], joules: list[float]) -> None:
    assume(min(sorted(joules)[1:]) > 1.001 * min(joules))
    rows = [Row(model, 0.9, energy_operations_J=value) for model, value in zip(models, joules, strict=True)]
    best = models[joules.index(min(joules))]
    assert f"Least energy under A (operations): {best!r} with" in said(*rows)


AMOUNTS = st.none() | st.floats(0, 1)


ROWS = st.builds(
    Row,
    st.sampled_from([
        "a", "b int8", "quantised, 4 bits", "small dense", "logistic regression", "static random mask",
        "experts, random routing", "RigL", "classical control", "spiking T=15",
    ]),
    AMOUNTS,
    AMOUNTS,
    parameters_stored=st.none() | st.integers(0, 9),
    parameters_active=st.none() | st.integers(0, 9),
    macs=AMOUNTS,
    accumulates=AMOUNTS,
    spikes=AMOUNTS,
    energy_operations_J=AMOUNTS,
    energy_memory_J=AMOUNTS,
    energy_chip_J=AMOUNTS,
    family=st.sampled_from([None, "dense", "sparse", "experts", "quantum", "hyperdimensional", "photonic", "spiking"]),
    seeds=st.none() | st.integers(1, 3),
)  # fmt: skip


@given(st.lists(ROWS, max_size=6), st.lists(ROWS, max_size=3))
def test_any_rows_give_finite_sentences(rows: list[Row], equal: list[Row]) -> None:
    for sentence in conclusions(rows, at_equal_parameters=equal):
        assert sentence.endswith(".")
        assert not {"nan", "inf"} & set(sentence.split())
        assert "None" not in sentence
        assert ": ;" not in sentence
        assert ": ." not in sentence


def test_headlines_choose_among_rows_about_as_accurate_as_the_dense_one() -> None:
    useless = Row("quantum, classical control", 0.81, family="dense", macs=9, energy_operations_J=1e-12)
    dense = replace(DENSE, family="dense")
    text = said(useless, dense, INT8)
    start = "Least energy under A (operations) within one point of 'dense': 'dense int8' with 200 pJ per inference, "
    assert (
        f"{start}0.05 times that of 'dense'; cheaper but less accurate: 'quantum, classical control' (81.00 %)." in text
    )
    better = said(replace(useless, accuracy=0.98), dense, INT8)
    assert "within one point of 'dense': 'quantum, classical control' with 1.00 pJ" in better
    assert "less accurate:" not in better
    far = [Row("one", 0.5, spikes=1, energy_operations_J=1e-9), Row("two", 0.6, spikes=1, energy_operations_J=2e-9)]
    none = said(Row("dense", 0.9, macs=1, family="dense"), *far)
    assert "No row with a price under A (operations) is within one point of 'dense'." in none


def test_the_reference_is_the_plain_dense_network_whatever_the_order() -> None:
    rows = [
        Row(name, 0.9, family="dense", macs=1)
        for name in (
            "dense int8",
            "quantum, classical control",
            "small dense 25 %",
            "logistic regression",
            "dense fp32",
        )
    ]
    found = reference(rows)
    assert found is not None
    assert found.model == "dense fp32"
    alone = reference(rows[:1])
    assert alone is rows[0]


def test_one_training_has_the_binomial_error_of_its_test_samples() -> None:
    rows = [Row(name, right, samples=1000, seeds=1) for name, right in (("a", 0.97), ("b", 0.96), ("c", 0.94))]
    seen = gap(rows[0], rows[1])
    assert seen is not None
    assert seen.noise == pytest.approx(200 * (0.97 * 0.03 / 1000 + 0.96 * 0.04 / 1000) ** 0.5)
    assert seen.level
    text = said(*rows)
    assert "Most accurate: 'a' with 97.00 %; within noise of it: 'b'." in text
    assert (
        "One training of every row: a difference counts where it exceeds two binomial standard errors of 1,000" in text
    )
    assert "a paired test would call fewer of them level" in text
    many = gap(*(replace(row, samples=100_000) for row in rows[:2]))
    assert many is not None
    assert many.ahead
    several = replace(rows[0], seeds=4, accuracy_sd=0.002)
    assert standard_error(several) == pytest.approx(0.001), "the spread over seeds is known, and stands"
    mixed = said(several, rows[1])
    assert "Means over 4 seeds (1 of 2 rows)" in mixed
    assert "One training of 'b'" in mixed


LONG = st.integers(2, 40)


@given(LONG, LONG)
def test_sentences_are_short_however_many_rows_there_are(dense: int, spiking: int) -> None:
    rows = [Row("dense fp32", 0.97, family="dense", macs=10**6, energy_operations_J=1e-6, energy_memory_J=1e-4,
                samples=1000, parameters_stored=10**5)]  # fmt: skip
    rows += [
        Row(f"a sparse network of a long name {i} %", 0.9 + i / 1000, family="sparse", macs=10**4 * (i + 1),
            parameters_stored=10**5 * (1 + i % 3), parameters_active=10**4, energy_operations_J=1e-8 * (i + 1),
            energy_memory_J=1e-6 * (i + 1), samples=1000)
        for i in range(dense)
    ]  # fmt: skip
    rows += [Row(f"dense int8, kind {i}", 0.96, family="dense", macs=10, energy_operations_J=1e-8) for i in range(3)]
    rows += [
        Row(f"spiking, a rate code of a long name T={i}", 0.9 + i / 500, family="spiking", spikes=i, accumulates=10 * i,
            energy_operations_J=3e-9 * (i + 1), energy_memory_J=2e-6 * (i + 1), latency_ticks=i + 3, samples=1000)
        for i in range(spiking)
    ]  # fmt: skip
    for sentence in conclusions(rows):
        assert len(sentence) <= 360, sentence
        assert not re.search(r"\de[+-]\d", sentence), sentence


def test_numbers_have_no_exponents() -> None:
    assert [significant(value) for value in (0, 1, 17.04, 5840.0, 999_960, 2.56e7, 0.2149, 5.76e-5)] == [
        "0", "1", "17", "5,840", "1.00 M", "25.6 M", "0.215", "0.0000576",
    ]  # fmt: skip
