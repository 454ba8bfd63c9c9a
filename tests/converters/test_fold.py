"""Folding changes the graph and never the function."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from converters.fold import fold
from neuro.evaluate import evaluate
from neuro.graph import Graph, Input, Node
from neuro.nodes import Add, Affine, BatchNorm, Conv, Dropout, ReLU, Scale


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
    folded = unchanged(chain((2, 3, 3), norm(2), Conv(torch.randn(4, 2, 1, 1)), Dropout(), norm(4)), "Scale", "Conv")
    assert [(change.node, change.was, change.became) for change in folded.history] == [
        ("n2", "Dropout", "nothing"), ("n0", "BatchNorm", "Scale"), ("n3", "BatchNorm", "nothing"),
    ]  # fmt: skip
    assert "folded into the weights of 'n1'" in folded.history[-1].why


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
