"""Populations written as torch modules: what they become, and what they do by themselves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from neuro import Network, nodes, trace
from neuro.dynamics import rest, step
from neuro.errors import ParameterError
from neuro.modules import IF, LI, LIF, AdaptiveLIF, Alpha, ParallelLIF, Population, Readout, Recurrent, Synaptic

EVERY = {
    "IF": (IF(0.5, 0.25, "zero"), nodes.IF, {"theta": 0.5, "v0": 0.25, "reset": "zero"}),
    "LIF": (LIF(0.9, 2.0), nodes.LIF, {"beta": 0.9, "theta": 2.0, "v0": 0.0, "reset": "subtract"}),
    "ParallelLIF": (ParallelLIF(0.9), nodes.LIF, {"beta": 0.9, "theta": 1.0, "reset": "none"}),
    "AdaptiveLIF": (AdaptiveLIF(0.9, 0.95, 0.3, reset="zero"), nodes.AdaptiveLIF, {"rho": 0.95, "rise": 0.3}),
    "Synaptic": (Synaptic(0.8, 0.9, delay=False), nodes.Synaptic, {"alpha": 0.8, "beta": 0.9, "delay": False}),
    "Alpha": (Alpha(0.9, 0.8), nodes.Alpha, {"alpha": 0.9, "beta": 0.8, "reset": "zero"}),
    "LI": (LI(0.7), nodes.LI, {"beta": 0.7}),
    "Readout": (Readout(2), nodes.Readout, {"start": 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_each_becomes_its_node(name: str) -> None:
    module, kind, wanted = EVERY[name]
    graph = trace(nn.Sequential(nn.Linear(3, 4), module), torch.zeros(2, 3))
    node = graph.nodes[graph.output]
    assert type(node) is kind
    for field, value in wanted.items():
        got = getattr(node, field)
        assert got.item() == pytest.approx(value) if isinstance(got, torch.Tensor) else got == value
    assert not any(tensor.requires_grad for _, tensor in node.tensors())


@pytest.mark.parametrize("name", EVERY)
def test_by_itself_it_does_one_step_from_a_state(name: str) -> None:
    module, _, _ = EVERY[name]
    current = torch.rand(6, 2, 4)
    state, expected = module.rest(current[0]), rest(module.node(), 2, (4,))
    for i in current:
        z, state = module(i, state)
        expected, wanted = step(module.node(), expected, i)
        assert torch.equal(z, wanted)
        assert all(torch.equal(a, b) for a, b in zip((state.v, *state.kept), (expected.v, *expected.kept), strict=True))
    with pytest.raises(ParameterError, match=rf"{type(module).__name__} does one step from a state: .*neuro\.trace"):
        module(current[0])


def test_steps_by_hand_let_gradients_through() -> None:
    lif, weight = LIF(0.9, learn=True), torch.rand(3, 4, requires_grad=True)
    state, total = lif.rest(torch.zeros(2, 4)), torch.zeros(())
    for x in torch.rand(5, 2, 3):
        z, state = lif(x @ weight, state)
        total = total + z.sum()
    total.backward()
    assert weight.grad is not None
    assert bool(weight.grad.any())
    assert lif.beta.grad is not None
    assert bool(lif.beta.grad)
    assert bool(lif.theta.grad)


def test_time_constants_become_decays_in_two_ways() -> None:
    assert LIF.exact(20e-3, dt=1e-3).beta.item() == pytest.approx(math.exp(-1 / 20))
    assert LIF.euler(20e-3, dt=1e-3).beta.item() == pytest.approx(0.95)
    both = Synaptic.exact(5e-3, 20e-3, dt=1e-3, reset="zero")
    assert (both.alpha.item(), both.beta.item()) == pytest.approx((math.exp(-1 / 5), math.exp(-1 / 20)))
    assert both.options["reset"] == "zero"
    each = LI.exact(torch.tensor([10e-3, 20e-3]), dt=1e-3).beta
    torch.testing.assert_close(each, torch.exp(-torch.tensor([0.1, 0.05])))
    with pytest.raises(ParameterError, match="dt must be at most tau for an Euler step"):
        LIF.euler(1e-3, dt=2e-3)
    with pytest.raises(ParameterError, match="tau and dt must be > 0 s"):
        LIF.exact(-1.0, dt=1e-3)


def test_what_learns_is_a_parameter_of_module_and_node() -> None:
    adaptive = AdaptiveLIF(0.9, 0.95, learn=("rho", "theta"))
    assert [name for name, _ in adaptive.named_parameters()] == ["rho", "theta"]
    assert [name for name, _ in LIF(0.9, learn=True).named_parameters()] == ["beta", "theta"]
    assert [name for name, _ in Alpha(0.9, 0.8, learn=True).named_parameters()] == ["alpha", "beta", "theta"]
    graph = trace(nn.Sequential(nn.Linear(3, 4), adaptive), torch.zeros(2, 3))
    assert [name for name, tensor in graph.nodes["1"].tensors() if tensor.requires_grad] == ["rho", "theta"]
    assert {"1/rho", "1/theta"} < set(dict(Network(graph).named_parameters()))
    with pytest.raises(ParameterError, match=r"LIF: learn names \['tau'\]"):
        LIF(0.9, learn=("tau",))


def test_one_value_for_each_neuron_or_channel() -> None:
    beta = torch.tensor([0.25, 0.5, 1.0]).reshape(3, 1, 1)
    conv = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), LIF(beta, theta=100.0))
    net = Network(trace(conv, torch.zeros(1, 1, 4, 4)), kernel="reference")
    first = net(torch.rand(1, 2, 1, 4, 4), record=True)
    second = net(torch.zeros(1, 2, 1, 4, 4), states=first.states, record=True)
    assert second.states["1"].v.shape == (2, 3, 2, 2)
    assert torch.equal(second.states["1"].v, beta * first.states["1"].v)
    with pytest.raises(Exception, match="does not broadcast to features"):
        trace(nn.Sequential(nn.Linear(3, 4), LIF(torch.full((5,), 0.9))), torch.zeros(1, 3))


def test_a_loop_becomes_one_node() -> None:
    loop = Recurrent(nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 4)), LIF(0.9))
    graph = trace(nn.Sequential(nn.Linear(3, 4), loop), torch.zeros(2, 3))
    node = graph.nodes["1"]
    assert isinstance(node, nodes.Recurrent)
    assert [inner.kind for inner in node.body.nodes.values()] == ["Input", "Input", "Affine", "Affine", "Add", "LIF"]
    assert torch.equal(node.body.nodes["back.0"].weight, loop.connection[0].weight)  # type: ignore[attr-defined, index]
    assert isinstance(Recurrent(nn.Identity(), LIF(0.9)).node((4,)), nodes.Recurrent)
    with pytest.raises(ParameterError, match="Recurrent has a state"):
        loop(torch.zeros(1, 4))
    with pytest.raises(ParameterError, match="population must be one that fires, got LI"):
        Recurrent(nn.Linear(4, 4), LI(0.9))


def test_refusals_come_at_birth_and_it_says_what_it_is() -> None:
    with pytest.raises(ParameterError, match=r"LIF: beta must lie in \[0, 1\], got 1.5"):
        LIF(1.5)
    with pytest.raises(ParameterError, match="AdaptiveLIF: rise must be >= 0, got -1"):
        AdaptiveLIF(0.9, 0.9, -1.0)
    assert repr(LIF(0.9)) == "LIF(beta=0.9, theta=1, v0=0, reset=subtract)"
    assert repr(LI(torch.rand(3))) == "LI(beta=(3,))"
    assert issubclass(ParallelLIF, Population)
