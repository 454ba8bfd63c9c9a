"""The integer network equals plain NumPy arithmetic in 64-bit integers, and stays close to the real one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from converters import convert
from converters.legalise import legalise
from converters.recipes.integer import Integer, quantise_weights
from neuro.errors import ParameterError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph, Input, Node
from neuro.nodes import (
    Add,
    Affine,
    AvgPool,
    BatchNorm,
    Clamp,
    Concat,
    Conv,
    Dequantise,
    LeakyReLU,
    MaxPool,
    Pad,
    Permute,
    Quantise,
    ReLU,
    Requantise,
    Reshape,
    Scale,
    Slice,
)
from neuro.simulate import plain_counts


def chain(shape: tuple[int, ...], *nodes: Node) -> Graph:
    names = ["x", *(f"n{number}" for number in range(len(nodes)))]
    sources = {name: (names[number],) for number, name in enumerate(names[1:])}
    return Graph(dict(zip(names, (Input(shape), *nodes), strict=True)), sources)


def small_network() -> Graph:
    """Convolution with bias and padding, pools of both kinds, a residual sum, groups, a matrix."""
    nodes = {
        "x": Input((2, 8, 8)),
        "c1": Conv(torch.randn(4, 2, 3, 3) / 4, torch.randn(4), padding=(1, 1)), "r1": ReLU(),
        "c2": Conv(torch.randn(4, 2, 3, 3) / 4, torch.randn(4), padding=(1, 1), groups=2), "r2": ReLU(),
        "c3": Conv(torch.randn(4, 4, 1, 1) / 2, None), "sum": Add(), "r3": Clamp(0, 5),
        "max": MaxPool((2, 2), (2, 2), (0, 0)), "mean": AvgPool((2, 2), (2, 2), (0, 0)), "flat": Reshape((16,)),
        "fc": Affine(torch.randn(5, 16), torch.randn(5)), "r4": ReLU(), "out": Affine(torch.randn(3, 5)),
    }  # fmt: skip
    sources = {
        "c1": ("x",), "r1": ("c1",), "c2": ("r1",), "r2": ("c2",), "c3": ("r2",), "sum": ("r1", "c3"), "r3": ("sum",),
        "max": ("r3",), "mean": ("max",), "flat": ("mean",), "fc": ("flat",), "r4": ("fc",), "out": ("r4",),
    }  # fmt: skip
    return Graph(nodes, sources, "small")


def round_clip(x: np.ndarray, low: int, high: int) -> np.ndarray:
    return np.clip(np.rint(x), low, high).astype(np.int64)


def by_hand(graph: Graph, x: np.ndarray) -> np.ndarray:
    """The integer network in NumPy: int64 everywhere between the first and the last node."""
    values: dict[str, np.ndarray] = {}
    for name, node in graph.nodes.items():
        given = [values[source] for source in graph.sources[name]]
        if isinstance(node, Input):
            values[name] = x
        elif isinstance(node, Quantise):
            values[name] = round_clip(given[0] / np.float32(node.step), node.low, node.high)
        elif isinstance(node, Requantise):
            m = node.multiplier.numpy().reshape(-1, *(1,) * (given[0].ndim - 2))
            values[name] = round_clip(given[0] * m, node.low, node.high)
        elif isinstance(node, Conv):
            pad = [(0, 0), (0, 0), *((p, p) for p in node.padding)]
            windows = sliding_window_view(np.pad(given[0], pad), node.weight.shape[2:], (2, 3))  # type: ignore[call-overload]
            windows = windows[:, :, :: node.stride[0], :: node.stride[1]]
            batch, channels, high, wide, *kernel = windows.shape
            grouped = windows.reshape(batch, node.groups, channels // node.groups, high, wide, *kernel)
            weight = node.weight.numpy().astype(np.int64).reshape(node.groups, -1, channels // node.groups, *kernel)
            values[name] = np.einsum("bgcyxij,gocij->bgoyx", grouped, weight).reshape(batch, -1, high, wide)
            if node.bias is not None:
                values[name] = values[name] + node.bias.numpy().astype(np.int64)[:, None, None]
        elif isinstance(node, Affine):
            bias = 0 if node.bias is None else node.bias.numpy().astype(np.int64)
            values[name] = given[0] @ node.weight.numpy().astype(np.int64).T + bias
        elif isinstance(node, MaxPool):
            windows = sliding_window_view(given[0], node.kernel, (2, 3))  # type: ignore[call-overload]
            values[name] = windows[:, :, :: node.stride[0], :: node.stride[1]].max((4, 5))
        elif isinstance(node, Add):
            values[name] = given[0] + given[1]
        elif isinstance(node, Reshape):
            values[name] = given[0].reshape(-1, *node.shape)
        elif isinstance(node, Dequantise):
            return (given[0] * node.step.numpy()).astype(np.float32)
        else:
            raise TypeError(node.kind)
    raise TypeError("no Dequantise")


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from([2, 4, 8]))
def test_equals_numpy_in_64_bit_integers(seed: int, bits: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(6, 2, 8, 8)
    made = convert(small_network(), Integer(bits), x)
    np.testing.assert_array_equal(evaluate(made, x).numpy(), by_hand(made, x.numpy()))


def test_no_float_inside() -> None:
    made = convert(small_network(), Integer(), torch.randn(6, 2, 8, 8))
    kinds = {name: dtype for name, dtype in made.dtypes.items() if dtype != torch.int32}
    assert list(kinds) == ["x", made.output]
    seen: dict[str, torch.Tensor] = {}
    evaluate(made, torch.randn(3, 2, 8, 8), observe=seen.__setitem__)
    assert all(value.dtype == made.dtypes[name] for name, value in seen.items())
    for name, node in made.nodes.items():
        if isinstance(node, Affine | Conv):
            assert not node.weight.is_floating_point()
            assert int(node.weight.abs().max()) <= 127
            (source,) = made.sources[name]
            assert 0 <= int(seen[source].abs().max()) <= 255
    assert plain_counts(made, torch.rand(2, 2, 8, 8)).precision == "int8"


def near(graph: Graph, x: torch.Tensor, tolerance: float = 0.03, bits: int = 8) -> Graph:
    """The largest error is a small share of the largest output."""
    made = convert(graph, Integer(bits), x)
    real = evaluate(graph, x)
    assert float((evaluate(made, x) - real).abs().max()) < tolerance * float(real.abs().max())
    return made


def test_close_to_the_real_network_and_closer_with_more_bits() -> None:
    graph, x = small_network(), torch.randn(40, 2, 8, 8)
    near(graph, x)
    real = evaluate(graph, x)
    errors = [float((evaluate(convert(graph, Integer(bits), x), x) - real).abs().mean()) for bits in (4, 6, 8)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def conv(out: int, into: int) -> Conv:
    return Conv(torch.randn(out, into, 3, 3), torch.randn(out), padding=(1, 1))


@pytest.mark.parametrize(
    "middle",
    [
        (BatchNorm(torch.randn(4), torch.rand(4) + 0.5, torch.randn(4), torch.randn(4)), ReLU()),
        (ReLU(), Scale(torch.tensor([1.0, -2.0, 3.0, 0.5])[:, None, None], torch.randn(4, 1, 1)), conv(4, 4), ReLU()),
        (LeakyReLU(0.2),),
        (Clamp(-3, 4),),
        (Clamp(0, float("inf")),),
        (MaxPool((2, 2), (1, 1), (0, 0)), ReLU()),
        (ReLU(), Pad(((0, 0), (1, 1), (0, 2))), Slice(2, 1, 7)),
        (ReLU(), Permute((1, 2, 0))),
        (ReLU(), AvgPool((3, 3), (1, 1), (1, 1)), conv(4, 4), ReLU()),
        (MaxPool((2, 2), (2, 2), (0, 0)), AvgPool((2, 2), (1, 1), (0, 0)), ReLU()),
        (ReLU(), Affine(torch.randn(4, 6), torch.randn(4)), ReLU()),
    ],
    ids=lambda nodes: "-".join(node.kind for node in nodes),
)  # fmt: skip
def test_every_node_has_its_integer_form(middle: tuple[Node, ...]) -> None:
    torch.manual_seed(1)
    body = chain((2, 6, 6), conv(4, 2), *middle)
    features = int(np.prod(body.shapes[body.output]))
    graph = chain((2, 6, 6), conv(4, 2), *middle, Reshape((features,)), Affine(torch.randn(3, features)))
    near(graph, torch.randn(40, 2, 6, 6), 0.05)


def test_concat() -> None:
    nodes = {
        "x": Input((4,)), "a": Affine(torch.randn(3, 4)), "ra": ReLU(), "b": Affine(10 * torch.randn(2, 4)),
        "cat": Concat(), "out": Affine(torch.randn(2, 5)),
    }  # fmt: skip
    sources = {"a": ("x",), "ra": ("a",), "b": ("x",), "cat": ("ra", "b"), "out": ("cat",)}
    near(Graph(nodes, sources), torch.randn(50, 4))


def test_a_channel_of_vanishing_weights_keeps_its_bias() -> None:
    weight = torch.randn(3, 3)
    weight[1] = 1e-12
    graph = chain((3,), Affine(weight, torch.tensor([0.1, 1.0, 0.2])), ReLU(), Affine(torch.eye(3)))
    near(graph, torch.rand(50, 3))


def test_a_matrix_on_rows_shares_one_step() -> None:
    """Features (5, 4): the channel is the row of the features, not the row of the matrix."""
    near(
        chain((5, 4), Affine(torch.randn(5, 4), torch.randn(5)), ReLU(), Affine(torch.randn(3, 5))),
        torch.rand(50, 5, 4),
    )


def test_names_already_taken_do_no_harm() -> None:
    nodes = {"x": Input((3,)), "fc": Affine(torch.randn(4, 3)), "r": ReLU(), "logits": Affine(torch.randn(2, 4))}
    made = near(Graph(nodes, {"fc": ("x",), "r": ("fc",), "logits": ("r",)}), torch.rand(20, 3))
    assert isinstance(made.nodes[made.output], Dequantise)


@given(st.integers(2, 8), st.integers(0, 1000))
def test_quantised_weights_are_within_half_a_step(bits: int, seed: int) -> None:
    weight = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(seed))
    weight[0] = 0
    integers, step = quantise_weights(weight, bits)
    assert int(integers.abs().max()) == 2 ** (bits - 1) - 1
    assert bool(((integers * step[:, None, None] - weight).abs() <= step[:, None, None] / 2 * (1 + 1e-5)).all())


def test_refusals() -> None:
    for bits in (1, 9, 0):
        with pytest.raises(ParameterError, match=rf"bits must lie in 2..8, got {bits}"):
            Integer(bits)
    width = chain((2, 4, 4), conv(4, 2), ReLU(), Scale(torch.rand(4) + 1), conv(4, 4))
    with pytest.raises(UnsupportedNode, match="Scale 'n2': factors must differ from zero and depend on the channel"):
        convert(width, Integer(), torch.rand(3, 2, 4, 4))
    border = chain((2, 4, 4), conv(4, 2), ReLU(), AvgPool((2, 2), (2, 2), (1, 1), count_padding=False))
    with pytest.raises(UnsupportedNode, match="AvgPool 'n2': windows of unequal size"):
        convert(border, Integer(), torch.rand(3, 2, 4, 4))
    with pytest.raises(ParameterError, match="pass calibration=x"):
        convert(small_network(), Integer())
    assert legalise(border).output == "n2"
