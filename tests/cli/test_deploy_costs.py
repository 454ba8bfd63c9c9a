"""neuro deploy and neuro chips: causes add up, the picture stands alone, every number has a source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import neuro
from converters import RateCode, convert
from neuro import datasets, trace


@pytest.fixture
def run(neuro_command, tmp_path: Path):
    torch.manual_seed(0)
    digits = datasets.load("digits")
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 10))
    snn = convert(trace(net, digits.train_x[:2]), RateCode(reset="zero"), calibration=digits.train_x[:64])
    neuro.save(snn, tmp_path / "snn.h5")
    return neuro_command


def test_causes_add_up_and_the_picture_stands_alone(run, tmp_path: Path) -> None:
    words = ("deploy", "snn.h5", "--chip", "loihi1", "--data", "digits", "--samples", 40, "--steps", 8)
    code, out, err = run(*words, "--json", "--picture", "mesh.html")
    assert code == 0, err
    found = json.loads(out)
    causes = found["causes"]
    assert set(causes) == {"synaptic_event", "update_active", "update_inactive", "packet", "hop", "barrier"}
    spent = [cause["energy_J"] for cause in causes.values() if cause["energy_J"] is not None]
    assert sum(spent) == pytest.approx(found["energy_chip_J"])
    assert causes["barrier"]["energy_J"] is None
    assert causes["barrier"]["events"] == found["latency_ticks"]
    assert causes["packet"]["events"] == pytest.approx(found["packets"])
    assert causes["hop"]["events"] == pytest.approx(found["hops"])
    assert causes["synaptic_event"]["core_time_s"] == pytest.approx(found["synaptic_events"] * 3.5e-9)
    assert found["separate_J"]["host"] is None
    assert found["latency_s"] == pytest.approx(found["latency_ticks"] * max(10e-6, found["least_tick_s"]))
    picture = (tmp_path / "mesh.html").read_text(encoding="utf-8")
    assert "<script src" not in picture
    assert "packets per tick" in picture


def test_a_person_reads_measurements_beside_the_model(run) -> None:
    code, out, err = run("deploy", "snn.h5", "--chip", "loihi1", "--data", "digits", "--samples", 20, "--steps", 4)
    assert code == 0, err
    text = " ".join(out.split())
    assert "another task, keyword spotting" in text
    assert "70 of Loihi's 81 mW" in text
    assert "this network, loihi1" in text
    assert "the busiest core needs" in text


def test_a_network_of_mnist_stands_beside_what_chips_need_for_mnist(neuro_command, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = datasets.load("mnist-5k").train_x[:64]
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.ReLU(), nn.Linear(10, 10))
    neuro.save(convert(trace(net, x), RateCode(), calibration=x), tmp_path / "snn.h5")
    code, out, err = neuro_command("deploy", "snn.h5", "--data", "mnist-5k", "--samples", 10, "--steps", 4)
    assert code == 0, err
    text = " ".join(out.split())
    assert "One MNIST image on neuromorphic chips, as published" in text
    assert "keyword" not in text.lower()
    right = float(text.split("at T = 4: ")[1].split(" %")[0])
    assert f"{right:.2f} %" in text.split("this network")[1]
    assert "the core needs" in text, "one core is not the busiest of several"


def test_every_number_of_a_chip_is_shown_with_its_source(run) -> None:
    code, out, _ = run("chips", "--show", "loihi2", "--json")
    assert code == 0
    shown = json.loads(out)
    names = {row["quantity"] for row in shown["rows"]}
    assert {"neurons_per_core", "synapse_memory_bits", "weight_bits", "synaptic_event", "barrier_time"} <= names
    assert all(row["source"] for row in shown["rows"])
    assert any("recalled" in note for note in shown["notes"])
