"""What holds for every network: exact codes are exact, first spikes are the ReLU, rates are off by one spike."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_convert_rate import BLOCKS, Sketch, block, conv, norm

from converters import Exact, FirstSpike, RateCode, activations_replaced, convert, prove
from converters.calibrate import check_calibration
from converters.legalise import legalise
from converters.recipes.exact import quantised, without_time
from converters.recipes.first_spike import first_spike_report
from neuro.evaluate import evaluate
from neuro.graph import Graph, Input
from neuro.nodes import (
    IF,
    Add,
    Affine,
    AvgPool,
    Concat,
    ConvTranspose,
    LeakyReLU,
    MaxPool,
    Permute,
    ReLU,
    Reshape,
    Scale,
    Slice,
)
from neuro.simulate import simulate


def nested_residual(sketch: Sketch) -> None:
    """A residual block inside a residual block."""
    outer = sketch.at
    sketch.put(conv(4, 4))
    inner = sketch.put(ReLU())
    sketch.put(conv(4, 4))
    sketch.put(ReLU())
    sketch.put(conv(4, 4))
    sketch.put(Add(), inner, sketch.at)
    sketch.put(ReLU())
    sketch.put(conv(4, 4))
    sketch.put(Add(), outer, sketch.at)
    sketch.put(ReLU())


def dense(sketch: Sketch) -> None:
    """Every layer reads all layers before it (Huang et al. 2017), with a norm before each ReLU."""
    seen = [sketch.at]
    for number in range(2):
        if number:
            sketch.put(Concat(), *seen)
        sketch.put(norm(4 + 2 * number))
        sketch.put(ReLU())
        seen.append(sketch.put(conv(2, 4 + 2 * number)))
    sketch.put(Slice(0, 0, 2), seen[0])
    seen[0] = sketch.at
    sketch.put(Concat(), seen[0], seen[2])
    sketch.put(ReLU())


def separable(sketch: Sketch) -> None:
    sketch.put(conv(4, 4, 4))
    sketch.put(ReLU())
    sketch.put(conv(4, 4))
    sketch.put(norm(4))
    sketch.put(ReLU())


def transposed(sketch: Sketch) -> None:
    """Up and down again, with a shortcut."""
    here = sketch.at
    weight = torch.randn(4, 2, 2, 2) / 2
    sketch.put(ConvTranspose(weight, 0.2 * torch.randn(4), (2, 2), groups=2))
    sketch.put(ReLU())
    sketch.put(AvgPool((2, 2), (2, 2), (0, 0)))
    sketch.put(Add(), here, sketch.at)
    sketch.put(ReLU())


def norm_after(sketch: Sketch) -> None:
    sketch.put(Scale(torch.randn(4, 1, 1), 0.2 * torch.randn(4, 1, 1)))
    sketch.put(conv(4, 4))
    sketch.put(ReLU())


def maximum_of_sums(sketch: Sketch) -> None:
    sketch.put(conv(4, 4))
    sketch.put(MaxPool((2, 2), (1, 1), (1, 0)))
    sketch.put(Slice(1, 0, sketch.now[1] - 1))
    sketch.put(conv(4, 4))
    sketch.put(ReLU())


def absolute(sketch: Sketch) -> None:
    sketch.put(conv(4, 4))
    sketch.put(LeakyReLU(-1.0))


MORE: dict[str, Callable[[Sketch], None]] = {
    "nested": nested_residual, "dense": dense, "separable": separable, "transposed": transposed,
    "norm after": norm_after, "maximum": maximum_of_sums, "absolute": absolute,
}  # fmt: skip
KINDS = st.lists(st.sampled_from((*BLOCKS, *MORE)), min_size=0, max_size=5)


def network(kinds: list[str], seed: int) -> Graph:
    """One to six blocks on (2, 6, 6), then three logits."""
    torch.manual_seed(seed)
    sketch = Sketch((2, 6, 6))
    sketch.put(conv(4, 2))
    sketch.put(ReLU())
    for kind in kinds:
        MORE[kind](sketch) if kind in MORE else block(sketch, kind)
    sketch.put(Permute((1, 2, 0)))
    size = int(np.prod(sketch.now))
    sketch.put(Reshape((size,)))
    sketch.put(Affine(torch.randn(3, size) / size**0.5, torch.randn(3)))
    return sketch.graph()


@settings(max_examples=15)
@given(KINDS, st.integers(0, 10**6))
def test_legal_networks_compute_the_same(kinds: list[str], seed: int) -> None:
    graph, x = network(kinds, seed), torch.randn(8, 2, 6, 6)
    y = evaluate(graph, x)
    assert float((evaluate(legalise(graph), x) - y).abs().max()) < 1e-5 * max(1.0, float(y.abs().max()))


@settings(max_examples=12)
@given(
    KINDS, st.sampled_from([1, 2, 3, 4, 8, 16]), st.integers(3, 10), st.sampled_from(["none", "bias", "weights"]),
    st.integers(0, 10**6),
)  # fmt: skip
def test_exact_equals_its_integers_always(kinds: list[str], levels: int, bits: int, calibrate: str, seed: int) -> None:
    """On data of another range than the calibration data, every spike of every layer, step by step."""
    graph, x = network(kinds, seed), torch.rand(6, 2, 6, 6)
    recipe = Exact(levels, bits, calibrate)  # type: ignore[arg-type]
    spiking = convert(graph, recipe, x)
    unseen = 3 * torch.rand(3, 2, 6, 6) - 1
    reference = quantised(recipe, legalise(graph), check_calibration(graph, x))
    proof = prove(spiking, unseen, reference)
    assert proof.samples == 3
    replaced, all_of_them = activations_replaced(spiking)
    assert len(proof.spikes) >= replaced == all_of_them > 0
    torch.testing.assert_close(evaluate(reference, unseen), evaluate(without_time(spiking), unseen), rtol=0, atol=0)


@settings(max_examples=15)
@given(KINDS, st.integers(0, 10**6))
def test_first_spikes_are_the_relu_network(kinds: list[str], seed: int) -> None:
    graph, x = network(kinds, seed), torch.rand(8, 2, 6, 6)
    spiking = convert(graph, FirstSpike(), x)
    y, found = evaluate(graph, x), simulate(spiking, x).outputs
    assert float((found - y).norm() / y.norm()) < 1e-5
    report = first_spike_report(graph, spiking, x)
    assert report.clipped == 0
    assert 0 <= report.spikes_per_neuron <= 1


@settings(max_examples=8)
@given(KINDS, st.integers(0, 10**6))
def test_a_rigorous_bound_clips_nothing_whatever_the_input(kinds: list[str], seed: int) -> None:
    """Every corner of the calibrated range, where the largest activations are."""
    graph = network(kinds, seed)
    calibration = torch.rand(4, 2, 6, 6)
    calibration[0, 0, 0, 0], calibration[0, 0, 0, 1] = 0, 1
    spiking = convert(graph, FirstSpike(windows="bound"), calibration)
    corners = (torch.rand(20, 2, 6, 6) > 0.5).float()
    report = first_spike_report(graph, spiking, corners)
    assert report.clipped == 0
    assert report.largest <= 1
    assert report.logit_error < 1e-5


@given(st.floats(1e-3, 1e3), st.floats(0, 1), st.floats(0, 0.999), st.integers(1, 200))
def test_the_rate_of_a_constant_current_is_off_by_one_spike_at_most(
    theta: float, share: float, v0: float, steps: int
) -> None:
    """count = floor(v0 / theta + T i / theta) for 0 <= i <= theta, so |count / T - i / theta| <= 1 / T."""
    wide = torch.tensor(theta, dtype=torch.float64)
    graph = Graph({"x": Input((1,)), "n": IF(wide, v0 * wide)}, {"n": ("x",)})
    current = torch.tensor([[share * theta]])
    rate = float(simulate(graph, current, steps=steps).outputs)
    error = abs(rate - share)
    rounding = 1e-5 * (1 + v0)
    assert error <= 1 / steps + rounding
    if v0 == 0.5:
        assert error <= 0.5 / steps + rounding


@settings(max_examples=10)
@given(KINDS, st.integers(1, 64), st.sampled_from([0.0, 0.25, 0.5, 0.9]), st.integers(0, 10**6))
def test_every_population_with_a_constant_input_is_off_by_one_spike_at_most(
    kinds: list[str], steps: int, v0: float, seed: int
) -> None:
    """The populations that read the input alone, in converted networks: currents beyond [0, theta] are clipped."""
    graph, x = network(kinds, seed), torch.rand(5, 2, 6, 6)
    spiking = convert(graph, RateCode(100, v0=v0), x)
    counts = simulate(spiking, x, steps=steps, record=("counts",)).recordings["counts"]
    values: dict[str, torch.Tensor] = {}
    evaluate(legalise(graph), x, observe=values.__setitem__)
    constant: set[str] = set()
    checked = 0
    for name, node in spiking.nodes.items():
        if isinstance(node, Input) or all(source in constant for source in spiking.sources[name]):
            constant.add(name)
        if isinstance(node, IF) and name in constant:
            constant.discard(name)
            theta = node.theta.double()
            wanted = (values[name].double() / theta).clamp(0, 1)
            error = (counts[name][0].double() / steps - wanted).abs()
            assert float(error.max()) <= max(v0, 1 - v0) / steps + 1e-4
            checked += 1
    assert checked >= 1
