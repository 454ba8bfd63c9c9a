"""First-spike networks event by event, in ticks, and in Brian2: the closed form of whole layers must be seen by all."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from neuro import Graph, load, save, simulate
from neuro.errors import BackendMissing, ParameterError, ShapeError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.first_spike import Kind
from neuro.first_spike.run import agreement, run_clocked, run_events
from neuro.graph import Input, Node
from neuro.nodes import EarliestWins, LatencyCode, ReLU, TimedLIF, TimeToFirstSpike
from neuro.training.first_spike import first_spike_layers

KINDS = get_args(Kind)


def chain(kind: Kind = "equal", delays: str = "none", seed: int = 0, code: Node | None = None) -> Graph:
    """6 inputs and a bias, 12 and 3 neurons, times of 0.7 per tau."""
    nodes: dict[str, Node] = {"x": Input((6,)), "code": code or LatencyCode(0.15, 2.0, 0.1, bias=0.9)}
    g = torch.Generator().manual_seed(seed)
    for name, weight in zip(
        ("hidden", "output"), first_spike_layers((7, 12, 3), seed, (0.6, 0.4), (0.8, 0.5)), strict=True
    ):  # fmt: skip
        found = {
            "axonal": torch.rand(weight.shape[1], generator=g) if delays == "axonal" else None,
            "synaptic": torch.rand(weight.shape, generator=g) if delays == "synaptic" else None,
        }
        theta = 0.5 + 0.5 * torch.rand(len(weight), generator=g)
        nodes[name] = TimeToFirstSpike(weight, theta, kind, 0.7, **found)
    nodes["score"] = EarliestWins(12.0)
    names = list(nodes)
    return Graph(nodes, {name: (before,) for before, name in pairwise(names)}, name="chain")


def layer_by_layer(graph: Graph, x: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    evaluate(graph, x, observe=lambda name, value: seen.update({name: value}))
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("delays", ["none", "axonal", "synaptic"])
def test_events_in_order_of_time_are_the_closed_form(kind: Kind, delays: str) -> None:
    graph, x = chain(kind, delays), torch.rand(30, 6)
    wanted = layer_by_layer(graph, x)
    run = run_events(graph, x, until="end")
    assert torch.isfinite(wanted["output"]).any()
    for name in ("code", "hidden", "output"):
        torch.testing.assert_close(run.recordings["times"][name].float(), wanted[name], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(run.outputs, wanted["score"], rtol=1e-5, atol=1e-5)


def test_the_answer_comes_with_the_first_output_spike() -> None:
    graph, x = chain(), torch.rand(40, 6)
    whole, early = run_events(graph, x, until="end"), run_events(graph, x)
    first = whole.recordings["times"]["output"].amin(1)
    fired = torch.isfinite(first)
    assert fired.any()
    assert torch.equal(early.recordings["times"]["output"].amin(1), first)
    assert torch.equal(early.outputs.argmax(1)[fired], whole.outputs.argmax(1)[fired])
    late = early.recordings["times"]["hidden"]
    assert (late[torch.isfinite(late)] <= first[:, None].expand_as(late)[torch.isfinite(late)]).all()
    assert early.counts.total.accumulates < whole.counts.total.accumulates


def test_simulate_runs_them_event_by_event() -> None:
    graph, x = chain(), torch.rand(10, 6)
    one, other = simulate(graph, x), run_events(graph, x)
    assert torch.equal(one.outputs, other.outputs)
    assert one.counts == other.counts
    with pytest.raises(ParameterError, match="steps"):
        simulate(graph, x, steps=5)


def test_counts_are_what_happened() -> None:
    graph, x = chain(), torch.rand(20, 6)
    run = run_events(graph, x, until="end")
    spikes = {name: int(torch.isfinite(times).sum()) for name, times in run.recordings["times"].items()}
    assert {name: run.counts.nodes[name].spikes for name in spikes} == spikes
    assert run.counts.nodes["hidden"].accumulates == spikes["code"] * 12
    assert run.counts.nodes["output"].accumulates == spikes["hidden"] * 3
    assert run.counts.nodes["hidden"].updates < run.counts.nodes["hidden"].accumulates  # fired ones take no more
    assert run.counts.samples == 20
    parts = [run_events(graph, part, until="end").counts for part in x.split(7)]
    assert parts[0] + parts[1] + parts[2] == run.counts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("delays", ["none", "axonal", "synaptic"])
def test_ticks_see_the_same_spikes_one_tick_late_at_most(kind: Kind, delays: str) -> None:
    dt = 1e-3
    graph, x = chain(kind, delays), (torch.rand(10, 6) * 0.9 / 1.85 / dt).round() * dt
    on_grid = run_clocked(graph, x, dt)
    exact = run_events(graph, x, until="end").recordings["times"]
    ticked = on_grid.recordings["times"]["hidden"]
    both = torch.isfinite(ticked) & torch.isfinite(exact["hidden"])
    assert both.any()
    late = (ticked - exact["hidden"])[both]
    assert late.abs().quantile(0.9) < 3 * dt


def test_decisions_agree_at_a_fine_resolution() -> None:
    graph, x = chain("double"), torch.rand(100, 6)
    found = agreement(graph, x, (0.2, 1e-3))
    assert found[1e-3] == 1.0
    assert found[0.2] <= 1.0
    coarse, fine = run_clocked(graph, x, 0.1), run_clocked(graph, x, 0.01)
    assert coarse.counts.total.updates < fine.counts.total.updates
    assert coarse.counts.steps < fine.counts.steps


def test_files_keep_networks_of_times(tmp_path: Path) -> None:
    for graph in (chain("double", "synaptic"), chain("alpha", "axonal")):
        save(graph, tmp_path / "net.h5")
        again = load(tmp_path / "net.h5")
        x = torch.rand(5, 6)
        assert torch.equal(evaluate(again, x), evaluate(graph, x))


def test_refusals() -> None:
    graph, x = chain(), torch.rand(4, 6)
    with pytest.raises(ShapeError, match="takes"):
        run_events(graph, x[:, 1:])
    with pytest.raises(ParameterError, match="until"):
        run_events(graph, x, until="never")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="resolution"):
        run_clocked(graph, x, 0.0)
    with pytest.raises(UnsupportedNode, match="chain"):
        run_events(Graph({"x": Input((6,)), "relu": ReLU()}, {"relu": ("x",)}), x)
    one = torch.ones(())
    for wrong, error in (
        (lambda: TimeToFirstSpike(torch.ones(3), one), ShapeError),
        (lambda: TimeToFirstSpike(torch.ones(3, 2), -one), ParameterError),
        (lambda: TimeToFirstSpike(torch.ones(3, 2), one, axonal=-torch.ones(2)), ParameterError),
        (lambda: TimeToFirstSpike(torch.ones(3, 2), one, "other"), ParameterError),  # type: ignore[arg-type]
        (lambda: TimeToFirstSpike(torch.ones(3, 2), one, tau=0.0), ParameterError),
        (lambda: TimedLIF(torch.ones(3, 2), one, most=0), ParameterError),
        (lambda: LatencyCode(2.0, 1.0), ParameterError),
        (lambda: EarliestWins(0.0), ParameterError),
        (lambda: LatencyCode().output_shape((1, 28, 28)), ShapeError),
        (lambda: chain(code=LatencyCode(bias=None)), ShapeError),
    ):
        with pytest.raises(error):
            wrong()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_brian2_integrates_the_same_spikes(kind: Kind) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("brian2", reason="Brian2 is not installed: the oracle is not asked")
        from neuro.oracles.first_spikes_via_brian2 import first_spikes_via_brian2

        step = 1e-3
        graph = chain(kind, "axonal" if kind == "equal" else "none")
        hidden, output = graph.nodes["hidden"], graph.nodes["output"]
        assert isinstance(hidden, TimeToFirstSpike)
        assert isinstance(output, TimeToFirstSpike)
        if hidden.axonal is not None:
            object.__setattr__(hidden, "axonal", (hidden.axonal / step).round() * step)
        times = (torch.rand(8, 7, dtype=torch.float64) * 2 / step).round() * step
        times[0, :3] = torch.inf
        try:
            found = first_spikes_via_brian2([hidden, output], times, step=step, until=10.0)
        except BackendMissing:
            pytest.skip("Brian2 is not installed: the oracle is not asked")
    wanted = [hidden.forward(times)]
    wanted.append(output.forward(wanted[0]))
    both = torch.isfinite(wanted[0]) & torch.isfinite(found[0])
    assert both.sum() > 20
    assert (torch.isfinite(wanted[0]) == torch.isfinite(found[0])).float().mean() > 0.97
    # On the grid to the grid: not before the exact time, and at most one step after it.
    late = (found[0] - wanted[0].double())[both]
    assert late.min() > -1e-5 - step
    assert late.max() < step + 1e-5
    both = torch.isfinite(wanted[1]) & torch.isfinite(found[1])
    assert both.any()
    assert (found[1] - wanted[1].double())[both].abs().quantile(0.8) < 4 * step
