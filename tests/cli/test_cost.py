"""neuro cost: three calculators, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

Command = Callable[..., tuple[int, str, str]]


def test_the_survey_corrected(neuro_command: Command) -> None:
    code, out, _ = neuro_command("cost")
    assert code == 0
    assert "15.4 kW" in out
    assert "369.2 kWh" in out
    assert "65 MW" in out


def test_a_share_of_no_peak_is_refused(neuro_command: Command) -> None:
    code, _, err = neuro_command("cost", "--macs", 1000, "--utilisation", 0.1)
    assert code == 2
    assert "--gflops-per-watt; add it" in err
    code, _, err = neuro_command("cost", "--macs", 1000, "--utilisation", 1.5, "--gflops-per-watt", 65)
    assert code == 2
    assert "utilisation in (0, 1]" in err


def test_computing_and_an_inference_at_once(neuro_command: Command) -> None:
    code, out, _ = neuro_command(
        "cost", "--petaflops", 2, "--petaflops-days", 3, "--gflops-per-watt", 65, "--macs", 266_200, "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert found["power_W"] == pytest.approx(2e15 / 65e9)
    assert found["energy_kWh"] == pytest.approx(3 * 369.2, rel=1e-3)
    assert found["energy_given_J"] == pytest.approx(2 * 266_200 / 65e9)
    assert found["processors"]["a100"]["energy_J"] == pytest.approx(10.92e-6, rel=1e-3)
    assert found["processors"]["a100"]["high_J"] == pytest.approx(1.092e-3, rel=1e-3)
    assert "float32" in found["processors"]["tpu1"]["refused"]


def test_break_even(neuro_command: Command) -> None:
    words = ("cost", "--break-even", "--macs", 266_200, "--accumulates", 150_000, "--updates", 6560)
    code, out, _ = neuro_command(*words, "--json")
    found = json.loads(out)
    points = {point["model"]: point for point in found["points"]}
    assert code == 0
    assert found["spikes_per_synapse"] == pytest.approx(150_000 / 266_200)
    first = points["A operations, 45nm"]
    assert first["break_even"] == pytest.approx((266_200 * 4.6 - 6560 * 1.8) / 0.9 / 266_200)
    assert first["spiking_wins"]
    assert points["B with memory, 45nm"]["spiking_wins"] is False
    assert points["C a100"]["spiking_wins"] is None, "inside the range"
    code, out, _ = neuro_command(*words, "--precision", "int8", "--spiking-precision", "loihi")
    assert code == 0
    assert "Dampfhoffer" in out
    assert "as given" in out
    assert "measured" not in out.lower()
    assert "undecided" in out
    assert "Not known for" in out


@pytest.mark.parametrize("name", ["a100", "spinnaker2", "loihi1"])
def test_every_price_of_a_device(neuro_command: Command, name: str) -> None:
    code, out, _ = neuro_command("cost", "--show", name, "--json")
    found = json.loads(out)
    assert code == 0
    assert all(row["source"] or row["status"] == row["source"] for row in found["rows"])
    assert found["notes"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--break-even", "--macs", 5), "--break-even needs --macs of the dense network and --accumulates"),
        (("--show", "45nm"), "--show 45nm: prices of operations are no device; known: a100"),
        (("--show", "abacus"), "there is no energy table 'abacus'"),
        (("--accumulates", 5), "--accumulates is for --break-even"),
        (("--petaflops", "nan"), "petaflops must be a finite number"),
        (("--macs", 5, "--utilisation", 0, "--gflops-per-watt", 3), "utilisation in (0, 1]"),
        (("--macs", 5, "--precision", "float64"), "no processor has the number format 'float64'"),
    ],
)
def test_wrong_use_is_refused_in_one_line(neuro_command: Command, words: tuple[object, ...], said: str) -> None:
    code, out, err = neuro_command("cost", *words)
    assert code == 2
    assert said in err
    assert not out
