"""Devices: processors by operations per watt, tables of prices, and the matrix of what runs where at which cost."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_targets.bill import EVENTS, OPERATIONS, PART_OF, WORDS, Bill
from hardware_targets.devices import devices, price_on_devices, processors
from hardware_targets.measurements import published_mnist
from hardware_targets.price import load_table, price
from hardware_targets.processor import FLOPS, Processor
from neuro.counts import Counts, Tally
from neuro.errors import MissingPrice, ParameterError

LENET = 266_200
"""Multiply-accumulates of 784-300-100-10."""


def counts(precision: str = "float32", samples: int = 1, steps: int = 1, **tally: int) -> Counts:
    return Counts(samples, steps, {"layer": Tally(**tally)}, precision)


def user_table(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "precision", "joules"),
    [("green500", "float32", 8.2e-6), ("a100", "float32", 10.9e-6), ("a100", "int8", 0.341e-6)],
)
def test_known_answers_at_the_peak(name: str, precision: str, joules: float) -> None:
    """J = 2 MACs / (FLOPS per watt): 65 GFLOPS/W, 19.5 TFLOPS at 400 W, 624 TOPS at 400 W."""
    bill = price(counts(precision, macs=LENET), name)
    assert bill.per_sample == pytest.approx(joules, rel=2e-3 if name != "green500" else 2e-2)


def test_one_percent_of_utilisation_is_a_hundred_times_the_energy() -> None:
    bill = price(counts(macs=LENET), "a100")
    low, high = bill.range
    assert low == bill.per_sample
    assert high == pytest.approx(100 * low)


def test_spikes_on_a_processor_lie_between_events_and_every_synapse_at_every_step() -> None:
    done = counts(samples=2, steps=16, accumulates=1000)
    bill = price(done, "a100", stored_words=5000)
    operation = 1 / 48.75e9
    assert bill.range == pytest.approx((500 * 2 * operation, 16 * 5000 * 2 * operation * 100))
    assert bill.per_sample == pytest.approx(bill.range[0])
    assert price(done, "a100").range[1] == pytest.approx(100 * bill.range[0])
    busy = counts(samples=1, steps=4, accumulates=10**6)
    assert price(busy, "arm", stored_words=10).range == pytest.approx((10**6 * 0.9009e-9,) * 2, rel=1e-3)


def test_every_count_is_an_operation_a_word_an_event_or_a_part() -> None:
    """A new count must be priced, not forgotten: whatever is not named is an operation."""
    names = [item.name for item in fields(Tally)]
    assert sorted((*OPERATIONS, *WORDS, *EVENTS, *PART_OF)) == sorted(names)
    assert set(FLOPS) <= set(OPERATIONS)


def test_the_matrix_says_why_a_device_cannot_be_asked() -> None:
    dense = price_on_devices(counts(macs=LENET), LENET)
    assert tuple(dense) == devices()
    assert {"loihi1", "loihi2", "truenorth", "spinnaker2", "brainscales2", "a100"} <= set(dense)
    for name in ("loihi1", "loihi2", "truenorth", "spinnaker2", "brainscales2"):
        assert str(dense[name]).endswith("has no price for macs")
    assert "float32" in str(dense["tpu1"])
    assert all(isinstance(dense[name], Bill) for name in ("a100", "h100", "xeon", "arm"))
    assert isinstance(price_on_devices(counts("int8", macs=LENET), LENET)["tpu1"], Bill)
    spiking = price_on_devices(counts(steps=10, accumulates=10**5, updates=4000, updates_active=9), LENET)
    for name in ("loihi1", "loihi2", "truenorth", "spinnaker2", "brainscales2", "a100", "arm"):
        assert isinstance(spiking[name], Bill), spiking[name]
    assert isinstance(spiking["tpu1"], str)


def test_the_matrix_can_be_narrowed_and_does_not_hide_wrong_use() -> None:
    assert list(price_on_devices(counts(macs=1), 1, ["arm"])) == ["arm"]
    with pytest.raises(ParameterError, match="no energy table 'abacus'"):
        price_on_devices(counts(macs=1), 1, ["abacus"])
    with pytest.raises(ParameterError, match="0 samples"):
        price_on_devices(Counts(0, 1, {}), 1)


tallies = st.fixed_dictionaries({name: st.integers(0, 10**9) for name in ("accumulates", "updates", "spikes")})


@given(tallies, st.integers(1, 50), st.integers(0, 10**6), st.sampled_from(["float32", "int8", "loihi1"]))
def test_bills_lie_in_their_range_and_grow_with_the_counts(
    tally: dict[str, int], steps: int, stored: int, precision: str
) -> None:
    one = counts(precision, steps=steps, **tally)
    for name, bill in price_on_devices(one, stored).items():
        if isinstance(bill, str):
            continue
        low, high = bill.range
        assert low <= bill.per_sample * (1 + 1e-12)
        assert bill.per_sample <= high * (1 + 1e-12)
        twice = price(one + one, name, stored_words=stored)
        assert twice.total == pytest.approx(2 * bill.total)
        assert twice.range == pytest.approx(bill.range)
        assert sum(bill.range_of(cause)[1] for cause in bill.joules) == pytest.approx(high)


def test_devices_by_hand() -> None:
    done = counts(samples=2, steps=10, accumulates=1000, updates=300, updates_active=20, state_words=7)
    spinnaker, analogue = price(done, "spinnaker2"), price(done, "brainscales2")
    assert spinnaker.per_sample == pytest.approx((1000 * 450e-12 + 300 * 2.19e-9) / 2)
    assert analogue.per_sample == pytest.approx(500 * 128e-12)
    # the price per event is that of one image of the published network
    image = price(counts(accumulates=256 * 246 + 246 * 10), "brainscales2")
    assert (image.range[1], image.range[0]) == pytest.approx((8.4e-6, 0.2 / 85_000), rel=5e-3)
    assert analogue.status == "assumed"
    with pytest.raises(MissingPrice, match="'spinnaker2' has no price for hops, and 3"):
        price(counts(hops=3), "spinnaker2")


@pytest.mark.parametrize("name", ["loihi1", "truenorth", "spinnaker2", "brainscales2"])
def test_arithmetic_without_events_is_not_free(name: str) -> None:
    """A hyperdimensional network adds and compares, but nothing spikes: a chip that prices events has no price."""
    with pytest.raises(MissingPrice, match=f"'{name}' prices additions only inside .*; 7,840,000 were counted"):
        price(counts(additions=7_840_000, comparisons=10), name)
    assert price(counts(), name).total == 0


MINE = """
kind = "device"
title = "Mine"
included = ["additions"]
assumptions = ["All is well."]
tick = { value = 2, unit = "us", source = "me", status = "assumed" }
[prices]
accumulates = { value = 3, unit = "pJ", source = "me", status = "measured", range = [2, 5] }
[prices.macs]
laser = { value = 1, unit = "pJ", source = "me", status = "measured" }
detector = { value = 100, unit = "fJ", source = "me", status = "assumed", range = [100, 400] }
[parts]
optical = ["macs: laser"]
"""


def test_a_users_device(tmp_path: Path) -> None:
    path = user_table(tmp_path, MINE)
    bill = price(counts(samples=2, steps=5, macs=10, accumulates=4, additions=9, effective_macs=3), path)
    assert bill.joules == pytest.approx({"accumulates": 12e-12, "macs: laser": 10e-12, "macs: detector": 1e-12})
    assert bill.range == pytest.approx(((8 + 10 + 1) / 2 * 1e-12, (20 + 10 + 4) / 2 * 1e-12))
    assert bill.part("optical") == pytest.approx(5e-12)
    assert bill.seconds == pytest.approx(10e-6)
    assert bill.status == "assumed"
    shown = {row[0]: row[2] for row in bill.rows()}
    assert shown["total"] == "11.5 pJ (9.50 pJ to 17.0 pJ)"
    assert shown["of it optical"] == "5.00 pJ"
    assert shown["macs: laser"] == "5.00 pJ"
    assert "fJ (100 to 400)" in str(load_table(path))
    with pytest.raises(MissingPrice, match="'mine' has no price for spikes, and 1"):
        price(counts(spikes=1), path)
    with pytest.raises(ParameterError, match="no part 'dark'; it has optical"):
        bill.part("dark")


@pytest.mark.parametrize(
    ("find", "put", "names"),
    [
        ("accumulates = {", "acumulates = {", "nothing is counted as 'acumulates'"),
        ('included = ["additions"]', 'included = ["adds"]', "nothing is counted as 'adds'"),
        ('included = ["additions"]', 'included = ["macs"]', "macs has a price and is included"),
        ('included = ["additions"]', "included = 3", "included must be a list of texts"),
        ("value = 3,", "value = -3,", r"range must hold the value -3"),
        ("value = 1,", "value = -1,", r"prices.macs: laser: a price must be >= 0 J"),
        ('value = 100, unit = "fJ"', 'value = 100, unit = "ns"', "prices.macs: detector: .* is not in J"),
        ("range = [2, 5]", "range = [4, 5]", "low <= value <= high"),
        ("range = [2, 5]", "range = [2]", r"range must be \[low, high\]"),
        ("range = [2, 5]", "range = [2, nan]", "low <= value <= high"),
        ("range = [2, 5]", 'range = [2, "5"]', "two numbers"),
        ('["macs: laser"]', '["macs: lamp"]', "part 'optical' names 'macs: lamp'"),
        ('title = "Mine"', "colour = 1", "unknown key 'colour'"),
        ('kind = "device"', 'kind = "toy"', "kind must be one of operations, memory, processor, device"),
    ],
)
def test_bad_tables_are_refused_with_the_key(tmp_path: Path, find: str, put: str, names: str) -> None:
    assert find in MINE
    with pytest.raises(ParameterError, match=names) as caught:
        price(counts(), user_table(tmp_path, MINE.replace(find, put, 1)))
    assert "\n" not in str(caught.value)


PROCESSOR = """
kind = "processor"
utilisation = { value = 0.5, unit = "", source = "me", status = "assumed", range = [0.25, 1] }
[flops_per_watt]
float32 = { value = 100, unit = "GFLOPS/W", source = "me", status = "quoted", range = [50, 200] }
"""


def test_a_users_processor(tmp_path: Path) -> None:
    bill = price(counts(macs=10**9), user_table(tmp_path, PROCESSOR))
    assert bill.total == pytest.approx(2 / 50)
    assert bill.range == pytest.approx((2 / 200, 2 / 12.5))
    assert bill.status == "assumed"


@pytest.mark.parametrize(
    ("find", "put", "names"),
    [
        ("value = 0.5", "value = 1.5", "range must hold"),
        ("range = [0.25, 1]", "range = [0, 1]", r"utilisation must lie in \(0, 1\]"),
        ("value = 100", "value = 0", "range must hold"),
        ("range = [50, 200]", "range = [-50, 200]", "must be > 0"),
        ("utilisation = {", "use = {", "unknown key 'use'"),
        ("GFLOPS/W", "GFLOPS", "not in FLOPS/W"),
    ],
)
def test_bad_processors_are_refused(tmp_path: Path, find: str, put: str, names: str) -> None:
    with pytest.raises(ParameterError, match=names):
        price(counts(), user_table(tmp_path, PROCESSOR.replace(find, put, 1)))
    with pytest.raises(ParameterError, match="utilisation is missing"):
        price(counts(), user_table(tmp_path, 'kind = "processor"\n'))


@pytest.mark.parametrize("name", processors())
def test_shipped_processors_state_their_peak_as_a_lower_bound(name: str) -> None:
    known = load_table(name)
    assert isinstance(known, Processor)
    assert known.utilisation.value == 1
    for precision in known.flops_per_watt:
        cheapest = price(counts(precision, macs=1), name)
        assert cheapest.range[0] <= cheapest.total
    assert known.title in known._repr_html_()


def test_published_energies_of_an_image_beside_a_bill() -> None:
    bill = price(counts(accumulates=1000), "truenorth")
    rows = {row[0]: row for row in published_mnist({"this network": bill}).rows()}
    assert rows["BrainScaleS-2, first spikes"][1:3] == ("8.40 µJ", "96.90 %")
    assert rows["this network"][1] == "26.0 nJ (21.7 nJ to 26.0 nJ)"
    assert rows["this network"][3] == "model, recalled"
