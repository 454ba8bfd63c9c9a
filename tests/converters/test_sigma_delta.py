"""Sigma-delta networks follow the dense network frame by frame, within bounds, and are silent where nothing changes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_convert_rate import BLOCKS, Sketch, conv, drawn
from torch import Tensor

from converters import SigmaDelta, activations_replaced, convert
from converters.legalise import legalise
from hardware_targets import compile
from neuro import load, save
from neuro.errors import ParameterError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.flow import bits_per_event, depth
from neuro.graph import Graph, Input
from neuro.nodes import Affine, AvgPool, Conv, Differences, MaxCount, MaxPool, Pad, ReLU, Reshape, Scale, Sigma
from neuro.simulate import Run, simulate

blocks = st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3)
seeds = st.integers(0, 10**6)


def stream(frames: int, batch: int = 3, *, hold: int = 1, seed: int = 0) -> Tensor:
    """Random frames, each shown `hold` times."""
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(frames, batch, 2, 6, 6, generator=rng).repeat_interleave(hold, 0)


def logits(spiking: Graph, x: Tensor) -> tuple[Tensor, Run]:
    run = simulate(spiking, x, record=["outputs", "spikes"])
    return run.recordings["outputs"][spiking.output], run


def events(run: Run) -> list[int]:
    """Events of every frame, those of pools included."""
    senders = list(run.recordings["spikes"].values())
    return [sum(int((n[t] != 0).sum()) for n in senders) for t in range(len(senders[0]))]


def thresholds(spiking: Graph) -> dict[str, Tensor]:
    return {
        name.removesuffix(".changes"): node.theta
        for name, node in spiking.nodes.items()
        if isinstance(node, Differences)
    }


def bound(plain: Graph, theta: dict[str, Tensor]) -> Tensor:
    """How far the outputs can be: every population adds its theta, every sum passes |w| times the error of its inputs.

    ReLU, clamp and maximum pass an error on at most as it is.
    """
    errors: dict[str, Tensor] = {}
    for name, node in plain.nodes.items():
        given = [errors[source] for source in plain.sources[name]]
        if isinstance(node, Affine | Conv):
            errors[name] = replace(node, weight=node.weight.abs(), bias=None).forward(*given)
        elif isinstance(node, Scale):
            errors[name] = given[0] * node.factor.abs()
        elif isinstance(node, Pad):
            errors[name] = replace(node, value=0.0).forward(*given)
        elif isinstance(node, Input):
            errors[name] = torch.zeros(1, *node.shape) + theta[name]
        elif name in theta:
            errors[name] = given[0] + theta[name]
        else:
            errors[name] = node.forward(*given)  # type: ignore[attr-defined]
    return errors[plain.output]


@settings(max_examples=10)
@given(blocks, seeds, st.sampled_from([0.02, 0.1, 0.5]), st.booleans())
def test_every_frame_is_within_the_bound(kinds: list[str], seed: int, threshold: float, per_channel: bool) -> None:
    graph, x = drawn(kinds, seed), stream(6, seed=seed)
    recipe = SigmaDelta(threshold, bits=16, margin=20, per_channel=per_channel)
    spiking = convert(graph, recipe, x.flatten(0, 1))
    found, run = logits(spiking, x)
    wanted = torch.stack([evaluate(graph, frame) for frame in x])
    limit = bound(legalise(graph), thresholds(spiking))
    assert bool(((found - wanted).abs() <= limit * (1 + 1e-4) + 1e-4).all())
    assert torch.equal(run.outputs, found[-1])
    replaced, total = activations_replaced(spiking)
    assert replaced == total == len(thresholds(spiking)) - 1


@settings(max_examples=8)
@given(blocks, seeds)
def test_equal_frames_are_silent(kinds: list[str], seed: int) -> None:
    """Three images, each shown three times: events where the image changes, none elsewhere, and no work at all."""
    graph, x = drawn(kinds, seed), stream(3, hold=3, seed=seed)
    spiking = convert(graph, SigmaDelta(margin=20, bits=16), x.flatten(0, 1))
    found, run = logits(spiking, x)
    per_frame = events(run)
    assert all((per_frame[t] == 0) == (t % 3 != 0) for t in range(9))
    for t in (0, 3, 6):
        assert torch.equal(found[t], found[t + 1])
        assert torch.equal(found[t], found[t + 2])
    once = simulate(spiking, x[::3]).counts.total
    for quantity in ("macs", "effective_macs", "accumulates", "spikes"):
        assert getattr(run.counts.total, quantity) == getattr(once, quantity)


def test_a_constant_input_is_a_stream_of_equal_frames() -> None:
    graph, x = drawn(["residual", "max"], 1), stream(1)[0]
    spiking = convert(graph, SigmaDelta(), x)
    held, repeated = simulate(spiking, x, steps=5), simulate(spiking, x.expand(5, *x.shape))
    assert torch.equal(held.outputs, repeated.outputs)
    assert held.counts.total.spikes == repeated.counts.total.spikes
    assert held.counts.steps == 5 + depth(spiking)


def test_fine_thresholds_are_the_dense_network() -> None:
    graph, x = drawn(["conv", "leaky", "concat", "hardtanh", "scale", "max"], 3), stream(5)
    wanted = torch.stack([evaluate(graph, frame) for frame in x])
    errors = []
    for threshold, bits in ((0.1, 8), (0.01, 12), (0.001, 16), (0.0001, 20)):
        found, _ = logits(convert(graph, SigmaDelta(threshold, bits, margin=20), x.flatten(0, 1)), x)
        errors.append(float((found - wanted).norm() / wanted.norm()))
    assert errors[0] > 4 * errors[1] > 16 * errors[2] > 64 * errors[3]
    assert errors[3] < 1e-3


def pan(pixels: float, frames: int = 9) -> Tensor:
    """A smooth random picture that moves by so many pixels a frame: (frames, 4, 2, 6, 6)."""
    phase = 6.28 * torch.rand(4, 2, 6, 1, 3, generator=torch.Generator().manual_seed(5))
    columns = torch.arange(6.0) + pixels * torch.arange(frames)[:, None]
    waves = columns[:, None, None, None, :, None] * torch.tensor([0.3, 0.7, 1.1])
    return 0.5 + (waves + phase).sin().mean(-1) / 2


def test_slow_changes_cost_less() -> None:
    """Events and work per frame rise with the speed of the picture; work is counted per event."""
    graph = drawn(["conv", "residual"], 2)
    spiking = convert(graph, SigmaDelta(), pan(1.0).flatten(0, 1))
    sent, work = [], []
    for pixels in (0.0, 0.02, 0.1, 0.5, 2.0):
        found, run = logits(spiking, pan(pixels))
        sent.append(sum(events(run)[1:]))
        first = simulate(spiking, pan(pixels)[:1]).counts.total
        work.append(run.counts.total.effective_macs - first.effective_macs)
        wanted = torch.stack([evaluate(graph, frame) for frame in pan(pixels)])
        assert float((found - wanted).norm() / wanted.norm()) < 0.1
    assert sent == sorted(sent)
    assert work == sorted(work)
    assert 2 * sent[1] < sent[3]
    assert sent[0] < 0.01 * sent[4]


def test_large_changes_take_several_frames() -> None:
    """Three bits count to 3: a jump beyond what one event says arrives later, and then it is there."""
    sketch = Sketch((4,))
    sketch.put(Affine(torch.eye(4)))
    sketch.put(ReLU())
    sketch.put(Affine(torch.eye(4)))
    graph, x = sketch.graph(), torch.rand(1, 5, 4)
    recipe = SigmaDelta(0.2, bits=3, margin=0)
    spiking = convert(graph, recipe, x[0] / 4)
    found = simulate(spiking, x.expand(8, 5, 4), record=["outputs"]).recordings["outputs"][spiking.output]
    away = (found - x).abs().amax((1, 2))
    assert float(away[0]) > 0.5
    assert float(away[7]) <= float(sum(theta.max() for theta in thresholds(spiking).values()))
    assert bits_per_event(spiking) == 3


def test_biases_enter_once() -> None:
    """Also where two weighted nodes follow each other and borders make the constant part uneven."""
    sketch = Sketch((2, 6, 6))
    sketch.put(conv(4, 2))
    sketch.put(conv(4, 4))
    sketch.put(ReLU())
    sketch.put(Pad(((0, 0), (1, 0), (0, 1)), 0.5))
    sketch.put(conv(2, 4))
    graph, x = sketch.graph(), stream(4)
    spiking = convert(graph, SigmaDelta(0.001, 20), x.flatten(0, 1))
    assert all(getattr(node, "bias", None) is None for node in spiking.nodes.values())
    found, _ = logits(spiking, x)
    wanted = torch.stack([evaluate(graph, frame) for frame in x])
    torch.testing.assert_close(found, wanted, rtol=0.01, atol=0.02)


def test_pools_of_changes() -> None:
    sketch = Sketch((2, 6, 6))
    sketch.put(MaxPool((2, 2), (1, 1), (1, 1)))
    sketch.put(conv(4, 2))
    sketch.put(ReLU())
    sketch.put(MaxPool((2, 2), (1, 1), (0, 0)))
    sketch.put(AvgPool((2, 2), (1, 1), (0, 0)))
    sketch.put(Reshape((100,)))
    sketch.put(Affine(torch.randn(3, 100) / 10))
    graph, x = sketch.graph(), stream(5)
    spiking = convert(graph, SigmaDelta(0.001, 20), x.flatten(0, 1))
    assert sum(isinstance(node, MaxCount) for node in spiking.nodes.values()) == 2
    assert isinstance(spiking.nodes[spiking.output], Sigma)
    found, _ = logits(spiking, x)
    torch.testing.assert_close(found, torch.stack([evaluate(graph, frame) for frame in x]), rtol=0.01, atol=0.02)


def test_a_pool_over_uneven_constants_is_refused() -> None:
    sketch = Sketch((2, 6, 6))
    sketch.put(Pad(((0, 0), (1, 0), (0, 1)), 0.5))
    pool = sketch.put(MaxPool((2, 2), (1, 1), (0, 0)))
    sketch.put(conv(4, 2))
    sketch.put(ReLU())
    sketch.put(conv(1, 4))
    with pytest.raises(UnsupportedNode, match=rf"'{pool}': MaxPool of sums whose biases differ within a channel"):
        convert(sketch.graph(), SigmaDelta(), stream(1)[0])


def test_files_and_chips(tmp_path: Path) -> None:
    x = stream(4)
    spiking = convert(drawn(["clamp", "max"], 1), SigmaDelta(), x.flatten(0, 1))
    save(spiking, tmp_path / "stream.h5")
    again = load(tmp_path / "stream.h5")
    assert torch.equal(simulate(again, x).outputs, simulate(spiking, x).outputs)
    with pytest.raises(UnsupportedNode, match=r"(?s)'x.changes': Delta.*SigmaDeltaReLU.*'readout': Sigma"):
        compile(spiking, "loihi2", x[0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 1}, "bits must be an integer in 2..24"),
        ({"bits": 8.0}, "bits must be an integer"),
        ({"margin": -0.1}, "margin must be >= 0"),
        ({"margin": math.inf}, "margin must be >= 0"),
        ({"threshold": 0.001}, r"threshold must lie in \(0.0079, 1\] ranges with 8 bits and margin 1.0, got 0.001"),
        ({"threshold": 1.5}, "threshold must lie in"),
        ({"threshold": math.nan}, "threshold must lie in"),
    ],
)  # fmt: skip
def test_bad_recipes(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=f"SigmaDelta: {message}"):
        SigmaDelta(**fields)  # type: ignore[arg-type]
