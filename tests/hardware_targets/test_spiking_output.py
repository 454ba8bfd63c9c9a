"""Networks whose last population fires go to a chip too: the host counts its spikes."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from hardware_targets import check, compile, load_chip, price, run
from neuro import Network, simulate, trace
from neuro.errors import ParameterError, ShapeError, UnsupportedNode
from neuro.graph import Graph
from neuro.modules import IF, LI, LIF, AdaptiveLIF, Recurrent


def graph_of(*parts: nn.Module, features: tuple[int, ...] = (12,)) -> Graph:
    return trace(nn.Sequential(*parts), torch.zeros(1, *features), name="net")


Reset = Literal["zero", "subtract"]


def exact_on_chip(seed: int, reset: Reset = "subtract") -> tuple[Graph, torch.Tensor]:
    """Integrators whose weights and thresholds are whole numbers of the chip's units, and spikes as input."""
    generator = torch.Generator().manual_seed(seed)
    parts = [nn.Linear(12, 20, bias=False), IF(100.5, reset=reset)]
    parts += [nn.Linear(20, 4, bias=False), IF(50.5, reset=reset)]
    step = nn.Sequential(*parts)
    with torch.no_grad():
        for part in (step[0], step[2]):
            part.weight.copy_(torch.randint(-127, 128, part.weight.shape, generator=generator))
            part.weight[:, 0] = 127  # the largest weight of every neuron sets its unit: one for all
    return trace(step, torch.zeros(1, 12), name="net"), torch.randint(0, 2, (16, 12), generator=generator).float()


@pytest.mark.parametrize("seed", range(3))
def test_counts_of_the_chip_are_those_of_the_simulation_where_nothing_is_rounded(seed: int) -> None:
    graph, x = exact_on_chip(seed)
    program = compile(graph, "loihi2")
    assert all(error.weight < 1e-6 and error.bias < 1e-6 for error in program.errors)
    on_chip, in_float = run(program, x, steps=9, record=["spikes"]), simulate(graph, x, steps=9)
    assert torch.allclose(on_chip.outputs, in_float.outputs)
    assert 0 < float(on_chip.outputs.mean()) < 1
    fired = on_chip.recordings["spikes"][graph.output].float()
    assert torch.allclose(fired.sum(0) / 9, on_chip.outputs)
    assert on_chip.counts.nodes[graph.output].spikes == in_float.counts.nodes[graph.output].spikes


@pytest.mark.parametrize("chip", ["loihi1", "loihi2"])
def test_a_series_of_spikes_runs_step_by_step(chip: str) -> None:
    graph, _ = exact_on_chip(0, "zero")
    x = torch.randint(0, 2, (7, 260, 12), generator=torch.Generator().manual_seed(1)).float()
    program = compile(graph, chip)
    whole = run(program, x, steps=7)
    assert torch.allclose(whole.outputs, simulate(graph, x).outputs)
    assert torch.allclose(run(program, x[:, 250:], steps=7).outputs, whole.outputs[250:])
    held = x[:1].expand(7, -1, -1)
    assert torch.allclose(run(program, held, steps=7).outputs, run(program, x[0], steps=7).outputs)
    with pytest.raises(ParameterError, match="x has 7 steps, not 5"):
        run(program, x, steps=5)
    with pytest.raises(ShapeError, match=r"takes \(batch, 12\) or \(steps, batch, 12\)"):
        run(program, x[..., :11], steps=7)


def test_a_series_of_numbers_needs_a_chip_with_graded_spikes() -> None:
    graph, _ = exact_on_chip(0, "zero")
    x = torch.randint(0, 2, (7, 16, 12)).float() / 2
    with pytest.raises(ParameterError, match="plain spikes, so a series must hold 0 and 1 alone"):
        run(compile(graph, "loihi1"), x, steps=7)
    assert run(compile(graph, "loihi2"), x, steps=7).outputs.shape == (16, 4)


@pytest.mark.parametrize(("chip", "reset"), [("loihi1", "zero"), ("loihi2", "subtract")])
def test_a_trained_classifier_with_firing_outputs_deploys_as_it_is(chip: str, reset: Reset) -> None:
    torch.manual_seed(0)
    parts = (nn.Linear(12, 30), LIF(0.9, reset=reset), nn.Linear(30, 4), LIF(0.9, reset=reset))
    network = Network(graph_of(*parts), kernel="reference")
    x, y = torch.rand(64, 12), torch.arange(64) % 4
    x[torch.arange(64), 3 * y] += 1
    x = x / 2
    descent = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(40):
        descent.zero_grad()
        nn.functional.cross_entropy(network(x, steps=16).sum(0), y).backward()
        descent.step()
    graph = network.graph
    fit = check(graph, load_chip(chip))
    assert fit.ok, fit.violations
    on_chip, in_float = run(compile(graph, chip, calibration=x), x, steps=32), simulate(graph, x, steps=32)
    assert float((in_float.outputs.argmax(1) == y).float().mean()) > 0.9
    assert float((on_chip.outputs.argmax(1) == in_float.outputs.argmax(1)).float().mean()) > 0.9
    assert on_chip.counts.total.spikes == pytest.approx(in_float.counts.total.spikes, rel=0.1)
    bill = price(on_chip.counts, load_chip(chip))
    assert bill.total > 0


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((nn.Linear(12, 8), Recurrent(nn.Linear(8, 8), LIF(0.9)), nn.Linear(8, 4), LIF(0.9)), "Recurrent"),
        ((nn.Linear(12, 8), AdaptiveLIF(0.9, 0.9), nn.Linear(8, 4), LIF(0.9)), "AdaptiveLIF"),
        ((nn.Linear(12, 8), LIF(0.9), nn.Linear(8, 4), LI(0.9)), "read the classes from a Readout"),
    ],
)
def test_what_trains_but_no_chip_holds_is_refused_with_the_reason(parts: tuple[nn.Module, ...], said: str) -> None:
    graph = Network(graph_of(*parts)).graph
    for asked in (check, compile):
        with pytest.raises(UnsupportedNode, match=said):
            asked(graph, load_chip("loihi2"))


def test_a_network_that_ends_in_no_population_is_refused() -> None:
    graph = graph_of(nn.Linear(12, 8), LIF(0.9), nn.Linear(8, 4))
    with pytest.raises(ParameterError, match="a Readout, or one that fires"):
        compile(graph, "loihi2")
