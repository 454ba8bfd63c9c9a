"""Networks of cores: delays, routing, several chips, events, checkpoints; results independent of threads and of cuts
in time.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_targets.truenorth import (
    NO_TARGET,
    OFF_GRID,
    OUTPUT,
    ChipRun,
    CoreShape,
    Events,
    Network,
    Targets,
    make_cores,
    make_network,
    rest,
    run,
    shape_from,
)
from hardware_targets.truenorth.checkpoint import load_state, save_state
from hardware_targets.truenorth.mesh import hops, path
from hardware_targets.truenorth.neuron import bounded, fire, integrate, leak
from hardware_targets.truenorth.simulate import processors
from neuro.errors import FileError, ParameterError, ShapeError

SMALL = CoreShape(
    axons=70, neurons=66, alpha=(0, 200), beta=(0, 200), reset=(-200, 200), potential=(-500, 499), chip=(2, 2)
)


def random_network(
    seed: int, count: int = 9, outputs: int = 40, stochastic: bool = False
) -> tuple[Network, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    n, size = SMALL.neurons, (count, SMALL.neurons)
    p: dict[str, Any] = {
        "crossbar": rng.random((count, SMALL.axons, n)) < 0.3,
        "axon_types": rng.integers(0, 4, (count, SMALL.axons)),
        "weights": rng.integers(-6, 9, (count, n, 4)),
        "leak": rng.integers(-1, 3, size),
        "alpha": rng.integers(5, 40, size),
        "beta": rng.integers(0, 30, size),
        "reset": rng.integers(-4, 5, size),
        "mode": rng.integers(0, 3, size),
        "floor": rng.integers(0, 2, size),
        "reversal": rng.integers(0, 2, (count, 1)),
        "v": rng.integers(-10, 11, size),
    }
    if stochastic:
        p |= {"stochastic_weights": rng.integers(0, 2, (count, n, 4)), "mask": (1 << rng.integers(0, 4, size)) - 1}
    p["core"] = rng.choice([NO_TARGET, OFF_GRID, OUTPUT, *range(count)], size)
    p["axon"] = rng.integers(0, np.where(p["core"] == OUTPUT, outputs, SMALL.axons))
    p["delay"] = rng.integers(1, 16, size)
    p["positions"] = rng.permutation(np.stack(np.meshgrid(np.arange(6), np.arange(5)), -1).reshape(-1, 2))[:count]
    return build(p, outputs), p


def build(p: dict[str, Any], outputs: int, shape: CoreShape = SMALL) -> Network:
    own = {
        k: v
        for k, v in p.items()
        if k not in ("crossbar", "axon_types", "weights", "core", "axon", "delay", "positions")
    }
    cores = make_cores(shape, p["crossbar"], p["axon_types"], p["weights"], **own)
    targets = Targets(p["core"], p["axon"], p["delay"])
    return make_network(
        shape, cores, targets, positions=p["positions"], outputs=outputs, output_position=(0, 0), seed=1
    )


def random_events(seed: int, network: Network, ticks: int) -> Events:
    rng = np.random.default_rng(seed)
    many = 20 * ticks
    return Events(
        rng.integers(0, ticks, many), rng.integers(0, network.count, many), rng.integers(0, network.shape.axons, many)
    )


def same(a: ChipRun, b: ChipRun) -> None:
    for x, y in zip(a.state, b.state, strict=True):
        np.testing.assert_array_equal(x, y)
    for name in ("output_tick", "output_line", "spike_tick", "spike_core", "spike_neuron"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in a.counts:
        np.testing.assert_array_equal(a.counts[name], b.counts[name])


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=10)
def test_a_network_equals_the_array_equations(seed: int) -> None:
    """Spikes, outputs, counts and potentials of a random network against `neuron`, with delays kept in plain
    dictionaries.
    """
    network, p = random_network(seed)
    ticks, count = 20, network.count
    events = random_events(seed, network, ticks)
    done = run(network, rest(network), ticks, events, record=True)
    arriving: dict[int, set[tuple[int, int]]] = {}
    for t, c, a in zip(*events, strict=True):
        arriving.setdefault(int(t), set()).add((int(c), int(a)))
    v = [p["v"][c] for c in range(count)]
    spikes, outputs, synaptic, hop_count, lost = [], set(), 0, 0, 0
    for t in range(ticks):
        for c in range(count):
            active = np.zeros(SMALL.axons, bool)
            active[[a for core, a in arriving.get(t, ()) if core == c]] = True
            weights = p["weights"][c][:, p["axon_types"][c]].T * p["crossbar"][c]
            synaptic += int(p["crossbar"][c][active].sum())
            x = leak(integrate(v[c], active, weights), p["leak"][c], p["reversal"][c])
            x = bounded(x, *SMALL.potential, SMALL.overflow)
            fired = fire(x, p["alpha"][c], p["beta"][c], p["reset"][c], p["mode"][c], p["floor"][c])
            v[c] = bounded(fired.v, *SMALL.potential, SMALL.overflow)
            for j in np.flatnonzero(fired.spikes):
                spikes.append((t, c, int(j)))
                target, axon, delay = (int(p[k][c, j]) for k in ("core", "axon", "delay"))
                lost += target == OFF_GRID
                if target == OUTPUT:
                    outputs.add((t + delay, axon))
                    hop_count += int(np.abs(p["positions"][c]).sum())
                elif target >= 0:
                    arriving.setdefault(t + delay, set()).add((target, axon))
                    hop_count += len(list(path(tuple(p["positions"][c]), tuple(p["positions"][target]))))
    assert spikes == list(
        zip(done.spike_tick.tolist(), done.spike_core.tolist(), done.spike_neuron.tolist(), strict=True)
    )
    seen = list(zip(done.output_tick.tolist(), done.output_line.tolist(), strict=True))
    assert seen == sorted(o for o in outputs if o[0] < ticks)
    np.testing.assert_array_equal(done.state.v, np.stack(v))
    totals = {name: int(values.sum()) for name, values in done.counts.items()}
    assert totals["spikes"] == len(spikes) > 0
    assert (totals["synaptic_events"], totals["hops"], totals["lost"]) == (synaptic, hop_count, lost)


@pytest.mark.parametrize("stochastic", [False, True])
def test_threads_and_cuts_in_time_change_nothing(stochastic: bool) -> None:
    network, _ = random_network(3, count=12, stochastic=stochastic)
    events = random_events(4, network, 30)
    whole = run(network, rest(network), 30, events, record=True, threads=1)
    if len(processors()) > 1:
        same(whole, run(network, rest(network), 30, events, record=True, threads=2))
    state, parts = rest(network), []
    for begin, end in ((0, 7), (7, 8), (8, 8), (8, 30)):
        inside = (events.tick >= begin) & (events.tick < end)
        done = run(network, state, end - begin, Events(*(e[inside] for e in events)), record=True)
        state = done.state
        parts.append(done)
    np.testing.assert_array_equal(np.concatenate([d.spike_neuron for d in parts]), whole.spike_neuron)
    np.testing.assert_array_equal(np.concatenate([d.output_line for d in parts]), whole.output_line)
    for x, y in zip(state, whole.state, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_checkpoint_resumes_as_if_never_stopped(tmp_path: Path) -> None:
    network, _ = random_network(5, stochastic=True)
    half = run(network, rest(network), 15)
    save_state(tmp_path / "chip.npz", network, half.state)
    resumed = run(network, load_state(tmp_path / "chip.npz", network), 15, record=True)
    same(run(network, half.state, 15, record=True), resumed)
    assert [file.name for file in tmp_path.iterdir()] == ["chip.npz"]


def test_checkpoints_of_another_network_or_broken_ones_are_refused(tmp_path: Path) -> None:
    network, p = random_network(6)
    file = tmp_path / "chip.npz"
    save_state(file, network, rest(network))
    p["leak"] = p["leak"] + 1
    with pytest.raises(FileError, match="another network"):
        load_state(file, build(p, 40))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FileError, match="not a chip state"):
        load_state(file, network)
    with pytest.raises(FileError, match="not a chip state"):
        load_state(tmp_path / "absent.npz", network)


def chain(delay: int, shape: CoreShape) -> Network:
    """Core k relays its axon 0 to core k + 1; the last one to output 0."""
    count = 8
    core = np.where(np.arange(count) == count - 1, OUTPUT, np.arange(1, count + 1) % count)[:, None]
    cores = make_cores(shape, np.ones((count, 1, 1), bool), 0, [1, 0, 0, 0], alpha=1)
    return make_network(shape, cores, Targets(core, np.array(0), np.array(delay)), outputs=1)


@pytest.mark.parametrize("delay", [1, 7, 15])
def test_delays_add_up_along_a_chain_over_two_chips(delay: int) -> None:
    network = chain(delay, CoreShape(axons=1, neurons=1, chip=(2, 2)))
    done = run(network, rest(network), 200, Events(np.array([3]), np.array([0]), np.array([0])))
    np.testing.assert_array_equal(done.output_tick, [3 + 8 * delay])
    # Chips of 2 x 2 stand side by side: (0,0) (1,0) (0,1) (1,1) | (2,0) ...; one border between cores 3 and 4.
    assert int(done.counts["crossings"].sum()) == 1
    assert int(done.counts["hops"].sum()) == 1 + 2 + 1 + 2 + 1 + 2 + 1


def test_two_spikes_on_one_axon_in_one_tick_count_once() -> None:
    shape = CoreShape(axons=1, neurons=2)
    cores = make_cores(shape, np.ones((2, 1, 2), bool), 0, [1, 0, 0, 0], alpha=1)
    network = make_network(shape, cores, Targets(np.array([[1], [NO_TARGET]]), np.array(0), np.array(1)))
    done = run(network, rest(network), 2, Events(np.array([0]), np.array([0]), np.array([0])))
    assert done.counts["packets"].tolist() == [2, 0]
    assert done.counts["synaptic_events"].tolist() == [2, 2]


def test_idle_cores_sleep_and_wake_without_changing_anything() -> None:
    """Leak 0 and no input: nothing is updated after the first tick; one spike wakes one core."""
    shape = CoreShape(axons=4, neurons=5)
    cores = make_cores(shape, np.ones((6, 4, 5), bool), 0, [1, 0, 0, 0], alpha=3)
    network = make_network(shape, cores, Targets(np.array(NO_TARGET), np.array(0), np.array(1)))
    t = np.array([10, 11, 12])
    done = run(network, rest(network), 20, Events(t, t * 0 + 2, t * 0), record=True)
    updates = done.counts["neuron_updates"]
    assert updates[0] == 30
    assert updates[1:10].sum() == 0
    assert updates[10:13].tolist() == [5, 5, 5]
    assert done.spike_tick.tolist() == [12] * 5


def test_hops_are_the_length_of_the_path() -> None:
    rng = np.random.default_rng(0)
    for a, b in rng.integers(-9, 10, (50, 2, 2)):
        steps = list(path(tuple(a), tuple(b)))
        assert len(steps) == hops(a, b)
        assert (steps[-1] if steps else tuple(a)) == tuple(b)


def test_wrong_networks_and_events_are_refused() -> None:
    network, p = random_network(7)
    for change, words in (
        ({"axon": p["axon"] + 100}, "axon must be|output line must be"),
        ({"delay": np.array(16)}, "delay"),
        ({"core": np.array(99)}, "target core"),
        ({"positions": np.zeros((9, 2), int)}, "share one position"),
    ):
        with pytest.raises(ParameterError, match=words):
            build(p | change, 40)
    one = np.array([1])
    with pytest.raises(ParameterError, match="event 0: axon"):
        run(network, rest(network), 5, Events(one, one, one * 70))
    with pytest.raises(ParameterError, match="event 0: tick"):
        run(network, rest(network), 1, Events(one, one, one))
    with pytest.raises(ShapeError, match="another network"):
        run(random_network(8, count=3)[0], rest(network), 1)


def test_a_chip_file_gives_the_shape() -> None:
    from hardware_targets.chip import load_chip

    chip = load_chip("truenorth")
    shape = shape_from({"limits": chip.limits, "arithmetic": chip.arithmetic})
    assert (shape.axons, shape.neurons, shape.weight, shape.delay, shape.reset_modes) == (
        256,
        256,
        (-255, 255),
        (1, 15),
        3,
    )
    with pytest.raises(ParameterError, match="delay_max"):
        shape_from(
            {"limits": {k: v for k, v in chip.limits.items() if k != "delay_max"}, "arithmetic": chip.arithmetic}
        )
    with pytest.raises(ParameterError, match="overflow"):
        replace(shape, overflow="bounce")
