"""Populations that correct their run after a warm-up: closed forms, the errors they are made for, clocks and costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuro.dynamics import State, rest, step
from neuro.errors import ParameterError
from neuro.files import load, save
from neuro.flow import depth, lead, ticks
from neuro.graph import Graph, Input, Node
from neuro.nodes import IF, Add, Affine, MaxCount, MaxCountAgain, Neuron, OffsetIF, Readout, ResidualIF
from neuro.simulate import simulate

SEEDS = st.integers(0, 10**6)


def t(value: float) -> Tensor:
    return torch.tensor(value)


def alone(node: Neuron, *shape: int) -> Graph:
    return Graph({"x": Input(shape), "n": node}, {"n": ("x",)})


def spikes_of(node: Neuron, current: Tensor) -> Tensor:
    """Spikes (time, batch, neurons) of one population for currents of that shape."""
    run = simulate(alone(node, *current.shape[2:]), current, record=["spikes"])
    return run.recordings["spikes"]["n"][: len(current)].float()


def drive(node: Neuron, current: Tensor) -> tuple[State, Tensor]:
    state, outputs = rest(node, current.shape[1], tuple(current.shape[2:])), []
    for i in current:
        state, z = step(node, state, i)
        outputs.append(z)
    return state, torch.stack(outputs)


def fractions(steps: int, neurons: int, high: float = 1.5) -> Tensor:
    """Uneven currents that binary fractions hold exactly, (steps, 1, neurons) in [-high, high]."""
    return ((2 * torch.rand(steps, 1, neurons) - 1) * high * 64).round() / 64


@given(st.integers(1, 6), st.integers(1, 12), SEEDS)
def test_constant_input_gives_the_clipped_floor(warmup: int, steps: int, seed: int) -> None:
    torch.manual_seed(seed)
    current = fractions(1, 40)[0].expand(steps, 1, 40)
    for v0 in (0.0, 0.5):
        exact = (v0 + steps * current[0]).floor().clamp(0, steps)
        assert torch.equal(spikes_of(OffsetIF(t(1.0), t(v0), warmup), current).sum(0), exact)
        left = v0 + warmup * current[0] - (v0 + warmup * current[0]).floor().clamp(0, warmup)
        assert torch.equal(spikes_of(ResidualIF(t(1.0), t(v0), warmup), current).sum(0), exact * (left > 1e-3))


def test_offset_spikes_by_hand() -> None:
    node = OffsetIF(t(1.0), t(0.5), 4)

    def count(*current: float) -> tuple[float, float]:
        series = torch.tensor(current, dtype=torch.float32).reshape(-1, 1, 1)
        return spikes_of(IF(t(1.0), t(0.5)), series).sum().item(), spikes_of(node, series).sum().item()

    assert count(1, -1, 0, 0) == (1, 0)  # fired before the inhibition came
    assert count(0, 0, 0, 1.5) == (1, 2)  # the input came too late for two spikes
    assert count(3, -3, 0, 0) == (1, 0)  # lowering by one threshold would not have been enough
    assert count(-2, -2, 0, 6) == (1, 2)  # nor raising by one
    assert count(1, 1, -1, -1) == (2, 1)  # one spike is put right, not two
    assert count(2, 2, 2, 2) == (4, 4)  # no room for more
    assert count(-1, 0, 0, 0) == (0, 0)  # below zero without a spike: nothing to take back


@given(st.integers(1, 9), SEEDS)
def test_every_wrong_count_comes_one_spike_nearer(steps: int, seed: int) -> None:
    """In a run as long as the warm-up, where the initial potential moved by one threshold."""
    torch.manual_seed(seed)
    current = fractions(steps, 300)
    exact = (0.5 + current.sum(0)).floor().clamp(0, steps)
    state, plain = drive(IF(t(1.0), t(0.5)), current)
    v, before = torch.full_like(exact, 0.5), []
    for i, z in zip(current, plain, strict=True):
        before.append(v + i)
        v = v + i - z
    assert torch.equal(v, state.v)
    fired = plain.bool()
    u = torch.stack(before)
    lowest = torch.where(fired, u, torch.inf).amin(0)
    highest = torch.where(fired, -torch.inf, u).amax(0)
    by_one = torch.where(v < 0, lowest <= 1.999, highest >= 0.001) | ((v >= 0) & (v < 1)) | (plain.sum(0) == steps)
    found = spikes_of(OffsetIF(t(1.0), t(0.5), steps), current).sum(0)
    wrong, left = (plain.sum(0) - exact).abs(), (found - exact).abs()
    by_one |= (v < 0) & (plain.sum(0) == 0)
    assert torch.equal(left[by_one], (wrong[by_one] - 1).clamp(min=0))
    assert float(by_one.float().mean()) > 0.5


@given(st.integers(1, 9), SEEDS)
def test_residues_silence_what_should_not_have_fired(steps: int, seed: int) -> None:
    torch.manual_seed(seed)
    current = fractions(steps, 300)
    state, plain = drive(IF(t(1.0), t(0.5)), current)
    found = spikes_of(ResidualIF(t(1.0), t(0.5), steps), current)
    nothing_due = (0.5 + current.sum(0)).floor() <= 0
    assert not bool(found.sum(0)[nothing_due].any())
    assert torch.equal(found, plain * (state.v > 1e-3))
    _, whole = drive(ResidualIF(t(1.0), t(0.5), steps), torch.cat([current, current]))
    assert torch.equal(whole[:steps], plain)  # the warm-up itself is uncorrected: others need it
    assert torch.equal(whole[steps:], found)


def test_residual_potential_by_hand() -> None:
    node = ResidualIF(t(1.0), t(0.5), 4)
    early, even, nothing = [1.0, -1.0, 0.0, 0.0], [0.75, 0.75, 0.75, -0.5], [0.75, 0.75, 0.75, -0.75]
    series = torch.tensor([early, even, nothing]).T[:, None]
    assert spikes_of(IF(t(1.0), t(0.5)), series).sum(0).tolist() == [[1, 2, 2]]
    assert spikes_of(node, series).sum(0).tolist() == [[0, 2, 0]]  # residues -0.5, 0.25 and 0


@given(st.sampled_from(["offset", "residual", "maximum"]), st.integers(1, 6), st.integers(1, 11), SEEDS)
def test_cutting_time_equals_one_run(kind: str, warmup: int, cut: int, seed: int) -> None:
    torch.manual_seed(seed)
    theta, v0 = 0.5 + torch.rand(6), torch.rand(6) / 2
    node: Neuron = OffsetIF(theta, v0, warmup) if kind == "offset" else ResidualIF(theta, v0, warmup)
    current = torch.randn(12, 2, 6) + 0.3
    if kind == "maximum":
        node, current = MaxCountAgain((2,), (2,), (0,), False, warmup), (current[:, :, None] > 0.5).float()
    shape = tuple(current.shape[2:])
    whole, outputs = drive(node, current)
    state, parts = rest(node, 2, shape), []
    for number, i in enumerate(current):
        if number == cut:
            state = state._replace(v=state.v.clone(), kept=tuple(tensor.clone() for tensor in state.kept))
        before = state.v.clone()
        following, z = step(node, state, i)
        assert torch.equal(state.v, before)
        state, _ = following, parts.append(z)
    assert torch.equal(torch.stack(parts), outputs)
    assert torch.equal(state.v, whole.v)
    assert state.t == whole.t == 12


@given(st.integers(1, 6), st.integers(1, 12), st.booleans(), SEEDS)
def test_a_run_equals_the_steps_on_a_late_clock(warmup: int, steps: int, timed: bool, seed: int) -> None:
    torch.manual_seed(seed)
    theta = 0.5 + torch.rand(3, 1)
    series = torch.randn(steps, 2, 3, 4) + 0.3 if timed else (torch.randn(1, 2, 3, 4) + 0.3).expand(steps, 2, 3, 4)
    offset = OffsetIF(theta, theta / 2, warmup)
    run = simulate(alone(offset, 3, 4), series if timed else series[0], steps=steps, record=["spikes", "v"])
    enough = series[torch.arange(max(steps, warmup)) % steps]  # what reads the population needs `warmup` steps of it
    state, outputs = drive(offset, torch.cat([enough, torch.zeros(warmup, 2, 3, 4)]))
    assert torch.equal(run.recordings["spikes"]["n"].float(), outputs[warmup:])
    assert not bool(outputs[:warmup].any())
    assert torch.equal(run.recordings["v"]["n"][-1], state.v)
    assert torch.equal(run.outputs, outputs[warmup : warmup + steps].mean(0))
    residual = ResidualIF(theta, theta / 2, warmup)
    run = simulate(alone(residual, 3, 4), series if timed else series[0], steps=steps, record=["spikes", "v", "counts"])
    _, outputs = drive(residual, torch.cat([series[torch.arange(warmup) % steps], series]))
    assert torch.equal(run.recordings["spikes"]["n"].float(), outputs[warmup:])
    assert torch.equal(run.recordings["counts"]["n"][0].float(), outputs[warmup:].sum(0))
    assert run.recordings["v"]["n"].shape == series.shape
    assert run.counts.nodes["n"].spikes == int(outputs.sum())


@given(SEEDS)
def test_batches_and_orders_change_nothing(seed: int) -> None:
    torch.manual_seed(seed)
    theta, order, x = 0.5 + torch.rand(9), torch.randperm(9), torch.randn(7, 5, 9) + 0.3
    for kind in (OffsetIF, ResidualIF):
        node = kind(theta, theta / 2, 3)
        whole = spikes_of(node, x)
        singles = [spikes_of(node, x[:, k : k + 1]) for k in range(5)]
        assert torch.equal(whole, torch.cat(singles, 1))
        permuted = kind(theta[order], theta[order] / 2, 3)
        assert torch.equal(whole[:, :, order], spikes_of(permuted, x[:, :, order]))


@given(st.integers(1, 9), SEEDS)
def test_maxima_count_anew(warmup: int, seed: int) -> None:
    torch.manual_seed(seed)
    z = (torch.rand(10, 2, 3, 6) < torch.rand(6)).float()
    _, out = drive(MaxCountAgain((2,), (2,), (0,), False, warmup), z)
    _, before = drive(MaxCount((2,), (2,), (0,)), z[:warmup])
    _, after = drive(MaxCount((2,), (2,), (0,)), z[warmup:])
    assert torch.equal(out, torch.cat([before, after]))


def skipping(first: Node, second: Node) -> Graph:
    """Two populations, and a path around the second."""
    nodes = {
        "x": Input((4,)), "first": first, "weights": Affine(torch.eye(4), None), "second": second, "sum": Add(),
        "readout": Readout(),
    }  # fmt: skip
    sources = {
        "first": ("x",), "weights": ("first",), "second": ("weights",), "sum": ("first", "second"),
        "readout": ("sum",),
    }  # fmt: skip
    return Graph(nodes, sources)


def test_warm_ups_take_ticks_updates_and_words() -> None:
    x, theta = torch.rand(5, 4), t(1.0)
    graph = skipping(OffsetIF(theta, t(0.5), 3), OffsetIF(theta, t(0.5), 5))
    plain = simulate(skipping(IF(theta, t(0.5)), IF(theta, t(0.5))), x, steps=8).counts
    counts = simulate(graph, x, steps=8).counts
    assert (depth(graph), lead(graph), plain.steps) == (2, 0, 10)
    assert counts.steps == ticks(graph, 8) == 8 + 2 + 3 + 5
    assert ticks(graph, 4) == simulate(graph, x, steps=4).counts.steps == 4 + 2 + 3 + 5
    for name, warmup in (("first", 3), ("second", 5)):
        tally = counts.nodes[name]
        assert tally.updates == 20 * (8 + warmup)
        assert tally.state_words == 2 * tally.updates + 2 * 20 * 8
    for what in ("spikes", "accumulates"):
        assert getattr(counts.total, what) == getattr(plain.total, what) > 0
    graph = skipping(ResidualIF(theta, t(0.5), 3), IF(theta, t(0.5)))
    run = simulate(graph, x, steps=8)
    assert run.counts.steps == ticks(graph, 8) == 8 + 2 + 3
    assert run.counts.nodes["first"].updates == 20 * 11
    told = simulate(graph, x, steps=8, record=["counts"]).recordings["counts"]["first"]
    assert run.counts.nodes["first"].spikes > int(told.sum()) > 0


@pytest.mark.parametrize("kind", [OffsetIF, ResidualIF])
def test_refusals(kind: type[OffsetIF | ResidualIF]) -> None:
    for warmup in (0, -1, True, 2.0, 10**7):
        with pytest.raises(ParameterError, match="warmup must be an integer from 1"):
            kind(t(1.0), t(0.0), warmup)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="reset 'subtract' only"):
        kind(t(1.0), t(0.0), 4, "zero")
    with pytest.raises(ParameterError, match="theta must be > 0"):
        kind(t(0.0), t(0.0), 4)


def test_files_and_tables_know_them(tmp_path: Path) -> None:
    theta = torch.rand(4) + 0.5
    graph = skipping(OffsetIF(theta, theta / 2, 3), ResidualIF(theta, theta / 3, 2))
    save(graph, tmp_path / "snn.h5")
    again, x = load(tmp_path / "snn.h5"), torch.rand(3, 4)
    assert torch.equal(simulate(again, x, steps=5).outputs, simulate(graph, x, steps=5).outputs)
    assert str(again) == str(graph)
    assert "OffsetIF" in str(graph)
    assert "warmup 3" in str(graph)
    pools = Graph({"x": Input((1, 4)), "m": MaxCountAgain((2,), (2,), (0,), False, 6)}, {"m": ("x",)})
    save(pools, tmp_path / "pools.h5")
    assert load(tmp_path / "pools.h5").nodes["m"].warmup == 6  # type: ignore[attr-defined]
