"""A network that was trained through time goes to a chip as it is, with no conversion between."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hardware_targets import check, compile, load_chip, price, run
from neuro import Network, simulate, trace
from neuro.modules import LIF, Readout


def test_the_graph_of_training_deploys() -> None:
    step = nn.Sequential(nn.Linear(12, 20), LIF(0.75), nn.Linear(20, 4), Readout())
    network = Network(trace(step, torch.zeros(1, 12)), kernel="reference")
    x, y = torch.rand(16, 12), torch.arange(16) % 4
    descent = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(15):
        descent.zero_grad()
        nn.functional.cross_entropy(4 * network(x, steps=12).mean(0), y).backward()
        descent.step()
    graph, chip = network.graph, load_chip("loihi2")
    assert check(graph, chip).ok
    on_chip, in_float = run(compile(graph, chip, calibration=x), x, steps=64), simulate(graph, x, steps=64)
    scale = float(in_float.outputs.abs().max())
    assert float((on_chip.outputs - in_float.outputs).abs().max()) < 0.15 * scale
    assert on_chip.counts.total.spikes == pytest.approx(in_float.counts.total.spikes, rel=0.1)
    assert price(on_chip.counts, chip).total > 0
    assert price(in_float.counts, "45nm").total > 0
