"""The fused kernel equals the reference: the same spikes and potentials, bit for bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuro.dynamics import State, rest
from neuro.errors import ParameterError
from neuro.kernels import cpu, run_steps
from neuro.nodes import IF, LI, LIF, Neuron, Readout, Spiking


def population(leaky: bool, reset: str, per_neuron: str, shape: tuple[int, ...]) -> Spiking:
    form = {"scalar": (), "last": shape[-1:], "channel": (shape[0], *(1,) * (len(shape) - 1)), "all": shape}[per_neuron]
    theta, v0 = 0.2 + torch.rand(form), torch.rand(()) - 0.5
    return LIF(torch.rand(form), theta, v0, reset) if leaky else IF(theta, v0, reset)  # type: ignore[arg-type]


@given(
    leaky=st.booleans(),
    reset=st.sampled_from(["subtract", "zero"]),
    per_neuron=st.sampled_from(["scalar", "last", "channel", "all"]),
    shape=st.sampled_from([(1,), (7,), (3, 4), (2, 3, 5), (cpu.BLOCK + 1,)]),
    steps=st.integers(1, 12),
    batch=st.integers(0, 3),
    held=st.booleans(),
    keep=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_numba_equals_reference(
    leaky: bool,
    reset: str,
    per_neuron: str,
    shape: tuple[int, ...],
    steps: int,
    batch: int,
    held: bool,
    keep: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    node = population(leaky, reset, per_neuron, shape)
    current = torch.randn(1 if held else steps, batch, *shape) + 0.3
    start = rest(node, batch, shape)
    before = start.v.clone()
    assert cpu.supports(node, current)
    state, spikes, potentials = run_steps(node, start, current, steps, keep, "numba")
    assert torch.equal(start.v, before)
    expected, expected_spikes, expected_potentials = run_steps(node, start, current, steps, keep, "reference")
    assert torch.equal(spikes, expected_spikes)
    assert state.t == expected.t == steps
    assert torch.equal(state.v, expected.v)
    assert (potentials is None) == (expected_potentials is None) == (not keep)
    if potentials is not None and expected_potentials is not None:
        assert torch.equal(potentials, expected_potentials)
        assert torch.equal(potentials[-1], state.v)


def test_currents_of_any_memory_layout() -> None:
    node = IF(torch.rand(4, 1) + 0.1, torch.tensor(0.0))
    current = torch.randn(5, 6, 4, 8).transpose(0, 3).flip(1)
    for kernel in ("numba", "reference"):
        _, spikes, _ = run_steps(node, rest(node, 6, (4, 5)), current, 8, kernel=kernel)
        _, copied, _ = run_steps(node, rest(node, 6, (4, 5)), current.contiguous(), 8, kernel=kernel)
        assert torch.equal(spikes, copied)


def test_cutting_time_equals_one_run() -> None:
    node = population(True, "zero", "all", (9,))
    current = torch.randn(10, 2, 9)
    whole, spikes, _ = run_steps(node, rest(node, 2, (9,)), current, 10)
    middle, first, _ = run_steps(node, rest(node, 2, (9,)), current[:4], 4)
    last, second, _ = run_steps(node, middle, current[4:], 6)
    assert torch.equal(spikes, torch.cat([first, second]))
    assert torch.equal(whole.v, last.v)
    assert whole.t == last.t == 10


@pytest.mark.parametrize("node", [LI(torch.tensor(0.5)), Readout(1)])
def test_other_neurons_fall_back_to_the_reference(node: Neuron) -> None:
    current = torch.randn(4, 2, 3)
    assert not cpu.supports(node, current)
    _, out, _ = run_steps(node, State(torch.zeros(2, 3)), current, 4, kernel="numba")
    assert out.shape == (4, 2, 3)


def test_gradients_and_other_precisions_use_the_reference() -> None:
    start, current = State(torch.zeros(2, 3)), torch.rand(4, 2, 3)
    beta = torch.tensor(0.5, requires_grad=True)
    node = LIF(beta, torch.tensor(9.0), torch.tensor(0.0))
    _, _, potentials = run_steps(node, start, current, 4, keep=True)
    assert potentials is not None
    potentials.sum().backward()
    # Without spikes v[3] = sum of beta^k i, so the sum over time of all potentials is a polynomial in beta.
    expected = sum(k * 0.5 ** (k - 1) * current[: 4 - k].sum() for k in range(1, 4))
    assert beta.grad is not None
    assert beta.grad.item() == pytest.approx(float(expected), rel=1e-5)
    with torch.no_grad():
        assert cpu.supports(node, current)
    assert not cpu.supports(node, current)
    plain = IF(torch.tensor(1.0), torch.tensor(0.0))
    assert not cpu.supports(plain, current.double())
    assert not cpu.supports(plain, current.clone().requires_grad_())
    assert not cpu.supports(IF(torch.ones(3, dtype=torch.float64), torch.tensor(0.0)), current)


def test_unknown_kernel_is_refused() -> None:
    node = IF(torch.tensor(1.0), torch.tensor(0.0))
    with pytest.raises(ParameterError, match="kernel must be 'auto', 'reference' or 'numba', got 'cuda'"):
        run_steps(node, rest(node, 1, (1,)), torch.zeros(1, 1, 1), 1, kernel="cuda")  # type: ignore[arg-type]
