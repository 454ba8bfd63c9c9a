"""Networks that count in windows, on neurons that only reset to zero: every count and every logit, exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converters import Exact, convert
from hardware_targets import compile, run
from hardware_targets.compile import Program, chip_input
from hardware_targets.count_windows import lower_windows, window_matrix
from hardware_targets.loihi.program import VOLTAGE_LIMIT, leaves_common_subset
from hardware_targets.loihi.reference import run_reference
from hardware_targets.loihi.simulate import simulate_program
from neuro.errors import DoesNotFit, ParameterError, ShapeError, UnsupportedNode
from neuro.graph import Graph, Input, Node
from neuro.nodes import (
    Accumulate,
    Add,
    Affine,
    AvgPool,
    Conv,
    CountThenFire,
    MaxCount,
    MaxPool,
    Pulse,
    Quantise,
    ReLU,
    Reshape,
)
from neuro.simulate import simulate

CHIPS = ("loihi1", "loihi2")


def counting(seed: int, levels: int, depth: int, *, low: int = 0, largest: int = 15) -> tuple[Graph, torch.Tensor]:
    """Random integers everywhere: inputs, weights, thresholds and potentials, with a maximum between two layers."""
    generator = torch.Generator().manual_seed(seed)

    def whole(least: int, most: int, *shape: int) -> torch.Tensor:
        return torch.randint(least, most + 1, shape, generator=generator, dtype=torch.int32)

    nodes: dict[str, Node] = {
        "x": Input((2, 6)),
        "q": Quantise(1.0, low, largest),
        "flat": Reshape((12,)),
        "in": Pulse(),
    }
    sources = {"q": ("x",), "flat": ("q",), "in": ("flat",)}
    before, size = "in", 12
    for layer in range(depth):
        nodes[f"w{layer}"] = Affine(whole(-9, 12, 8, size))
        nodes[f"n{layer}"] = CountThenFire(whole(1, 60, 8), whole(-80, 120, 8), (layer + 1) * levels, levels)
        sources |= {f"w{layer}": (before,), f"n{layer}": (f"w{layer}",)}
        before, size = f"n{layer}", 8
        if layer == 0:
            nodes |= {"image": Reshape((2, 4)), "max": MaxCount((2,), (2,), (0,)), "row": Reshape((4,))}
            sources |= {"image": ("n0",), "max": ("image",), "row": ("max",)}
            before, size = "row", 4
    nodes |= {"last": Affine(whole(-9, 9, 3, size)), "sum": Accumulate(whole(-50, 50, 3))}
    sources |= {"last": (before,), "sum": ("last",)}
    x = torch.randint(low, largest + 1, (5, 2, 6), generator=generator).float()
    return Graph(nodes, sources, "counting"), x


def equal_on(chip: str, graph: Graph, x: torch.Tensor) -> Program:
    program = compile(graph, chip)
    wanted = simulate(graph, x, record=("counts",), kernel="reference")
    given_, ticks = chip_input(program, x, 1)
    found = simulate_program(program.integers, given_, ticks)
    for layer in program.layers[:-1]:
        counts = wanted.recordings["counts"][layer.name][0].flatten(1).numpy()
        assert np.array_equal(found.spike_counts[layer.name], counts), layer.name
    assert torch.equal(run(program, x).outputs, wanted.outputs)
    return program


@settings(max_examples=40)
@given(st.integers(0, 2**31 - 1), st.integers(1, 9), st.integers(1, 3), st.sampled_from(CHIPS), st.booleans())
def test_any_network_of_integers_counts_the_same_on_the_chip(
    seed: int, levels: int, depth: int, chip: str, signed: bool
) -> None:
    graph, x = counting(seed, levels, depth, low=-20 if signed else 0)
    equal_on(chip, graph, x)


def images(seed: int, pool: type, shortcut: bool) -> Graph:
    """conv - relu - pool - conv (+ pooled) - relu - fc, plain."""
    generator = torch.Generator().manual_seed(seed)

    def conv(into: int) -> Conv:
        return Conv(torch.randn(4, into, 3, 3, generator=generator) / 3, torch.randn(4, generator=generator) / 5,
                    (1, 1), (1, 1), (1, 1))  # fmt: skip

    nodes = {"x": Input((2, 8, 8)), "c1": conv(2), "r1": ReLU(), "p": pool((2, 2), (2, 2), (0, 0)), "c2": conv(4)}
    sources = {"c1": ("x",), "r1": ("c1",), "p": ("r1",), "c2": ("p",)}
    if shortcut:
        nodes["add"], sources["add"] = Add(), ("c2", "p")
    fc = Affine(torch.randn(5, 64, generator=generator) / 8, torch.randn(5, generator=generator) / 10)
    nodes |= {"r2": ReLU(), "flat": Reshape((64,)), "fc": fc}
    sources |= {"r2": ("add" if shortcut else "c2",), "flat": ("r2",), "fc": ("flat",)}
    return Graph(nodes, sources, "images")


@settings(max_examples=12)
@given(
    st.integers(0, 1000), st.sampled_from([MaxPool, AvgPool]), st.booleans(), st.sampled_from(CHIPS),
    st.sampled_from([(4, 8), (8, 6), (3, 4)]), st.booleans(),
)  # fmt: skip
def test_exact_networks_keep_their_equality(
    seed: int, pool: type, shortcut: bool, chip: str, grain: tuple[int, int], signed: bool
) -> None:
    x = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(seed))
    x = 2 * x - 1 if signed else x
    levels, bits = grain
    snn = convert(
        images(seed, pool, shortcut), Exact(levels=levels, weight_bits=bits, potential_bits=18), calibration=x
    )
    equal_on(chip, snn, x)


def test_the_plain_reference_agrees_and_no_register_reaches_its_end() -> None:
    graph, x = counting(3, 5, 2, low=-20)
    for chip in CHIPS:
        program = compile(graph, chip)
        inputs, ticks = chip_input(program, x, 1)
        trace = run_reference(program.integers, inputs, ticks)
        fast = simulate_program(program.integers, inputs, ticks, record=("spikes", "v"))
        for name, part in trace.items():
            assert np.array_equal(part["v"], fast.v[name])
            assert np.array_equal(part["spikes"], fast.spikes[name])
            assert int(np.abs(part["v"]).max()) < VOLTAGE_LIMIT


def test_it_is_the_arithmetic_on_which_all_emulators_agree() -> None:
    """Hard reset, even weights, one threshold, and no neuron that waits: Lava's own LIF."""
    graph, _ = counting(0, 4, 2)
    for chip in CHIPS:
        program = compile(graph, chip)
        assert leaves_common_subset(program.integers) == ()
        for population in program.integers.populations:
            assert population.reset == "zero"
            assert population.start == 0
            assert np.ptp(np.asarray(population.vth)) == 0


def test_spikes_come_at_the_end_of_the_window_without_a_gap() -> None:
    graph, x = counting(1, 6, 2)
    program = compile(graph, "loihi2")
    spikes = run(program, x, record=["spikes"]).recordings["spikes"]
    for layer in program.layers[:-1]:
        fired = spikes[layer.name].flatten(1).numpy().astype(int)
        active = fired.any(1)
        assert np.flatnonzero(active).max() - np.flatnonzero(active).min() < 6
        assert (np.diff(fired[active], axis=0) >= 0).all(), layer.name


def test_the_answer_takes_one_window_per_layer() -> None:
    graph, x = counting(2, 6, 3)
    program = compile(graph, "loihi2")
    assert run(program, x).counts.steps == 1 + 3 * (1 + 6) + 1 + 1  # data, three windows, a maximum, the read-out
    assert run(program, x, steps=6).counts.steps == run(program, x).counts.steps
    with pytest.raises(ParameterError, match="leave steps=5 out"):
        run(program, x, steps=5)
    with pytest.raises(ParameterError, match="sees its input once"):
        run(program, x[None], steps=1)
    with pytest.raises(ShapeError, match=r"takes \(batch, 2, 6\), got"):
        run(program, x[:, :, :5])


def test_weights_beyond_a_byte_become_two_synapses() -> None:
    weight = torch.tensor([[1000, -3], [-700, 129]], dtype=torch.int32)
    nodes = {
        "x": Input((2,)), "q": Quantise(1.0, 0, 15), "in": Pulse(), "w": Affine(weight),
        "n": CountThenFire(torch.tensor(900), torch.tensor([450, 13000]), 5, 5), "last": Affine(weight),
        "sum": Accumulate(torch.tensor(0)),
    }  # fmt: skip
    sources = {"q": ("x",), "in": ("q",), "w": ("in",), "n": ("w",), "last": ("n",), "sum": ("last",)}
    graph = Graph(nodes, sources)
    x = torch.cartesian_prod(torch.arange(16.0), torch.arange(16.0))
    for chip in CHIPS:
        program = equal_on(chip, graph, x)
        assert len([c for c in program.integers.into("sum") if c.source == "n"]) == 2


def test_what_could_overflow_is_refused_with_the_numbers() -> None:
    """The bound is tight: one unit of the threshold's distance more, and 24 bits do not hold it."""

    def network(weight: int) -> Graph:
        nodes = {
            "x": Input((8,)), "q": Quantise(1.0, 0, 255), "in": Pulse(),
            "w": Affine(torch.full((1, 8), weight, dtype=torch.int32)),
            "n": CountThenFire(torch.tensor(500), torch.tensor(250), 4, 4),
            "last": Affine(torch.ones(2, 1, dtype=torch.int32)), "sum": Accumulate(torch.tensor(0)),
        }  # fmt: skip
        sources = {"q": ("x",), "in": ("q",), "w": ("in",), "n": ("w",), "last": ("n",), "sum": ("last",)}
        return Graph(nodes, sources, "wide")

    x = torch.full((1, 8), 255.0)
    equal_on("loihi2", network(64), x)
    with pytest.raises(DoesNotFit, match=r"n: potential 1\d\d,\d\d\d needed, 131,071 available; convert with Exact"):
        compile(network(65), "loihi2")


def test_weights_that_no_two_synapses_hold_are_refused() -> None:
    nodes = {
        "x": Input((1,)), "q": Quantise(1.0, 0, 1), "in": Pulse(), "w": Affine(torch.tensor([[40000]])),
        "n": CountThenFire(torch.tensor(9), torch.tensor(0), 1, 1), "sum": Accumulate(torch.tensor(0)),
    }  # fmt: skip
    sources = {"q": ("x",), "in": ("q",), "w": ("in",), "n": ("w",), "sum": ("n",)}
    with pytest.raises(DoesNotFit, match="n: weight_bits 17 needed, 16 available"):
        compile(Graph(nodes, sources), "loihi2")


def test_what_no_chip_holds_is_listed() -> None:
    nodes = {
        "x": Input((2,)), "q": Quantise(1.0, 0, 15), "in": Pulse(),
        "w": Affine(torch.ones(2, 2, dtype=torch.int32), torch.ones(2, dtype=torch.int32)),
        "n": CountThenFire(torch.tensor(9), torch.tensor(0), 4, 4), "r": Quantise(1.0, 0, 3),
        "sum": Accumulate(torch.tensor(0)),
    }  # fmt: skip
    sources = {"q": ("x",), "in": ("q",), "w": ("in",), "n": ("w",), "r": ("n",), "sum": ("r",)}
    with pytest.raises(UnsupportedNode) as caught:
        lower_windows(Graph(nodes, sources, "odd"))
    said = str(caught.value)
    assert said.startswith("'odd': 2 node(s) have no form on a chip:")
    assert "'w': Affine with a constant part" in said
    assert "'r': Quantise" in said


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 1), st.booleans(), st.integers(4, 7), st.integers(4, 7))
def test_windows_of_maxima_are_those_of_the_node(
    kernel: int, stride: int, padding: int, ceil: bool, height: int, width: int
) -> None:
    padding = min(padding, kernel // 2)
    node = MaxCount((kernel, kernel), (stride, stride), (padding, padding), ceil)
    matrix = window_matrix(node, (2, height, width))
    x = torch.rand(3, 2, height, width)
    wanted = node.window.forward(x).flatten(1).numpy()
    reached = [[row[matrix[[i]].indices].max() for i in range(matrix.shape[0])] for row in x.flatten(1).numpy()]
    np.testing.assert_array_equal(np.array(reached, np.float32), wanted)
