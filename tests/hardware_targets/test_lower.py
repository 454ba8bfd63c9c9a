"""Matrices of linear nodes and of what lies between two populations, against the nodes themselves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardware_targets.lower import Layer, lower, matrix_of
from neuro.errors import UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph, Input, Node, Stateless
from neuro.nodes import (
    IF,
    LI,
    LIF,
    Add,
    Affine,
    AvgPool,
    Concat,
    Conv,
    MaxCount,
    Pad,
    Permute,
    Readout,
    ReLU,
    Reshape,
    Scale,
    Slice,
)

one, zero = torch.tensor(1.0), torch.tensor(0.0)


def equal(node: Stateless, shape: tuple[int, ...]) -> None:
    """M x + f(0) = f(x) for random x."""
    x = torch.randn(3, *shape)
    matrix = matrix_of(node, shape)
    offset = node.forward(torch.zeros(1, *shape)).flatten().double().numpy()
    assert matrix.shape == (offset.size, x[0].numel())
    expected = node.forward(x).flatten(1).double().numpy()
    np.testing.assert_allclose((matrix @ x.flatten(1).double().numpy().T).T + offset, expected, atol=1e-5)


@given(
    dims=st.integers(1, 3), groups=st.integers(1, 2), kernel=st.integers(1, 3), stride=st.integers(1, 2),
    padding=st.integers(0, 2), dilation=st.integers(1, 2), size=st.integers(5, 6),
)  # fmt: skip
def test_convolutions(dims: int, groups: int, kernel: int, stride: int, padding: int, dilation: int, size: int) -> None:
    weight = torch.randn(4, 2, *(kernel,) * dims) * (torch.rand(4, 2, *(kernel,) * dims) < 0.8)
    shape = (2 * groups, *(size + d for d in range(dims)))
    node = Conv(weight, torch.randn(4), (stride,) * dims, (padding,) * dims, (dilation,) * dims, groups)
    equal(node, shape)
    matrix = matrix_of(node, shape)
    assert np.count_nonzero(matrix.data) == matrix.nnz


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (Affine(torch.randn(3, 4), torch.randn(3)), (4,)),
        (Affine(torch.randn(3, 4), torch.randn(3)), (2, 5, 4)),
        (Scale(torch.randn(4)), (3, 4)),
        (Scale(torch.tensor(2.0), torch.randn(3, 1)), (3, 4)),
        (AvgPool((2, 3), (2, 1), (1, 0)), (2, 4, 5)),
        (AvgPool((2,), (2,), (0,), count_padding=False), (2, 4)),
        (Reshape((4, 3)), (3, 4)),
        (Permute((2, 0, 1)), (2, 3, 4)),
        (Pad(((1, 0), (0, 2))), (2, 3)),
        (Pad(((1, 0), (-1, 2)), 1.0), (2, 3)),
        (Pad(((1, 1),), -2.5), (3,)),
        (Slice(1, 1, 4, 2), (2, 5)),
    ],
    ids=lambda value: value.kind if isinstance(value, Node) else None,
)  # fmt: skip
def test_matrix_of_every_linear_node(node: Stateless, shape: tuple[int, ...]) -> None:
    equal(node, shape)


def test_what_has_no_matrix_is_refused() -> None:
    with pytest.raises(UnsupportedNode, match="ceil_mode windows have no matrix"):
        matrix_of(AvgPool((2,), (2,), (0,), ceil=True), (1, 3))
    with pytest.raises(UnsupportedNode, match="count_include_pad=False with padding"):
        matrix_of(AvgPool((2,), (2,), (1,), count_padding=False), (1, 3))
    with pytest.raises(UnsupportedNode, match="ReLU is not a linear map"):
        matrix_of(ReLU(), (3,))


def between(nodes: dict[str, Node], sources: dict[str, tuple[str, ...]]) -> tuple[Graph, Graph, Layer]:
    """The stretch as a plain network of its own, the same stretch as a spiking graph, and its last layer."""
    plain = Graph(nodes, sources)
    spiking = Graph({**nodes, "neurons": LIF(torch.tensor(0.5), one, zero)}, {**sources, "neurons": (plain.output,)})
    return plain, spiking, lower(spiking)[-1]


def composite_equals_graph(nodes: dict[str, Node], sources: dict[str, tuple[str, ...]]) -> Layer:
    plain, _, layer = between(nodes, sources)
    x = [torch.randn(4, *plain.shapes[name]) for name in plain.inputs]
    entering = dict(zip(plain.inputs, x, strict=True))
    total = np.tile(layer.bias, (4, 1))
    for path in layer.paths:
        assert path.target == "neurons"
        total += (path.as_matrix() @ entering[path.source].flatten(1).double().numpy().T).T
    np.testing.assert_allclose(total, evaluate(plain, *x).flatten(1).double().numpy(), atol=1e-4)
    return layer


def chain(shape: tuple[int, ...], *nodes: Node) -> tuple[dict[str, Node], dict[str, tuple[str, ...]]]:
    names = ["x", *(f"n{number}" for number in range(len(nodes)))]
    pairs: dict[str, tuple[str, ...]] = {name: (before,) for before, name in itertools.pairwise(names)}
    return dict(zip(names, (Input(shape), *nodes), strict=True)), pairs


def test_a_chain_becomes_one_matrix() -> None:
    layer = composite_equals_graph(
        *chain(
            (2, 6, 6),
            Scale(torch.randn(2, 1, 1), torch.randn(6)),
            AvgPool((2, 2), (2, 2), (0, 0)),
            Pad(((0, 0), (1, 1), (0, 1)), 1.0),
            Conv(torch.randn(3, 2, 2, 2), torch.randn(3)),
            Permute((1, 2, 0)),
            Reshape((36,)),
            Slice(0, 3, 36),
            Affine(torch.randn(5, 33), torch.randn(5)),
        )
    )
    (path,) = layer.paths
    assert path.conv is None
    assert (path.source, layer.size, layer.level) == ("x", 5, 1)


def test_a_plain_convolution_stays_one() -> None:
    conv = Conv(torch.randn(3, 2, 3, 3), torch.randn(3), (2, 1), (1, 1))
    (path,) = composite_equals_graph(*chain((2, 6, 6), conv)).paths
    assert path.conv is conv
    assert path.matrix is None
    assert path.input_shape == (2, 6, 6)


def test_branches_of_one_source_add_up_to_one_matrix() -> None:
    nodes = {
        "x": Input((3,)), "a": Affine(torch.randn(3, 3), torch.randn(3)), "b": Scale(torch.randn(3)), "s": Add(),
        "t": Add(),
    }  # fmt: skip
    layer = composite_equals_graph(nodes, {"a": ("x",), "b": ("x",), "s": ("a", "b"), "t": ("s", "x", "x")})
    assert len(layer.paths) == 1


def test_branches_of_two_sources_stay_apart() -> None:
    conv = Conv(torch.randn(2, 2, 3, 3), torch.randn(2), padding=(1, 1))
    nodes = {"x": Input((2, 4, 4)), "y": Input((2, 4, 4)), "c": conv, "k": Scale(torch.rand(2, 1, 1)), "s": Add()}
    layer = composite_equals_graph(nodes, {"c": ("x",), "k": ("y",), "s": ("c", "k")})
    assert {path.source: path.conv for path in layer.paths} == {"x": conv, "y": None}


@pytest.mark.parametrize("dim", [0, 1])
def test_concatenations(dim: int) -> None:
    nodes = {"x": Input((2, 3)), "y": Input((2, 3)), "a": Affine(torch.randn(3, 3)), "c": Concat(dim), "k": Concat(dim)}
    composite_equals_graph(nodes, {"a": ("x",), "c": ("a", "y", "x"), "k": ("c", "x")})


def test_layers_levels_and_paths_of_a_residual_network() -> None:
    nodes: dict[str, Node] = {
        "x": Input((3,)), "a": Affine(torch.randn(4, 3), torch.ones(4)), "p": IF(one, zero),
        "b": Affine(torch.randn(4, 4)), "q": IF(one, zero), "s": Add(), "r": IF(one, zero),
        "o": Affine(torch.zeros(2, 4), torch.ones(2)), "readout": Readout(),
    }  # fmt: skip
    sources = {
        "a": ("x",), "p": ("a",), "b": ("p",), "q": ("b",), "s": ("p", "q"), "r": ("s",), "o": ("r",),
        "readout": ("o",),
    }  # fmt: skip
    layers = lower(Graph(nodes, sources))
    assert [(layer.name, layer.level) for layer in layers] == [("p", 1), ("q", 2), ("r", 3), ("readout", 1)]
    assert [[path.source for path in layer.paths] for layer in layers] == [["x"], ["p"], ["p", "q"], []]
    np.testing.assert_array_equal(layers[0].bias, np.ones(4))
    np.testing.assert_array_equal(layers[2].bias, np.zeros(4))
    np.testing.assert_array_equal(layers[3].bias, np.ones(2))


def test_all_refusals_come_in_one_message() -> None:
    nodes, sources = chain((1, 4), ReLU(), IF(one, zero), MaxCount((2,), (2,), (0,)), LI(torch.tensor(0.5)), Readout())
    with pytest.raises(UnsupportedNode) as caught:
        lower(Graph(nodes, sources, "odd"))
    first, *lines = str(caught.value).splitlines()
    assert first == "'odd': 3 node(s) have no form on a chip:"
    assert "convert the network first" in lines[0]
    assert "needs a counter per input" in lines[1]
    assert "read the classes from a Readout" in lines[2]
