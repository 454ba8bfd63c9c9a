"""Lines of a comparison as rows and sections: shared prices, test samples, light, published figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from neuro.baselines.rival import Plan
from neuro.cli.bill_page import bill_sections
from neuro.cli.cells import ENTRIES, Measured
from neuro.cli.comparison import Priced, priced
from neuro.cli.protocol import Line
from neuro.counts import Counts, Tally
from neuro.report import Section
from neuro.report.sheet import NOTHING
from neuro.report.verdicts import energy

DENSE = Tally(macs=26_000_000, effective_macs=5_000_000, weight_words=26_000_000, activation_words=100_000)
SPIKES = Tally(accumulates=40_000_000, weight_words=40_000_000, state_words=80_000_000, spikes=90_000)
NEURONS = Tally(updates=400_000, additions=400_000, comparisons=400_000, state_words=800_000)
EVENTS = Tally(accumulates=40_000_000, spikes=90_000, updates=400_000, updates_active=90_000, packets=90_000)


def line(row: str, accuracy: float, precision: str, **nodes: Tally) -> Priced:
    spiking = any(tally.spikes for tally in nodes.values())
    one = Measured(accuracy, Counts(100, 4 if spiking else 1, nodes, precision), 266_000, 266_000, spiking)
    return priced(Line(row, ENTRIES[row].title, Plan(), (one,), (one,)))


@pytest.fixture(scope="module")
def table() -> list[Priced]:
    return [
        line("dense", 0.97, "float32", a=DENSE),
        line("int8", 0.965, "int8", a=DENSE),
        line("rate", 0.96, "int8", a=SPIKES, b=NEURONS),
        line("optical-spiking", 0.96, "int8", a=SPIKES, b=NEURONS),
        line("chip", 0.958, "loihi", a=EVENTS),
    ]


def test_rows_know_their_test_samples_and_what_each_constant_costs(table: list[Priced]) -> None:
    for one in table:
        assert one.row.samples == 100
        assert one.row.shares
        for column, shares in one.row.shares.items():
            low, high = one.row.range_of(column) or (0.0, 0.0)
            assert sum(ends[0] for ends in shares.values()) == pytest.approx(low)
            assert sum(ends[1] for ends in shares.values()) == pytest.approx(high)
    dense, int8 = (one.row for one in table[:2])
    assert energy(int8, dense, "energy_operations_J") == "less"
    assert all(name.startswith("45nm: ") for name in int8.shares["energy_operations_J"])


def test_light_has_no_price_at_45_nm(table: list[Priced]) -> None:
    rate, light = table[2], table[3]
    assert set(rate.bills) == {"A", "B"}
    assert set(light.bills) == {"C"}
    assert light.row.energy_operations_J is light.row.energy_memory_J is None
    assert light.row.why_unpriced("energy_memory_J") == "optics have no price at 45 nm"


def section(found: list[Section], title: str) -> Section:
    return next(one for one in found if one.title == title)


def test_the_sections_on_prices(table: list[Priced]) -> None:
    found = bill_sections("mnist", table)
    published = section(found, "Published beside modelled").cells
    assert published is not None
    assert ("spiking on chip", "95.80 %") in [(line[0], line[2]) for line in published[2]]
    devices = section(found, "Every row on every device")
    assert devices.text.startswith("Model C")
    cells = devices.cells
    assert cells is not None
    for place in range(1, len(cells[1])):
        assert any(line[place] != NOTHING for line in cells[2]), cells[1][place]
    assert len(devices.numbers) == len(cells[1])
    assert all(devices.numbers[1:])
    for one in found:
        shown = [one.text, *one.details, *(cell for line in (one.cells or ("", (), (), ()))[2] for cell in line)]
        assert not any("e+" in text or "Layer" in text for text in shown), one.title


def test_synapses_are_counted_without_skipping_zeros() -> None:
    table = [
        line("int8", 0.96, "int8", a=DENSE),
        line("int8-gated", 0.96, "int8", a=replace(DENSE, macs=DENSE.effective_macs)),
        line("rate", 0.96, "int8", a=SPIKES, b=NEURONS),
    ]
    cells = section(bill_sections("mnist", table), "Break-even").cells
    assert cells is not None
    assert cells[3][0].startswith("As measured: 1.54 spikes per synapse and inference (260 k synapses)")
