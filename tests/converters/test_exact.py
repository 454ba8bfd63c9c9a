"""Exact conversion: integers in spikes equal integers without time, always, and stay close to the original network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_convert_rate import BLOCKS, Sketch, conv, drawn
from torch import Tensor

from converters import Exact, activations_replaced, convert, prove
from converters.calibrate import check_calibration
from converters.legalise import legalise
from converters.prove import NotExact
from converters.recipes.exact import quantised, without_time
from neuro.dynamics import rest, step
from neuro.errors import NeuroError, ParameterError, ShapeError
from neuro.evaluate import evaluate
from neuro.flow import depth
from neuro.graph import Graph, Input
from neuro.nodes import Accumulate, Add, Affine, AvgPool, Conv, CountThenFire, Pulse, ReLU, Reshape, Scale
from neuro.simulate import simulate


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@settings(max_examples=10)
@given(
    st.lists(st.sampled_from(BLOCKS), min_size=0, max_size=4), st.sampled_from([1, 2, 5, 8]), st.integers(3, 8),
    st.integers(0, 10**6),
)  # fmt: skip
def test_random_networks_equal_their_integers(kinds: list[str], levels: int, bits: int, seed: int) -> None:
    graph, recipe = drawn(kinds, seed), Exact(levels, bits)
    x = torch.rand(6, 2, 6, 6)
    spiking = convert(graph, recipe, x)
    built = quantised(recipe, legalise(graph), check_calibration(graph, x))
    unseen = 2 * torch.rand(3, 2, 6, 6) - 0.5
    torch.testing.assert_close(evaluate(built, unseen), evaluate(without_time(spiking), unseen), rtol=0, atol=0)
    prove(spiking, unseen)
    stepped, fast = (simulate(spiking, unseen, kernel=kernel, record=("counts",)) for kernel in ("reference", "auto"))  # type: ignore[arg-type]
    torch.testing.assert_close(fast.outputs, stepped.outputs, rtol=0, atol=0)
    assert fast.counts == stepped.counts
    assert fast.counts.steps == (depth(spiking) + 1) * levels
    for counts in fast.recordings["counts"].values():
        assert int(counts.min()) >= 0
        assert int(counts.max()) <= levels


@given(st.integers(1, 50), st.integers(-300, 300), st.integers(1, 12), st.integers(0, 10**6))
def test_the_count_is_the_clipped_quotient(theta: int, v0: int, levels: int, seed: int) -> None:
    """Physics first: whatever the order of the input, the spikes are that many, in the window, one after the other."""
    rng = torch.Generator().manual_seed(seed)
    currents = torch.randint(-60, 90, (levels + 9, 2, 4), generator=rng, dtype=torch.int32)
    node = CountThenFire(torch.tensor(theta), torch.tensor(v0), 7, levels)
    state, spikes = rest(node, 2, (4,)), []
    for current in currents:
        state, z = step(node, state, current)
        spikes.append(z)
    series = torch.stack(spikes)
    total = v0 + currents[:7].sum(0)
    expected = torch.tensor([[min(max(int(v) // theta, 0), levels) for v in row] for row in total.tolist()])
    assert torch.equal(series.sum(0), expected)
    assert not series[:7].any()
    assert not series[7 + levels :].any()
    window = series[7 : 7 + levels]
    assert torch.equal(window, window.sort(0, descending=True).values)


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_block_stays_close(kind: str) -> None:
    """More levels lose less; with many levels and wide weights nothing is left but rounding."""
    graph, x = drawn([kind], 3), torch.rand(64, 2, 6, 6)
    y = evaluate(graph, x)
    errors = [relative(simulate(convert(graph, Exact(n, 8), x), x).outputs, y) for n in (4, 16, 64)]
    assert errors[0] < 0.25
    assert errors[1] < 0.06
    assert errors[2] < 0.03
    fine = relative(simulate(convert(graph, Exact(256, 12), x), x).outputs, y)
    assert fine < 0.02, "the 8 bits of the input are all that is left"
    replaced, all_of_them = activations_replaced(convert(graph, Exact(), x))
    assert replaced == all_of_them > 0


def test_spikes_stand_first_in_their_window() -> None:
    graph, x = drawn(["residual"], 2), torch.rand(8, 2, 6, 6)
    spiking = convert(graph, Exact(5), x)
    series = simulate(spiking, x, record=("spikes",)).recordings["spikes"]
    stepped = simulate(spiking, x, record=("spikes",), kernel="reference").recordings["spikes"]
    for name, node in spiking.nodes.items():
        if isinstance(node, CountThenFire):
            assert torch.equal(series[name], stepped[name])
            assert series[name].shape[0] == (depth(spiking) + 1) * 5
            where = series[name].flatten(1).any(1).nonzero().flatten()
            assert node.start <= int(where.min()) <= int(where.max()) < node.start + 5
            assert node.start % 5 == 0


def test_the_input_is_presented_once() -> None:
    graph, x = drawn(["conv"], 2), torch.rand(8, 2, 6, 6)
    spiking = convert(graph, Exact(4), x)
    (pulse,) = [name for name, node in spiking.nodes.items() if isinstance(node, Pulse)]
    (first,) = spiking.targets[pulse]
    node = spiking.nodes[first]
    assert isinstance(node, Conv)
    reached = torch.nn.functional.conv_transpose2d(
        torch.ones(1, 4, 6, 6), (node.weight != 0).float(), padding=node.padding
    )
    pixels = (x * 255 / x.max()).round() != 0
    assert simulate(spiking, x).counts.nodes[first].macs == int((pixels * reached).sum())
    spikes = simulate(spiking, x).counts
    populations = [name for name, node in spiking.nodes.items() if isinstance(node, CountThenFire)]
    recorded = simulate(spiking, x, record=("spikes",)).recordings["spikes"]
    for name in populations:
        assert spikes.nodes[name].spikes == int(recorded[name].sum())


def test_a_wrong_spike_is_found() -> None:
    graph, x = drawn(["residual"], 5), torch.rand(16, 2, 6, 6)
    spiking = convert(graph, Exact(8), x)
    proof = prove(spiking, x)
    assert proof.samples == 16
    assert all(spikes > 0 for _, _, spikes in proof.spikes)
    assert "equal on 16 samples" in str(proof)
    name = proof.spikes[1][0]
    node = spiking.nodes[name]
    assert isinstance(node, CountThenFire)
    changed = spiking.edit(nodes={**spiking.nodes, name: replace(node, v0=node.v0 + node.theta)})
    with pytest.raises(NotExact, match=rf"'{name}', sample 0, neuron \(\d"):
        prove(changed, x, without_time(spiking))
    early = spiking.edit(nodes={**spiking.nodes, name: replace(node, start=8)})
    with pytest.raises(NotExact, match=name):
        prove(early, x)
    with pytest.raises(NotExact, match=name):
        prove(early, x, kernel="auto")


def test_correction_takes_the_bias_away() -> None:
    """Few bits move the mean of the logits; on calibration data the correction puts it back to within one step."""
    left = []
    for seed in range(5):
        graph, x = drawn(["conv", "residual", "residual"], seed), torch.rand(100, 2, 6, 6)
        y = evaluate(graph, x)
        plain, corrected = (
            float((simulate(convert(graph, Exact(8, 3, how), x), x).outputs - y).mean(0).norm())
            for how in ("none", "bias")
        )
        left.append(corrected / plain)
    assert max(left) < 0.3


def test_sums_of_sums() -> None:
    """An addition that another addition alone reads."""
    nodes = {"x": Input((4,)), "one": Affine(torch.randn(3, 4)), "two": Affine(torch.randn(3, 4)), "sum": Add()}
    nodes |= {"relu": ReLU(), "three": Affine(torch.randn(3, 4)), "total": Add()}
    sources = {"one": ("x",), "two": ("x",), "three": ("x",), "sum": ("one", "two"), "total": ("sum", "three")}
    graph = Graph(nodes, {**sources, "relu": ("total",)}, "sums")
    x = torch.rand(64, 4)
    spiking = convert(graph, Exact(16), x)
    prove(spiking, x)
    assert relative(simulate(spiking, x).outputs, evaluate(graph, x)) < 0.1


def test_refitted_weights_earn_their_place() -> None:
    """What coarse weights of the layers before have spoilt is made good, on data not seen before."""
    errors: dict[str, list[float]] = {"bias": [], "weights": []}
    for seed in range(3):
        graph = drawn(["conv", "residual", "grouped"], seed)
        x, unseen = torch.rand(300, 2, 6, 6), torch.rand(200, 2, 6, 6)
        for how, found in errors.items():
            spiking = convert(graph, Exact(16, 3, how), x)  # type: ignore[arg-type]
            found.append(relative(simulate(spiking, unseen).outputs, evaluate(graph, unseen)))
    assert sum(errors["weights"]) < 0.95 * sum(errors["bias"]), errors


def test_a_handful_of_samples_does_no_harm() -> None:
    graph, x, unseen = drawn(["conv", "residual"], 1), torch.rand(6, 2, 6, 6), torch.rand(100, 2, 6, 6)
    plain, refitted = (
        relative(simulate(convert(graph, Exact(8, calibrate=how), x), unseen).outputs, evaluate(graph, unseen))  # type: ignore[arg-type]
        for how in ("none", "weights")
    )
    assert refitted < 1.25 * plain


def test_averages_become_weights() -> None:
    sketch = Sketch((2, 6, 6))
    sketch.put(conv(4, 2))
    sketch.put(ReLU())
    sketch.put(AvgPool((3, 3), (3, 3), (1, 1), False))
    sketch.put(Reshape((16,)))
    sketch.put(Affine(torch.randn(3, 16), torch.randn(3)))
    graph, x = sketch.graph(), torch.rand(50, 2, 6, 6)
    spiking = convert(graph, Exact(256, 8), x)
    assert relative(simulate(spiking, x).outputs, evaluate(graph, x)) < 0.02
    assert "AvgPool" not in {node.kind for node in spiking.nodes.values()}
    counts = simulate(spiking, x).counts
    (last,) = [name for name, node in spiking.nodes.items() if isinstance(node, Affine)]
    assert counts.nodes[last].macs == 0
    assert counts.nodes[last].accumulates > 0


def test_everything_on_the_way_is_an_integer() -> None:
    spiking = convert(drawn(["residual", "mean", "concat"], 1), Exact(8, 5), torch.rand(9, 2, 6, 6))
    for node in spiking.nodes.values():
        if isinstance(node, Conv | Affine):
            assert not node.weight.is_floating_point()
            assert node.bias is None
            assert int(node.weight.abs().max()) <= 15
        if isinstance(node, CountThenFire | Accumulate | Scale):
            assert all(not tensor.is_floating_point() for _, tensor in node.tensors())


def test_steps_are_known() -> None:
    graph, x = drawn([], 0), torch.rand(4, 2, 6, 6)
    spiking = convert(graph, Exact(4), x)
    whole = (depth(spiking) + 1) * 4
    assert simulate(spiking, x, steps=4).counts.steps == simulate(spiking, x, steps=whole).counts.steps == whole
    with pytest.raises(ParameterError, match="fires in windows of 4 steps"):
        simulate(spiking, x, steps=5)
    with pytest.raises(ParameterError, match="sees its input once"):
        simulate(spiking, x[None].expand(whole, -1, -1, -1, -1))
    with pytest.raises(ParameterError, match="does not count in windows"):
        prove(graph, x)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Exact(0), ParameterError, "levels must lie in"),
        (lambda: Exact(4, 1), ParameterError, "weight_bits must lie in"),
        (lambda: Exact(4, calibrate="all"), ParameterError, "calibrate must be 'none', 'bias' or 'weights', got 'all'"),  # type: ignore[arg-type]
        (lambda: CountThenFire(torch.tensor(0), torch.tensor(0), 1, 1), ParameterError, "theta"),
        (lambda: CountThenFire(torch.tensor(1.0), torch.tensor(0), 1, 1), ParameterError, "must be integers"),
        (lambda: CountThenFire(torch.tensor(1), torch.tensor(0), 0, 1), ParameterError, "start must be"),
        (
            lambda: Graph(
                {"x": Input((2,)), "z": CountThenFire(torch.tensor(1), torch.tensor(1), 1, 1)}, {"z": ("x",)}
            ),
            ShapeError,
            "put a Quantise",
        ),
        (
            lambda: Graph({"x": Input((2,)), "z": Accumulate(torch.tensor(1))}, {"z": ("x",)}),
            ShapeError,
            "sums integers",
        ),
    ],
)  # fmt: skip
def test_refusals(make: object, kind: type[NeuroError], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()  # type: ignore[operator]
