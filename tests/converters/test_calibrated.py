"""Calibration on real trains: what it corrects is measured on the spiking network that leaves the house."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_convert_rate import BLOCKS, Sketch, conv, drawn

from converters import Calibrated, RateCode, activations_replaced, convert
from converters.calibrate import by_channel
from converters.legalise import legalise
from converters.maxima import is_activation
from converters.recipes.calibrated import calibrated, shifted
from neuro.errors import ParameterError
from neuro.evaluate import evaluate
from neuro.graph import Graph
from neuro.nodes import Add, Affine, LeakyReLU, ReLU, Scale, Spiking
from neuro.simulate import simulate

METHODS = ("light", "advanced")


def means(graph: Graph, spiking: Graph, x: torch.Tensor, steps: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Mean spikes per step and mean original activation of every channel of every activation."""
    plain = legalise(graph)
    real: dict[str, torch.Tensor] = {}
    evaluate(plain, x, observe=lambda name, value: real.__setitem__(name, value))
    counts = simulate(spiking, x, steps=steps, record=["counts"]).recordings["counts"]
    return {
        name: (by_channel(counts[name][0] / steps, True).mean(1), by_channel(real[name], True).mean(1))
        for name, node in plain.nodes.items()
        if is_activation(node)
    }


def deep(seed: int) -> Graph:
    torch.manual_seed(seed)
    sketch = Sketch((2, 6, 6))
    for _ in range(3):
        sketch.put(conv(4, sketch.now[0]))
        sketch.put(ReLU())
    return sketch.graph()


@pytest.mark.parametrize("seed", range(3))
def test_light_calibration_sets_the_mean_of_every_channel(seed: int) -> None:
    """On the calibration data a spike is worth theta, and the mean output is the original one."""
    graph, x, steps = deep(seed), torch.rand(40, 2, 6, 6), 16
    plain = legalise(graph)
    fitted = calibrated(Calibrated(steps, "light"), plain, x)
    simple = convert(graph, RateCode(thresholds="mmse", steps=steps), x)
    errors = []
    for spiking in (fitted, simple):
        gaps = []
        for name, (rate, mean) in means(graph, spiking, x, steps).items():
            theta = spiking.nodes[name].theta.reshape(-1)  # type: ignore[attr-defined]
            gaps.append(((theta * rate - mean).abs() / theta).max())
        errors.append(float(max(gaps)))
    assert errors[0] < 0.01
    assert errors[0] < errors[1]


@pytest.mark.parametrize("method", METHODS)
def test_the_mean_of_the_logits_is_right_on_the_calibration_data(method: str) -> None:
    graph, x = drawn(["residual", "max"], 2), torch.rand(60, 2, 6, 6)
    spiking = calibrated(Calibrated(8, method), legalise(graph), x)  # type: ignore[arg-type]
    gap = simulate(spiking, x, steps=8).outputs.mean(0) - evaluate(graph, x).mean(0)
    assert float(gap.abs().max()) < 1e-4 * float(evaluate(graph, x).abs().max())


def loss(graph: Graph, recipe: object, steps: int) -> float:
    """Mean squared error of the logits on data that did not calibrate."""
    generator = torch.Generator().manual_seed(1)
    known, fresh = (torch.rand(count, 2, 6, 6, generator=generator) for count in (512, 128))
    spiking = convert(graph, recipe, known)
    return float((simulate(spiking, fresh, steps=steps).outputs - evaluate(graph, fresh)).square().mean())


def test_calibration_earns_its_place_at_few_steps() -> None:
    """On fresh data, over networks with shortcuts, pools and groups: advanced < light < thresholds alone."""
    total = dict.fromkeys(("mmse", *METHODS), 0.0)
    for seed in range(3):
        graph = drawn(["residual", "conv", "residual"], seed)
        for method in METHODS:
            total[method] += loss(graph, Calibrated(8, method, image_steps=4096), 8)  # type: ignore[arg-type]
        total["mmse"] += loss(graph, RateCode(thresholds="mmse", steps=8), 8)
    assert total["advanced"] < total["light"] < total["mmse"]


@settings(max_examples=6)
@given(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3), st.sampled_from(METHODS), st.integers(0, 10**6))
def test_random_networks(kinds: list[str], method: str, seed: int) -> None:
    """Every activation is replaced, and many steps approach the original."""
    graph = drawn(kinds, seed)
    x = torch.rand(32, 2, 6, 6)
    spiking = convert(graph, Calibrated(64, method), x)  # type: ignore[arg-type]
    wanted = sum(is_activation(node) for node in legalise(graph).nodes.values())
    assert activations_replaced(spiking) == (wanted, wanted)
    assert sum(isinstance(node, Spiking) for node in spiking.nodes.values()) == wanted
    original = evaluate(graph, x)
    gap = (simulate(spiking, x, steps=64).outputs - original).square().mean().sqrt()
    assert float(gap) < 0.1 * float(original.abs().max())


def test_the_weights_before_a_shortcut_make_up_for_it() -> None:
    """x + W relu(V x): the second branch is refitted to what the first lacks, whose rates are coarse."""
    sketch = Sketch((6,))
    sketch.put(Affine(torch.randn(8, 6), torch.rand(8)))
    entry = sketch.put(ReLU())
    sketch.put(Affine(torch.randn(32, 8) / 3, torch.rand(32)))
    sketch.put(ReLU())
    inner = sketch.put(Affine(torch.randn(8, 32) / 6, torch.rand(8)))
    sketch.put(Add(), entry, inner)
    graph, x = sketch.graph(), torch.randn(1024, 6)
    errors = {}
    for method in METHODS:
        spiking = calibrated(Calibrated(4, method), graph, x)
        errors[method] = (simulate(spiking, x, steps=4).outputs - evaluate(graph, x)).square().mean()
        refitted = {change.node for change in spiking.history if "refitted" in change.why}
        assert (inner in refitted) == (method == "advanced")
    assert errors["advanced"] < 0.85 * errors["light"]


@given(st.lists(st.sampled_from(BLOCKS), max_size=2), st.integers(0, 10**6))
def test_offsets_reach_their_activation_and_nothing_else(kinds: list[str], seed: int) -> None:
    """Moved into biases or not: the input of every activation is larger by its offset, with all offsets known."""
    plain = legalise(drawn(kinds, seed))
    generator = torch.Generator().manual_seed(seed)
    names = [name for name, node in plain.nodes.items() if is_activation(node)] + [plain.output]
    x = torch.rand(2, 2, 6, 6, generator=generator)
    for chosen in (names[seed % len(names)], plain.output):
        offset = torch.randn(plain.shapes[chosen][0], generator=generator)
        seen: list[dict[str, torch.Tensor]] = []
        for graph in (plain, shifted(plain, {chosen: offset})):
            values: dict[str, torch.Tensor] = {}
            evaluate(graph, x, observe=lambda name, value, values=values: values.__setitem__(name, value))  # type: ignore[misc]
            entry = graph.sources[chosen][0] if is_activation(graph.nodes[chosen]) else graph.output
            seen.append({"entry": values[entry], **{name: values[name] for name in plain.nodes if name in values}})
        before, after = seen
        form = offset.reshape(-1, *(1,) * (before["entry"].ndim - 2))
        torch.testing.assert_close(after["entry"], before["entry"] + form, rtol=1e-4, atol=1e-5)
        downstream = {chosen}
        for name, sources in plain.sources.items():
            if downstream & set(sources):
                downstream.add(name)
        others = [name for name in names if name not in downstream]
        assert all(torch.equal(before[name], after[name]) for name in others)


def test_an_offset_that_others_would_see_gets_a_node_of_its_own() -> None:
    sketch = Sketch((3,))
    sketch.put(Affine(torch.randn(4, 3)))
    sketch.put(LeakyReLU(0.2))
    sketch.put(Affine(torch.randn(2, 4)))
    plain = legalise(sketch.graph())
    first = next(name for name, node in plain.nodes.items() if is_activation(node))
    moved = shifted(plain, {first: torch.ones(4)})
    assert sum(isinstance(node, Scale) for node in moved.nodes.values()) == 1 + sum(
        isinstance(node, Scale) for node in plain.nodes.values()
    )


def test_same_seed_same_network() -> None:
    graph, x = drawn(["residual"], 3), torch.rand(300, 2, 6, 6)
    first, second, other = (convert(graph, Calibrated(16, seed=seed), x) for seed in (0, 0, 1))

    def tensors(spiking: Graph) -> list[torch.Tensor]:
        return [tensor for node in spiking.nodes.values() for _, tensor in node.tensors()]

    assert first.name.endswith("calibrated for 16 steps, spiking")
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(other), strict=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps must be >= 1"),
        ({"method": "heavy"}, "method must be 'light' or 'advanced'"),
        ({"image_steps": 0}, "image_steps must be >= 1"),
    ],
)
def test_bad_recipes(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Calibrated(**fields)  # type: ignore[arg-type]
