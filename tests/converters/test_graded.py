"""Graded spikes: one level is rate coding, one step is the quantised network, more steps refine it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_convert_rate import BLOCKS, Sketch, drawn
from torch import Tensor

from converters import Graded, RateCode, activations_replaced, convert
from converters.calibrate import by_channel, sampled
from converters.legalise import is_activation, legalise
from hardware_targets import compile
from neuro import load, save
from neuro.errors import ParameterError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.flow import bits_per_event, depth
from neuro.graph import Graph
from neuro.nodes import IF, Add, Affine, Clamp, Conv, GradedIF, ReLU, Reshape
from neuro.simulate import simulate

kinds_and_seed = (st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3), st.integers(0, 10**6))


def populations(graph: Graph) -> dict[str, GradedIF]:
    return {name: node for name, node in graph.nodes.items() if isinstance(node, GradedIF)}


@settings(max_examples=8)
@given(*kinds_and_seed, st.booleans())
def test_one_level_is_rate_coding(kinds: list[str], seed: int, per_channel: bool) -> None:
    graph, x = drawn(kinds, seed), torch.rand(5, 2, 6, 6)
    rate = convert(graph, RateCode(97.0, per_channel), x)
    graded = convert(graph, Graded(1, 97.0, per_channel=per_channel), x)
    assert [node.kind for node in rate.nodes.values()] == [node.kind for node in graded.nodes.values()]
    wanted, found = simulate(rate, x, steps=9), simulate(graded, x, steps=9)
    assert torch.equal(found.outputs, wanted.outputs)
    assert found.counts == wanted.counts
    assert bits_per_event(graded) == 1


def dyadic(seed: int) -> tuple[Graph, Tensor]:
    """A residual network and data whose numbers are small multiples of powers of two: float32 makes no rounding."""
    rng = torch.Generator().manual_seed(seed)

    def whole(*shape: int) -> Tensor:
        return torch.randint(-3, 4, shape, generator=rng).float()

    sketch = Sketch((2, 4, 4))
    sketch.put(Conv(whole(3, 2, 3, 3) / 4, whole(3) / 4, padding=(1, 1)))
    first = sketch.put(ReLU())
    inner = sketch.put(Conv(whole(3, 3, 1, 1) / 4, whole(3) / 4))
    sketch.put(Add(), first, inner)
    sketch.put(ReLU())
    sketch.put(Reshape((48,)))
    sketch.put(Affine(whole(5, 48) / 4, whole(5) / 4))
    return sketch.graph(), torch.randint(0, 5, (6, 2, 4, 4), generator=rng).float() / 4


def quantised(graph: Graph, x: Tensor, thresholds: dict[str, Tensor], levels: int, steps: int) -> Tensor:
    """The network with every activation rounded to theta / steps, at most `levels` theta: an independent forward."""
    values = {"x": x}
    for name, node in graph.nodes.items():
        if name == "x":
            continue
        value = node.forward(*(values[source] for source in graph.sources[name]))  # type: ignore[attr-defined]
        if is_activation(node):
            unit = thresholds[name] / steps
            value = unit * (value / unit + 0.5).floor().clamp(0, levels * steps)
        values[name] = value
    return values[graph.output]


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([2, 4, 8]), st.booleans())
def test_one_step_is_the_quantised_network(seed: int, levels: int, signed: bool) -> None:
    graph, x = dyadic(seed)
    spiking = convert(graph, Graded(levels, 100, signed=signed), x)
    thetas = {name: node.theta for name, node in populations(spiking).items()}
    assert torch.equal(simulate(spiking, x, steps=1).outputs, quantised(graph, x, thetas, levels, 1))


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([2, 4]))
def test_signed_steps_are_the_finer_quantised_network(seed: int, steps: int) -> None:
    """T steps with corrections are the quantised network of T times as many levels: nothing is sent too early."""
    graph, x = dyadic(seed)
    spiking = convert(graph, Graded(8, 100, signed=True), 8 * x)
    run = simulate(spiking, x, steps=steps, record=["spikes"])
    thetas = {name: node.theta for name, node in populations(spiking).items()}
    assume(max(float(n.abs().max()) for n in run.recordings["spikes"].values()) < 8)
    assert torch.equal(run.outputs, quantised(graph, x, thetas, 8, steps))


@settings(max_examples=8)
@given(*kinds_and_seed, st.booleans())
def test_steps_refine(kinds: list[str], seed: int, signed: bool) -> None:
    graph, x = drawn(kinds, seed), torch.rand(4, 2, 6, 6)
    wanted = evaluate(graph, x)
    spiking = convert(graph, Graded(7, 100, signed=signed), x)

    def error(steps: int) -> float:
        return float((simulate(spiking, x, steps=steps, count=False).outputs - wanted).abs().max() / wanted.abs().max())

    assert error(128) < 0.03
    assert error(128) < max(0.5 * error(1), 0.01)


def test_levels_refine() -> None:
    graph, x = drawn(["residual", "max"], 1), torch.rand(20, 2, 6, 6)
    wanted = evaluate(graph, x)
    errors = []
    for levels in (3, 15, 63, 255):
        spiking = convert(graph, Graded(levels, 100), x)
        run = simulate(spiking, x, steps=1, record=["spikes"])
        errors.append(float((run.outputs - wanted).norm() / wanted.norm()))
        for name, node in populations(spiking).items():
            n = run.recordings["spikes"][name]
            assert torch.equal(n, n.round())
            assert 0 <= float(n.min()) <= float(n.max()) <= levels == node.levels
            assert run.counts.nodes[name].spikes == int((n != 0).sum())
        assert bits_per_event(spiking) == levels.bit_length()
        assert run.counts.steps == 1 + depth(spiking)
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 8 * errors[3]


def test_mean_squared_error_sets_the_range() -> None:
    """The range found is better than every percentile on the values it was searched on, and made for its T."""
    graph, x = drawn(["conv", "clamp"], 2), torch.rand(40, 2, 6, 6)
    plain = legalise(graph)
    kept = sampled(plain, x)
    for steps in (1, 4):
        found = populations(convert(graph, Graded(3, steps=steps), x))
        for name, node in found.items():
            rows, levels = kept[name], 3 * steps
            error = torch.zeros(0)
            for widest in (3 * node.theta.flatten(), *(rows.quantile(share, dim=1) for share in (1, 0.99, 0.95, 0.9))):
                unit = widest.clamp(min=1e-6)[:, None] / levels
                distance = (rows - unit * (rows / unit + 0.5).floor().clamp(0, levels)).square().sum(1)
                error = torch.cat([error, distance.reshape(1, -1)]) if error.numel() else distance.reshape(1, -1)
            ordinary = ~torch.isclose(node.theta.flatten(), node.theta.max())
            assert bool((error[0] <= error[1:] * 1.02)[:, ordinary].all())
    assert by_channel(x, True).shape == (2, 40 * 36)


def test_a_clamp_bounds_what_a_step_sends() -> None:
    graph = drawn(["clamp"], 1)
    spiking = convert(graph, Graded(5, 100), 9 * torch.rand(9, 2, 6, 6))
    (clamp,) = (name for name, node in graph.nodes.items() if isinstance(node, Clamp))
    assert float(populations(spiking)[clamp].theta.max()) == pytest.approx(0.5 / 5)


def test_history_and_files(tmp_path: Path) -> None:
    graph, x = drawn(["leaky", "max", "concat"], 1), torch.rand(6, 2, 6, 6)
    spiking = convert(graph, Graded(6, signed=True), x)
    assert activations_replaced(spiking) == (len(populations(spiking)),) * 2
    assert not any(isinstance(node, IF) for node in spiking.nodes.values())
    save(spiking, tmp_path / "graded.h5")
    again = load(tmp_path / "graded.h5")
    assert torch.equal(simulate(again, x, steps=3).outputs, simulate(spiking, x, steps=3).outputs)
    assert again.history == spiking.history


def test_a_chip_refuses_by_name() -> None:
    spiking = convert(drawn(["conv"], 1), Graded(), torch.rand(6, 2, 6, 6))
    with pytest.raises(UnsupportedNode, match="'relu2': GradedIF"):
        compile(spiking, "loihi2", torch.rand(6, 2, 6, 6))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"levels": 0}, "levels must be an integer in 1..65536"),
        ({"levels": 2.5}, "levels must be an integer"),
        ({"percentile": 0}, "percentile must lie in"),
        ({"percentile": float("nan")}, "percentile must lie in"),
        ({"steps": 0}, "steps must be an integer"),
    ],
)  # fmt: skip
def test_bad_recipes(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=f"Graded: {message}"):
        Graded(**fields)  # type: ignore[arg-type]
