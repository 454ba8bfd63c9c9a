"""Known answers of Loihi's integer arithmetic: what the numbers must be by the chip's rules, whoever computes them."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardware_targets.loihi.dynamics import decay, step, wrap24_once
from hardware_targets.loihi.graded import Delta, GradedVector, Product, Sigma, SigmaDelta
from hardware_targets.loihi.program import (
    Conv2d,
    Dense,
    Input,
    Neurons,
    Population,
    Program,
    Sparse,
    leaves_common_subset,
)
from hardware_targets.loihi.reference import run_reference, wrap24
from hardware_targets.loihi.resonators import PhaseVector, Resonator, phase_vector_decays, resonator_decays
from hardware_targets.loihi.simulate import simulate_program
from neuro.errors import NeuroError, ParameterError, ShapeError


def single(population: Population, weights: list[list[int]], **options: object) -> Program:
    """One input channel per column of `weights` into one population."""
    connection = Dense(source="x", target=population.name, weights=np.array(weights), **options)
    return Program((Input("x", connection.source_size),), (population,), (connection,))


@pytest.mark.parametrize(
    ("v", "du", "expected"), [(1000, 0, 1000), (1000, 4095, 0), (1000, 2048, 500), (-3, 2048, -1), (3, 2048, 1)]
)
def test_decay_rounds_toward_zero(v: int, du: int, expected: int) -> None:
    assert decay(np.array([v], np.int32), 4096 - du if du != 4095 else 0)[0] == expected


def test_current_wraps_once_and_voltage_saturates() -> None:
    values = np.array([2**23, 2**23 + 1, -(2**23), -(2**23) - 1, 3 * 2**23 + 5, 0], np.int32)
    assert wrap24_once(values).tolist() == [2**23, 1 - 2**23, 2**23, 2**23 - 1, 2**23 + 5, 0]
    assert wrap24(np.array([2**23, -(2**23) - 1, 5 * 2**24 + 7])).tolist() == [-(2**23), 2**23 - 1, 7]
    integrator = Population("n", 2, reset="none", du=4095)
    state = {what: x[None] for what, x in integrator.rest.items()}
    for tick in range(5):
        _, state = step(integrator, tick, state, [np.array([[100_000, -100_000]], np.int32)])
    assert state["v"].tolist() == [[2**23 - 1, 1 - 2**23]]


def test_threshold_is_strict_and_bias_fires_with_its_period() -> None:
    # 640 per tick against 10 * 64: 640 is not above 640, 1280 is
    program = Program((), (Population("n", 1, vth=10, bias_mant=10, bias_exp=6),), ())
    spikes = run_reference(program, {}, 6)["n"]["spikes"][:, 0, 0]
    assert spikes.tolist() == [0, 1, 0, 1, 0, 1]


def test_each_connection_takes_one_tick() -> None:
    layers = tuple(Population(name, 1, vth=1) for name in ("a", "b", "c"))
    chain = [Dense(source=s, target=t, weights=np.array([[10]])) for s, t in (("x", "a"), ("a", "b"))]
    delayed = Dense(source="b", target="c", weights=np.array([[10]]), delays=4)
    program = Program((Input("x", 1),), layers, (*chain, delayed))
    run = simulate_program(program, {"x": np.ones((1, 1, 1), int)}, 10, record=("spikes",))
    assert [int(np.flatnonzero(run.spikes[n][:, 0, 0])[0]) for n in ("a", "b", "c")] == [1, 2, 7]


@pytest.mark.parametrize(
    ("weights", "mode", "bits", "expected"),
    [
        ([-3, 5, 254, 300, -300], None, 8, [-4, 4, 254, 254, -256]),
        ([3, 5, 300], None, 8, [3, 5, 255]),
        ([-3, -5, -300], None, 8, [-3, -5, -255]),
        ([7, 9, 255], None, 5, [0, 8, 248]),
        ([-7, -9, -255], None, 5, [0, -8, -248]),
        ([-3, 5, 100], "excitatory", 8, [0, 5, 100]),
        ([3, 5], "mixed", 8, [2, 4]),
    ],
)
def test_weight_formats(weights: list[int], mode: str | None, bits: int, expected: list[int]) -> None:
    connection = Dense(source="x", target="n", weights=np.array([weights]), sign_mode=mode, num_weight_bits=bits)
    assert connection.effective_weights.tolist() == [expected]


def test_exponent_acts_on_the_sum_and_rounds_down() -> None:
    program = single(Population("n", 1, reset="none"), [[3, 3]], weight_exp=-2)  # 6 >> 2 = 1, each alone 0
    run = simulate_program(program, {"x": np.ones((1, 1, 2), int)}, 2)
    assert run.state.v["n"].tolist() == [[64]]
    program = single(Population("n", 1, reset="none"), [[-3, 0]], weight_exp=-2)
    run = simulate_program(program, {"x": np.ones((1, 1, 2), int)}, 2)
    assert run.state.v["n"].tolist() == [[-64]]


def test_messages_count_only_where_they_are_read() -> None:
    payload = {"x": np.full((1, 1, 1), 7)}
    binary = single(Population("n", 1, reset="none"), [[5]])
    graded = single(Population("n", 1, reset="none"), [[5]], num_message_bits=8)
    assert simulate_program(binary, payload, 2).state.v["n"][0, 0] == 5 * 64
    assert simulate_program(graded, payload, 2).state.v["n"][0, 0] == 35 * 64


@given(st.integers(0, 2**32 - 1))
def test_soft_reset_loses_no_charge(seed: int) -> None:
    """Without leak: v at the end + theta x spikes = everything that arrived."""
    rng = np.random.default_rng(seed)
    population = Population("n", 4, vth=rng.integers(1, 200, 4), reset="subtract", v0=rng.integers(-900, 900, 4))
    program = single(population, rng.integers(-100, 100, (4, 6)).tolist(), num_weight_bits=8, sign_mode="mixed")
    spikes = rng.random((15, 3, 6)) < 0.4
    run = simulate_program(program, {"x": spikes}, 16)
    charge = spikes.sum(axis=0) @ program.connections[0].effective_weights.T * 64 + population.v0
    assert np.array_equal(run.state.v["n"] + run.spike_counts["n"] * population.threshold, charge)


@given(st.integers(0, 2**32 - 1))
def test_convolution_is_torch_convolution_and_counts_every_synapse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 2]))
    weights = rng.integers(-3, 4, (4, 4 // groups, int(rng.integers(1, 4)), int(rng.integers(1, 4))))
    geometry = {
        "stride": tuple(int(n) for n in rng.integers(1, 3, 2)),
        "padding": tuple(int(n) for n in rng.integers(0, 3, 2)),
        "dilation": tuple(int(n) for n in rng.integers(1, 3, 2)),
        "groups": groups,
    }
    connection = Conv2d(source="x", target="n", weights=weights, input_shape=(4, 6, 7), **geometry)
    unrolled = torch.nn.functional.conv2d(
        torch.eye(4 * 6 * 7).reshape(-1, 4, 6, 7), torch.tensor(weights, dtype=torch.float32), **geometry
    )
    assert connection.output_shape == tuple(unrolled.shape[1:])
    matrix = unrolled.reshape(4 * 6 * 7, -1).numpy().astype(np.int64)
    assert np.array_equal(connection.fan_out, np.count_nonzero(matrix, axis=1))
    program = Program(
        (Input("x", connection.source_size),),
        (Population("n", connection.target_size, reset="none"),),
        (connection,),
    )
    spikes = rng.random((3, 2, connection.source_size)) < 0.3
    run = simulate_program(program, {"x": spikes}, 4)
    assert np.array_equal(run.state.v["n"], 64 * (spikes.sum(axis=0) @ matrix))
    assert run.counts.synaptic_events["x->n"] == (spikes.sum(axis=(0, 1)) * np.count_nonzero(matrix, axis=1)).sum()


def test_a_silent_layer_still_pays_for_its_updates() -> None:
    program = single(Population("n", 3, vth=5, start=2), [[9], [0], [9]])
    run = simulate_program(program, {"x": np.zeros((4, 2, 1), int)}, 10)
    assert run.counts.synaptic_events == {"x->n": 0}
    assert run.counts.active_updates == {"n": 0}
    assert run.counts.inactive_updates == {"n": 2 * 3 * 8}
    run = simulate_program(program, {"x": np.ones((10, 2, 1), int)}, 10)
    assert run.counts.synaptic_events == {"x->n": 10 * 2 * 2}
    assert run.counts.active_updates == {"n": 2 * 2 * 8}


def test_start_holds_the_neurons_at_rest() -> None:
    biased = Population("n", 1, vth=10, bias_mant=11, bias_exp=6, v0=77, start=3)
    trace = run_reference(Program((), (biased,), ()), {}, 5)["n"]
    assert trace["spikes"][:, 0, 0].tolist() == [0, 0, 0, 1, 1]
    assert trace["v"][:3, 0, 0].tolist() == [77, 77, 77]


def driven(population: Neurons, *arriving: list[list[int]]) -> dict[str, np.ndarray]:
    """`population` with the given activations at its ports, (time, size) each: events and variables over time."""
    state = {what: x[None] for what, x in population.rest.items()}
    series: dict[str, list[np.ndarray]] = {}
    for tick, now in enumerate(zip(*arriving, strict=True)):
        events, state = step(population, tick, state, [np.array([a], np.int32) for a in now])
        for what, x in {"spikes": events, **state}.items():
            series.setdefault(what, []).append(x[0])
    return {what: np.array(x) for what, x in series.items()}


def test_refractory_neurons_rest_and_then_start_from_zero() -> None:
    population = Population("n", 1, vth=9, refractory=3)
    trace = driven(population, [[10]] * 9)
    assert trace["spikes"][:, 0].tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert trace["u"][:, 0].tolist() == [640] * 9


def test_periodic_reset_comes_before_the_update() -> None:
    population = Population("n", 1, vth=1000, reset_interval=3, reset_offset=1, v0=5)
    assert driven(population, [[1]] * 6)["v"][:, 0].tolist() == [64, 128, 192, 64, 128, 192]


@given(st.integers(0, 2**32 - 1))
def test_ternary_neurons_are_odd_functions(seed: int) -> None:
    """Everything rounds toward zero, so the negated input gives the negated answer as long as nothing overflows."""
    rng = np.random.default_rng(seed)
    arriving, vth = rng.integers(-300, 300, (20, 5)), rng.integers(0, 400, 5)
    population = Population(
        "n", 5, vth=vth, vth_low=-vth, du=int(rng.integers(100, 4096)), dv=int(rng.integers(0, 4096))
    )
    one, other = driven(population, arriving.tolist()), driven(population, (-arriving).tolist())
    assert all(np.array_equal(one[what], -other[what]) for what in one)


@given(st.integers(0, 2**32 - 1))
def test_sigma_after_delta_is_what_went_in_but_for_the_residue(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, vth = rng.integers(-500, 500, (25, 4)), int(rng.integers(0, 300))
    sent = driven(Delta("d", 4, vth=vth, cum_error=bool(rng.integers(2))), x.tolist())
    received = driven(Sigma("s", 4), sent["spikes"].tolist())["sigma"]
    assert np.array_equal(received + sent["residue"], x)
    if vth and not sent["error"].any():
        assert np.abs(sent["residue"]).max() < vth


@given(st.integers(0, 2**32 - 1))
def test_sigma_delta_chain_computes_the_network_of_its_activations(seed: int) -> None:
    """Without a threshold two layers of SigmaDelta hold relu(W2 relu(W1 x + b1) + b2) as soon as x has passed them."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(-9, 10, (6, 5)), rng.integers(-9, 10, (3, 6))
    b1, b2, x = rng.integers(-40, 40, 6), rng.integers(-40, 40, 3), rng.integers(0, 50, (8, 2, 5))
    layers = (SigmaDelta("h", 6, vth=0, bias=b1), SigmaDelta("y", 3, vth=0, bias=b2))
    change = np.diff(x, axis=0, prepend=0)
    ends = (("x", "h", first), ("h", "y", second))
    synapses = [Dense(source=s, target=t, weights=w * 2, weight_exp=-1, num_message_bits=16) for s, t, w in ends]
    run = simulate_program(Program((Input("x", 5),), layers, tuple(synapses)), {"x": change}, 10, record=("act",))
    hidden = np.maximum(x @ first.T + b1, 0)
    assert np.array_equal(run.traces["act"]["h"][1:9], hidden)
    assert np.array_equal(run.traces["act"]["y"][2:], np.maximum(hidden @ second.T + b2, 0))


def test_exponents_of_sigma_delta_round_down_what_is_sent() -> None:
    population = SigmaDelta("n", 1, vth=1, spike_exp=1, state_exp=2)  # threshold 8 in the state
    trace = driven(population, [[7], [4], [-30]])
    assert trace["act"][:, 0].tolist() == [7, 11, 0]
    assert trace["spikes"][:, 0].tolist() == [0, 11 >> 2, -11 >> 2]


def test_graded_vectors_and_products() -> None:
    arriving = [[5, -5, 3, -3]]
    assert driven(GradedVector("n", 4, 3), arriving)["spikes"].tolist() == [[5, -5, 0, 0]]
    assert driven(GradedVector("n", 4, 3, rectify=True), arriving)["spikes"].tolist() == [[5, 0, 0, 0]]
    assert driven(Product("n", 4, 2, 1), arriving, [[3, 1, 2, 1]])["spikes"].tolist() == [[7, -3, 3, 0]]


def test_resonators_fire_once_per_period() -> None:
    cosine, sine = resonator_decays(10, 0.0, 12)
    assert (int(cosine), int(sine)) == (3313, 2407)  # 4096 cos, sin of 36 degrees
    kick = [[400]] + [[0]] * 60
    resonator = Resonator("n", 1, cosine=cosine, sine=sine, vth=10, state_exp=6)
    assert np.diff(np.flatnonzero(driven(resonator, kick, [[0]] * 61)["spikes"])).tolist() == [10] * 4
    cosine, sine = phase_vector_decays(100.0, 1e9)
    events = driven(PhaseVector("n", 1, cosine=cosine, sine=sine), [[0]] * 61, kick)["spikes"][:, 0]
    assert np.diff(np.flatnonzero(events)).tolist() == [10] * (np.count_nonzero(events) - 1)
    assert np.all((events[events > 0] > 370) & (events <= 400)[events > 0])  # rounding down eats a little


def test_what_leaves_the_common_subset_is_named() -> None:
    even = single(Population("n", 1), [[-4, 6]])
    assert leaves_common_subset(even) == ()
    odd = single(Population("n", 1, reset="subtract"), [[-3, 5]], weight_exp=-3)
    told = "\n".join(leaves_common_subset(odd))
    for word in ("odd weights", "weight_exp -3", "subtract"):
        assert word in told


good = {"source": "x", "target": "n", "weights": np.ones((2, 3), int)}


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Population("n", 0), ParameterError, "size"),
        (lambda: Population("n", 2, vth=2**25), ParameterError, "vth must lie in -33554432..33554431, got 33554432"),
        (lambda: Population("n", 2, vth=3, vth_low=4), ParameterError, "vth_low"),
        (lambda: Population("n", 2, refractory=-1), ParameterError, "refractory"),
        (lambda: SigmaDelta("n", 2, vth=-1), ParameterError, "vth must lie in 0..131071, got -1"),
        (lambda: SigmaDelta("n", 2, vth=1, activation="tanh"), ParameterError, "activation must be one of relu, unit"),
        (lambda: Resonator("n", 2, cosine=[1, 2, 3], sine=1), ShapeError, "cosine"),
        (lambda: Population("n", 2, du=4096), ParameterError, "du"),
        (lambda: Population("n", 2, bias_mant=40000), ParameterError, "40000"),
        (lambda: Population("n", 2, vth=1.5), ParameterError, "quantise"),
        (lambda: Population("n", 2, vth=[1, 2, 3]), ShapeError, "vth"),
        (lambda: Population("n", 2, reset="soft"), ParameterError, "reset"),
        (lambda: Dense(**{**good, "weights": np.ones((2, 3))}), ParameterError, "float64"),
        (lambda: Dense(**good, weight_exp=9), ParameterError, "weight_exp"),
        (lambda: Dense(**good, num_weight_bits=0), ParameterError, "num_weight_bits"),
        (lambda: Dense(**good, sign_mode="both"), ParameterError, "sign_mode"),
        (lambda: Dense(**good, delays=64), ParameterError, "0..63"),
        (lambda: Dense(**good, delays=np.ones((3, 2), int)), ShapeError, "delays"),
        (lambda: Sparse(**{**good, "weights": [1]}, rows=[2], columns=[0], shape=(2, 3)), ParameterError, "rows"),
        (
            lambda: Sparse(**{**good, "weights": [1, 2]}, rows=[0, 0], columns=[1, 1], shape=(2, 3)),
            ParameterError,
            "twice",
        ),
        (
            lambda: Conv2d(**{**good, "weights": np.ones((1, 1, 9, 9), int)}, input_shape=(1, 5, 5)),
            ShapeError,
            "kernel",
        ),
        (
            lambda: Conv2d(**{**good, "weights": np.ones((1, 2, 3, 3), int)}, input_shape=(3, 5, 5)),
            ShapeError,
            "channels",
        ),
        (lambda: Program((Input("x", 3),), (Population("n", 5),), (Dense(**good),)), ShapeError, "has 5"),
        (lambda: Program((Input("y", 3),), (Population("n", 2),), (Dense(**good),)), ParameterError, "'x'"),
        (lambda: Program((Input("n", 3),), (Population("n", 2),), ()), ParameterError, "2 times"),
        (
            lambda: Program((Input("x", 3),), (Population("n", 2),), (Dense(**good, port=1),)),
            ParameterError,
            "'n' has ports 0 (a); got 1",
        ),
    ],
)
def test_bad_values_are_refused_at_birth(make: Callable[[], object], error: type[NeuroError], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_bad_inputs_are_refused() -> None:
    program = single(Population("n", 1), [[1, 2]])
    with pytest.raises(ShapeError, match="'x' must be"):
        simulate_program(program, {"x": np.zeros((3, 1, 5), int)}, 3)
    with pytest.raises(ShapeError, match="'x' must be"):
        simulate_program(program, {"x": np.zeros((4, 1, 2), int)}, 3)
    with pytest.raises(ParameterError, match="float64"):
        simulate_program(program, {"x": np.zeros((3, 1, 2))}, 3)
    with pytest.raises(ParameterError, match="inputs are"):
        simulate_program(program, {}, 3)
    with pytest.raises(ParameterError, match="steps"):
        simulate_program(program, {"x": np.zeros((0, 1, 2), int)}, 0)
    with pytest.raises(ParameterError, match="no population 'm'"):
        simulate_program(program, {"x": np.zeros((1, 1, 2), int)}, 1, readout=("m", "v"))
