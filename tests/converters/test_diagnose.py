"""diagnose names the layer that was spoiled, and what was done to it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_convert_rate import BLOCKS, drawn
from torch import Tensor

from converters import Diagnosis, Exact, FirstSpike, Graded, RateCode, SigmaDelta, convert, diagnose
from converters.activity import activity, walk
from converters.attribution import Seen, gain, losses, units
from converters.legalise import is_activation, legalise
from converters.recipes import Integer
from converters.recipes.exact import without_time
from neuro.errors import NeuroError, ParameterError, ShapeError
from neuro.evaluate import evaluate
from neuro.graph import Graph, Input, Node
from neuro.nodes import IF, Affine, Conv, CountThenFire, RampFirstSpike, ReLU
from neuro.simulate import simulate

STEPS = 256


def network(depth: int = 6, width: int = 32, seed: int = 0) -> Graph:
    """fc0, relu0, ..., out: 16 numbers in, 5 classes out."""
    torch.manual_seed(seed)
    nodes: dict[str, Node] = {"x": Input((16,))}
    sources: dict[str, tuple[str, ...]] = {}
    before, size = "x", 16
    for k in range(depth):
        nodes[f"fc{k}"] = Affine(torch.randn(width, size) * (2 / size) ** 0.5, 0.1 * torch.randn(width))
        nodes[f"relu{k}"] = ReLU()
        sources[f"fc{k}"], sources[f"relu{k}"] = (before,), (f"fc{k}",)
        before, size = f"relu{k}", width
    nodes["out"], sources["out"] = Affine(torch.randn(5, size) / size**0.5, torch.randn(5)), (before,)
    return Graph(nodes, sources, "net")


def put(graph: Graph, name: str, **fields: object) -> Graph:
    return graph.edit(nodes={**graph.nodes, name: replace(graph.nodes[name], **fields)})


def threshold_times(graph: Graph, name: str, factor: float) -> Graph:
    """The threshold alone, without the weights that read its spikes."""
    node = graph.nodes[name]
    assert isinstance(node, IF)
    return put(graph, name, theta=factor * node.theta, v0=factor * node.v0)


def converted_with(graph: Graph, x: Tensor, name: str, factor: float) -> Graph:
    """The network converted as if the threshold of one layer were `factor` times as large: the weights know it."""
    snn = convert(graph, RateCode(100), x)
    (reader,) = snn.targets[name]
    node = snn.nodes[reader]
    assert isinstance(node, Affine)
    return put(threshold_times(snn, name, factor), reader, weight=node.weight * factor)


def in_bits(weight: Tensor, bits: int) -> Tensor:
    top = 2 ** (bits - 1) - 1
    step = weight.abs().max() / top
    return (weight / step).round() * step


def coarse(graph: Graph, name: str, bits: int = 4) -> Graph:
    return put(graph, name, weight=in_bits(graph.nodes[name].weight, bits))  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(96, 16, generator=torch.Generator().manual_seed(1))


def causes(found: Diagnosis) -> list[tuple[str, str]]:
    return [(finding.layer, finding.cause) for finding in found.findings]


@pytest.mark.parametrize("seed", range(3))
def test_a_bad_threshold_a_saturated_layer_and_a_layer_of_4_bits_are_named_in_order(seed: int, x: Tensor) -> None:
    graph = network(seed=seed)
    snn = convert(graph, RateCode(100), x)
    bad = coarse(threshold_times(threshold_times(snn, "relu1", 20), "relu3", 0.05), "fc5")
    found = diagnose(graph, bad, x, STEPS)
    named = dict(causes(found))
    assert named == {"relu1": "threshold", "relu3": "saturation", "relu5": "weights"}
    assert [f.cost for f in found.findings] == sorted((f.cost for f in found.findings), reverse=True)
    assert found.findings[-1].layer == "relu5"
    assert found.worst is found.findings[0]
    remedies = {f.layer: f.remedy for f in found.findings}
    assert "lower its threshold 20 times" in remedies["relu1"]
    assert "raise its threshold 20 times" in remedies["relu3"]
    assert "'fc5' (4 bits)" in remedies["relu5"]


def test_the_remedy_works_finding_after_finding(x: Tensor) -> None:
    graph = network()
    snn = convert(graph, RateCode(100), x)
    bad = coarse(threshold_times(threshold_times(snn, "relu1", 20), "relu3", 0.05), "fc5")
    left = {"relu1": ("relu1",), "relu3": ("relu3",), "relu5": ("fc5",)}
    for remaining in (3, 2, 1, 0):
        found = diagnose(graph, bad, x, STEPS)
        assert len(found.findings) == remaining
        if found.worst is not None:
            for name in left[found.worst.layer]:
                bad = bad.edit(nodes={**bad.nodes, name: snn.nodes[name]})


@pytest.mark.parametrize(
    ("factor", "steps", "cause"), [(0.7, 512, "clipping"), (0.03, 512, "saturation"), (40.0, 16, "quantisation")]
)
@pytest.mark.parametrize("place", [0, 3, 5])
def test_a_threshold_that_the_weights_know(factor: float, steps: int, cause: str, place: int, x: Tensor) -> None:
    graph, name = network(), f"relu{place}"
    found = diagnose(graph, converted_with(graph, x, name, factor), x, steps, least=0.02)
    assert causes(found)[0] == (name, cause)
    assert ("lower" if factor > 1 else "raise") in found.findings[0].remedy


@pytest.mark.parametrize("factor", [0.2, 5.0])
@pytest.mark.parametrize("place", [0, 2, 5])
def test_a_threshold_that_the_weights_do_not_know(factor: float, place: int, x: Tensor) -> None:
    graph, name = network(), f"relu{place}"
    found = diagnose(graph, threshold_times(convert(graph, RateCode(100), x), name, factor), x, STEPS)
    ((layer, cause),) = causes(found)
    assert layer == name
    assert cause == "threshold" or (factor < 1 and cause == "saturation")
    assert "5 times" in found.findings[0].remedy


@pytest.mark.parametrize("place", ["fc0", "fc3", "out"])
@pytest.mark.parametrize("bits", [2, 3])
def test_coarse_weights(place: str, bits: int, x: Tensor) -> None:
    graph = network()
    found = diagnose(graph, coarse(convert(graph, RateCode(100), x), place, bits), x, STEPS)
    assert causes(found) == [("out" if place == "out" else place.replace("fc", "relu"), "weights")]
    assert f"'{place}' ({bits} bits)" in found.findings[0].remedy


def test_currents_that_are_too_large_saturate(x: Tensor) -> None:
    graph = network()
    snn = convert(graph, RateCode(100), x)
    node = snn.nodes["fc2"]
    assert isinstance(node, Affine)
    assert node.bias is not None
    found = diagnose(graph, put(snn, "fc2", bias=node.bias + 10), x, STEPS)
    assert causes(found) == [("relu2", "saturation")]
    assert "times the current of the original" in found.findings[0].remedy


def test_spikes_in_bursts_arrive_unevenly(x: Tensor) -> None:
    """At few steps, with thresholds far below the quantisation that the same steps give to even input."""
    graph = network(depth=4)
    found = diagnose(graph, convert(graph, RateCode(100), x), x, 4)
    rows = {row.layer: row for row in found.rows}
    assert rows["relu0"].causes["unevenness"] == 0
    assert all(rows[f"relu{k}"].causes["unevenness"] > 0.05 for k in (1, 2, 3))


@pytest.mark.parametrize("recipe", [RateCode(100), FirstSpike(), Exact(1024, weight_bits=16)])
def test_a_good_conversion_has_no_findings(recipe: object, x: Tensor) -> None:
    graph = network(depth=4)
    found = diagnose(graph, convert(graph, recipe, x), x, 512 if isinstance(recipe, RateCode) else None)
    assert found.findings == ()
    assert found.worst is None
    assert "no layer loses enough" in str(found)
    assert found.logit_error < 0.03


def test_integer_networks_show_the_layer_of_few_bits_and_a_short_window(x: Tensor) -> None:
    graph = network(depth=4)
    snn = convert(graph, Exact(64), x)
    node = snn.nodes["fc2"]
    assert isinstance(node, Affine)
    poor = put(snn, "fc2", weight=(node.weight / 40).round().to(torch.int32) * 40)
    for network_or_reference in (poor, without_time(poor)):
        found = diagnose(graph, network_or_reference, x)
        # The worth of its spikes is fitted, so that noise of the weights may show as a wrong threshold.
        assert found.worst is not None
        assert found.worst.layer == "relu2"
        assert found.worst.cause in ("weights", "threshold")
    coarse_counts = diagnose(graph, convert(graph, Exact(2), x), x)
    assert coarse_counts.findings
    assert {cause for _, cause in causes(coarse_counts)} <= {"quantisation", "clipping"}
    assert all(row.causes.get("unevenness", 0) == 0 for row in coarse_counts.rows)


def test_first_spikes_show_short_windows_coarse_times_and_moved_thresholds(x: Tensor) -> None:
    graph = network(depth=4)
    snn = convert(graph, FirstSpike(), x)
    node = snn.nodes["relu1"]
    assert isinstance(node, RampFirstSpike)
    short = put(snn, "relu1", window=node.window / 5, theta=node.theta - 0.8 * node.window)
    assert causes(diagnose(graph, short, x)) == [("relu1", "clipping")]
    moved = put(snn, "relu1", theta=node.theta - 0.3 * node.window)
    assert causes(diagnose(graph, moved, x)) == [("relu1", "threshold")]
    assert causes(diagnose(graph, put(snn, "relu1", time_bits=2), x)) == [("relu1", "quantisation")]


@settings(max_examples=12)
@given(
    st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3),
    st.sampled_from([RateCode(95), RateCode(100, reset="zero"), Exact(4), FirstSpike(5), Graded(3), Integer(4)]),
    st.integers(0, 10**6),
)
def test_the_parts_add_up_to_what_the_network_really_did(kinds: list[str], recipe: object, seed: int) -> None:
    """Layer by layer: wanted plus all parts is what was sent; with the read-out they end at the simulated logits."""
    graph, x = drawn(kinds, seed), torch.rand(6, 2, 6, 6)
    snn = convert(graph, recipe, x)
    steps = 8 if isinstance(recipe, RateCode | Graded) else None
    plain = legalise(graph)
    means, outputs = activity(snn, x, steps)
    torch.testing.assert_close(outputs, simulate(snn, x, steps=steps).outputs)
    truth = walk(plain, {plain.inputs[0]: x})
    mixed = {plain.inputs[0]: x}
    for name, node in plain.nodes.items():
        if name in mixed:
            continue
        value = node.forward(*(mixed[source] for source in plain.sources[name]))  # type: ignore[attr-defined]
        if is_activation(node):
            current = means[snn.sources[name][0]]
            seen = Seen(truth[name], mixed[plain.sources[name][0]], value, current, means[name])
            fitted = units(snn.nodes[name], name, plain, snn, seen)
            for saturated in (False, True):
                sent, parts = losses(node, snn.nodes[name], fitted, steps, saturated, seen)  # type: ignore[arg-type]
                torch.testing.assert_close(value + sum(parts.values()), sent, atol=1e-4, rtol=1e-4)
            value = sent
        mixed[name] = value
    if not isinstance(recipe, Exact | Integer):
        torch.testing.assert_close(mixed[plain.output], outputs, atol=1e-3, rtol=1e-3)


@settings(max_examples=10)
@given(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3), st.integers(0, 10**6))
def test_random_networks_have_rows_for_all_their_populations(kinds: list[str], seed: int) -> None:
    graph, x = drawn(kinds, seed), torch.rand(4, 2, 6, 6)
    found = diagnose(graph, convert(graph, RateCode(100), x), x, 512)
    layers = [name for name, node in legalise(graph).nodes.items() if is_activation(node)]
    assert [row.layer for row in found.rows[:-1]] == layers
    assert all(row.causes["threshold"] < 0.02 for row in found.rows[:-1])
    for row in found.rows:
        assert math.isclose(sum(row.shares.values()), 1.0) or not any(row.causes.values())
        assert row.total <= row.inherited + row.local + 1e-9
        assert row.local <= sum(row.causes.values()) + 1e-9


def test_the_worth_of_a_spike_is_read_from_the_weights_behind_it() -> None:
    graph, x = drawn(["residual", "max"], 5), torch.rand(8, 2, 6, 6)
    plain, snn = legalise(graph), convert(graph, RateCode(100), x)
    for name, node in snn.nodes.items():
        if isinstance(node, IF):
            torch.testing.assert_close(
                gain(plain, snn, name, node.theta),
                torch.ones(plain.shapes[name][0], *(1,) * (len(plain.shapes[name]) - 1)),
            )
            moved = threshold_times(snn, name, 3.0)
            theta = moved.nodes[name].theta  # type: ignore[attr-defined]
            torch.testing.assert_close(gain(plain, moved, name, theta).mean(), torch.tensor(1 / 3), atol=0.02, rtol=0)


def test_unknown_populations_have_their_loss_in_one_piece(x: Tensor) -> None:
    graph = network(depth=3)
    found = diagnose(graph, convert(graph, SigmaDelta(), x), x, 8)
    assert all(set(row.causes) == {"other"} for row in found.rows[:-1])
    assert found.logit_error < 0.05


def test_logit_error_and_classes_are_those_of_the_simulation(x: Tensor) -> None:
    graph = network(depth=3)
    snn = convert(graph, RateCode(90), x)
    found = diagnose(graph, snn, x, 5)
    wanted, got = evaluate(graph, x), simulate(snn, x, steps=5).outputs
    centred = [value - value.mean(1, keepdim=True) for value in (wanted, got)]
    assert found.logit_error == pytest.approx(float((centred[1] - centred[0]).norm() / centred[0].norm()), rel=1e-4)
    assert found.same_class == pytest.approx(float((wanted.argmax(1) == got.argmax(1)).float().mean()))


def test_a_diagnosis_shows_itself(x: Tensor) -> None:
    graph = network(depth=2)
    odd = "relu0 <b>\x1b[31m"
    names = {name: odd if name == "relu0" else name for name in graph.nodes}
    graph = Graph(
        {names[n]: node for n, node in graph.nodes.items()},
        {names[n]: tuple(names[s] for s in given) for n, given in graph.sources.items()},
        "net",
    )
    found = diagnose(graph, threshold_times(convert(graph, RateCode(100), x), odd, 9), x, 64)
    assert "\x1b" not in str(found)
    assert "1. relu0" in str(found)
    html = found._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    figure = found.picture()
    row = found.rows[0]
    first = [bar.x[0] for bar in figure.data]
    assert sum(first) == pytest.approx(100 * row.local, rel=1e-3)
    assert {bar.name for bar in figure.data} == {cause for row in found.rows for cause in row.causes}


def test_what_does_not_fit_is_refused(x: Tensor) -> None:
    graph = network(depth=2)
    snn = convert(graph, RateCode(100), x)
    with pytest.raises(ParameterError, match="say how many steps"):
        diagnose(graph, snn, x)
    with pytest.raises(ParameterError, match="original network first"):
        diagnose(snn, graph, x, 8)
    with pytest.raises(ParameterError, match="was not converted from"):
        diagnose(network(depth=3), snn, x, 8)
    with pytest.raises(ParameterError, match="least"):
        diagnose(graph, snn, x, 8, least=0)
    with pytest.raises(ShapeError):
        diagnose(graph, snn, x[:, :5], 8)
    with pytest.raises(NeuroError):
        diagnose(graph, snn, x[:0], 8)


def test_convolutions_and_windows_are_found_too() -> None:
    graph, x = drawn(["residual", "mean"], 8), torch.rand(24, 2, 6, 6)
    snn = convert(graph, RateCode(100), x)
    (first, *_), (last, *_) = [
        [name for name, node in snn.nodes.items() if isinstance(node, kind)] for kind in (IF, Conv)
    ]
    bad = threshold_times(snn, first, 12)
    assert causes(diagnose(graph, bad, x, STEPS))[0] == (first, "threshold")
    worse = diagnose(graph, coarse(snn, last, 2), x, STEPS)
    assert causes(worse)[0] == (first, "weights")
    windowed = convert(graph, Exact(3), x)
    assert all(row.kind == "CountThenFire" for row in diagnose(graph, windowed, x).rows[:-1])
    assert any(isinstance(node, CountThenFire) for node in windowed.nodes.values())
