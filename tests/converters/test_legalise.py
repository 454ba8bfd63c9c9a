"""After legalise only what spikes can carry is left, and the function is the same."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from converters.legalise import CONVERTIBLE, legalise
from neuro.errors import UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph, Input, Node
from neuro.nodes import IF, Affine, Clamp, Conv, Experts, LeakyReLU, MaxPool, Quantise, ReLU, Softmax


def chain(shape: tuple[int, ...], *nodes: Node, name: str = "network") -> Graph:
    names = ["x", *(f"n{number}" for number in range(len(nodes)))]
    sources = {name: (names[number],) for number, name in enumerate(names[1:])}
    return Graph(dict(zip(names, (Input(shape), *nodes), strict=True)), sources, name)


def legal(graph: Graph) -> Graph:
    made = legalise(graph)
    assert all(isinstance(node, CONVERTIBLE) for node in made.nodes.values())
    clamps = [node for node in made.nodes.values() if isinstance(node, Clamp)]
    assert all(node.low == 0 and math.isfinite(node.high) for node in clamps)
    x = 3 * torch.randn(20, *graph.shapes["x"])
    torch.testing.assert_close(evaluate(made, x), evaluate(graph, x), rtol=1e-4, atol=1e-4)
    return made


@given(st.floats(0, 2))
def test_leaky_relu_becomes_two_populations(slope: float) -> None:
    made = legal(chain((4,), Affine(torch.randn(3, 4)), LeakyReLU(slope), Affine(torch.randn(2, 3))))
    assert sum(isinstance(node, ReLU) for node in made.nodes.values()) == 2
    assert made.history[-1].became == "2 ReLU"


@pytest.mark.parametrize(
    ("low", "high", "populations"),
    [(0, 6, 1), (-1, 1, 1), (-2, -1, 1), (1, 2, 1), (-math.inf, 1, 1), (-1, math.inf, 1), (0, math.inf, 1)],
)  # fmt: skip
def test_clamps(low: float, high: float, populations: int) -> None:
    made = legal(chain((4,), Affine(torch.randn(3, 4)), Clamp(low, high), Affine(torch.randn(2, 3))))
    assert sum(isinstance(node, ReLU | Clamp) for node in made.nodes.values()) == populations


def test_a_clamp_without_limits_goes_away() -> None:
    made = legal(chain((4,), Affine(torch.randn(3, 4)), Clamp(-math.inf, math.inf), ReLU()))
    assert [node.kind for node in made.nodes.values()] == ["Input", "Affine", "ReLU"]


@pytest.mark.parametrize("activation", [ReLU(), Clamp(-0.5, 1), LeakyReLU(0.3)])
def test_max_pools_go_behind_the_activation(activation: Node) -> None:
    pool = MaxPool((2, 2), (1, 2), (1, 0))
    made = legal(chain((2, 7, 7), Conv(torch.randn(3, 2, 3, 3)), pool, pool, activation))
    kinds = [node.kind for node in made.nodes.values()]
    assert kinds[:2] == ["Input", "Conv"]
    assert kinds[-2:] == ["MaxPool", "MaxPool"]


def test_a_falling_activation_keeps_its_place() -> None:
    pool = MaxPool((2,), (2,), (0,))
    made = legal(chain((2, 6), Conv(torch.randn(3, 2, 1), None, (1,), (0,), (1,)), pool, LeakyReLU(-0.3)))
    assert [node.kind for node in made.nodes.values()][:3] == ["Input", "Conv", "MaxPool"]


def test_a_last_softmax_is_left_to_the_reader() -> None:
    graph = chain((4,), Affine(torch.randn(3, 4)), ReLU(), Affine(torch.randn(3, 3)), Softmax(0, log=True))
    made = legalise(graph)
    x = torch.randn(20, 4)
    assert [node.kind for node in made.nodes.values()] == ["Input", "Affine", "ReLU", "Affine"]
    assert torch.equal(evaluate(made, x).argmax(1), evaluate(graph, x).argmax(1))
    assert made.history[-1].was == "Softmax"


def test_all_refusals_come_in_one_message() -> None:
    one = torch.tensor(1.0)
    expert = chain((4,), Affine(torch.randn(4, 4)))
    graph = chain(
        (4,), Affine(torch.randn(4, 4)), ReLU(), Softmax(), IF(one, one), Experts(expert, (expert,) * 4),
        Quantise(1.0, 0, 3), Affine(torch.randn(2, 4)), name="odd",
    )  # fmt: skip
    with pytest.raises(UnsupportedNode) as caught:
        legalise(graph)
    first, *lines = str(caught.value).splitlines()
    assert first == "'odd': 4 node(s) cannot be converted:"
    assert [line.split(":")[0].strip() for line in lines] == ["'n2'", "'n3'", "'n4'", "'n5'"]
    assert "Softmax has no spiking form here; inside a network it has no rate" in lines[0]
    assert "spiking already" in lines[1]
    assert "convert the router and each expert" in lines[2]
    assert "replace it by a ReLU" in lines[3]


def test_a_linear_network_is_refused() -> None:
    with pytest.raises(UnsupportedNode, match="'linear' has no ReLU to replace"):
        legalise(chain((4,), Affine(torch.randn(3, 4)), name="linear"))
