"""The compiled simulator against the reference, and the invariants of any simulator of a clocked chip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_targets.loihi.program import Dense, Input, Population, Program
from hardware_targets.loihi.random_programs import STEPS, random_program
from hardware_targets.loihi.reference import run_reference
from hardware_targets.loihi.simulate import LoihiRun, recordable, simulate_program

seeds = st.integers(0, 2**32 - 1)


def everything(run: LoihiRun) -> dict[tuple[str, str], np.ndarray]:
    """Every recorded series by (what, population)."""
    kept = {"spikes": run.spikes, **run.traces}
    return {(what, name): series for what, by_name in kept.items() for name, series in by_name.items()}


@given(seeds)
@settings(max_examples=80)
def test_kernels_equal_the_reference(seed: int) -> None:
    program, inputs = random_program(np.random.default_rng(seed))
    run = simulate_program(program, inputs, STEPS, record=recordable(program))
    recorded = everything(run)
    for name, trace in run_reference(program, inputs, STEPS).items():
        for what, series in trace.items():
            assert np.array_equal(recorded.pop((what, name)), series), (name, what)
            assert what == "spikes" or np.array_equal(run.state.variables[name][what], series[-1])
        assert np.array_equal(run.spike_counts[name], np.count_nonzero(trace["spikes"], axis=0))
    assert not recorded


@given(seeds)
def test_batch_equals_a_stack_of_singles_on_any_number_of_threads(seed: int) -> None:
    program, inputs = random_program(np.random.default_rng(seed))
    record = recordable(program)
    together = simulate_program(program, inputs, STEPS, record=record, threads=2)
    batch = inputs["image"].shape[1]
    alone = [
        simulate_program(program, {"image": inputs["image"][:, b : b + 1]}, STEPS, record=record) for b in range(batch)
    ]
    for key, series in everything(together).items():
        assert np.array_equal(series, np.concatenate([everything(run)[key] for run in alone], axis=1))
    assert together.counts.synaptic_events == {
        name: sum(run.counts.synaptic_events[name] for run in alone) for name in together.counts.synaptic_events
    }
    assert together.counts.active_updates == {
        name: sum(run.counts.active_updates[name] for run in alone) for name in together.counts.active_updates
    }


@given(seeds, st.integers(1, STEPS - 1))
def test_cutting_time_anywhere_changes_nothing(seed: int, cut: int) -> None:
    program, inputs = random_program(np.random.default_rng(seed))
    record = recordable(program)
    whole = simulate_program(program, inputs, STEPS, record=record)
    first = simulate_program(program, {"image": inputs["image"][:cut]}, cut, record=record)
    rest = {"image": inputs["image"][cut:]}
    second = simulate_program(program, rest, STEPS - cut, record=record, state=first.state)
    for key, series in everything(whole).items():
        assert np.array_equal(series, np.concatenate([everything(first)[key], everything(second)[key]]))
    total = {n: first.counts.active_updates[n] + second.counts.active_updates[n] for n in whole.counts.active_updates}
    assert total == whole.counts.active_updates


@given(seeds)
def test_permuting_neurons_permutes_spikes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = 20
    population = Population(
        "n", size, vth=rng.integers(0, 400, size), du=900, dv=100, bias_mant=rng.integers(-9, 9, size)
    )
    weights, recurrent = rng.integers(-256, 256, (size, 30)), rng.integers(-256, 256, (size, size))
    order = rng.permutation(size)
    shuffled = replace(population, vth=population.vth[order], bias_mant=population.bias_mant[order])

    def program(neurons: Population, w: np.ndarray, r: np.ndarray) -> Program:
        ends = (Dense(source="x", target="n", weights=w), Dense(source="n", target="n", weights=r))
        return Program((Input("x", 30),), (neurons,), ends)

    x = {"x": rng.random((STEPS, 2, 30)) < 0.2}
    both = (program(population, weights, recurrent), program(shuffled, weights[order], recurrent[np.ix_(order, order)]))
    before, after = (everything(simulate_program(p, x, STEPS, record=("spikes", "u", "v"))) for p in both)
    for key, series in before.items():
        assert np.array_equal(series[..., order], after[key])


def test_many_active_sources_do_not_overflow_the_narrow_sums() -> None:
    # 3000 sources of the largest weights: far beyond 16 bits, in both directions and both storage widths
    for value in (-256, 254, 255, -255):
        weights = np.full((3, 3000), value)
        mode = "mixed" if value in (-256, 254) else None
        connection = Dense(source="x", target="n", weights=weights, sign_mode=mode)
        program = Program((Input("x", 3000),), (Population("n", 3, reset="none"),), (connection,))
        run = simulate_program(program, {"x": np.ones((1, 1, 3000), bool)}, 2, record=("u",))
        expected = 3000 * value * 64
        expected -= 2**24 * (expected > 2**23) - 2**24 * (expected <= -(2**23))
        assert run.u["n"][1, 0].tolist() == [expected] * 3


def test_readout_is_what_it_says() -> None:
    program, inputs = random_program(np.random.default_rng(1))  # ends in LIF neurons that fire
    name = program.populations[-1].name
    run = simulate_program(program, inputs, STEPS, record=("spikes", "v"), readout=(name, "spikes"))
    assert np.array_equal(run.readout, run.spikes[name].sum(axis=0))
    run = simulate_program(program, inputs, STEPS, record=("spikes", "v"), readout=(name, "v"))
    assert np.array_equal(run.readout, run.v[name][-1])
