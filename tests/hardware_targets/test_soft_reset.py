"""Soft reset by the current, on chips that only reset to zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_targets import compile, run
from hardware_targets.loihi.program import Dense, Input, Population, Program
from hardware_targets.loihi.simulate import simulate_program
from hardware_targets.soft_reset import clock_spikes, exact_for, without_soft_reset
from neuro.errors import DoesNotFit
from neuro.graph import Graph
from neuro.graph import Input as GraphInput
from neuro.nodes import IF, LIF, Affine
from neuro.simulate import simulate


def integrators(seed: int, dv: int, scale: int) -> Program:
    """Two layers with soft reset, biases of whole units and potentials from the start."""
    rng = np.random.default_rng(seed)

    def weights(out: int, into: int) -> np.ndarray:
        return np.clip(2 * rng.integers(-3 * scale, 4 * scale + 1, (out, into)), -256, 254)

    first = Population("a", 12, vth=rng.integers(10, 40, 12) * scale, dv=dv, bias_mant=64 * rng.integers(-2, 3, 12),
                       reset="subtract", v0=64 * scale * rng.integers(-4, 5, 12), start=1)  # fmt: skip
    second = Population("b", 9, vth=rng.integers(10, 40, 9) * scale, dv=dv, reset="subtract", start=2)
    connections = (
        Dense(source="x", target="a", weights=weights(12, 8), sign_mode="mixed"),
        Dense(source="a", target="b", weights=weights(9, 12), sign_mode="mixed"),
    )
    return Program((Input("x", 8),), (first, second), connections)


def both(program: Program, ticks: int, seed: int) -> tuple[dict, dict, int]:
    rng = np.random.default_rng(seed)
    x = (rng.random((ticks, 6, 8)) < 0.15).astype(np.int32)
    hard, starts = without_soft_reset(program, "clock")
    assert all(p.reset == "zero" and p.start == 0 for p in hard.populations)
    clock = np.repeat(clock_spikes(starts, ticks)[:, None], 6, 1)
    soft = simulate_program(program, {"x": x}, ticks, record=("spikes", "v"))
    found = simulate_program(hard, {"x": x, "clock": clock}, ticks, record=("spikes", "u"))
    return soft.spikes, found.spikes, int(max(np.abs(u).max() for u in found.u.values())) >> 6


@settings(max_examples=60)
@given(st.integers(0, 2**31 - 1), st.integers(2, 30))
def test_small_integrators_fire_as_with_a_soft_reset_bit_for_bit(seed: int, ticks: int) -> None:
    soft, hard, largest = both(integrators(seed, 0, 1), ticks, seed)
    if ticks + 2 <= exact_for(largest + 1):
        assert all(np.array_equal(soft[name], hard[name]) for name in soft)


def test_the_regime_of_exactness_is_met_and_fires() -> None:
    met = 0
    for seed in range(20):
        soft, hard, largest = both(integrators(seed, 0, 1), 12, seed)
        if exact_for(largest + 1) >= 14:
            met += int(soft["a"].sum()) + int(soft["b"].sum())
            assert all(np.array_equal(soft[name], hard[name]) for name in soft)
    assert met > 500


def test_exact_for_says_what_the_loss_allows() -> None:
    assert exact_for(64) == 30
    assert exact_for(65) == 14
    assert exact_for(4096) == 0


@pytest.mark.parametrize("dv", [0, 41, 410])
def test_large_integrators_and_leaky_neurons_fire_almost_the_same(dv: int) -> None:
    soft, hard, _ = both(integrators(5, dv, 30), 40, 5)
    for name in soft:
        fired = int(soft[name].sum())
        assert fired > 20  # enough for the shares below to mean something
        assert int((soft[name] != hard[name]).sum()) < 0.1 * fired
        assert int(hard[name].sum()) == pytest.approx(fired, rel=0.02)


def network(neuron: IF | LIF) -> Graph:
    generator = torch.Generator().manual_seed(0)
    nodes = {
        "x": GraphInput((12,)), "a": Affine(torch.randn(16, 12, generator=generator) / 3, torch.randn(16) / 20),
        "n": neuron, "b": Affine(torch.randn(4, 16, generator=generator) / 2), "m": neuron,
    }  # fmt: skip
    return Graph(nodes, {"a": ("x",), "n": ("a",), "b": ("n",), "m": ("b",)}, "soft")


@pytest.mark.parametrize(
    "neuron",
    [IF(torch.tensor(1.0), torch.tensor(0.5)), LIF(torch.tensor(0.9), torch.tensor(1.0), torch.tensor(0.0))],
    ids=["IF", "LIF"],
)
def test_a_network_with_soft_reset_runs_on_loihi1_when_asked_to(neuron: IF | LIF) -> None:
    graph = network(neuron)
    spikes = (torch.rand(32, 20, 12, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    with pytest.raises(DoesNotFit, match="reset subtract needed, zero available"):
        compile(graph, "loihi1")
    program = compile(graph, "loihi1", soft_reset="current")
    assert all(population.reset == "zero" for population in program.integers.populations)
    found, wanted = run(program, spikes, steps=32), simulate(graph, spikes)
    assert float(wanted.outputs.mean()) > 0.05
    assert float((found.outputs - wanted.outputs).abs().mean()) < 0.02
    on_loihi2 = compile(graph, "loihi2", soft_reset="current")
    assert on_loihi2.clock is None
    assert {population.reset for population in on_loihi2.integers.populations} == {"subtract"}
