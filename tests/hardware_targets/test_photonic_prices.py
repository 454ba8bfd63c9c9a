"""What light costs: the honest sum, alone and with all that is around it, and no price where there is none."""

from __future__ import annotations

import pytest

from hardware_targets import price
from neuro.counts import Counts, Tally
from neuro.errors import MissingPrice
from neuro.interferometers import interferometers_for, photon_energy

LAYER = 784 * 300
MESH = Counts(
    2, 1, {"mesh": Tally(optical_macs=2 * LAYER, photons=200 * LAYER, modulations=2 * 3920, detections=2 * 3900,
                         phase_symbols=2 * 2 * 266_240, additions=2 * 3900)},
)  # fmt: skip


def test_light_alone_is_little_and_the_system_is_not() -> None:
    """Facts: holding two phases of 266,240 interferometers at 10 mW for 1 ns costs 5.3 uJ."""
    assert interferometers_for(300, 784, 64) == 266_240
    bill = price(MESH, "photonic")
    part = {name: sum(bill.joules[cause] for cause in causes) / 2 for name, causes in bill.parts.items()}
    assert part["held phases"] == pytest.approx(5.3e-6, rel=0.01)
    assert part["optical"] == pytest.approx(100 * LAYER * 0.0312e-15, rel=1e-6)
    assert part["converters"] == pytest.approx(3920 * 1.2e-12 + 3900 * 2.7e-12, rel=1e-6)
    assert sum(part.values()) == pytest.approx(bill.per_sample)
    assert bill.per_sample > 1000 * part["optical"]
    assert bill.status == "assumed"
    assert bill.assumptions


@pytest.mark.parametrize(
    ("end", "loss", "laser", "detector"),
    [(None, 0.1 * 129 + 3, 0.2, 0.8), (0, 2.58 + 2, 0.3, 0.9), (1, 42.7, 0.1, 0.7)],
)
def test_a_photon_costs_what_its_way_takes(end: int | None, loss: float, laser: float, detector: float) -> None:
    """n h nu / (eta_det eta_laser 10^(-L/10))."""
    known = price(MESH, "photonic").provenance["photons"]
    joules = known.in_base("J") if end is None else known.range_in_base("J")[end]
    assert joules == pytest.approx(photon_energy(1550e-9) / (detector * laser * 10 ** (-loss / 10)), rel=0.01)


@pytest.mark.parametrize("table", ["45nm", "45nm-memory", "loihi2", "photonic-spiking"])
@pytest.mark.parametrize("name", ["optical_macs", "modulations", "detections", "phase_symbols", "photons"])
def test_electronics_have_no_price_for_light(table: str, name: str) -> None:
    with pytest.raises(MissingPrice, match=name):
        price(Counts(1, 1, {"mesh": Tally(**{name: 1})}), table, stored_words=1)


def test_spikes_of_light() -> None:
    spiking = Tally(accumulates=1000, spikes=10, updates=50, state_words=2000, weight_words=1000, additions=50,
                    comparisons=50, activation_words=20, macs=100)  # fmt: skip
    bill = price(Counts(1, 4, {"snn": spiking}), "photonic-spiking")
    assert bill.total == pytest.approx(1000e-12 + 10 * 500e-12 + 50 * 10e-12 + 100 * 0.12e-12)
    assert {quantity.status for quantity in bill.provenance.values()} == {"assumed"}
    with pytest.raises(MissingPrice, match="accumulates"):
        price(Counts(1, 4, {"snn": spiking}), "photonic")
