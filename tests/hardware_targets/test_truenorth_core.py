"""One core against a slow, literal transcription of Cassidy 2013 in plain Python integers, and the stochastic modes by
statistics.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_targets.truenorth import OUTPUT, CoreShape, Events, Targets, make_cores, make_network, rest, run
from hardware_targets.truenorth.draws import LEAK, THRESHOLD, draw_eta, draw_rho
from hardware_targets.truenorth.neuron import bounded, drawn, fire, integrate, leak
from neuro.errors import ParameterError, ShapeError

A, N = 12, 9
NARROW = CoreShape(axons=A, neurons=N, alpha=(0, 200), beta=(0, 200), reset=(-200, 200), potential=(-300, 299))


def sgn(x: int) -> int:
    return (x > 0) - (x < 0)


def literal_neuron(
    v: int, inputs: list[tuple[int, bool, int]], p: dict[str, int], rho_leak: int, eta: int, low: int, high: int
) -> tuple[int, bool]:
    """One neuron, one tick, as the paper writes it. inputs: (weight, stochastic, rho) of each active connected axon."""
    for s, b, rho in inputs:
        v += (sgn(s) if abs(s) >= rho else 0) if b else s
    omega = sgn(v) if p["reversal"] else 1
    lam = (sgn(p["leak"]) if abs(p["leak"]) >= rho_leak else 0) if p["c"] else p["leak"]
    leaked = v + omega * lam
    if p["reversal"] and ((v > 0 and leaked < 0) or (v < 0 and leaked > 0)):
        leaked = 0
    v = max(low, min(high, leaked))
    kappa, gamma, alpha, beta = p["floor"], p["mode"], p["alpha"], p["beta"]
    spike = v >= alpha + eta
    if spike:
        v = p["reset"] if gamma == 0 else v - (alpha + eta) if gamma == 1 else v
    elif v < -(beta * kappa + (beta + eta) * (1 - kappa)):
        unfloored = -p["reset"] if gamma == 0 else v + beta + eta if gamma == 1 else v
        v = -beta if kappa else unfloored
    return max(low, min(high, v)), spike


def random_core(rng: np.random.Generator, shape: CoreShape, count: int, stochastic: bool = False) -> dict[str, Any]:
    n, size = shape.neurons, (count, shape.neurons)
    small = 12
    p = {
        "crossbar": rng.random((count, shape.axons, n)) < 0.5,
        "axon_types": rng.integers(0, 4, (count, shape.axons)),
        "weights": rng.integers(-small, small + 1, (count, n, 4)),
        "leak": rng.integers(-6, 7, size),
        "alpha": rng.integers(0, 30, size),
        "beta": rng.integers(0, 30, size),
        "reset": rng.integers(-15, 16, size),
        "mode": rng.integers(0, 3, size),
        "floor": rng.integers(0, 2, size),
        "reversal": rng.integers(0, 2, size),
        "v": rng.integers(-40, 41, size),
    }
    if stochastic:
        p |= {
            "stochastic_weights": rng.integers(0, 2, (count, n, 4)),
            "stochastic_leak": rng.integers(0, 2, size),
            "mask": (1 << rng.integers(0, 5, size)) - 1,
        }
        p["weights"], p["leak"] = p["weights"] * 20, p["leak"] * 40
    return p


def one_core(p: dict[str, Any], shape: CoreShape, seed: int = 0) -> Any:
    """A network of cores without targets."""
    arrays = {k: v for k, v in p.items() if k not in ("crossbar", "axon_types", "weights")}
    cores = make_cores(shape, p["crossbar"], p["axon_types"], p["weights"], **arrays)
    return make_network(shape, cores, Targets(np.array(-1), np.array(0), np.array(1)), seed=seed)


def spikes_of(done: Any, ticks: int, n: int) -> np.ndarray:
    table = np.zeros((ticks, n), bool)
    table[done.spike_tick, done.spike_neuron] = True
    return table


@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
@settings(max_examples=60)
def test_every_mode_equals_the_literal_transcription(seed: int, stochastic: bool, plain: bool) -> None:
    """Random neurons over all reset modes x floor x reversal; the kernel, fed by its own draws, must agree in v and in
    spikes.
    """
    rng = np.random.default_rng(seed)
    p = random_core(rng, NARROW, 1, stochastic)
    if plain:
        p["reversal"] = np.zeros_like(p["reversal"])
    network, ticks = one_core(p, NARROW, seed), 12
    active = rng.random((ticks, A)) < 0.4
    t, a = np.nonzero(active)
    done = run(network, rest(network), ticks, Events(t, np.zeros_like(t), a), record=True)
    core_seed = int(network.seeds[0])
    v = p["v"][0].tolist()
    spikes = np.zeros((ticks, N), bool)
    for tick in range(ticks):
        rho = [draw_rho(core_seed, tick, axon, N) for axon in range(A)]
        rho_leak = draw_rho(core_seed, tick, LEAK, N)
        noise = draw_eta(core_seed, tick, THRESHOLD, N)
        for j in range(N):
            values = {k: int(p[k][0, j]) for k in ("leak", "alpha", "beta", "reset", "mode", "floor", "reversal")}
            values["c"] = int(p["stochastic_leak"][0, j]) if stochastic else 0
            eta = int(noise[j]) & int(p["mask"][0, j]) if stochastic else 0
            inputs = []
            for axon in np.flatnonzero(active[tick]):
                if p["crossbar"][0, axon, j]:
                    g = p["axon_types"][0, axon]
                    b = bool(p["stochastic_weights"][0, j, g]) if stochastic else False
                    inputs.append((int(p["weights"][0, j, g]), b, int(rho[axon][j])))
            v[j], spikes[tick, j] = literal_neuron(v[j], inputs, values, int(rho_leak[j]), eta, *NARROW.potential)
    np.testing.assert_array_equal(spikes_of(done, ticks, N), spikes)
    np.testing.assert_array_equal(done.state.v[0], v)


@given(st.integers(0, 2**32 - 1))
def test_array_equations_equal_the_literal_transcription(seed: int) -> None:
    """`neuron` (NumPy) against the same plain Python."""
    rng = np.random.default_rng(seed)
    p = {k: x[0] for k, x in random_core(rng, NARROW, 1, True).items()}
    active = rng.random(A) < 0.5
    rho, rho_leak, eta = rng.integers(0, 256, (A, N)), rng.integers(0, 256, N), rng.integers(0, 8, N)
    g = p["axon_types"]
    weights = drawn(p["weights"][:, g].T, p["stochastic_weights"][:, g].T, rho) * p["crossbar"]
    v = leak(integrate(p["v"], active, weights), drawn(p["leak"], p["stochastic_leak"], rho_leak), p["reversal"])
    v = bounded(v, *NARROW.potential, "saturate")
    fired = fire(v, p["alpha"], p["beta"], p["reset"], p["mode"], p["floor"], eta)
    for j in range(N):
        inputs = [
            (int(p["weights"][j, g[a]]), bool(p["stochastic_weights"][j, g[a]]), int(rho[a, j]))
            for a in range(A)
            if active[a] and p["crossbar"][a, j]
        ]
        values = {k: int(p[k][j]) for k in ("leak", "alpha", "beta", "reset", "mode", "floor", "reversal")}
        values["c"] = int(p["stochastic_leak"][j])
        want = literal_neuron(int(p["v"][j]), inputs, values, int(rho_leak[j]), int(eta[j]), *NARROW.potential)
        assert (int(np.clip(fired.v[j], *NARROW.potential)), bool(fired.spikes[j])) == want


@pytest.mark.parametrize(
    ("alpha", "lam", "v0", "weight", "first", "period"),
    [(10, 1, 0, 0, 9, 10), (10, 1, 1, 0, 8, 10), (11, 2, 0, 0, 5, 6), (10, -1, 0, 3, 4, 5)],
)
def test_ibm_mini_test_periods(alpha: int, lam: int, v0: int, weight: int, first: int, period: int) -> None:
    """pytruenorth's README, checked there on IBM's NSCS and NS1e: periods 10, 10 (phase 9), 6 and 5."""
    shape = CoreShape(axons=1, neurons=1)
    p = {"crossbar": np.ones((1, 1, 1), bool), "axon_types": 0, "weights": weight, "alpha": alpha, "leak": lam, "v": v0}
    network, ticks = one_core(p, shape), 60
    every = np.arange(ticks)
    done = run(network, rest(network), ticks, Events(every, every * 0, every * 0), record=True)
    np.testing.assert_array_equal(done.spike_tick, np.arange(first, ticks, period))


@pytest.mark.parametrize("overflow", ["saturate", "wrap", "none"])
def test_the_potential_register(overflow: Any) -> None:
    """A leak of 100 from 100 in a 9-bit register: clips at 255, wraps to -156 + 100 k, or grows."""
    shape = CoreShape(axons=1, neurons=1, potential=(-256, 255), overflow=overflow, mask_bits=0)
    p = {
        "crossbar": np.zeros((1, 1, 1), bool),
        "axon_types": 0,
        "weights": 0,
        "alpha": 10000,
        "beta": 10000,
        "leak": 100,
    }
    network = one_core(p, shape)
    state, seen = rest(network), []
    for _ in range(4):
        state = run(network, state, 1).state
        seen.append(int(state.v[0, 0]))
    want = {"saturate": [100, 200, 255, 255], "wrap": [100, 200, -212, -112], "none": [100, 200, 300, 400]}
    assert seen == want[overflow]


def stochastic_rate(weight: int, ticks: int = 4000, neurons: int = 64) -> float:
    shape = CoreShape(axons=1, neurons=neurons)
    p: dict[str, Any] = {"crossbar": np.ones((1, 1, neurons), bool), "axon_types": 0, "weights": weight, "alpha": 1}
    network = one_core(p | {"stochastic_weights": True}, shape, seed=3)
    t = np.arange(ticks)
    done = run(network, rest(network), ticks, Events(t, t * 0, t * 0))
    return float(done.counts["spikes"].sum()) / (ticks * neurons)


@pytest.mark.parametrize("weight", [1, 64, 200, 255])
def test_stochastic_synapses_add_one_with_probability_s_plus_1_over_256(weight: int) -> None:
    p = (weight + 1) / 256
    deviation = max((p * (1 - p) / (4000 * 64)) ** 0.5, 1e-9)
    assert abs(stochastic_rate(weight) - p) < 5 * deviation


def test_stochastic_leak_has_its_mean_and_neurons_do_not_copy_each_other() -> None:
    shape, ticks, n = CoreShape(axons=1, neurons=64), 4000, 64
    p: dict[str, Any] = {"crossbar": np.zeros((1, 1, n), bool), "axon_types": 0, "weights": 0, "alpha": 1, "leak": 63}
    network = one_core(p | {"stochastic_leak": True}, shape, seed=5)
    done = run(network, rest(network), ticks, record=True)
    table = spikes_of(done, ticks, n).astype(float)
    assert abs(table.mean() - 0.25) < 5 * (0.25 * 0.75 / table.size) ** 0.5
    neurons = np.corrcoef(table.T)
    assert np.abs(neurons[~np.eye(n, dtype=bool)]).max() < 6 / ticks**0.5
    successive = np.corrcoef(table[:-1].ravel(), table[1:].ravel())[0, 1]
    assert abs(successive) < 5 / table.size**0.5


def test_stochastic_thresholds_are_uniform_over_the_mask() -> None:
    """v = 4 against alpha = 1 and eta in 0..7: fires when eta <= 3, half of the time."""
    shape, ticks, n = CoreShape(axons=1, neurons=64), 4000, 64
    p: dict[str, Any] = {"crossbar": np.zeros((1, 1, n), bool), "axon_types": 0, "weights": 0, "alpha": 1, "mask": 7}
    network = one_core(p | {"v": 4, "mode": 2, "beta": 100}, shape, seed=7)
    rate = run(network, rest(network), ticks).counts["spikes"].sum() / (ticks * n)
    assert abs(rate - 0.5) < 5 * (0.25 / (ticks * n)) ** 0.5


def test_the_seed_decides_the_draws() -> None:
    for draw in (draw_rho, draw_eta):
        np.testing.assert_array_equal(draw(1, 2, 3, 100), draw(1, 2, 3, 100))
        for other in (draw(2, 2, 3, 100), draw(1, 3, 3, 100), draw(1, 2, 4, 100)):
            assert (draw(1, 2, 3, 100) != other).mean() > 0.9
        np.testing.assert_array_equal(draw(1, 2, 3, 200)[:70], draw(1, 2, 3, 70))


@pytest.mark.parametrize("draws", [draw_rho(9, 9, 9, 100_000), draw_eta(9, 9, 9, 100_000) & 255])
def test_draws_are_uniform(draws: np.ndarray) -> None:
    """Chi-square over 256 values: mean 255, variance 510; also over the pairs of one hash's neighbouring bytes."""
    counts = np.bincount(draws, minlength=256)
    assert ((counts - 100_000 / 256) ** 2 / (100_000 / 256)).sum() < 255 + 6 * (2 * 255) ** 0.5
    pairs = np.bincount((draws[:-1] >> 4) * 16 + (draws[1:] >> 4), minlength=256)
    assert ((pairs - pairs.mean()) ** 2 / pairs.mean()).sum() < 255 + 6 * (2 * 255) ** 0.5


def test_wide_cores_and_heavy_input_do_not_overflow_the_sums() -> None:
    """512 axons of weight 255 all active: 130,560 in one tick, far outside 16 bits."""
    shape = CoreShape(axons=512, neurons=70)
    p = {
        "crossbar": np.ones((1, 512, 70), bool),
        "axon_types": 0,
        "weights": [255, 0, 0, 0],
        "alpha": 130_560,
        "beta": 0,
    }
    network = one_core(p, shape)
    a = np.arange(512)
    done = run(network, rest(network), 1, Events(a * 0, a * 0, a))
    assert done.counts["spikes"][0] == 70
    assert done.counts["synaptic_events"][0] == 512 * 70


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": 256}, "weights must lie in"),
        ({"axon_types": 4}, "axon_types must lie in"),
        ({"alpha": -1}, "alpha must lie in"),
        ({"mode": 3}, "reset mode must lie in"),
        ({"leak": 0.5}, "leak must be integers"),
        ({"mask": 5}, "threshold mask"),
    ],
)
def test_values_outside_their_field_are_refused(change: dict[str, Any], words: str) -> None:
    p = {"crossbar": np.zeros((1, A, N), bool), "axon_types": 0, "weights": 0, "alpha": 1} | change
    with pytest.raises(ParameterError, match=words):
        one_core(p, NARROW)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="crossbar"):
        one_core({"crossbar": np.zeros((1, A + 1, N), bool), "axon_types": 0, "weights": 0, "alpha": 1}, NARROW)
    with pytest.raises(ShapeError, match="leak"):
        one_core(
            {"crossbar": np.zeros((1, A, N), bool), "axon_types": 0, "weights": 0, "alpha": 1, "leak": [1, 2]}, NARROW
        )
    assert OUTPUT < 0
