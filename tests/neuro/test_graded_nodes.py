"""Graded spikes: bursts that equal integrate-and-fire, corrections that round, changes that stay within a threshold."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuro import load, save
from neuro.dynamics import rest, step
from neuro.errors import NeuroError, ParameterError, ShapeError
from neuro.flow import bits_per_event, carries_spikes, carries_sums_of_spikes, depth
from neuro.graph import Graph, Input, Node
from neuro.kernels import run_steps
from neuro.nodes import (
    IF,
    Affine,
    Delta,
    Differences,
    GradedIF,
    MaxCount,
    MaxPool,
    Neuron,
    Readout,
    ReLU,
    Sigma,
    SigmaDeltaReLU,
)
from neuro.simulate import simulate

seeds = st.integers(0, 10**6)


def t(value: float) -> Tensor:
    return torch.tensor(value)


def chain(shape: tuple[int, ...], *nodes: Node) -> Graph:
    names = ["x", *(f"n{number}" for number in range(len(nodes)))]
    return Graph(
        dict(zip(names, (Input(shape), *nodes), strict=True)),
        {name: (before,) for before, name in itertools.pairwise(names)},
    )


def drive(node: Neuron, current: list[float]) -> list[float]:
    series = torch.tensor(current).reshape(-1, 1, 1)
    return run_steps(node, rest(node, 1, (1,)), series, len(current))[1].flatten().tolist()


def outputs(node: Neuron, current: Tensor) -> Tensor:
    """Outputs (time, batch, *features) on a current (time, batch, *features) of any element type."""
    state = rest(node, current.shape[1], tuple(current.shape[2:]), current.dtype)
    return run_steps(node, state, current, len(current), kernel="reference")[1]


def sixteenths(seed: int, *shape: int, reach: int = 64) -> Tensor:
    """Random multiples of 1/16, whose sums float32 holds exactly."""
    return torch.randint(-reach, reach + 1, shape, generator=torch.Generator().manual_seed(seed)) / 16


def test_bursts_by_hand() -> None:
    assert drive(GradedIF(t(1.0), t(0.5), 3), [2.25, -3.0, 9.0, 0.0, 0.0]) == [2, 0, 3, 3, 0]
    assert drive(GradedIF(t(1.0), t(0.5), 3, signed=True), [2.25, -3.0, 9.0, 0.0, 0.0, 0.0]) == [2, -2, 3, 3, 2, 0]


def test_changes_by_hand() -> None:
    delta = Delta(t(0.5), t(0.25), 4)
    assert drive(delta, [0.25, 0.6, 0.25, 0.0, 9.0]) == [0, 2, 0, -2, 4]
    relu = SigmaDeltaReLU(t(-0.5), t(0.5), t(0.25), 100, 2.0)
    assert drive(relu, [0.5, 0.6, 9.0, 0.0, -9.0]) == [0, 2, 6, 0, -6]
    assert drive(Sigma(t(1.0)), [0.5, -2.0, 0.0]) == [1.5, -0.5, -0.5]


@given(seeds, st.booleans())
def test_one_level_is_integrate_and_fire(seed: int, ties: bool) -> None:
    current = sixteenths(seed, 30, 2, 5) if ties else torch.randn(30, 2, 5)
    theta, v0 = torch.tensor([0.25, 0.5, 1.0, 0.7, 3.1]), torch.tensor([0.0, 0.25, 0.5, 0.3, 1.5])
    assert torch.equal(outputs(GradedIF(theta, v0, 1), current), outputs(IF(theta, v0), current))


@given(seeds, st.integers(1, 9), st.booleans())
def test_bursts_are_whole_bounded_and_conserve_charge(seed: int, levels: int, signed: bool) -> None:
    current = sixteenths(seed, 20, 3, 4)
    node = GradedIF(t(0.5), t(0.25), levels, signed)
    state, sent, injected = rest(node, 3, (4,)), torch.zeros(3, 4), torch.full((3, 4), 0.25)
    for i in current:
        state, n = step(node, state, i)
        sent, injected = sent + n, injected + i
        assert torch.equal(n, n.round())
        assert float(n.max()) <= levels
        assert float(n.min()) >= (-levels if signed else 0)
        assert bool((sent >= 0).all())
        assert torch.equal(state.v + 0.5 * sent, injected)


@given(seeds)
def test_the_count_of_a_constant_current_is_a_quantised_relu(seed: int) -> None:
    """T steps of a <= levels theta send floor((v0 + T a) / theta): T * levels levels, within half of one."""
    node, steps = GradedIF(t(0.5), t(0.25), 4), 6
    a = sixteenths(seed, 1, 1, 20, reach=32)
    sent = outputs(node, a.expand(steps, 1, 20)).sum(0)
    assert torch.equal(sent, ((0.25 + steps * a[0]) / 0.5).floor().clamp(min=0))
    assert bool(((sent * 0.5 / steps - a[0].clamp(min=0)).abs() <= 0.2501 / steps).all())


@given(seeds, st.integers(1, 30))
def test_corrections_leave_the_quantised_relu_of_everything_so_far(seed: int, levels: int) -> None:
    """After every step N = max(floor(V / theta), 0), as far as no step would have needed more than `levels`."""
    current = sixteenths(seed, 25, 1, 6)
    n = outputs(GradedIF(t(0.5), t(0.25), levels, signed=True), current)
    wanted = ((0.25 + current.cumsum(0)) / 0.5).floor().clamp(min=0)
    sent = torch.zeros(1, 6)
    for now, goal in zip(n, wanted, strict=True):
        expected = goal.maximum(sent - levels).minimum(sent + levels)
        sent = sent + now
        assert torch.equal(sent, expected)
    if levels == 30:
        assert torch.equal(n.cumsum(0), wanted)


@given(seeds, st.floats(0.02, 0.5), st.sampled_from([1, 3, 1000]), st.booleans())
def test_changes_stay_within_the_threshold(seed: int, share: float, levels: int, relu: bool) -> None:
    """|a - r| < theta after every step, unless the event of this step met its bounds."""
    current = torch.randn(40, 2, 8, generator=torch.Generator().manual_seed(seed)).double()
    theta, step_ = torch.rand(8).double() * 0.5 + 0.01, torch.tensor(1.0).double()
    step_ = theta * 2 * (1 - share)
    node: Differences
    if relu:
        node = SigmaDeltaReLU(torch.randn(8).double(), theta, step_, levels, 1.5)
        a = (node.v0 + current.cumsum(0)).clamp(0, 1.5)
    else:
        node, a = Delta(theta, step_, levels), current
    n = outputs(node, current)
    r = n.cumsum(0) * step_
    away = (a - r).abs()
    full = n.abs() == levels
    assert bool(((away < theta) | full).all())
    assert bool((n.abs() <= levels).all())
    before = torch.cat([torch.zeros_like(r[:1]), r[:-1]])
    still = (a - before).abs() < theta * (1 - 1e-9)
    assert bool((n[still] == 0).all())


@given(seeds)
def test_a_value_that_stays_is_sent_once(seed: int) -> None:
    x = torch.randn(1, 3, 6, generator=torch.Generator().manual_seed(seed)).expand(5, 3, 6)
    n = outputs(Delta(t(0.1), t(0.05), 1000), x)
    assert bool((n[1:] == 0).all())
    assert bool((n[0] != 0).any())
    pushed = torch.cat([x[:1], torch.zeros(4, 3, 6)])
    assert bool((outputs(SigmaDeltaReLU(t(0.3), t(0.1), t(0.05), 1000), pushed)[1:] == 0).all())


@given(seeds)
def test_the_largest_sum_of_graded_changes(seed: int) -> None:
    """MaxCount adds up what it is sent: its own sum is the maximum of the sums, also where they fall."""
    changes = sixteenths(seed, 6, 2, 3, 4, 4, reach=5)
    pool = MaxPool((2, 2), (2, 2), (1, 1))
    graph = chain((3, 4, 4), MaxCount(pool.kernel, pool.stride, pool.padding))
    for record in ((), ("v",)):
        run = simulate(graph, changes, record=("spikes", *record))
        sums = run.recordings["spikes"]["n0"].cumsum(0)
        for now, reached in zip(sums, changes.cumsum(0), strict=True):
            assert torch.equal(now, pool.forward(reached))


def test_cutting_time_and_batch_changes_nothing() -> None:
    current = torch.randn(12, 4, 5)
    for node in (GradedIF(t(0.3), t(0.1), 3, signed=True), Delta(t(0.2), t(0.1), 9), Sigma(t(0.5)),
                 SigmaDeltaReLU(torch.randn(5), t(0.2), t(0.1), 9)):  # fmt: skip
        whole = outputs(node, current)
        state, first, _ = run_steps(node, rest(node, 4, (5,)), current[:5], 5)
        _, second, _ = run_steps(node, state, current[5:], 7)
        assert torch.equal(torch.cat([first, second]), whole)
        assert torch.equal(torch.cat([outputs(node, current[:, k : k + 1]) for k in range(4)], 1), whole)


def two_layers(node: Neuron) -> Graph:
    return chain((6,), node, Affine(torch.ones(4, 6)), Readout())


def test_events_are_counted_once_and_multiply() -> None:
    x = 5 * torch.rand(7, 3, 6)
    graph = two_layers(GradedIF(t(1.0), t(0.5), 15))
    run = simulate(graph, x, record=["spikes", "counts"])
    numbers = run.recordings["spikes"]["n0"]
    assert float(numbers.max()) > 1
    events = int((numbers != 0).sum())
    tallies = run.counts.nodes
    assert tallies["n0"].spikes == events < int(numbers.sum())
    assert tallies["n0"].multiplications == 2 * events
    assert tallies["n0"].comparisons == tallies["n0"].updates == 7 * 3 * 6
    assert tallies["n1"].macs == tallies["n1"].effective_macs == tallies["n1"].weight_words == 4 * events
    assert tallies["n1"].accumulates == 0
    assert torch.equal(run.recordings["counts"]["n0"], numbers.sum(0, keepdim=True).int())
    assert run.counts.steps == 7 + depth(graph) == 8


def test_what_carries_a_number_is_not_a_spike() -> None:
    graph = chain((1, 4, 4), GradedIF(t(1.0), t(0.5), 3), MaxCount((2, 2), (2, 2), (0, 0)), Affine(torch.ones(2, 2)))
    assert carries_spikes(graph) == set()
    assert carries_sums_of_spikes(graph, set()) == {"n0", "n1", "n2"}
    binary = chain((1, 4, 4), IF(t(1.0), t(0.5)), MaxCount((2, 2), (2, 2), (0, 0)))
    assert carries_spikes(binary) == {"n0", "n1"}


@pytest.mark.parametrize(
    ("node", "bits"),
    [
        (IF(t(1.0), t(0.5)), 1),
        (GradedIF(t(1.0), t(0.5), 1), 1),
        (GradedIF(t(1.0), t(0.5), 3), 2),
        (GradedIF(t(1.0), t(0.5), 15), 4),
        (GradedIF(t(1.0), t(0.5), 16), 5),
        (GradedIF(t(1.0), t(0.5), 1, signed=True), 2),
        (GradedIF(t(1.0), t(0.5), 15, signed=True), 5),
        (Delta(t(1.0), t(0.5), 127), 8),
        (ReLU(), 0),
    ],
)  # fmt: skip
def test_bits_of_an_event(node: Node, bits: int) -> None:
    assert bits_per_event(chain((3,), node)) == bits


def test_saved_and_loaded(tmp_path: Path) -> None:
    graph = chain(
        (6,), Delta(t(0.2), t(0.1), 9), Affine(torch.randn(5, 6)), SigmaDeltaReLU(torch.randn(5), t(0.2), t(0.1), 9),
        GradedIF(torch.rand(5) + 0.1, t(0.1), 3, signed=True), Sigma(torch.randn(5)),
    )  # fmt: skip
    save(graph, tmp_path / "graph.h5")
    x = torch.randn(9, 4, 6)
    assert torch.equal(simulate(load(tmp_path / "graph.h5"), x).outputs, simulate(graph, x).outputs)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: GradedIF(t(0.0), t(0.0), 3), ParameterError, "GradedIF: theta must be > 0"),
        (lambda: GradedIF(t(1.0), t(0.0), 0), ParameterError, "GradedIF: levels must be an integer in 1"),
        (lambda: GradedIF(t(1.0), t(0.0), True), ParameterError, "levels must be an integer"),
        (lambda: Delta(t(1.0), t(-1.0), 3), ParameterError, "Delta: step must be > 0"),
        (lambda: Delta(t(0.5), t(1.0), 3), ParameterError, "Delta: theta must be above step / 2"),
        (lambda: SigmaDeltaReLU(t(0.0), t(1.0), t(1.0), 3, 0.0), ParameterError, "high must be > 0"),
        (lambda: SigmaDeltaReLU(t(0.0), t(1.0), t(1.0), 3, float("nan")), ParameterError, "high must be > 0"),
        (lambda: chain((3,), GradedIF(torch.ones(2), t(0.0), 3)), ShapeError, "GradedIF: theta of shape"),
    ],
)  # fmt: skip
def test_refusals(make: object, kind: type[NeuroError], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()  # type: ignore[operator]
