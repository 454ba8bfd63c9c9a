"""Quantisation-aware training: rounded weights in every pass, gradients straight through, and a grid chips keep."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from neuro import simulate, trace
from neuro.datasets import Split
from neuro.errors import ParameterError, UnsupportedNode
from neuro.graph import Graph, Input
from neuro.modules import IF, LIF, Readout
from neuro.network import Network
from neuro.nodes import Affine, Conv, ConvTranspose, CountThenFire, Quantise
from neuro.training import MembraneCrossEntropy, RateCrossEntropy
from neuro.training.on_grid import OnGrid, fine_tuned, rounded


def weights_of(graph: Graph) -> list[torch.Tensor]:
    return [node.weight for node in graph.nodes.values() if isinstance(node, Affine | Conv)]


def is_on_grid(weight: torch.Tensor, step: torch.Tensor, bits: int) -> bool:
    whole = weight.double() / step
    top = 2 ** (bits - 1) - 1
    return bool(((whole - whole.round()).abs() < 1e-3).all()) and bool((whole.abs() < top + 0.5).all())


@given(st.integers(0, 2**31 - 1), st.integers(2, 8), st.sampled_from(["affine", "conv", "transposed"]), st.booleans())
def test_weights_land_on_the_nearest_point_of_their_grid(seed: int, bits: int, kind: str, one_step: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    node = {
        "affine": lambda: Affine(torch.randn(4, 6, generator=generator)),
        "conv": lambda: Conv(torch.randn(4, 3, 2, 2, generator=generator)),
        "transposed": lambda: ConvTranspose(torch.randn(3, 4, 2, 2, generator=generator)),
    }[kind]()
    found = rounded(node, node.weight, bits, one_step=one_step)
    largest = node.by_output().abs().amax(1)
    largest = largest.max().expand_as(largest) if one_step else largest
    step = node.per_output(largest.double() / (2 ** (bits - 1) - 1))
    assert is_on_grid(found, step, bits)
    assert bool(((found - node.weight).abs() <= step / 2 * (1 + 1e-4) + 1e-9).all())
    again = rounded(node, found, bits, one_step=one_step)
    assert torch.allclose(again, found, atol=1e-6)


def test_the_gradient_passes_straight_through() -> None:
    weight = torch.randn(3, 5, requires_grad=True)
    node = Affine(weight.detach())
    out = rounded(node, weight, 3) * torch.arange(15.0).reshape(3, 5)
    out.sum().backward()
    assert torch.equal(weight.grad, torch.arange(15.0).reshape(3, 5))


def test_zero_rows_stay_zero() -> None:
    weight = torch.randn(3, 5)
    weight[1] = 0
    found = rounded(Affine(weight), weight, 4)
    assert bool((found[1] == 0).all())
    assert bool(torch.isfinite(found).all())


def step_of(last: nn.Module) -> Graph:
    torch.manual_seed(0)
    return trace(nn.Sequential(nn.Linear(6, 16), LIF(0.8), nn.Linear(16, 3), last), torch.zeros(1, 6), name="net")


def test_the_network_computes_with_what_its_graph_holds() -> None:
    graph = step_of(Readout())
    network = OnGrid(graph, 3, kernel="reference")
    x = torch.rand(5, 6)
    assert torch.allclose(network(x, steps=7)[-1], simulate(network.graph, x, steps=7).outputs, atol=1e-5)
    plain, grid = weights_of(graph), weights_of(network.graph)
    assert not any(torch.equal(a, b) for a, b in zip(plain, grid, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, weights_of(Network(graph).graph), strict=True))


def test_before_a_read_out_all_rows_share_one_step() -> None:
    read, fires = OnGrid(step_of(Readout()), 4).graph, OnGrid(step_of(IF(1.0)), 4).graph
    last = weights_of(read)[-1]
    assert is_on_grid(last, last.abs().max().double() / 7, 4)
    last = weights_of(fires)[-1]
    assert is_on_grid(last, last.abs().amax(1, keepdim=True).double() / 7, 4)
    assert not is_on_grid(last, last.abs().max().double() / 7, 4)


def blobs(samples: int = 240) -> Split:
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(samples) % 3
    x = 0.35 * torch.rand(samples, 6, generator=generator)
    x[torch.arange(samples), y] += 0.3
    x[torch.arange(samples), 3 + (y + 1) % 3] += 0.2
    third = samples // 3
    parts = [(x[i : i + third], y[i : i + third]) for i in (0, third, 2 * third)]
    (a, b), (c, d), (e, f) = parts
    return Split("blobs", a, b, c, d, e, f, ("0", "1", "2"), "drawn here")


@pytest.mark.parametrize("last", [Readout(), LIF(0.8)], ids=["read", "fires"])
def test_fine_tuning_wins_back_what_two_bits_cost(last: nn.Module) -> None:
    split = blobs()
    learnt, _ = fine_tuned(step_of(last), split, bits=8, steps=12, epochs=6, learning_rate=0.02, batch_size=16)
    loss = MembraneCrossEntropy("last") if isinstance(last, Readout) else RateCrossEntropy()

    def cost(graph: Graph) -> float:
        with torch.no_grad():
            return float(loss.cost(Network(graph).eval()(split.train_x, steps=12), split.train_y))

    tuned, history = fine_tuned(learnt, split, bits=2, steps=12, epochs=6, learning_rate=0.02, batch_size=16)
    assert cost(tuned) < cost(OnGrid(learnt, 2).graph)
    assert (history.best.validation_accuracy or 0.0) > 0.85
    (first, _) = weights_of(tuned)
    assert is_on_grid(first, first.abs().amax(1, keepdim=True).double(), 2)


def test_refusals() -> None:
    for bits in (1, 17, 2.0, True):
        with pytest.raises(ParameterError, match=r"bits must be a whole number in 2\.\.16"):
            OnGrid(step_of(Readout()), bits)  # type: ignore[arg-type]
    nodes = {"x": Input((2,)), "q": Quantise(1.0, 0, 3), "n": CountThenFire(torch.tensor(2), torch.tensor(0), 2, 2)}
    with pytest.raises(UnsupportedNode, match="do not train through time"):
        OnGrid(Graph(nodes, {"q": ("x",), "n": ("q",)}), 4)
