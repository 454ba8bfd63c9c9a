"""Populations that hear their own past, against recursions by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuro.dynamics import rest, step
from neuro.errors import ParameterError, ShapeError
from neuro.feedback import recurrent_counts
from neuro.graph import Graph, Input
from neuro.nodes import IF, LI, LIF, Add, Affine, Delay, Recurrent, ReLU, Scale
from neuro.simulate import simulate

ONE, ZERO = torch.ones(()), torch.zeros(())


def layer(weight: Tensor, bias: Tensor | None = None, synapse: float = 0.5, beta: float = 0.9) -> Recurrent:
    """i = x + W y + b;  s <- synapse s + i;  LIF with reset to zero."""
    size = weight.shape[0]
    nodes = {
        "x": Input((size,)), "y": Input((size,)), "back": Affine(weight, bias), "sum": Add(),
        "synapse": LI(torch.tensor(synapse)), "lif": LIF(torch.tensor(beta), ONE, ZERO, "zero"),
    }  # fmt: skip
    return Recurrent(Graph(nodes, {"back": ("y",), "sum": ("x", "back"), "synapse": ("sum",), "lif": ("synapse",)}))


def alone(node: Recurrent | Delay, size: int) -> Graph:
    return Graph({"in": Input((size,)), "node": node}, {"node": ("in",)})


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 25))
def test_a_recurrent_layer_equals_its_recursion(seed: int, size: int, steps: int) -> None:
    torch.manual_seed(seed)
    weight, bias = torch.randn(size, size).round(decimals=1), torch.randn(size).round(decimals=1)
    x = torch.randn(steps, 2, size)
    s, v, y = (np.zeros((2, size), np.float32) for _ in range(3))
    wanted = []
    for entered in x.numpy():
        s = np.float32(0.5) * s + (entered + (y @ weight.numpy().T + bias.numpy()))
        v = np.float32(0.9) * v + s
        if (np.abs(v - 1) < 1e-4).any():
            break  # rounding decides from here on
        y = (v >= 1).astype(np.float32)
        v = v * (1 - y)
        wanted.append(torch.from_numpy(y))
    run = simulate(alone(layer(weight, bias), size), x, record=["spikes"])
    fired = run.recordings["spikes"]["node"].float()
    assert all(torch.equal(one, other) for one, other in zip(wanted, fired, strict=False))


def test_without_weights_back_it_is_the_population_alone() -> None:
    torch.manual_seed(0)
    x = torch.rand(40, 3, 4)
    alone_twice = Graph(
        {"in": Input((4,)), "s": LI(torch.tensor(0.5)), "lif": LIF(torch.tensor(0.9), ONE, ZERO, "zero")},
        {"s": ("in",), "lif": ("s",)},
    )
    run = simulate(alone(layer(torch.zeros(4, 4)), 4), x, record=["spikes", "v"])
    plain = simulate(alone_twice, x, record=["spikes", "v"])
    for kind in ("spikes", "v"):
        assert torch.equal(run.recordings[kind]["node"], plain.recordings[kind]["lif"])


@given(st.integers(1, 19))
@settings(max_examples=10)
def test_cutting_time_equals_one_run(cut: int) -> None:
    torch.manual_seed(cut)
    x = torch.randn(20, 2, 4)
    for node in (layer(torch.randn(4, 4), torch.randn(4)), Delay(torch.tensor([0.0, 1.0, 3.0, 7.0]))):
        whole = state = rest(node, 2, (4,))
        first = [None, None]
        for i in x:
            whole, first[0] = step(node, whole, i)
        for i in x[:cut]:
            state, _ = step(node, state, i)
        for i in x[cut:]:
            state, first[1] = step(node, state, i)
        assert torch.equal(first[0], first[1])
        assert all(torch.equal(a, b) for a, b in zip(whole.kept, state.kept, strict=True))


def test_batch_is_a_stack_of_singles() -> None:
    torch.manual_seed(0)
    graph, x = alone(layer(torch.randn(4, 4), torch.randn(4)), 4), torch.randn(30, 5, 4)
    whole = simulate(graph, x).outputs
    assert torch.equal(whole, torch.cat([simulate(graph, x[:, [b]]).outputs for b in range(5)]))


def test_every_spike_that_comes_back_is_counted() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 4) * (torch.rand(4, 4) < 0.5)
    x = torch.randn(30, 5, 4)
    run = simulate(alone(layer(weight), 4), x, record=["spikes"])
    fired = run.recordings["spikes"]["node"].double()
    tally = run.counts.nodes["node"]
    assert tally.spikes == int(fired.sum()) > 0
    assert tally.accumulates == int((fired[:-1].sum((0, 1)) * (weight != 0).sum(0)).sum())
    assert tally.updates == 2 * 30 * 5 * 4
    assert recurrent_counts(layer(weight), x, fired.float()) == tally


def test_delays_move_in_time_and_count_nothing() -> None:
    x = (torch.rand(12, 3, 4) < 0.5).float()
    steps = torch.tensor([0.0, 1.0, 5.0, 30.0])
    graph = Graph(
        {"in": Input((4,)), "late": Delay(steps), "if": IF(ONE / 2, ZERO)}, {"late": ("in",), "if": ("late",)}
    )
    run = simulate(graph, x, record=["spikes"])
    for feature, late in enumerate((0, 1, 5, 30)):
        shifted = torch.cat((torch.zeros(late, 3), x[..., feature]))[:12]
        fired = run.recordings["spikes"]["if"][..., feature].float()
        assert torch.equal(fired.cumsum(0) >= shifted.cumsum(0), torch.ones(12, 3, dtype=torch.bool))
        assert not fired[: min(late, 12)].any()
    assert "late" not in run.counts.nodes
    assert torch.equal(
        simulate(alone(Delay(2 * ONE), 4), x, record=["outputs"]).recordings["outputs"]["node"][2:], x[:-2]
    )


def test_refusals() -> None:
    for steps in (-1.0, 0.5, 1e9):
        with pytest.raises(ParameterError, match="Delay: steps must be whole numbers"):
            Delay(torch.tensor(steps))
    with pytest.raises(ParameterError, match="two inputs"):
        Recurrent(Graph({"x": Input((2,)), "if": IF(ONE, ZERO)}, {"if": ("x",)}))
    ends = {"x": Input((2,)), "y": Input((2,)), "sum": Add()}
    for last in (ReLU(), LI(ONE), Scale(ONE)):
        with pytest.raises(ParameterError, match="must end in a spiking population"):
            Recurrent(Graph({**ends, "last": last}, {"sum": ("x", "y"), "last": ("sum",)}))
    wide = {"x": Input((2,)), "y": Input((3,)), "w": Affine(torch.ones(2, 3)), "sum": Add(), "if": IF(ONE, ZERO)}
    with pytest.raises(ShapeError, match=r"come back as \(3,\)"):
        Recurrent(Graph(wide, {"w": ("y",), "sum": ("x", "w"), "if": ("sum",)}))
    with pytest.raises(ShapeError, match=r"takes features of shape \(4,\)"):
        alone(layer(torch.zeros(4, 4)), 3)
