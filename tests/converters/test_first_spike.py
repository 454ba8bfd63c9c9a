"""One spike per neuron at most says what the ReLU said."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_convert_rate import BLOCKS, drawn

from converters import FirstSpike, activations_replaced, convert
from converters.recipes.first_spike import error_of_time_bits, first_spike_report
from neuro.errors import ParameterError
from neuro.evaluate import evaluate
from neuro.flow import depth
from neuro.graph import Graph, Input
from neuro.nodes import Affine, Clamp, Conv, RampFirstSpike, ReLU, Scale
from neuro.simulate import simulate


@settings(max_examples=10)
@given(st.lists(st.sampled_from(BLOCKS), min_size=0, max_size=5), st.integers(0, 10**6))
def test_random_networks_are_their_relu_networks(kinds: list[str], seed: int) -> None:
    graph, x = drawn(kinds, seed), torch.rand(8, 2, 6, 6)
    spiking = convert(graph, FirstSpike(), x)
    wanted, run = evaluate(graph, x), simulate(spiking, x)
    assert float((run.outputs - wanted).norm() / wanted.norm()) < 1e-5
    report = first_spike_report(graph, spiking, x)
    assert report.same_class == 1
    assert report.clipped == 0
    assert 0 < report.spikes_per_neuron <= 1
    assert run.counts.steps == depth(spiking) + 1
    for name, node in spiking.nodes.items():
        if isinstance(node, RampFirstSpike):
            size = torch.Size(spiking.shapes[name]).numel() * len(x)
            assert 0 <= run.counts.nodes[name].spikes <= size == run.counts.nodes[name].updates
    replaced, all_of_them = activations_replaced(spiking)
    assert replaced == all_of_them > 0


@given(st.floats(0.1, 9), st.integers(0, 10**6), st.sampled_from([None, 1, 4, 9]))
def test_the_membrane_crosses_where_the_closed_form_says(window: float, seed: int, bits: int | None) -> None:
    """Physics first: integrate the two slopes in small steps of time and look for the crossing."""
    rng = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(5, generator=rng).double(), float(torch.randn(1, generator=rng))
    arrival = torch.rand(5, generator=rng).double()
    node = RampFirstSpike(torch.tensor(window - bias, dtype=torch.float64), window, bits)
    fine = 20_000
    moments = (torch.arange(fine) + 0.5).double() / fine
    slope = ((moments[:, None] >= arrival) * weight).sum(1)
    v = float(slope.sum() / fine)
    ramp = torch.arange(1, fine + 1).double() / fine * window
    crossed = ((v + ramp) >= window - bias).nonzero()
    t = float(node.times(torch.tensor([v]).double()))
    tolerance = window / fine + (0 if bits is None else window / 2**bits / 2)
    if v >= window - bias:
        assert t == 0
    elif len(crossed):
        at = float(ramp[crossed[0, 0]])
        assert abs(t - at) <= tolerance * (1 + 1e-9) or (t == float("inf") and window - at <= tolerance * (1 + 1e-9))
    else:
        assert t == float("inf") or window - t <= tolerance


def test_weights_are_unchanged_and_biases_are_thresholds() -> None:
    graph, x = drawn(["residual"], 1), torch.rand(8, 2, 6, 6)
    spiking = convert(graph, FirstSpike(), x)
    for name, node in graph.nodes.items():
        if isinstance(node, Conv | Affine):
            new = spiking.nodes[name]
            assert isinstance(new, Conv | Affine)
            assert torch.equal(new.weight, node.weight)
    first = spiking.nodes["relu2"]
    assert isinstance(first, RampFirstSpike)
    bias = graph.nodes["conv1"].bias  # type: ignore[attr-defined]
    torch.testing.assert_close(first.theta.flatten(), first.window - bias.double())


def test_bits_of_time() -> None:
    """Each bit of time halves the error, and doubles the ticks."""
    graph, x = drawn(["conv", "residual", "max"], 1), torch.rand(60, 2, 6, 6)
    errors = []
    for bits in (3, 5, 7, 9):
        spiking = convert(graph, FirstSpike(bits), x)
        errors.append(first_spike_report(graph, spiking, x).logit_error)
        assert simulate(spiking, x).counts.steps == (depth(spiking) + 1) * 2**bits
    for coarse, fine in pairwise(errors):
        assert fine < 0.5 * coarse
    assert errors[-1] < 0.01


def test_clipping_is_told() -> None:
    graph, x = drawn(["conv"], 1), torch.rand(60, 2, 6, 6)
    spiking = convert(graph, FirstSpike(margin=0), x)
    assert first_spike_report(graph, spiking, x).clipped < 1e-3
    bright = first_spike_report(graph, spiking, 3 * x)
    assert bright.clipped > 0.01
    assert bright.logit_error > 0.01


def test_time_bits_say_their_error() -> None:
    """The report of one network for several clocks equals that of networks converted for each."""
    graph, x = drawn(["conv", "max"], 1), torch.rand(40, 2, 6, 6)
    told = error_of_time_bits(graph, convert(graph, FirstSpike(), x), x, (4, 6, 8))
    for bits, report in told.items():
        assert report == first_spike_report(graph, convert(graph, FirstSpike(bits), x), x)
    assert told[4].logit_error > 2 * told[6].logit_error > 4 * told[8].logit_error


def test_the_report_reads_as_text() -> None:
    graph, x = drawn(["conv"], 1), torch.rand(60, 2, 6, 6)
    spiking = convert(graph, FirstSpike(), x)
    text = str(first_spike_report(graph, spiking, x))
    assert "same class on 100.00 % of 60 samples" in text
    assert "nothing clipped: at most 50 % of a window used" in text
    bright = first_spike_report(graph, spiking, 5 * x)
    assert bright.largest > 2
    assert "clipped: convert with a larger margin" in str(bright)


def test_borders_of_folded_norms_are_thresholds() -> None:
    """A norm after a ReLU before a convolution that pads: nine thresholds per channel, and no current but spikes."""
    graph, x = drawn(["scale", "conv"], 2), torch.rand(8, 2, 6, 6)
    nodes, sources = dict(graph.nodes), dict(graph.sources)
    first = next(name for name, node in nodes.items() if isinstance(node, ReLU))
    reader = graph.targets[first][0]
    nodes["shift"] = Scale(torch.randn(4, 1, 1), torch.randn(4, 1, 1))
    sources |= {"shift": (first,), reader: ("shift",)}
    nodes[reader] = Conv(torch.randn(4, 4, 3, 3), torch.randn(4), padding=(1, 1))
    shifted = Graph(nodes, sources)
    spiking = convert(shifted, FirstSpike(), x)
    assert not any(isinstance(node, Scale) for node in spiking.nodes.values())
    assert first_spike_report(shifted, spiking, x).logit_error < 1e-5


def test_a_bound_is_refused_where_it_means_nothing() -> None:
    """Two weights that cancel on all data could cause a million on other data."""
    nodes = {"x": Input((2,)), "a": Affine(torch.tensor([[1e6, -1e6]]), torch.tensor([1e-6])), "relu": ReLU()}
    graph = Graph({**nodes, "b": Affine(torch.ones(2, 1))}, {"a": ("x",), "relu": ("a",), "b": ("relu",)})
    data = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    with pytest.raises(ParameterError, match=r"the bound of 'relu', 1e\+06, .* use windows='calibration'"):
        convert(graph, FirstSpike(windows="bound"), data)
    assert first_spike_report(graph, convert(graph, FirstSpike(), data), data).clipped == 0


def test_a_bounded_activation_is_its_own_window() -> None:
    spiking = convert(drawn(["clamp"], 1), FirstSpike(), torch.rand(9, 2, 6, 6))
    windows = [node.window for node in spiking.nodes.values() if isinstance(node, RampFirstSpike)]
    assert 0.5 in windows
    assert not any(isinstance(node, Clamp) for node in spiking.nodes.values())


def test_refusals() -> None:
    for fields in ({"time_bits": 0}, {"time_bits": 25}, {"margin": -1}, {"margin": float("nan")}, {"windows": "long"}):
        with pytest.raises(ParameterError, match=f"FirstSpike: {next(iter(fields))} must"):
            FirstSpike(**fields)  # type: ignore[arg-type]
    for window, bits in ((0.0, None), (float("inf"), None), (1.0, 0)):
        with pytest.raises(ParameterError, match="RampFirstSpike: "):
            RampFirstSpike(torch.tensor(1.0), window, bits)
