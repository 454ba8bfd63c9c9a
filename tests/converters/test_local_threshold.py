"""Local threshold balancing: thresholds of the recurrence, layer by layer on the clipped network."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_convert_rate import BLOCKS, Sketch, converges, drawn

from converters import LocalThreshold, convert
from converters.calibrate import by_channel
from converters.legalise import legalise
from converters.maxima import is_activation
from converters.recipes.local_threshold import balanced
from neuro.errors import ParameterError
from neuro.evaluate import evaluate
from neuro.graph import Graph
from neuro.nodes import Affine, Clamp, Readout, ReLU
from neuro.simulate import simulate


def literal(values: torch.Tensor, iterations: int) -> torch.Tensor:
    """The recurrence as it is written."""
    values = values.double()
    theta = torch.zeros(len(values), dtype=torch.float64)
    for _ in range(iterations):
        theta = theta + 2 * (values - theta[:, None]).clamp(min=0).mean(1)
        theta = torch.minimum(theta, values.amax(1))
    return theta


@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 60), st.integers(0, 10**6))
def test_the_recurrence(rows: int, count: int, iterations: int, seed: int) -> None:
    values = torch.randn(rows, count, generator=torch.Generator().manual_seed(seed)).clamp(min=0)
    torch.testing.assert_close(balanced(values, iterations).double(), literal(values, iterations), rtol=1e-5, atol=1e-6)


@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 60), st.integers(0, 10**6))
def test_thresholds_lie_between_mean_and_largest_and_grow(rows: int, count: int, steps: int, seed: int) -> None:
    values = torch.randn(rows, count, generator=torch.Generator().manual_seed(seed)).clamp(min=0)
    early, late = balanced(values, steps), balanced(values, steps + 5)
    assert bool((early >= values.mean(1) * (1 - 1e-5)).all())
    assert bool((early <= late * (1 + 1e-6)).all())
    assert bool((late <= values.amax(1)).all())


def test_the_tail_of_an_exponential() -> None:
    """With x exponential of mean 1, mean relu(x - theta) = exp(-theta): theta follows d theta = 2 exp(-theta)."""
    values = -torch.rand(1, 400_000, dtype=torch.float64).log()
    theta = 0.0
    for _ in range(40):
        theta += 2 * math.exp(-theta)
    assert float(balanced(values, 40)) == pytest.approx(theta, abs=0.03)


def clipped(graph: Graph, spiking: Graph) -> Graph:
    """The plain network whose activations stop at the thresholds of the spiking one (one threshold per layer)."""
    nodes = {
        name: Clamp(0.0, float(spiking.nodes[name].theta)) if is_activation(node) else node  # type: ignore[attr-defined]
        for name, node in graph.nodes.items()
    }
    return graph.edit(nodes=nodes)


def test_later_layers_are_balanced_on_the_clipped_network() -> None:
    sketch = Sketch((3,))
    for _ in range(3):
        sketch.put(Affine(torch.randn(1, sketch.now[0]), torch.rand(1)))
        sketch.put(ReLU())
    sketch.put(Affine(torch.ones(2, 1)))
    x, graph = torch.randn(300, 3), sketch.graph()
    spiking = convert(graph, LocalThreshold(iterations=3), x)
    seen: dict[str, torch.Tensor] = {}
    evaluate(clipped(graph, spiking), x, observe=lambda name, value: seen.__setitem__(name, value))
    for name, node in graph.nodes.items():
        if isinstance(node, ReLU):
            before = seen[graph.sources[name][0]].clamp(min=0)
            theta = spiking.nodes[name].theta.reshape(-1)  # type: ignore[attr-defined]
            expected = literal(by_channel(before, True), 3).float()
            if float(expected) > 0:
                torch.testing.assert_close(theta, expected)


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_block_converges(kind: str) -> None:
    converges(drawn([kind], 5), LocalThreshold())


def test_more_iterations_clip_less() -> None:
    graph, x = drawn(["residual", "conv"], 1), torch.rand(64, 2, 6, 6)
    rough, fine = (convert(graph, LocalThreshold(count), x) for count in (2, 2000))
    for name, node in legalise(graph).nodes.items():
        if is_activation(node) and name == "relu2":
            assert bool((rough.nodes[name].theta < fine.nodes[name].theta).all())  # type: ignore[attr-defined]
    gaps = [
        float((simulate(each, x, steps=600).outputs - evaluate(graph, x)).square().mean()) for each in (rough, fine)
    ]
    assert gaps[1] < gaps[0]


def test_settling_adds_up_along_the_slowest_path() -> None:
    """Two layers of one neuron under constant input 1 and 1/2: (theta - theta/2) / mean is 1/2 each, together 1."""
    sketch = Sketch((1,))
    sketch.put(Affine(torch.ones(1, 1)))
    sketch.put(ReLU())
    sketch.put(Affine(torch.full((1, 1), 0.5)))
    sketch.put(ReLU())
    sketch.put(Affine(torch.ones(1, 1)))
    spiking = convert(sketch.graph(), LocalThreshold(readout_start=None), torch.ones(5, 1))
    readout = spiking.nodes[spiking.output]
    assert isinstance(readout, Readout)
    assert readout.start == 1
    spread = convert(sketch.graph(), LocalThreshold(readout_start=None), torch.tensor([[1.0], [0], [0], [0]]))
    late = spread.nodes[spread.output]
    assert isinstance(late, Readout)
    assert late.start == math.ceil(2 * 0.5 / 0.25)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"iterations": 0}, "iterations must be >= 1"), ({"readout_start": -1}, "readout_start must be >= 0 or None")],
)
def test_bad_recipes(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        LocalThreshold(**fields)
