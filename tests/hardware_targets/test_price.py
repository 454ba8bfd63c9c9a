"""Energy is counts times prices; a price that is missing is never zero."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardware_targets.chip import load_chip
from hardware_targets.loihi.program import Dense, Population, Program
from hardware_targets.loihi.program import Input as LoihiInput
from hardware_targets.measurements import keyword_spotting
from hardware_targets.pace import pace
from hardware_targets.place import place
from hardware_targets.price import crowded_out, price, tables
from neuro.counts import Counts, Tally
from neuro.errors import MissingPrice, ParameterError
from neuro.graph import Graph, Input
from neuro.nodes import Affine, ReLU
from neuro.simulate import simulate


def counts(precision: str = "float32", samples: int = 1, steps: int = 1, **tally: int) -> Counts:
    return Counts(samples, steps, {"layer": Tally(**tally)}, precision)


def mlp() -> Graph:
    sizes = (784, 300, 100, 10)
    nodes = {"x": Input((784,))}
    sources: dict[str, tuple[str, ...]] = {}
    last = "x"
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        nodes[f"fc{number}"] = Affine(torch.randn(outputs, inputs), torch.randn(outputs))
        sources[f"fc{number}"] = (last,)
        last = f"fc{number}"
        if number < 2:
            nodes[f"relu{number}"] = ReLU()
            sources[f"relu{number}"] = (last,)
            last = f"relu{number}"
    return Graph(nodes, sources)


def test_known_answer_dense_float32() -> None:
    bill = price(simulate(mlp(), torch.randn(3, 784)).counts, "45nm")
    assert bill.joules["macs"] / 3 == pytest.approx(266_200 * 4.6e-12) == pytest.approx(1.2245e-6, rel=1e-4)
    # what is not a MAC: 410 biases and 400 comparisons
    assert bill.per_sample - bill.joules["macs"] / 3 == pytest.approx(810 * 0.9e-12)


def test_known_answer_dense_int8() -> None:
    assert price(counts("int8", macs=266_200), "45nm").total == pytest.approx(61.2e-9, rel=1e-3)


def test_break_even_of_accumulates() -> None:
    """float32: one MAC buys 4.6 / 0.9 = 5.11 accumulates."""
    mac, accumulate = (price(counts(**{name: 1}), "45nm").total for name in ("macs", "accumulates"))
    assert mac / accumulate == pytest.approx(5.11, abs=0.01)


@pytest.mark.parametrize(
    ("stored", "level", "picojoules"),
    [(2048, "8 KB", 5), (2049, "32 KB", 10), (8192, "32 KB", 10), (8193, "1 MB", 50), (262_144, "1 MB", 50)],
)
def test_the_memory_is_the_smallest_that_holds_the_network(stored: int, level: str, picojoules: float) -> None:
    bill = price(counts(weight_words=10), "45nm-memory", stored_words=stored)
    assert bill.joules["weight_words"] == pytest.approx(10 * picojoules * 1e-12)
    assert level in bill.assumptions[-1]


def test_beyond_a_megabyte_comes_dram() -> None:
    bill = price(counts(state_words=1), "45nm-memory", stored_words=262_145)
    assert bill.total == pytest.approx(650e-12)
    assert "DRAM" in bill.provenance["state_words"].source


def test_memory_comes_on_top_of_operations() -> None:
    done = counts("int8", macs=100, weight_words=100, state_words=3)
    memory, operations = price(done, "45nm-memory", stored_words=100), price(done, "45nm")
    assert memory.total - operations.total == pytest.approx((100 * 8 + 3 * 32) / 64 * 10e-12)
    assert all("no memory" not in note for note in memory.assumptions)
    assert any("no memory" in note for note in operations.assumptions)


def test_memory_needs_to_know_the_size() -> None:
    with pytest.raises(ParameterError, match="stored_words"):
        price(counts(macs=1), "45nm-memory")


def test_a_chip_by_hand() -> None:
    done = counts("loihi1", 2, 10, accumulates=1000, spikes=20, packets=30, hops=7, updates=500, updates_active=100)
    bill = price(done, "loihi1")
    expected = {
        "synaptic_event": 1000 * 23.6,
        "update_active": 100 * 81,
        "update_inactive": 400 * 52,
        "packet": 30 * 1.7,
        "hop": 7 * 4.0,
    }
    assert {cause: joules * 1e12 for cause, joules in bill.joules.items()} == pytest.approx(expected)
    assert bill.per_sample == pytest.approx(sum(expected.values()) / 2 * 1e-12)
    assert bill.status == "recalled"
    assert bill.seconds == pytest.approx(10 * 10e-6)
    assert bill.separate["static"] == pytest.approx(0.029 * 1e-4 * 2)
    assert bill.separate["host"] is None
    nanoseconds = {
        "synaptic_event": 1000 * 3.5,
        "update_active": 100 * 8.4,
        "update_inactive": 400 * 5.3,
        "packet": 30 * 2.1,
        "hop": 7 * 6.5,
        "barrier": 2 * 10 * 465,
    }
    assert {cause: bill.time_of(cause) * 2e9 for cause in bill.work} == pytest.approx(nanoseconds)  # type: ignore[operator]
    assert bill.events["barrier"] == 20
    shown = {row[0]: row for row in bill.rows()}
    assert shown["barrier"][1:4] == ("10", "unknown", "4.65 µs")
    assert shown["synaptic_event"][1:6] == ("500", "11.8 nJ", "1.75 µs", "23.6 pJ and 3.50 ns", "modelled")
    assert shown["update_inactive"][5] == "recalled"
    assert shown["host"][2] == "unknown"
    assert shown["static"][2] == "2.90 µJ"


def test_a_tick_lasts_as_long_as_its_busiest_core() -> None:
    done = counts("loihi1", 2, 10, accumulates=1000)
    slow, fast = price(done, "loihi1", least_tick=25e-6), price(done, "loihi1", least_tick=1e-6)
    assert slow.seconds == pytest.approx(250e-6)
    assert slow.separate["static"] == pytest.approx(0.029 * 250e-6 * 2)
    assert any("busiest core" in note for note in slow.assumptions)
    assert fast.seconds == pytest.approx(100e-6)
    assert not any("busiest core" in note for note in fast.assumptions)


def test_a_bill_beside_what_was_measured() -> None:
    """The known arithmetic of keyword spotting: power over rate, and what the host takes of it."""
    bill = price(counts("loihi1", 1, 10, accumulates=1000), "loihi1")
    found = keyword_spotting(bill)
    joules = {device.name: device.joules for device in found.devices}
    expected = {"GPU": 0.0298, "CPU": 0.0063, "Jetson": 0.0056, "Movidius": 0.0015, "Loihi": 0.00027}
    assert joules == pytest.approx(expected, rel=0.03)
    rows = {row[0]: row for row in found.rows()}
    assert rows["Loihi, host taken off"][3:] == ("11.0 mW", "", "37.2 µJ", "measured, quoted")
    assert rows["CPU"][4] == "1,814"
    assert rows["this network, loihi1"][4:] == ("10,000", "23.6 nJ", "model, modelled")
    assert "another task" in found.title
    assert "Another network on other data" in found.notes[0]
    assert any("70 of Loihi's 81 mW" in note for note in found.notes)
    assert len(keyword_spotting().rows()) == len(rows) - 1


def test_the_busiest_core_sets_the_pace_by_hand() -> None:
    program = Program(
        (LoihiInput("x", 4),),
        (Population("a", 6), Population("b", 2)),
        (
            Dense(source="x", target="a", weights=np.full((6, 4), 8)),
            Dense(source="a", target="b", weights=np.full((2, 6), 8)),
        ),
    )
    chip = load_chip("loihi1")
    limits = dict(chip.limits) | {"neurons_per_core": dataclasses.replace(chip.limits["neurons_per_core"], value=6)}
    placement = place(program, dataclasses.replace(chip, limits=limits))
    rates = {"x": np.full(4, 0.5), "a": np.array([1.0, 0, 0, 0, 0, 0]), "b": np.zeros(2)}
    found = pace(program, placement, rates)
    # core of a: 2 spikes arrive and meet 6 synapses each; core of b: 1 spike, 2 synapses
    nanoseconds = [12 * 3.5 + 6 * 5.3 + 2 * 2.1, 2 * 3.5 + 2 * 5.3 + 1 * 2.1]
    assert found.cores * 1e9 == pytest.approx(nanoseconds)
    assert found.tick * 1e9 == pytest.approx(max(nanoseconds) + 465)
    assert found.balance == pytest.approx(sum(nanoseconds) / 2 / max(nanoseconds))
    assert found.status == "recalled"
    energy = {name: quantity for name, quantity in chip.energy.items() if name != "packet_time"}
    poorer = dataclasses.replace(placement, chip=dataclasses.replace(chip, energy=energy))
    with pytest.raises(MissingPrice, match=r"'loihi1' has no energy\.packet_time"):
        pace(program, poorer, rates)


def test_the_printed_error_of_27_pj_is_not_repeated() -> None:
    """23.6 pJ + 3.5 ns is no energy."""
    assert price(counts("loihi1", accumulates=1), "loihi1").total == pytest.approx(23.6e-12)


def test_loihi_2_has_no_published_energy_and_says_so() -> None:
    bill = price(counts("loihi2", accumulates=5, updates=3), "loihi2")
    assert bill.status == "assumed"
    assert bill.separate["static"] is None
    assert any("stand-in" in note for note in bill.assumptions)


def test_without_a_placement_spikes_are_packets_and_it_is_said() -> None:
    bill = price(counts("loihi1", spikes=9), "loihi1")
    assert bill.joules["packet"] == pytest.approx(9 * 1.7e-12)
    assert any("No placement" in note for note in bill.assumptions)


@pytest.mark.parametrize("name", ["macs", "exponentials"])
def test_a_missing_price_is_never_zero(name: str) -> None:
    with pytest.raises(MissingPrice, match=rf"'loihi1' has no price for {name}, and 7"):
        price(counts(**{name: 7}), "loihi1")
    assert price(counts(**{name: 0}), "loihi1").total == 0


def test_a_price_that_holds_everything_is_charged_once() -> None:
    """TrueNorth's 26 pJ are the energy of the whole chip per synaptic event."""
    bill = price(counts("truenorth", accumulates=100, updates=50, updates_active=9, packets=7, hops=3), "truenorth")
    assert dict(bill.joules) == pytest.approx({"synaptic_event": 100 * 26e-12})
    assert any("whole chip" in note for note in bill.assumptions)
    assert bill.seconds == pytest.approx(1e-3)


def test_a_users_table_with_a_hole(tmp_path: Path) -> None:
    entry = '{ value = 1, unit = "pJ", source = "me", status = "measured" }'
    path = tmp_path / "mine.toml"
    path.write_text(f'kind = "operations"\n[prices.float32]\nmacs = {entry}\n', encoding="utf-8")
    assert price(counts(macs=4), path).total == pytest.approx(4e-12)
    assert price(counts(macs=4), path).status == "measured"
    with pytest.raises(MissingPrice, match="'mine' has no price for accumulates, and 3"):
        price(counts(macs=4, accumulates=3), path)


def test_a_chip_without_a_constant() -> None:
    chip = load_chip("loihi1")
    energy = {name: quantity for name, quantity in chip.energy.items() if name != "hop"}
    poorer = dataclasses.replace(chip, energy=energy)
    assert price(counts(accumulates=1), poorer).total > 0
    with pytest.raises(MissingPrice, match=r"energy\.hop, and 2"):
        price(counts(hops=2), poorer)


def test_wrong_use() -> None:
    with pytest.raises(ParameterError, match="45nm, 45nm-memory"):
        price(counts(), "7nm")
    with pytest.raises(ParameterError, match="precision 'bfloat16'"):
        price(counts("bfloat16", macs=1), "45nm")
    with pytest.raises(ParameterError, match="0 samples"):
        price(Counts(0, 1, {}), "45nm")
    assert "45nm" in tables()


@given(
    st.dictionaries(
        st.sampled_from(["accumulates", "additions", "comparisons", "multiplications", "macs"]),
        st.integers(0, 10**9),
        max_size=5,
    ),
    st.sampled_from(["float32", "int8", "int32", "loihi2"]),
)
def test_bills_add_up(tally: dict[str, int], precision: str) -> None:
    one = counts(precision, **tally)
    assert price(one + one, "45nm").total == pytest.approx(2 * price(one, "45nm").total)
    assert price(one + one, "45nm").per_sample == pytest.approx(price(one, "45nm").per_sample)


def test_the_bill_shows_every_price_and_escapes() -> None:
    bill = price(counts("loihi1", accumulates=1), "loihi1")
    page = bill._repr_html_()
    assert "Davies 2018" in page
    assert "modelled" in page
    assert set(bill.joules) == set(bill.provenance)


def test_ranges_where_sources_differ() -> None:
    """DRAM: 1.3 to 2.6 nJ per 64 bits. int8: the accumulator has 8 or 32 bits."""
    memory = price(counts(weight_words=64), "45nm-memory", stored_words=10**6)
    assert memory.range == pytest.approx((64 * 650e-12, 64 * 1300e-12))
    assert memory.per_sample == memory.range[0]
    assert "DRAM, access of 64 bits" in {constant.name for constant in memory.constants.values()}
    bill = price(counts("int8", samples=2, macs=200, accumulates=20), "45nm")
    assert bill.range == pytest.approx((100 * 0.23e-12 + 10 * 0.03e-12, 100 * 0.3e-12 + 10 * 0.1e-12))
    assert {row[0]: row[2] for row in bill.rows()}["macs"] == "23.0 pJ (23.0 pJ to 30.0 pJ)"
    exact = price(counts(macs=5), "45nm")
    assert exact.range == (exact.per_sample, exact.per_sample)


def test_five_percent_of_the_weights_in_float32_cost_what_all_cost_in_int8() -> None:
    """784-300-100-10 with 5 % of the weights: 11,760 + 1,500 + 50 = 13,310, 61.2 nJ; dense 1.2245 uJ and 61.2 nJ."""
    weights = [784 * 300, 300 * 100, 100 * 10]
    left = [size // 20 for size in weights]
    assert (left, sum(left), sum(weights)) == ([11_760, 1_500, 50], 13_310, 266_200)
    sparse, dense = (price(counts(macs=sum(macs)), "45nm").per_sample for macs in (left, weights))
    integer = price(counts("int8", macs=sum(weights)), "45nm").per_sample
    assert (sparse, dense) == pytest.approx((61.2e-9, 1.2245e-6), rel=1e-3)
    assert sparse == pytest.approx(integer)


def test_what_light_does_has_no_price_in_an_electronic_table() -> None:
    with pytest.raises(MissingPrice, match="'45nm' has no price for optical_macs, and 7"):
        price(counts(optical_macs=7), "45nm")
    with pytest.raises(MissingPrice, match="'loihi1' has no price for optical_macs, and 7"):
        price(counts(optical_macs=7), "loihi1")


def test_a_network_just_too_large_for_a_memory_is_told() -> None:
    assert crowded_out(262_144, "float32") == ""
    assert crowded_out(262_145, "float32") == "1 MB SRAM"
    assert crowded_out(330_000, "float32") == ""
    assert crowded_out(262_145, "int8") == ""
    assert crowded_out(9_000, "int8") == "8 KB SRAM"
    with pytest.raises(ParameterError, match="no memories"):
        crowded_out(1, "float32", "45nm")
