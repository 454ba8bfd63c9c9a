"""What each core did, told from recorded spikes, against the kernel's own counts; the picture; the price."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hardware_targets import price
from hardware_targets.truenorth import (
    NO_TARGET,
    OUTPUT,
    CoreShape,
    Events,
    Network,
    Targets,
    make_cores,
    make_network,
    rest,
    run,
)
from hardware_targets.truenorth.activity import activity, counts_of
from hardware_targets.truenorth.picture import VIEWS, picture, write_picture
from neuro.errors import ParameterError, ShapeError

SHAPE = CoreShape(axons=70, neurons=66, chip=(3, 2))


def busy_network(seed: int, count: int = 10) -> tuple[Network, Events]:
    rng, size = np.random.default_rng(seed), (count, SHAPE.neurons)
    cores = make_cores(
        SHAPE, rng.random((count, SHAPE.axons, SHAPE.neurons)) < 0.3, rng.integers(0, 4, (count, SHAPE.axons)),
        [2, -1, 1, 3], alpha=rng.integers(5, 40, size), leak=rng.integers(0, 3, size), floor=True,
    )  # fmt: skip
    core = rng.choice([NO_TARGET, OUTPUT, *range(count)], size)
    axon = rng.integers(0, np.where(core == OUTPUT, 9, SHAPE.axons))
    at = rng.permutation(np.stack(np.meshgrid(np.arange(2, 8), np.arange(5)), -1).reshape(-1, 2))[:count]
    network = make_network(
        SHAPE, cores, Targets(core, axon, rng.integers(1, 16, size)), positions=at, outputs=9, output_position=(9, 1)
    )
    when, where = rng.integers(0, 40, 300), rng.integers(0, count, 300)
    return network, Events(when, where, rng.integers(0, SHAPE.axons, 300))


@pytest.mark.parametrize("seed", range(4))
def test_activity_sums_to_the_counts_of_the_run(seed: int) -> None:
    """Spikes, synaptic events and hops, derived spike by spike, equal those that the kernel counted."""
    network, events = busy_network(seed)
    done = run(network, rest(network), 40, events, record=True)
    seen = activity(network, done, events)
    assert seen.spikes.sum() == done.counts["spikes"].sum() > 100
    assert seen.synaptic_events.sum() == done.counts["synaptic_events"].sum() > 1000
    assert seen.through.sum() == done.counts["hops"].sum() > 100
    np.testing.assert_array_equal(seen.spikes, np.bincount(done.spike_core, minlength=network.count))


def test_activities_of_two_halves_add_up_to_the_whole() -> None:
    network, events = busy_network(7)
    whole = activity(network, run(network, rest(network), 40, events, record=True), events)
    early = events.tick < 15
    first, second = Events(*(e[early] for e in events)), Events(*(e[~early] for e in events))
    a = run(network, rest(network), 15, first, record=True)
    b = run(network, a.state, 25, second, record=True)
    both = activity(network, a, first) + activity(network, b, second, a.state)
    for name in ("spikes", "packets", "synaptic_events", "through"):
        np.testing.assert_array_equal(getattr(both, name), getattr(whole, name))
    assert both.ticks == 40


def test_a_packet_goes_along_x_then_y() -> None:
    """From (0, 0) to (2, 1): it leaves (0, 0), (1, 0) and (2, 0); one neuron fires once."""
    shape = CoreShape(axons=1, neurons=1)
    cores = make_cores(shape, np.ones((2, 1, 1), bool), 0, [1, 0, 0, 0], alpha=1)
    target = Targets(np.array([[1], [NO_TARGET]]), np.array(0), np.array(1))
    network = make_network(shape, cores, target, positions=[[0, 0], [2, 1]])
    events = Events(np.array([0]), np.array([0]), np.array([0]))
    seen = activity(network, run(network, rest(network), 3, events, record=True), events)
    np.testing.assert_array_equal(seen.through, [[1, 1, 1], [0, 0, 0]])
    assert seen.packets.tolist() == [1, 1]


def test_a_run_costs_26_pJ_per_synaptic_event() -> None:
    network, events = busy_network(1)
    done = run(network, rest(network), 40, events)
    counts = counts_of(done, samples=4)
    bill = price(counts, "truenorth")
    assert bill.total == pytest.approx(26e-12 * done.counts["synaptic_events"].sum())
    assert bill.seconds == pytest.approx(10e-3)
    assert bill.status == "recalled"
    assert counts.total.hops == done.counts["hops"].sum()
    with pytest.raises(ParameterError, match="samples of equal length"):
        counts_of(done, samples=3)


def test_the_picture_shows_every_core_where_it_is(tmp_path: Path) -> None:
    network, events = busy_network(2)
    seen = activity(network, run(network, rest(network), 40, events, record=True), events)
    names = [f"layer <{k}>" for k in range(network.count)]
    drawn = picture(seen, names)
    heat = drawn.data[VIEWS.index("spikes")]
    for core, (x, y) in enumerate(network.positions):
        row, column = list(heat.y).index(y), list(heat.x).index(x)
        assert heat.z[row][column] == pytest.approx(seen.spikes[core] / 40)
        assert f"core {core}: layer &lt;{core}&gt;" in heat.customdata[row][column]
    assert np.isnan(heat.z).sum() == heat.z.size - network.count
    write_picture(tmp_path / "chip.html", seen)
    page = (tmp_path / "chip.html").read_text()
    assert "output bus" in page
    assert [file.name for file in tmp_path.iterdir()] == ["chip.html"]


def test_what_cannot_be_told_or_drawn_is_refused() -> None:
    network, events = busy_network(3)
    done = run(network, rest(network), 40, events)
    with pytest.raises(ParameterError, match="record=True"):
        activity(network, done, events)
    with pytest.raises(ShapeError, match="another network"):
        activity(busy_network(3, count=9)[0], done, events)
    seen = activity(network, run(network, rest(network), 40, events, record=True), events)
    with pytest.raises(ShapeError, match="as many names"):
        picture(seen, ["one"])
