"""Folding changes the graph and never the function."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from converters.fold import fold
from neuro.evaluate import evaluate
from neuro.graph import Graph, Input, Node
from neuro.nodes import (
    Add,
    Affine,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dropout,
    MaxPool,
    Permute,
    ReLU,
    Reshape,
    Scale,
)


def chain(shape: tuple[int, ...], *nodes: Node) -> Graph:
    names = ["x", *(f"n{number}" for number in range(len(nodes)))]
    sources = {name: (names[number],) for number, name in enumerate(names[1:])}
    return Graph(dict(zip(names, (Input(shape), *nodes), strict=True)), sources)


def norm(channels: int) -> BatchNorm:
    return BatchNorm(
        torch.randn(channels), torch.rand(channels) + 0.1, torch.randn(channels), torch.randn(channels), 1e-3
    )


def unchanged(graph: Graph, *kinds: str) -> Graph:
    """Fold, compare the function on data, and compare the kinds of the nodes that are left."""
    folded = fold(graph)
    x = torch.randn(4, *graph.shapes["x"])
    torch.testing.assert_close(evaluate(folded, x), evaluate(graph, x), rtol=1e-4, atol=1e-4)
    assert [node.kind for node in folded.nodes.values()] == ["Input", *kinds]
    return folded


@given(st.booleans(), st.booleans(), st.integers(1, 2), st.integers(0, 10**6))
def test_batch_norm_goes_into_the_weights(convolution: bool, bias: bool, groups: int, seed: int) -> None:
    torch.manual_seed(seed)
    b = torch.randn(4) if bias else None
    if convolution:
        conv = Conv(torch.randn(4, 2 // groups, 3, 3), b, groups=groups)
        unchanged(chain((2, 5, 5), conv, norm(4), Dropout(), ReLU()), "Conv", "ReLU")
    else:
        unchanged(
            chain((3,), Affine(torch.randn(4, 3), b), norm(4), Scale(torch.tensor(2.0)), ReLU()), "Affine", "ReLU"
        )


def test_history_tells_every_change() -> None:
    folded = unchanged(chain((2, 3, 3), norm(2), Conv(torch.randn(4, 2, 1, 1)), Dropout(), norm(4)), "Conv")
    assert [(change.node, change.was, change.became) for change in folded.history] == [
        ("n2", "Dropout", "nothing"), ("n0", "BatchNorm", "Scale"), ("n3", "BatchNorm", "nothing"),
        ("n0", "Scale", "nothing"),
    ]  # fmt: skip
    assert "folded into the weights of 'n1'" in folded.history[-1].why


@given(st.integers(1, 2), st.integers(1, 2), st.integers(0, 1), st.booleans(), st.integers(0, 10**6))
def test_a_transposed_convolution_takes_the_norms_on_both_sides(
    groups: int, stride: int, more: int, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    b = torch.randn(4) if bias else None
    up = ConvTranspose(torch.randn(2, 4 // groups, 3, 2), b, (stride, 2), (1, 0), (0, more), (1, 1), groups)
    unchanged(chain((2, 5, 5), up, norm(4), ReLU()), "ConvTranspose", "ReLU")
    unchanged(chain((2, 5, 5), ReLU(), norm(2), up), "ReLU", "ConvTranspose", "Scale")


@pytest.mark.parametrize(("padding", "kinds"), [((0, 0), ["ReLU", "Conv"]), ((1, 1), ["ReLU", "Conv", "Scale"])])
def test_a_norm_after_a_relu_goes_into_the_weights_behind_with_its_border(
    padding: tuple[int, int], kinds: list[str]
) -> None:
    """Nine border biases (Stanojevic et al. 2022) for a 3 x 3 kernel, whatever the signs of the norm."""
    conv = Conv(torch.randn(3, 2, 3, 3), torch.randn(3), padding=padding)
    folded = unchanged(chain((2, 6, 6), ReLU(), norm(2), conv), *kinds)
    if any(padding):
        border = list(folded.nodes.values())[-1]
        assert isinstance(border, Scale)
        assert border.factor.item() == 1
        assert border.offset is not None
        assert all(len(torch.unique(channel)) == 9 for channel in border.offset.round(decimals=4))


def test_a_norm_goes_forward_through_moves_and_pools_and_into_all_its_readers() -> None:
    average, most = AvgPool((2, 2), (2, 2), (1, 1)), MaxPool((3, 3), (1, 1), (1, 1))
    unchanged(
        chain((2, 6, 6), ReLU(), norm(2), average, Permute((1, 0, 2)), Reshape((32,)), Affine(torch.randn(3, 32))),
        "ReLU", "AvgPool", "Permute", "Reshape", "Affine",
    )  # fmt: skip
    rising = replace(norm(2), weight=torch.rand(2) + 0.1)
    unchanged(chain((2, 6, 6), ReLU(), rising, most, Conv(torch.randn(3, 2, 1, 1))), "ReLU", "MaxPool", "Conv")
    unchanged(chain((2, 6, 6), ReLU(), rising, most), "ReLU", "MaxPool", "Scale")
    falling = replace(norm(2), weight=torch.tensor([1.0, -1.0]))
    unchanged(
        chain((2, 6, 6), ReLU(), falling, most, Conv(torch.randn(3, 2, 1, 1))), "ReLU", "Scale", "MaxPool", "Conv"
    )
    nodes = {
        "x": Input((2, 4, 4)),
        "bn": norm(2),
        "a": Conv(torch.randn(3, 2, 1, 1)),
        "b": Conv(torch.randn(3, 2, 1, 1)),
    }
    sources = {"bn": ("x",), "a": ("bn",), "b": ("bn",), "s": ("a", "b")}
    unchanged(Graph({**nodes, "s": Add()}, sources), "Conv", "Conv", "Add")
    unchanged(Graph({**nodes, "b": ReLU(), "s": Concat()}, sources), "Scale", "Conv", "ReLU", "Concat")


@pytest.mark.parametrize(
    ("sign", "kinds"), [(1, ["Conv", "MaxPool", "ReLU"]), (-1, ["Conv", "MaxPool", "Scale", "ReLU"])]
)
def test_a_rising_norm_goes_back_through_pools(sign: int, kinds: list[str]) -> None:
    bn = replace(norm(4), weight=sign * (torch.rand(4) + 0.1))
    pool = MaxPool((2, 2), (2, 2), (0, 0))
    unchanged(chain((2, 6, 6), Conv(torch.randn(4, 2, 1, 1)), pool, bn, ReLU()), *kinds)
    average = AvgPool((2, 2), (2, 2), (0, 0))
    unchanged(chain((2, 6, 6), Conv(torch.randn(4, 2, 1, 1)), average, bn, ReLU()), "Conv", "AvgPool", "ReLU")


@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 4), (4, 4), (4, 1, 1), (4, 4, 4), ()])
def test_a_factor_is_folded_only_where_it_belongs_to_the_channel(shape: tuple[int, ...]) -> None:
    """Four channels of 4 x 4: a factor (4,) broadcasts along the width and must not be taken for one per channel."""
    graph = chain((2, 4, 4), Conv(torch.randn(4, 2, 1, 1)), Scale(torch.randn(shape), torch.randn(shape)))
    unchanged(graph, *(("Conv",) if shape in ((), (4, 1, 1)) else ("Conv", "Scale")))


def test_rows_of_a_matrix_are_no_channels() -> None:
    unchanged(chain((4, 3), Affine(torch.randn(4, 3)), norm(4)), "Affine", "Scale")


@pytest.mark.parametrize("between", [True, False])
def test_weights_with_another_reader_stay(between: bool) -> None:
    nodes = {"x": Input((3,)), "a": Affine(torch.randn(3, 3)), "d": Dropout(), "bn": norm(3), "s": Add()}
    sources = {"a": ("x",), "d": ("a",), "bn": ("d",), "s": ("a", "bn")}
    if not between:
        del nodes["d"], sources["d"]
        sources["bn"] = ("a",)
    unchanged(Graph(nodes, sources), "Affine", "Scale", "Add")


def test_integer_weights_are_left_alone() -> None:
    integer = Affine(torch.ones(2, 2, dtype=torch.int32))
    node = fold(chain((2,), Affine(torch.randn(2, 2)), Scale(torch.tensor(2.0)), ReLU()))
    assert [n.kind for n in node.nodes.values()] == ["Input", "Affine", "ReLU"]
    nodes = {
        "x": Input((2,)),
        "s": Scale(torch.tensor(1, dtype=torch.int32)),
        "a": integer,
        "t": Scale(torch.tensor(2.0)),
    }
    kept = fold(Graph(nodes, {"s": ("x",), "a": ("s",), "t": ("a",)}))
    assert [n.kind for n in kept.nodes.values()] == ["Input", "Scale", "Affine", "Scale"]
