"""The module of a graph: the same function, weights that learn, torch's own training mode."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neuro import Network, trace
from neuro.errors import ParameterError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph, Input
from neuro.nodes import Affine, Conv, GradedIF, Quantise, Scale


def block() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )  # fmt: skip


X = torch.rand(8, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def test_it_computes_what_the_graph_computes_and_gives_it_back() -> None:
    graph = trace(block().eval(), X)
    network = Network(graph).eval()
    assert torch.equal(network(X), evaluate(graph, X))
    assert torch.equal(evaluate(network.graph, X), evaluate(graph, X))
    assert list(network.graph.nodes) == list(graph.nodes)
    assert not any(tensor.requires_grad for node in network.graph.nodes.values() for _, tensor in node.tensors())


def test_what_is_learnt_and_what_is_not() -> None:
    network = Network(trace(block().eval(), X))
    assert sorted(key.rpartition("/")[2] for key, _ in network.named_parameters()) == sorted(["weight", "bias"] * 3)
    assert sorted(key.rpartition("/")[2] for key, _ in network.named_buffers()) == ["mean", "var"]
    integers = Graph(
        {"x": Input((3,)), "q": Quantise(0.1, -7, 7), "w": Affine(torch.ones(2, 3, dtype=torch.int32))},
        {"q": ("x",), "w": ("q",)},
    )
    assert not list(Network(integers).parameters())
    assert torch.equal(Network(integers)(torch.ones(1, 3)), evaluate(integers, torch.ones(1, 3)))


def test_a_step_of_training_is_that_of_the_torch_module() -> None:
    """Batch norm follows the batch in both; weights and statistics agree after three steps of SGD."""
    module = block().train()
    network = Network(trace(block().eval(), X)).train()
    y = torch.arange(8) % 3
    for learner in (module, network):
        descent = torch.optim.SGD(learner.parameters(), 0.1)
        for _ in range(3):
            descent.zero_grad()
            F.cross_entropy(learner(X), y).backward()
            descent.step()
    torch.testing.assert_close(network.eval()(X), module.eval()(X), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(evaluate(network.graph, X), module(X), rtol=1e-5, atol=1e-5)


def test_dropout_drops_in_training_only() -> None:
    network = Network(trace(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(72, 400)).eval(), X))
    kept = Network(trace(nn.Sequential(nn.Flatten(), nn.Dropout(0.5)).eval(), X)).train()(X)
    assert 0.3 < float((kept == 0).float().mean()) < 0.7
    assert torch.allclose(kept[kept != 0], 2 * X.flatten(1)[kept != 0])
    assert torch.equal(network.eval()(X), network(X))
    assert not torch.equal(network.train()(X), network(X))


def test_the_state_can_be_moved_to_another_network() -> None:
    graph = trace(block().eval(), X)
    first, second = Network(graph), Network(graph)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.1)
    assert not torch.equal(first.eval()(X), second.eval()(X))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(X), second(X))
    assert not torch.equal(evaluate(graph, X), first(X))


def test_names_that_torch_or_the_module_would_not_take() -> None:
    nodes = {
        "x": Input((2,)), "forward": Scale(torch.tensor(2.0)), "a.b": Scale(torch.tensor(3.0)),
        "a/b": Scale(torch.tensor(5.0)), "a/b_2": Scale(torch.tensor(7.0)),
    }  # fmt: skip
    names = list(nodes)
    network = Network(Graph(nodes, {after: (before,) for before, after in itertools.pairwise(names)}))
    assert network(torch.ones(1, 2)).tolist() == [[210.0, 210.0]]
    assert len(dict(network.named_parameters())) == 4


def test_autocast_narrows_the_products_and_not_the_weights() -> None:
    network = Network(trace(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval(), X))
    with torch.autocast("cpu", torch.bfloat16):
        narrow = network(X)
    assert narrow.dtype == torch.bfloat16
    narrow.float().sum().backward()
    assert all(parameter.grad.dtype == parameter.dtype == torch.float32 for parameter in network.parameters())
    torch.testing.assert_close(narrow.float(), network(X), rtol=0.05, atol=0.02)


def test_refusals() -> None:
    weights = Affine(torch.ones(2, 3))
    spiking = Graph(
        {"x": Input((3,)), "w": weights, "fire": GradedIF(torch.tensor(1.0), torch.tensor(0.5), 3)},
        {"w": ("x",), "fire": ("w",)},
    )
    with pytest.raises(UnsupportedNode, match="GradedIF 'fire'") as caught:
        Network(spiking)
    assert "\n" not in str(caught.value)
    network = Network(Graph({"x": Input((1, 4, 4)), "w": Conv(torch.ones(1, 1, 2, 2))}, {"w": ("x",)}))
    with torch.no_grad():
        next(network.parameters()).fill_(torch.inf)
    with pytest.raises(ParameterError, match="weight holds"):
        _ = network.graph
