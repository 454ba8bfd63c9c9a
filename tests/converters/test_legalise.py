"""After legalise only what spikes can carry is left, and the function is the same."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from converters import Exact, FirstSpike, RateCode, convert, prove
from converters.legalise import CONVERTIBLE, legalise
from converters.maxima import reads_spikes
from neuro.errors import UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph, Input, Node
from neuro.nodes import (
    IF,
    Add,
    Affine,
    AvgPool,
    BatchNorm,
    Clamp,
    Concat,
    Conv,
    ConvTranspose,
    Experts,
    LeakyReLU,
    MaxPool,
    Pad,
    Quantise,
    ReLU,
    Reshape,
    Scale,
    Softmax,
)
from neuro.simulate import simulate


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
    assert [change.became for change in made.history if change.was.startswith("LeakyReLU")] == ["2 ReLU"]


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


@pytest.mark.parametrize("activation", [ReLU(), Clamp(0, 0.5), Clamp(-0.5, 1)])
def test_max_pools_go_behind_the_activation(activation: Node) -> None:
    pool = MaxPool((2, 2), (1, 2), (1, 0))
    made = legal(chain((2, 7, 7), Conv(torch.randn(3, 2, 3, 3)), pool, pool, activation))
    kinds = [node.kind for node in made.nodes.values()]
    assert kinds[:2] == ["Input", "Conv"]
    assert kinds[3:5] == ["MaxPool", "MaxPool"]
    assert all(reads_spikes(made, name) for name, node in made.nodes.items() if isinstance(node, MaxPool))


def windows() -> st.SearchStrategy[MaxPool]:
    def pool(kernel: tuple[int, int], stride: tuple[int, int], inside: tuple[int, int], ceil: bool) -> MaxPool:
        return MaxPool(kernel, stride, (inside[0] % (kernel[0] // 2 + 1), inside[1] % (kernel[1] // 2 + 1)), ceil)

    sizes = st.tuples(st.integers(1, 4), st.integers(1, 4))
    return st.builds(pool, sizes, sizes, sizes, st.booleans())


@given(windows(), st.integers(4, 7), st.integers(4, 7))
def test_maxima_of_sums_become_relus(pool: MaxPool, height: int, width: int) -> None:
    """max(a, b) = b + relu(a - b) over any window, with padding, strides and ceil."""
    made = legal(chain((2, height, width), Conv(torch.randn(3, 2, 1, 1)), pool, Conv(torch.randn(2, 3, 1, 1)), ReLU()))
    assert not any(isinstance(node, MaxPool) for node in made.nodes.values())
    (note,) = [change for change in made.history if change.was == "MaxPool"]
    shapes = [made.shapes[name] for name, node in made.nodes.items() if isinstance(node, ReLU) and "excess" in name]
    assert f"costs {sum(math.prod(shape) for shape in shapes):,} neurons" in note.why


def test_maxima_of_the_input_and_of_spikes_stay() -> None:
    pool = MaxPool((2, 2), (2, 2), (0, 0))
    made = legal(chain((2, 8, 8), pool, Conv(torch.randn(2, 2, 1, 1)), ReLU(), pool, Affine(torch.randn(3, 2))))
    assert [node.kind for node in made.nodes.values()] == ["Input", "MaxPool", "Conv", "ReLU", "MaxPool", "Affine"]
    without_spikes = chain((2, 8, 8), Conv(torch.randn(2, 2, 1, 1)), pool, LeakyReLU(), Affine(torch.randn(3, 4)))
    assert any(isinstance(node, MaxPool) for node in legalise(without_spikes, spikes=False).nodes.values())
    assert not any(isinstance(node, MaxPool) for node in legal(without_spikes).nodes.values())


def test_a_last_softmax_is_left_to_the_reader() -> None:
    graph = chain((4,), Affine(torch.randn(3, 4)), ReLU(), Affine(torch.randn(3, 3)), Softmax(0, log=True))
    made = legalise(graph)
    x = torch.randn(20, 4)
    assert [node.kind for node in made.nodes.values()] == ["Input", "Affine", "ReLU", "Affine"]
    assert torch.equal(evaluate(made, x).argmax(1), evaluate(graph, x).argmax(1))
    assert [change.became for change in made.history if change.was == "Softmax"] == ["nothing"]


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


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def survives(graph: Graph, x: torch.Tensor) -> None:
    """Legal with the same function, and close to it by every recipe: first spikes and integers to their exactness."""
    y = evaluate(graph, x)
    made = legalise(graph)
    assert all(isinstance(node, CONVERTIBLE) for node in made.nodes.values())
    assert float((evaluate(made, x) - y).abs().max()) < 1e-5 * float(y.abs().max())
    assert relative(outputs(convert(graph, FirstSpike(), x), x), y) < 1e-5
    exact = convert(graph, Exact(64, 10), x)
    assert relative(outputs(exact, x), y) < 0.06, "levels, weights and the 8 bits of the input leave a few percent"
    prove(exact, x[:2], kernel="auto")
    prove(convert(graph, Exact(3, 5), x), x[:2])
    rate = convert(graph, RateCode(100), x)
    few, many = (relative(outputs(rate, x, steps), y) for steps in (16, 128))
    assert many < max(0.4 * few, 0.01)
    assert many < 0.1


def outputs(spiking: Graph, x: torch.Tensor, steps: int | None = None) -> torch.Tensor:
    return simulate(spiking, x, steps=steps, count=False).outputs


def norm(channels: int, falling: bool = False) -> BatchNorm:
    sign = torch.where(torch.arange(channels) % 2 == 0, 1.0, -1.0 if falling else 1.0)
    return BatchNorm(
        0.2 * torch.randn(channels), 0.5 + torch.rand(channels), sign * (0.5 + torch.rand(channels)),
        0.2 * torch.randn(channels),
    )  # fmt: skip


def conv(out: int, into: int, groups: int = 1) -> Conv:
    weight = torch.randn(out, into // groups, 3, 3) / (3 * (into / groups) ** 0.5)
    return Conv(weight, 0.2 * torch.randn(out), padding=(1, 1), groups=groups)


def up(out: int, into: int, groups: int = 1) -> ConvTranspose:
    weight = torch.randn(into, out // groups, 3, 3) / (1.5 * (into / groups) ** 0.5)
    return ConvTranspose(weight, 0.2 * torch.randn(out), (2, 2), (1, 1), (1, 1), groups=groups)


POOL = MaxPool((3, 3), (2, 2), (1, 1))
LEGAL = {
    "max-pool": lambda: (conv(4, 2), ReLU(), POOL, conv(4, 4)),
    "max-pool first": lambda: (conv(4, 2), POOL, norm(4), ReLU()),
    "max-pool before a falling norm": lambda: (conv(4, 2), POOL, norm(4, True), ReLU()),
    "max-pool of averages": lambda: (conv(4, 2), ReLU(), AvgPool((2, 2), (1, 1), (0, 0)), POOL, conv(4, 4), ReLU()),
    "average pool": lambda: (conv(4, 2), ReLU(), AvgPool((3, 3), (2, 2), (1, 1), False), conv(4, 4), ReLU()),
    "depthwise": lambda: (conv(4, 2), ReLU(), conv(4, 4, 4), norm(4), Clamp(0, 6), conv(4, 4)),
    "grouped": lambda: (conv(4, 2), ReLU(), conv(8, 4, 2), norm(8), ReLU(), conv(4, 8, 2)),
    "transposed": lambda: (conv(4, 2), ReLU(), up(4, 4), norm(4), ReLU(), conv(2, 4)),
    "grouped and transposed": lambda: (conv(4, 2), ReLU(), up(6, 4, 2), ReLU(), AvgPool((2, 2), (2, 2), (0, 0))),
    "last transposed": lambda: (conv(4, 2), ReLU(), up(2, 4)),
    "leaky": lambda: (conv(4, 2), LeakyReLU(0.2), POOL, conv(4, 4), LeakyReLU(0.2)),
    "absolute value": lambda: (conv(4, 2), LeakyReLU(-1.0), conv(4, 4), ReLU()),
    "minus relu": lambda: (conv(4, 2), ReLU(), Scale(torch.tensor(-1.0)), conv(4, 4), ReLU()),
    "hardtanh": lambda: (conv(4, 2), Clamp(-0.5, 0.5), POOL, conv(4, 4), Clamp(-0.2, 0.5)),
    "norm after relu": lambda: (conv(4, 2), ReLU(), norm(4), conv(4, 4), ReLU()),
    "falling norm after relu": lambda: (conv(4, 2), ReLU(), norm(4, True), conv(4, 4), norm(4), ReLU(), norm(4)),
    "falling norm and max-pool": lambda: (conv(4, 2), ReLU(), norm(4, True), POOL, conv(4, 4), ReLU()),
    "norm after relu, then up": lambda: (conv(4, 2), ReLU(), norm(4, True), up(4, 4), ReLU()),
    "constant padding": lambda: (Pad(((0, 0), (1, 0), (2, 1)), 0.5), conv(4, 2), ReLU(), Pad(((0, 1), (0, 1), (1, 1)))),
    "padding between": lambda: (conv(4, 2), ReLU(), Pad(((0, 0), (1, 1), (1, 1)), 0.3), conv(4, 4), ReLU()),
    "normalised input": lambda: (
        Scale(torch.tensor(1.0), -torch.rand(2, 1, 1)), Scale(1 + torch.rand(2, 1, 1)), conv(4, 2), ReLU(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LEGAL)
def test_every_legal_network_survives_every_recipe(case: str) -> None:
    torch.manual_seed(5)
    body = chain((2, 6, 6), *LEGAL[case]())
    size = math.prod(body.shapes[body.output])
    head = (Reshape((size,)), Affine(torch.randn(4, size) / size**0.5, torch.randn(4)))
    tail = () if case == "last transposed" else head
    survives(chain((2, 6, 6), *list(body.nodes.values())[1:], *tail), torch.rand(8, 2, 6, 6))


@pytest.mark.parametrize("merge", [Add(), Concat()])
def test_branches_of_different_scales_meet(merge: Node) -> None:
    torch.manual_seed(5)
    big = replace(conv(4, 2), weight=20 * torch.randn(4, 2, 3, 3))
    nodes: dict[str, Node] = {"x": Input((2, 6, 6)), "a": big, "ra": ReLU(), "b": conv(4, 2), "rb": Clamp(0, 0.3)}
    nodes |= {"m": merge, "c": conv(4, 4 if isinstance(merge, Add) else 8), "r": ReLU(), "d": conv(2, 4)}
    sources = {"a": ("x",), "ra": ("a",), "b": ("x",), "rb": ("b",), "m": ("ra", "rb"), "c": ("m",), "r": ("c",)}
    survives(Graph(nodes, {**sources, "d": ("r",)}), torch.rand(8, 2, 6, 6))
