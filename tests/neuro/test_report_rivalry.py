"""Rows beside their controls: each pair is said one way with its numbers, the other way with them exchanged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from neuro.errors import ParameterError
from neuro.report import Provenance, Row, Speed, conclusions, themes
from neuro.report.rivalry import bits


def said(*rows: Row) -> str:
    return "\n".join(conclusions(rows))


A, B = "energy_operations_J", "energy_memory_J"
SURE = {"accuracy_sd": 0.0005, "seeds": 5}


def exchanged(one: Row, other: Row, *columns: str) -> tuple[Row, Row]:
    """The two rows, each with the numbers of the other in `columns`."""
    return (
        replace(one, **{column: getattr(other, column) for column in columns}),
        replace(other, **{column: getattr(one, column) for column in columns}),
    )


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("dense int8", "'dense int8'"),
        ("quantised, 4 bits", "'quantised, 4 bits' of as many bits as their steps need (4)"),
        ("small dense", "'small dense'"),
        ("logistic regression", "'logistic regression'"),
    ],
)
@pytest.mark.parametrize(("column", "title"), [(A, "A (operations)"), (B, "B (operations and memory)")])
def test_spiking_beside_each_control_under_each_model(name: str, what: str, column: str, title: str) -> None:
    control = Row(name, 0.95, family="dense", macs=1000, **{column: 4e-9})  # type: ignore[arg-type]
    spiking = Row("spiking T=15", 0.97, spikes=9, family="spiking", **{column: 1e-9})  # type: ignore[arg-type]
    start = f"Spiking against {what} under {title}, in multiples of its energy: "
    assert f"{start}wins: 'spiking T=15' 0.25." in said(control, spiking)
    worse = exchanged(control, spiking, "accuracy")
    assert f"{start}none wins; cheaper but less accurate: 'spiking T=15' 0.25." in said(*worse)
    dearer = exchanged(control, spiking, column)
    assert f"{start}none wins; loses: 'spiking T=15' 4." in said(*dearer)


def test_what_spiking_networks_beat_is_said_first() -> None:
    prices = {"dense int8": 2e-9, "small dense": 4e-9, "logistic regression": 1e-10}
    controls = [Row(name, 0.95, family="dense", energy_operations_J=joules) for name, joules in prices.items()]
    spiking = Row("spiking T=15", 0.97, spikes=9, energy_operations_J=3e-9)
    first, *_ = themes([*controls, spiking])["Spiking networks"]
    assert first == (
        "Under A (operations) a spiking network needs less at no less accuracy than 'small dense'; none does against "
        "'dense int8' and 'logistic regression'."
    )
    none = "Under A (operations) no spiking network needs less at no less accuracy than 'dense int8', 'small dense' and"
    assert themes([*controls, replace(spiking, accuracy=0.9)])["Spiking networks"][0].startswith(none)
    assert themes([*controls, replace(spiking, energy_operations_J=1e-8)])["Spiking networks"][0].startswith(none)
    best, *_ = themes([*controls, replace(spiking, energy_operations_J=1e-11)])["Spiking networks"]
    assert best.endswith("than 'dense int8', 'small dense' and 'logistic regression'.")


def test_controls_are_beaten_undecided_lost_or_alone() -> None:
    prices = {"dense int8": 2e-9, "small dense": 4e-9, "logistic regression": 1e-10, "convolutional int8": 1e-8}
    controls = [Row(name, 0.95, family="dense", energy_operations_J=joules) for name, joules in prices.items()]
    spiking = Row("spiking T=15", 0.97, spikes=9, energy_operations_J=3e-9, energy_operations_J_range=(1e-9, 3e-9))
    first, *_ = themes([*controls, spiking])["Spiking networks"]
    assert first == (
        "Under A (operations) a spiking network needs less at no less accuracy than 'small dense'; undecided within "
        "the ranges of prices against 'dense int8'; none does against 'logistic regression'; without a spiking "
        "network to compare with: 'convolutional int8'."
    )
    (only, *_) = themes([controls[0], controls[3], spiking])["Spiking networks"]
    assert only == (
        "Under A (operations) it is undecided within the ranges of prices against 'dense int8'; "
        "without a spiking network to compare with: 'convolutional int8'."
    )


def test_a_chip_is_compared_within_its_own_table_alone() -> None:
    here, there = Provenance("modelled", "one chip"), Provenance("modelled", "another")
    control = Row("dense int8", 0.9, macs=10, energy_chip_J=2e-9, provenance={"energy_chip_J": here})
    spiking = Row("spiking", 0.9, spikes=9, energy_chip_J=1e-9, provenance={"energy_chip_J": here})
    assert "under C (constants of a device), in multiples of its energy: wins: 'spiking' 0.5." in said(control, spiking)
    other = replace(spiking, provenance={"energy_chip_J": there})
    assert "Spiking against" not in said(control, other)
    assert "several devices, whose boundaries differ" in said(control, other)
    assert "several devices" not in said(control, spiking)


def test_bits_are_those_of_the_steps() -> None:
    control = Row("quantised", 0.9, energy_operations_J=1e-9, notes=("Weights of 8 bits, activations of 4, trained.",))
    assert bits(control) == 4
    rows = [Row(f"spiking T={t}", 0.9, spikes=1, energy_operations_J=2e-9) for t in (7, 8, 15, 16)]
    text = said(control, *rows)
    assert "none wins; loses: 'spiking T=8' 2 and 'spiking T=15' 2." in text
    assert "No quantised control has the bits of 'spiking T=7' (3) and 'spiking T=16' (5)." in text


RANDOM = Row("static random mask ERK", 0.95, family="sparse", macs=100, **SURE)  # type: ignore[arg-type]
RIGL = Row("RigL ERK", 0.97, family="sparse", macs=100, **SURE)  # type: ignore[arg-type]
SMALL = Row("small dense", 0.96, family="dense", macs=105, **SURE)  # type: ignore[arg-type]


def test_sparse_training_beside_a_random_mask_and_a_small_network() -> None:
    text = said(SMALL, RANDOM, RIGL)
    mask, small = "beside 'static random mask ERK' (", "beside 'small dense' (96.00 %, 105 MACs): "
    assert f"Sparse networks {mask}95.00 %, 100 MACs): better: 'RigL ERK' (+2.00 points)." in text
    assert f"Sparse networks {small}better: 'RigL ERK' (+1.00 points)." in text
    assert f"Random masks {small}none is better; worse: 'static random mask ERK' (-1.00 points)." in text
    turned = said(SMALL, *exchanged(RANDOM, RIGL, "accuracy"))
    assert f"Sparse networks {mask}97.00 %, 100 MACs): none is better; worse: 'RigL ERK' (-2.00 points)." in turned
    assert f"Sparse networks {small}none is better; worse: 'RigL ERK' (-1.00 points)." in turned
    assert f"Random masks {small}better: 'static random mask ERK' (+1.00 points)." in turned


@pytest.mark.parametrize(
    ("macs", "accuracy", "verdict"),
    [
        (50, 0.97, "better: 'RigL ERK' (+2.00 points, 0.5 times the MACs)"),
        (50, 0.95, "within noise, with fewer MACs: 'RigL ERK' (+0.00 points, 0.5 times the MACs)"),
        (100, 0.95, "within noise: 'RigL ERK' (+0.00 points)"),
        (200, 0.95, "within noise, with more MACs: 'RigL ERK' (+0.00 points, 2 times the MACs)"),
        (200, 0.93, "worse: 'RigL ERK' (-2.00 points, 2 times the MACs)"),
        (200, 0.97, "a trade, more of both or less of both: 'RigL ERK' (+2.00 points, 2 times the MACs)"),
        (50, 0.93, "a trade, more of both or less of both: 'RigL ERK' (-2.00 points, 0.5 times the MACs)"),
    ],
)
def test_accuracy_is_weighed_with_the_operations_it_takes(macs: int, accuracy: float, verdict: str) -> None:
    text = said(RANDOM, replace(RIGL, macs=macs, accuracy=accuracy))
    good = verdict.startswith(("better", "within noise, with fewer"))
    assert f"(95.00 %, 100 MACs): {'' if good else 'none is better; '}{verdict}." in text


def test_a_difference_within_two_standard_errors_is_noise() -> None:
    noisy = [replace(row, accuracy_sd=0.02, seeds=5) for row in (RANDOM, RIGL)]
    text = said(*noisy)
    assert "(95.00 %, 100 MACs): none is better; within noise: 'RigL ERK' (+2.00 points)." in text
    assert "Most accurate: 'RigL ERK' with 97.00 %; within noise of it: 'static random mask ERK'." in text
    many = said(*(replace(row, seeds=500) for row in noisy))
    assert "better: 'RigL ERK' (+2.00 points)" in many
    assert "Means over 500 seeds; a difference counts where it exceeds two standard errors." in many
    assert "One seed for every row" in said(*(replace(row, seeds=1) for row in noisy))


def test_experts_beside_random_routing_and_the_dense_network() -> None:
    dense = Row("dense fp32", 0.90, family="dense", macs=1000, **SURE)  # type: ignore[arg-type]
    skipped = Row("dense fp32, zeros skipped", 0.90, family="dense", macs=1000, **SURE)  # type: ignore[arg-type]
    random = Row("experts, random routing", 0.88, family="experts", macs=990, **SURE)  # type: ignore[arg-type]
    switch = Row("experts, Switch", 0.92, family="experts", macs=980, **SURE)  # type: ignore[arg-type]
    text = said(dense, skipped, random, switch)
    routed, active = "Experts beside 'experts, random routing' (", "Experts beside 'dense fp32' ("
    assert f"{routed}88.00 %, 990 MACs): better: 'experts, Switch' (+4.00 points)." in text
    assert f"{active}90.00 %, 1.00 k MACs): better: 'experts, Switch' (+2.00 points)." in text
    assert "Experts beside 'dense fp32, zeros skipped'" not in text
    turned = said(dense, *exchanged(random, switch, "accuracy"))
    assert f"{routed}92.00 %, 990 MACs): none is better; worse: 'experts, Switch' (-4.00 points)." in turned
    assert f"{active}90.00 %, 1.00 k MACs): none is better; worse: 'experts, Switch' (-2.00 points)." in turned
    assert "(+2.00 points, 0.5 times the MACs)" in said(dense, replace(switch, macs=500))


def test_convolutional_networks_are_compared_with_their_like() -> None:
    rows = [Row(name, 0.9, energy_operations_J=2e-9) for name in ("dense int8", "convolutional int8")]
    rows += [Row(name, 0.9, spikes=1, energy_operations_J=1e-9) for name in ("spiking", "convolutional spiking")]
    text = said(*rows)
    multiples = "under A (operations), in multiples of its energy: wins:"
    assert f"against 'dense int8' {multiples} 'spiking' 0.5." in text
    assert f"against 'convolutional int8' {multiples} 'convolutional spiking' 0.5." in text


def test_quantum_and_hyperdimensional_beside_their_controls() -> None:
    circuit = Row("circuit", 0.8, family="quantum", **SURE)  # type: ignore[arg-type]
    control = Row("quantum, classical control", 0.9, family="dense", **SURE)  # type: ignore[arg-type]
    assert "(90.00 %): none is more accurate; less accurate: 'circuit' by 10.00 points." in said(circuit, control)
    assert "(80.00 %): more accurate: 'circuit' by 10.00 points." in said(*exchanged(circuit, control, "accuracy"))
    vectors = Row("OnlineHD", 0.95, family="hyperdimensional", **SURE)  # type: ignore[arg-type]
    linear = Row("logistic regression", 0.92, family="dense", **SURE)  # type: ignore[arg-type]
    assert "'logistic regression' (92.00 %): more accurate: 'OnlineHD' by 3.00" in said(vectors, linear)
    turned = said(*exchanged(vectors, linear, "accuracy"))
    assert "'logistic regression' (95.00 %): none is more accurate; less accurate: 'OnlineHD'" in turned


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [
        (1e-3, "faster, but by less: 'RigL ERK' 5 times (5 % of the weights suggest 20); density is not speed."),
        (1e-2, "no faster: 'RigL ERK' 0.5 times (5 % of the weights suggest 20); density is not speed."),
        (1e-4, "as fast as zeros suggest: 'RigL ERK' 50 times (5 % of the weights suggest 20)."),
    ],
)
def test_density_is_not_speed(seconds: float, verdict: str) -> None:
    (text,) = themes([RIGL], speeds=[Speed("RigL ERK", 0.05, seconds, 5e-3, "CSR, batch 1")])["Sparse networks"]
    assert text == f"Speed beside dense computing, measured (CSR, batch 1): {verdict}"
    with pytest.raises(ParameterError, match="density"):
        Speed("x", 0.0, 1.0, 1.0, "y")
