"""First-spike networks (ramps) on a chip: times in slots are those of the network, where nothing is rounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converters import FirstSpike, convert
from hardware_targets import check, compile, load_chip, run
from hardware_targets.compile import chip_input
from hardware_targets.loihi.program import leaves_common_subset
from hardware_targets.loihi.simulate import simulate_program
from neuro.errors import ParameterError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph, Input
from neuro.nodes import Affine, AvgPool, Conv, MaxPool, RampFirstSpike, ReLU, Reshape

CHIPS = ("loihi1", "loihi2")


def whole(seed: int, bits: int) -> Graph:
    """Weights and windows on a grid of the chip: 127 is the largest weight of every neuron, a slot is worth one."""
    generator = torch.Generator().manual_seed(seed)

    def weights(out: int, into: int) -> torch.Tensor:
        drawn = torch.randint(-60, 61, (out, into), generator=generator).float()
        drawn[:, 0] = 127
        return drawn / 127

    def theta(size: int, window: float) -> torch.Tensor:
        # a quarter of a weight step off every tie between two slots
        return window - torch.randint(-200, 200, (size,), generator=generator) / 127 + 0.25 / 127

    window = float(2**bits)
    nodes = {
        "x": Input((6,)), "a": Affine(weights(8, 6)), "n": RampFirstSpike(theta(8, window), window, bits),
        "b": Affine(weights(7, 8)), "m": RampFirstSpike(theta(7, window), window, bits), "c": Affine(weights(3, 7)),
    }  # fmt: skip
    return Graph(nodes, {"a": ("x",), "n": ("a",), "b": ("n",), "m": ("b",), "c": ("m",)}, "whole")


@settings(max_examples=25)
@given(st.integers(0, 2**31 - 1), st.integers(1, 5), st.sampled_from(CHIPS))
def test_first_spikes_come_in_the_slots_of_the_network(seed: int, bits: int, chip: str) -> None:
    graph = whole(seed, bits)
    x = torch.randint(0, 16, (5, 6), generator=torch.Generator().manual_seed(seed)).float()
    calibration = torch.full((1, 6), 255.0)  # one unit of the data is worth one
    program = compile(graph, chip, calibration=calibration)
    values: dict[str, torch.Tensor] = {}
    wanted = evaluate(graph, x, observe=values.__setitem__)
    inputs, ticks = chip_input(program, x, 1)
    fired = simulate_program(program.integers, inputs, ticks, record=("spikes",)).spikes
    ends = {}
    for name in ("n", "m"):
        node = graph.nodes[name]
        assert isinstance(node, RampFirstSpike)
        spikes = fired[name].astype(bool)
        times = node.times(values[graph.sources[name][0]]).numpy()
        any_spike = spikes.any(0)
        np.testing.assert_array_equal(any_spike, np.isfinite(times))
        first = spikes.argmax(0)
        begins = {int(f - t) for f, t in zip(first[any_spike], times[any_spike], strict=True)}
        assert len(begins) <= 1, "one window for the whole layer"
        ends[name] = begins
    np.testing.assert_allclose(run(program, x).outputs.numpy(), wanted.numpy(), atol=1e-4)
    assert leaves_common_subset(program.integers) == ()


def images(pool: type) -> Graph:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 1, 3, 3, generator=generator) / 2
    nodes = {
        "x": Input((1, 8, 8)), "c": Conv(weight, torch.randn(4, generator=generator) / 9, (1, 1), (1, 1)), "r": ReLU(),
        "p": pool((2, 2), (2, 2), (0, 0)), "f": Reshape((64,)),
        "a": Affine(torch.randn(10, 64, generator=generator) / 8, torch.randn(10, generator=generator) / 9),
        "s": ReLU(),
        "o": Affine(torch.randn(4, 10, generator=generator) / 3, torch.randn(4, generator=generator)),
    }  # fmt: skip
    return Graph(nodes, {b: (a,) for a, b in zip(list(nodes), list(nodes)[1:], strict=False)}, "images")


@pytest.mark.parametrize("pool", [MaxPool, AvgPool])
@pytest.mark.parametrize("chip", CHIPS)
def test_converted_networks_lose_little_by_rounding(pool: type, chip: str) -> None:
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    graph = convert(images(pool), FirstSpike(time_bits=5, margin=0.0), calibration=x)
    assert check(graph, load_chip(chip)).ok
    program = compile(graph, chip, calibration=x)
    wanted, found = evaluate(graph, x), run(program, x).outputs
    assert float((found - wanted).norm() / wanted.norm()) < 0.05
    assert all(error.weight < 0.05 and error.threshold < 0.05 for error in program.errors)
    coarse = convert(images(pool), FirstSpike(time_bits=1, margin=0.0), calibration=x)
    assert float((run(compile(coarse, chip), x).outputs - evaluate(coarse, x)).norm() / wanted.norm()) < 0.2


def test_a_window_lasts_as_many_ticks_as_it_has_slots() -> None:
    graph = whole(0, 4)
    program = compile(graph, "loihi2")
    result = run(program, torch.rand(2, 6))
    assert result.counts.steps == 2 * (2**4 + 1) + 2
    with pytest.raises(ParameterError, match="takes 36 ticks; leave steps=7 out"):
        run(program, torch.rand(2, 6), steps=7)


def test_what_a_chip_cannot_hold_is_refused() -> None:
    x = torch.rand(20, 1, 8, 8)
    with pytest.raises(UnsupportedNode, match=r"its times are continuous and a chip has ticks; FirstSpike\(time_bits"):
        compile(convert(images(MaxPool), FirstSpike(), calibration=x), "loihi2")
    graph = whole(0, 3)
    mixed = graph.edit(nodes={**graph.nodes, "m": ReLU()})
    with pytest.raises(UnsupportedNode, match="'m': ReLU: convert the network first"):
        compile(mixed, "loihi2")
