"""Neurons that fire once, in continuous time, on the leaky neurons of a chip: as a clocked simulation of that tick."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hardware_targets import compile, load_chip, run
from hardware_targets.loihi.program import leaves_common_subset
from neuro.errors import DoesNotFit, ParameterError, ShapeError, UnsupportedNode
from neuro.first_spike.run import run_clocked, run_events
from neuro.graph import Graph, Input
from neuro.nodes import EarliestWins, LatencyCode, TimeToFirstSpike

KINDS = ("equal", "double", "non-leaky", "alpha")


def chain(kind: str, *, axonal: float = 0.0, synaptic: float = 0.0, latest: float = 4.0) -> Graph:
    generator = torch.Generator().manual_seed(0)

    def layer(out: int, into: int, mean: float) -> TimeToFirstSpike:
        weight = 0.7 * torch.randn(out, into, generator=generator) + mean
        axons = axonal * torch.rand(into, generator=generator) if axonal else None
        synapses = synaptic * torch.rand(out, into, generator=generator) if synaptic else None
        return TimeToFirstSpike(weight, torch.ones(out), kind, 1.0, axons, synapses)  # type: ignore[arg-type]

    nodes = {
        "x": Input((8,)), "code": LatencyCode(0.15, 2.0, None, 0.9), "hidden": layer(20, 9, 0.5),
        "classes": layer(3, 20, 0.35), "answer": EarliestWins(latest),
    }  # fmt: skip
    sources = {"code": ("x",), "hidden": ("code",), "classes": ("hidden",), "answer": ("classes",)}
    return Graph(nodes, sources, "chain")


def samples(count: int = 120) -> torch.Tensor:
    return torch.rand(count, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chip", ["loihi1", "loihi2"])
def test_times_are_those_of_a_clocked_simulation(kind: str, chip: str) -> None:
    """Up to what 8-bit weights and 12-bit decays move: one tick, where a potential grazes its threshold more."""
    graph, x, resolution = chain(kind), samples(), 1 / 32
    program = compile(graph, chip, resolution=resolution)
    found, wanted = run(program, x, record=["spikes"]), run_clocked(graph, x, resolution)
    assert float((found.outputs.argmax(1) == wanted.outputs.argmax(1)).double().mean()) >= 0.93
    assert program.times is not None
    until = wanted.recordings["times"]["classes"].amin(1, keepdim=True)  # the clocked run ends with the answer
    for name in ("hidden", "classes"):
        theirs = wanted.recordings["times"][name]
        ours = program.times.times(found.recordings["spikes"][name].numpy())
        before = (theirs < until - 2 * resolution) | ((theirs == until) & torch.isfinite(until))
        assert int(before.sum()) > 100
        apart = (ours - theirs)[before].abs() / resolution
        assert float((apart <= 1.01).double().mean()) > 0.97, name
    assert sum(found.refired.values()) == 0
    assert leaves_common_subset(program.integers) == ()


@pytest.mark.parametrize("kind", ["equal", "double"])
def test_delays_of_axons_and_synapses_run_as_events_do(kind: str) -> None:
    graph, x = chain(kind, axonal=0.5, synaptic=0.4), samples()
    program = compile(graph, "loihi2", resolution=1 / 64)
    assert {c.max_delay > 0 for c in program.integers.connections if c.source != c.target} == {True}
    found, wanted = run(program, x), run_events(graph, x)
    assert float((found.outputs.argmax(1) == wanted.outputs.argmax(1)).double().mean()) >= 0.9
    both = (found.outputs.amax(1) > -3.9) & (wanted.outputs.amax(1) > -3.9)
    assert int(both.sum()) > 60
    apart = (found.outputs.amax(1) - wanted.outputs.amax(1))[both].abs()
    assert float(apart.median()) < 3 / 64


def test_a_finer_tick_comes_closer_to_continuous_time() -> None:
    graph, x = chain("double"), samples(60)
    wanted = run_events(graph, x).outputs.amax(1)
    apart = []
    for ticks in (4, 16, 64):
        found = run(compile(graph, "loihi2", resolution=1 / ticks), x).outputs.amax(1)
        both = (found > -3.9) & (wanted > -3.9)
        apart.append(float((found - wanted)[both].abs().mean()))
    assert apart[0] > apart[1] > apart[2]
    assert apart[2] < 2 / 64


def test_the_answer_is_the_first_spike_and_silence_loses() -> None:
    graph = chain("equal", latest=2.0)
    program = compile(graph, "loihi2")
    assert program.times is not None
    assert program.times.resolution == 1 / 32
    result = run(program, samples(20), record=["spikes"])
    assert result.counts.steps == 2 * 32 + 1
    fired = result.recordings["spikes"]["classes"].bool()
    first = torch.where(fired.any(0), fired.to(torch.uint8).argmax(0).double() / 32, torch.inf)
    assert torch.allclose(result.outputs, -first.clamp(max=2.0).float())
    with pytest.raises(ParameterError, match="takes 65 ticks; leave steps=4 out"):
        run(program, samples(2), steps=4)
    with pytest.raises(ShapeError, match="takes"):
        run(program, torch.rand(2, 7))


def test_what_a_chip_cannot_hold_is_refused_with_the_numbers() -> None:
    with pytest.raises(DoesNotFit, match=r"hidden: delay \d+ needed, 63 available; compile with a coarser resolution"):
        compile(chain("equal", axonal=1.5), "loihi2", resolution=1 / 64)
    with pytest.raises(DoesNotFit, match=r"hidden: decay_bits 1\d needed, 12 available; compile with a coarser"):
        compile(chain("double"), "loihi2", resolution=1 / 1500)
    graph = chain("equal")
    node = graph.nodes["hidden"]
    assert isinstance(node, TimeToFirstSpike)
    high = graph.edit(nodes={**graph.nodes, "hidden": TimeToFirstSpike(node.weight, 40 * node.theta)})
    with pytest.raises(DoesNotFit, match=r"threshold [\d,]+ needed, 131,071 available"):
        compile(high, "loihi2", resolution=1 / 64)
    with pytest.raises(ParameterError, match="resolution must be a time > 0"):
        compile(chain("equal"), "loihi2", resolution=-1.0)
    beheaded = Graph({name: graph.nodes[name] for name in list(graph.nodes)[:-1]},
                     {name: graph.sources[name] for name in list(graph.nodes)[1:-1]})  # fmt: skip
    with pytest.raises(UnsupportedNode, match="no chain of a code"):
        compile(beheaded, "loihi2")


def test_currents_of_the_worst_case_do_not_wrap() -> None:
    """All inhibition at once, and that of the neuron itself, stay within 24 bits."""
    for chip in ("loihi1", "loihi2"):
        program = compile(chain("double"), chip)
        for population in program.integers.populations:
            total = np.zeros(population.size)
            for connection in program.integers.into(population.name):
                weights = np.zeros((population.size, connection.source_size))
                if hasattr(connection, "rows"):
                    np.add.at(weights, (connection.rows, connection.columns), connection.weights)
                else:
                    weights = np.asarray(connection.weights)
                total += np.minimum(weights, 0).sum(1) * 2.0**connection.weight_exp
            assert total.min() * 2**6 >= -(2**23)
            assert total.max() * 2**6 < -(2**23) * 0.99, "and are as strong as they can be"
    assert load_chip("loihi1").width("delay_max") == 62
