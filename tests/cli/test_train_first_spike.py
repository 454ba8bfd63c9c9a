"""neuro train --coding first-spike: what it prints, and that its file runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from neuro import cli, load
from neuro.datasets import load as dataset
from neuro.first_spike.run import run_events


def test_yin_yang_is_learnt_and_its_spikes_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "train --task yin-yang --coding first-spike --hidden 20 --epochs 3 --threads 1 --device cpu --json"
    monkeypatch.setattr(sys, "argv", ["neuro", *words.split()])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    found = json.loads(capfd.readouterr().out)
    assert found["accuracy_test"] > 0.5  # 0.33 by chance
    assert set(found["spikes_per_neuron_and_step"]) == {"hidden", "output"}
    split, graph = dataset("yin-yang"), load(tmp_path / found["out"])
    run = run_events(graph, split.validation_x[:200], until="end")
    fired = torch.isfinite(run.recordings["times"]["hidden"]).double().mean()
    assert float(fired) == pytest.approx(found["spikes_per_neuron_and_step"]["hidden"], abs=0.1)
