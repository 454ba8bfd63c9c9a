"""Two processes, started by torchrun, learn what one learns from batches twice as large."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from neuro.encode import LinearLatency
from neuro.training import Encoded, RateCrossEntropy, fit

SCRIPT = """
import hashlib, json, os, sys
import torch
from torch import nn

sys.path.insert(0, {folder!r})
from test_data_parallel import NoisyBatches, Stops, learn

kinds, first = {{}}, int(os.environ["RANK"]) == 0
for kind in ("dense", "spiking"):
    module, history = learn(kind, batch_size=8)
    digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in module.state_dict().values())).hexdigest()
    kinds[kind] = {{
        "losses": [epoch.train_loss for epoch in history.epochs],
        "validation": [(epoch.validation_loss, epoch.validation_accuracy) for epoch in history.epochs],
        "rates": [epoch.spike_rate for epoch in history.epochs],
        "weights": digest,
    }}
drawing = {{"augment": NoisyBatches()}}
whole, _ = learn("dense", batch_size=8, **drawing)
try:
    learn("dense", batch_size=8, resume="kept.safetensors", checkpoint_every=3, after_step=Stops(10), **drawing)
except RuntimeError:
    pass
drawing["after_step"] = Stops(None)
again, _ = learn("dense", batch_size=8, resume="kept.safetensors", checkpoint_every=3, **drawing)
kinds["resumed"] = all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values()))
with open(f"found-{{os.environ['RANK']}}.json", "w") as file:
    json.dump(kinds, file)
"""


class NoisyBatches:
    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x + 0.1 * torch.rand(x.shape, generator=generator)


class Stops:
    """Breaks the training after so many updates."""

    def __init__(self, updates: int | None) -> None:
        self.updates, self.done = updates, 0

    def __call__(self, module: nn.Module) -> None:
        self.done += 1
        if self.done == self.updates:
            raise RuntimeError("stopped")


class Spiking(nn.Module):
    """One layer of neurons without leak, all steps at once, with a slope of one around the threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        v = self.inward(x).cumsum(0)
        return (v > 0.5).float() + (v - v.detach())


def learn(kind: str, batch_size: int, **settings):
    """61 samples: no batch and no share of one is whole."""
    torch.manual_seed(0)
    y = torch.arange(61) % 3
    x = 0.7 * torch.rand(61, 6)
    x[torch.arange(61), y] += 0.3
    module = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)) if kind == "dense" else Spiking()
    more = {} if kind == "dense" else {"encode": Encoded(LinearLatency(), 5), "loss": RateCrossEntropy()}
    history = fit(
        module, (x, y), validation=(x[:25], y[:25]), epochs=4, batch_size=batch_size, learning_rate=0.05, clip=1.0,
        threads=1, **more, **settings,
    )  # fmt: skip
    return module, history


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(SCRIPT.format(folder=str(Path(__file__).parent)))
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["resumed"]
    for kind in ("dense", "spiking"):
        _, history = learn(kind, batch_size=16)
        assert first[kind]["losses"] == pytest.approx([epoch.train_loss for epoch in history.epochs], abs=1e-4)
        for (loss, accuracy), epoch in zip(first[kind]["validation"], history.epochs, strict=True):
            assert loss == pytest.approx(epoch.validation_loss, abs=1e-4)
            assert accuracy == pytest.approx(epoch.validation_accuracy)
        assert history.epochs[-1].train_loss < history.epochs[0].train_loss - 0.1
