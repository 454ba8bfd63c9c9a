"""The neuron equations against hand calculation and closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuro.dynamics import State, rest, step
from neuro.nodes import IF, LI, LIF, MaxCount, MaxPool, Neuron, Readout
from neuro.nodes.neurons import Reset

RESETS: tuple[Reset, ...] = ("subtract", "zero")


def drive(node: Neuron, current: list[float]) -> tuple[list[float], list[float]]:
    """Outputs and potentials of one neuron, step by step."""
    state, outputs, potentials = rest(node, 1, (1,)), [], []
    for i in current:
        state, z = step(node, state, torch.tensor([[i]]))
        outputs.append(z.item())
        potentials.append(state.v.item())
    return outputs, potentials


def t(value: float) -> Tensor:
    return torch.tensor(value)


def test_if_by_hand() -> None:
    assert drive(IF(t(1.0), t(0.5)), [0.5, 0.25, 0.25, 2.5, 0.0]) == ([1, 0, 0, 1, 1], [0.0, 0.25, 0.5, 2.0, 1.0])
    assert drive(IF(t(1.0), t(0.5), "zero"), [0.5, 0.25, 2.5, 0.0]) == ([1, 0, 1, 0], [0.0, 0.25, 0.0, 0.0])


def test_lif_by_hand() -> None:
    subtract = LIF(t(0.5), t(1.0), t(0.0))
    assert drive(subtract, [0.75, 0.75, 0.5, 0.0]) == ([0, 1, 0, 0], [0.75, 0.125, 0.5625, 0.28125])
    zero = LIF(t(0.5), t(1.0), t(0.0), "zero")
    assert drive(zero, [0.75, 0.75, 0.5, 0.0]) == ([0, 1, 0, 0], [0.75, 0.0, 0.5, 0.25])


def test_a_neuron_fires_at_its_threshold_and_not_below() -> None:
    theta = torch.tensor(0.7)
    below = torch.nextafter(theta, t(0.0)).item()
    assert drive(IF(theta, t(0.0)), [theta.item()])[0] == [1]
    assert drive(IF(theta, t(0.0)), [below])[0] == [0]


@given(st.floats(0, 1), st.floats(-2, 2), st.integers(1, 30))
def test_leaky_membranes_follow_the_geometric_series(beta: float, current: float, steps: int) -> None:
    series = sum(beta**k for k in range(steps)) * current
    assert drive(LI(t(beta)), [current] * steps)[0][-1] == pytest.approx(series, rel=1e-4, abs=1e-5)
    assert drive(LIF(t(beta), t(1e6), t(0.0)), [current] * steps)[1][-1] == pytest.approx(series, rel=1e-4, abs=1e-5)


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20), st.integers(0, 25))
def test_readout_is_the_mean_current_from_start_on(current: list[float], start: int) -> None:
    kept = current[start:]
    expected = sum(kept) / len(kept) if kept else 0.0
    assert drive(Readout(start), current)[0][-1] == pytest.approx(expected, abs=1e-5)


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1), st.booleans())
def test_max_count_equals_the_largest_count(seed: int, kernel: int, stride: int, pad: int, ceil: bool) -> None:
    torch.manual_seed(seed)
    node = MaxCount((kernel,), (stride,), (min(pad, kernel // 2),), ceil)
    spikes = (torch.rand(8, 2, 3, 7) < torch.rand(7)).float()
    state, total = rest(node, 2, (3, 7)), torch.zeros(2, *node.output_shape((3, 7)))
    for z in spikes:
        state, out = step(node, state, z)
        assert bool(((out == 0) | (out == 1)).all())
        total += out
    window = MaxPool((kernel,), (stride,), (min(pad, kernel // 2),), ceil)
    assert torch.equal(total, window.forward(spikes.sum(0)))


@given(st.integers(0, 1000), st.integers(1, 15), st.sampled_from(RESETS))
def test_cutting_time_equals_one_run(seed: int, cut: int, reset: Reset) -> None:
    torch.manual_seed(seed)
    current = torch.randn(16, 2, 3)
    for node in (IF(t(1.0), t(0.2), reset), LIF(t(0.8), t(1.0), t(0.0), reset), LI(t(0.5)), Readout(3)):
        whole = state = rest(node, 2, (3,))
        for i in current:
            whole, last = step(node, whole, i)
        for i in current[:cut]:
            state, _ = step(node, state, i)
        state = State(state.v.clone(), state.t)
        for i in current[cut:]:
            state, output = step(node, state, i)
        assert whole.t == state.t == 16
        assert torch.equal(whole.v, state.v)
        assert torch.equal(last, output)


def test_step_changes_no_state_in_place() -> None:
    node = LIF(torch.tensor([0.5, 0.9]), torch.ones(2), torch.tensor([0.1, 0.2]))
    state = rest(node, 3, (2,))
    before = state.v.clone()
    step(node, state, torch.rand(3, 2))
    assert torch.equal(state.v, before)
    state.v.add_(1)
    assert node.v0.tolist() == pytest.approx([0.1, 0.2])


def test_stateless_nodes_have_no_dynamics() -> None:
    class Odd(Neuron):
        pass

    with pytest.raises(TypeError, match="Odd has no dynamics"):
        step(Odd(), State(torch.zeros(1)), torch.zeros(1))
