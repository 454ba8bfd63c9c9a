"""Brian2 integrates the same graphs exactly and must see the same spikes."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from neuro import Graph, simulate
from neuro.errors import ParameterError, ShapeError, UnsupportedNode
from neuro.graph import Input, Node
from neuro.nodes import IF, LIF, Add, Affine, AvgPool, Conv, Leaky, MaxPool, Readout, ReLU, Reshape, Scale
from neuro.oracles.via_brian2 import via_brian2

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def brian2() -> None:
    """Not while tests are collected: importing Brian2 changes how pytest collects doctests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("brian2", reason="Brian2 is not installed: the oracle is not asked")


def chain(*nodes: Node) -> Graph:
    named = {str(index): node for index, node in enumerate(nodes)}
    return Graph(named, {str(index): (str(index - 1),) for index in range(1, len(nodes))})


def grid(*shape: int, parts: int = 64) -> Tensor:
    """Weights in multiples of 1/parts: their sums are exact in single and in double precision."""
    return (torch.randn(*shape) * parts).round() / parts


def assert_same(graph: Graph, x: Tensor, steps: int | None = None) -> None:
    found = via_brian2(graph, x, steps)
    expected = simulate(graph, x, steps=steps, record=["spikes"], kernel="reference").recordings["spikes"]
    assert set(found) == {name for name, node in graph.nodes.items() if isinstance(node, IF | LIF)}
    for name, spikes in found.items():
        assert torch.equal(spikes, expected[name]), name
        assert spikes.any(), name
    assert any(not spikes.all() for spikes in found.values())


def test_integrate_and_fire_layers() -> None:
    one = torch.ones(())
    graph = chain(
        Input((5,)), Affine(grid(8, 5), grid(8)), IF(one, one / 2), Affine(grid(6, 8), grid(6) / 4),
        IF(torch.arange(1.0, 7) / 2, torch.zeros(6), "zero"), Affine(grid(3, 6)), Readout(),
    )  # fmt: skip
    assert_same(graph, grid(3, 5, parts=8), steps=40)
    assert_same(graph, grid(40, 2, 5, parts=8))


def test_leaky_layers() -> None:
    """Their decays are no fractions of two: equal as long as no potential comes within 1e-6 of its threshold."""
    zero = torch.zeros(())
    graph = chain(
        Input((5,)), LIF(torch.rand(5) * 0.5 + 0.4, torch.tensor(0.7), torch.rand(5) / 2), Affine(grid(6, 5)),
        LIF(torch.tensor(0.9), torch.tensor(1.1), zero, "zero"),
    )  # fmt: skip
    assert_same(graph, torch.rand(60, 2, 5))


def test_images_and_branches_pass_all_layers_in_one_step() -> None:
    one = torch.ones(())
    nodes = {
        "x": Input((1, 6, 6)), "conv": Conv(grid(2, 1, 3, 3), grid(2)), "a": IF(one, one / 2),
        "pool": AvgPool((2, 2), (2, 2), (0, 0)), "b": IF(one / 4, one / 8), "up": Conv(grid(2, 2, 1, 1).abs() + 0.25),
        "c": LIF(one / 2, one / 2, one * 0), "sum": Add(), "flat": Reshape((8,)), "d": IF(2 * one, one),
    }  # fmt: skip
    sources = {
        "conv": ("x",), "a": ("conv",), "pool": ("a",), "b": ("pool",), "up": ("b",), "c": ("up",),
        "sum": ("pool", "b", "c"), "flat": ("sum",), "d": ("flat",),
    }  # fmt: skip
    assert_same(Graph(nodes, sources), grid(2, 1, 6, 6, parts=8).abs(), steps=25)


def test_cut_off_weights_send_nothing() -> None:
    one = torch.ones(())
    graph = chain(Input((3,)), IF(one, one / 2), Affine(torch.zeros(2, 3), torch.tensor([0.25, 0.0])), IF(one, one / 2))
    found = via_brian2(graph, torch.rand(1, 3), 12)["3"]
    assert found.sum((0, 1)).tolist() == [3, 0]


def test_refusals() -> None:
    one = torch.ones(())
    with pytest.raises(UnsupportedNode, match="ReLU '1', MaxPool '3'"):
        via_brian2(
            chain(Input((1, 4, 4)), ReLU(), IF(one, one), MaxPool((2, 2), (2, 2), (0, 0)), IF(one, one)),
            torch.rand(1, 1, 4, 4),
            3,
        )
    with pytest.raises(UnsupportedNode, match="Leaky '1'"):
        via_brian2(chain(Input((4,)), Leaky(one, one), IF(one, one)), torch.rand(1, 4), 3)
    with pytest.raises(UnsupportedNode, match="beta outside"):
        via_brian2(chain(Input((4,)), LIF(one, one, one)), torch.rand(1, 4), 3)
    with pytest.raises(ShapeError, match="steps"):
        via_brian2(chain(Input((4,)), IF(one, one)), torch.rand(1, 4))
    with pytest.raises(ParameterError, match="too large"):
        via_brian2(chain(Input((10_001,)), Scale(one), IF(one, one)), torch.rand(1, 10_001), 2)
