"""The arithmetic of the cost of AI, and the slip in print that it corrects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_targets.cost_of_ai import (
    DAY,
    KILOWATT_HOUR,
    Computing,
    Inference,
    correction,
    joules,
    joules_per_inference,
    watts,
)
from hardware_targets.price import price
from neuro.counts import Counts, Tally
from neuro.errors import ParameterError

LENET = 266_200


def test_a_petaflops_at_65_gflops_per_watt() -> None:
    """15.4 kW, not 65 MW; a petaFLOPS-day is an energy, 369 kWh."""
    assert watts(1, 65) == pytest.approx(15.4e3, rel=2e-3)
    assert joules(1, 65) / KILOWATT_HOUR == pytest.approx(369, rel=1e-3)
    assert "15.4 kW" in correction()
    assert "65 MW" in correction()
    assert "369 kWh" in correction()


@pytest.mark.parametrize(
    ("gflops_per_watt", "expected"), [(65, 8.2e-6), (48.75, 10.9e-6), (780, 0.68e-6), (1413, 0.38e-6)]
)
def test_an_inference_of_784_300_100_10(gflops_per_watt: float, expected: float) -> None:
    """Green500's leader, A100 in FP32 and FP16, H100 in BF16."""
    assert joules_per_inference(LENET, gflops_per_watt) == pytest.approx(expected, rel=1e-2)
    assert joules_per_inference(LENET, gflops_per_watt, 0.01) == pytest.approx(100 * expected, rel=1e-2)


positive = st.floats(1e-6, 1e9)


@given(positive, positive, st.floats(0.01, 1))
def test_energy_is_power_times_time_and_inferences_add_up_to_it(amount: float, rate: float, share: float) -> None:
    assert joules(amount, rate, share) == pytest.approx(watts(amount, rate, share) * DAY)
    assert joules_per_inference(amount * 1e15 * DAY / 2, rate, share) == pytest.approx(joules(amount, rate, share))
    assert watts(amount, rate, share) * share == pytest.approx(watts(amount, rate))


def test_it_agrees_with_the_bill() -> None:
    bill = price(Counts(1, 1, {"fc": Tally(macs=LENET)}), "a100")
    assert joules_per_inference(LENET, 48.75) == pytest.approx(bill.per_sample)


def test_what_is_shown() -> None:
    both = Computing(65, 1.0, petaflops=1, petaflops_days=2)
    assert [row[2] for row in both.rows()] == ["15.4 kW", "2.66 GJ = 738.5 kWh"]
    assert Computing(65, petaflops=1).joules is None
    assert Computing(65, petaflops_days=1).watts is None
    found = Inference(LENET, gflops_per_watt=65, utilisation=0.5)
    rows = {row[0]: row for row in found.rows()}
    assert found.given == pytest.approx(2 * 8.19e-6, rel=1e-3)
    assert rows["a100"][1:5] == ("10.9 µJ", "10.9 µJ–1.09 mJ", "41.0 pJ", "assumed")
    assert rows["arm"][2] == "", "no range is stated"
    assert list(rows) == ["h100", "green500", "a100", "as given", "xeon", "arm"], "by energy"
    assert "No price on tpu1: tpu1: no flops_per_watt for precision 'float32'; it has int8." in str(found)
    assert "1 petaFLOPS-day " in str(Computing(65, petaflops_days=1))
    assert "15.4 kW" in str(found)


@pytest.mark.parametrize(
    ("rate", "share"), [(0, 1), (-1, 1), (float("nan"), 1), (65, 0), (65, 1.1), (65, float("inf"))]
)
def test_wrong_use(rate: float, share: float) -> None:
    for function in (watts, joules, joules_per_inference):
        with pytest.raises(ParameterError):
            function(1, rate, share)
    with pytest.raises(ParameterError, match="petaflops must be"):
        watts(-1, 65)
    with pytest.raises(ParameterError, match="number format 'float64'"):
        Inference(5, "float64").rows()
