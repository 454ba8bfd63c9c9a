"""Losses of spike times, waking of silent neurons, and small trainings that must succeed."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from neuro.datasets import load
from neuro.errors import ParameterError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.first_spike.published import EnergyTable, Modelled
from neuro.graph import Graph, Input, Node
from neuro.network import Network
from neuro.nodes import Affine, EarliestWins, LatencyCode, RampFirstSpike, TimedLIF, TimeToFirstSpike
from neuro.training import accuracy, fit
from neuro.training.first_spike import (
    FirstSpikeCrossEntropy,
    FirstSpikeTraining,
    ShiftInvariantMSE,
    WeightBumping,
    first_spike_layers,
    first_spike_network,
    forward_in_time,
)
from neuro.training.first_spike_relu import (
    SparseFirstSpikes,
    rounded_weight,
    spikes_per_neuron,
    with_weight_bits,
)
from neuro.training.first_spike_tasks import FirstSpikeCoding, first_spike_task
from neuro.training.tasks import TASKS, planned


def test_cross_entropy_is_the_published_formula() -> None:
    t = torch.tensor([[0.5, 0.8, 1.4], [2.0, 1.0, 20.0]], dtype=torch.float64)
    y = torch.tensor([0, 0])
    tau, xi, alpha, beta = 1.5, 0.2, 0.005, 1.0
    each = []
    for row, label in zip(t, y, strict=True):
        among = [float(v) for v in row if v < 10]
        first = math.log(sum(math.exp(-(v - float(row[label])) / (xi * tau)) for v in among))
        each.append(first + alpha * math.exp(float(row[label]) / (beta * tau)))
    loss = FirstSpikeCrossEntropy(10.0, xi, alpha, beta, tau)
    assert float(loss.cost(-t.clamp(max=10), y)) == pytest.approx(sum(each) / 2, rel=1e-12)
    assert torch.equal(loss.scores(-t).argmax(1), torch.tensor([0, 1]))


def test_silent_labels_cost_a_constant_and_pull_at_nothing() -> None:
    outputs = torch.tensor([[-10.0, -1.0, -2.0], [-10.0, -10.0, -10.0]], requires_grad=True)
    cost = FirstSpikeCrossEntropy(10.0).cost(outputs, torch.tensor([0, 2]))
    assert float(cost.detach()) == 100
    cost.backward()
    assert torch.equal(outputs.grad, torch.zeros_like(outputs))


def test_mean_squares_care_for_differences_only() -> None:
    t = torch.rand(6, 4, dtype=torch.float64)
    y = torch.randint(0, 4, (6,))
    loss = ShiftInvariantMSE(0.3)
    torch.testing.assert_close(loss.cost(-t, y), loss.cost(-(t + 1.7), y))
    right = torch.full((6, 4), 1.3, dtype=torch.float64).scatter_(1, y[:, None], 1.0)
    assert float(loss.cost(-right, y)) == pytest.approx(0, abs=1e-20)


def silent_network() -> Network:
    nodes: dict[str, Node] = {"x": Input((4,)), "code": LatencyCode()}
    weights = [torch.full((5, 4), 0.1), torch.full((3, 5), 0.1)]
    nodes |= {
        "hidden": TimeToFirstSpike(weights[0], torch.ones(())),
        "output": TimeToFirstSpike(weights[1], torch.ones(())),
    }
    nodes["score"] = EarliestWins(10.0)
    names = list(nodes)
    return Network(Graph(nodes, {b: (a,) for a, b in pairwise(names)}))


def test_bumping_wakes_the_first_silent_layer_ever_faster() -> None:
    network, bump = silent_network(), WeightBumping(amount=1e-3)
    weights = dict(network.named_parameters())
    before = {name: value.detach().clone() for name, value in weights.items()}
    x = torch.rand(8, 4)
    for grown in (1e-3, 3e-3, 7e-3):
        bump.see(forward_in_time(network, x)[1])
        bump(network)
        torch.testing.assert_close(weights["hidden/weight"].detach(), before["hidden/weight"] + grown)
        assert torch.equal(weights["output/weight"], before["output/weight"])
    with torch.no_grad():
        weights["hidden/weight"].fill_(2.0)
    bump.see(forward_in_time(network, x)[1])
    bump(network)  # another layer: from the start
    assert torch.equal(weights["hidden/weight"], torch.full((5, 4), 2.0))
    torch.testing.assert_close(weights["output/weight"].detach(), before["output/weight"] + 1e-3)
    again = WeightBumping(amount=1e-3)
    again.load_state_dict(bump.state_dict())
    for hook in (bump, again):
        hook.see(forward_in_time(network, x)[1])
    bump(network)
    torch.testing.assert_close(weights["output/weight"].detach(), before["output/weight"] + 3e-3)
    again(network)
    torch.testing.assert_close(weights["output/weight"].detach(), before["output/weight"] + 5e-3)


def test_noise_is_drawn_in_training_only() -> None:
    network = silent_network()
    with torch.no_grad():
        for value in network.parameters():
            value.fill_(1.0)
    x, y = torch.rand(8, 4), torch.zeros(8, dtype=torch.long)
    loss = FirstSpikeTraining(FirstSpikeCrossEntropy(10.0), noise=0.3)
    network.train()
    assert float(loss(network, x, y).detach()) != float(loss(network, x, y).detach())
    network.eval()
    assert float(loss(network, x, y).detach()) == float(loss(network, x, y).detach())
    with pytest.raises(UnsupportedNode, match="Network"):
        loss(torch.nn.Linear(4, 3), x, y)


@pytest.mark.parametrize("delays", ["none", "axonal", "synaptic"])
def test_a_small_network_learns(delays: str, tmp_path: Path) -> None:
    """Which of two inputs comes first; 95 % on other samples."""
    x = torch.rand(400, 2)
    y = (x[:, 0] > x[:, 1]).long()
    network = first_spike_network(2, 12, 2, delays=delays, seed=1)
    bump = WeightBumping()
    loss = FirstSpikeTraining(FirstSpikeCrossEntropy(10.0), gradient_limit=0.2, bump=bump)
    fit(
        network, (x[:300], y[:300]), validation=(x[:300], y[:300]), epochs=20, batch_size=50, learning_rate=0.02,
        loss=loss, after_step=bump, resume=tmp_path / "training.safetensors", threads=1,
    )  # fmt: skip
    assert accuracy(network, x[300:], y[300:]) > 0.93
    assert accuracy(network.graph, x[300:], y[300:]) > 0.93
    node = network.graph.nodes["hidden"]
    assert isinstance(node, TimeToFirstSpike)
    assert (node.axonal is not None, node.synaptic is not None) == (delays == "axonal", delays == "synaptic")


def test_spike_trains_learn_with_the_same_loss() -> None:
    x = torch.rand(300, 2)
    y = (x[:, 0] > x[:, 1]).long()
    weights = first_spike_layers((3, 12, 2), 0, (1.5, 0.5), (0.8, 0.8))
    nodes: dict[str, Node] = {"x": Input((2,)), "code": LatencyCode(bias=0.9)}
    nodes |= {
        "hidden": TimedLIF(weights[0], torch.ones(()), "equal", most=3),
        "output": TimedLIF(weights[1], torch.ones(()), "equal", most=1),
        "score": EarliestWins(10.0),
    }
    names = list(nodes)
    network = Network(Graph(nodes, {b: (a,) for a, b in pairwise(names)}))
    fit(
        network, (x, y), epochs=25, batch_size=50, learning_rate=0.02,
        loss=FirstSpikeTraining(FirstSpikeCrossEntropy(10.0), gradient_limit=0.2), threads=1,
    )  # fmt: skip
    assert accuracy(network, x, y) > 0.9


def ramps(bits: int | None = None) -> Graph:
    g = torch.Generator().manual_seed(0)
    nodes: dict[str, Node] = {
        "x": Input((2,)),
        "in": Affine(torch.randn(30, 2, generator=g), None),
        "ramp": RampFirstSpike(torch.full((30,), 4.0), 4.0, bits),
        "out": Affine(torch.randn(2, 30, generator=g) / 5, torch.zeros(2)),
    }
    return Graph(nodes, {"in": ("x",), "ramp": ("in",), "out": ("ramp",)})


def test_rounded_times_keep_their_bits_and_pass_gradients() -> None:
    a = torch.linspace(-1, 5, 50, dtype=torch.float64, requires_grad=True)
    node = RampFirstSpike(torch.full((50,), 4.0, dtype=torch.float64), 4.0, 5)
    times = node.times(a)
    slot = 4.0 / 32
    fired = torch.isfinite(times)
    assert torch.equal(times[fired] / slot, (times[fired] / slot).round())
    (gradient,) = torch.autograd.grad(node.forward(a[None]).sum(), a)
    inside = fired.detach() & (a.detach() < 4)
    assert torch.equal(gradient[inside], torch.ones(int(inside.sum()), dtype=torch.float64))


def test_sparsity_and_coarse_weights_in_the_loop() -> None:
    x = torch.rand(400, 2)
    y = (x[:, 0] > x[:, 1]).long()
    found = {}
    for strength in (0.0, 20.0):
        network = Network(ramps(bits=6))
        fit(
            network, (x, y), epochs=12, batch_size=50, learning_rate=0.02, threads=1,
            loss=SparseFirstSpikes(strength, weight_bits=4),
        )  # fmt: skip
        coarse = with_weight_bits(network.graph, 4)
        assert float((evaluate(coarse, x).argmax(1) == y).float().mean()) > 0.9
        for name in ("in", "out"):
            weight = coarse.nodes[name].weight  # type: ignore[attr-defined]
            assert all(len(row.unique()) <= 15 for row in weight)
        found[strength] = spikes_per_neuron(coarse, x)
    assert found[20.0] < 0.7 * found[0.0]
    with pytest.raises(UnsupportedNode, match="RampFirstSpike"):
        SparseFirstSpikes(1.0)(
            Network(Graph({"x": Input((2,)), "a": Affine(torch.ones(2, 2), None)}, {"a": ("x",)})), x, y
        )


def test_rounded_weights() -> None:
    weight = torch.randn(3, 5, requires_grad=True)
    rounded = rounded_weight(weight, 4)
    scale = weight.detach().abs().amax(1, keepdim=True) / 7
    torch.testing.assert_close(rounded.detach() / scale, (rounded.detach() / scale).round())
    (gradient,) = torch.autograd.grad(rounded.sum(), weight)
    assert torch.equal(gradient, torch.ones_like(gradient))


def test_refusals() -> None:
    for wrong in (
        lambda: FirstSpikeCrossEntropy(0.0),
        lambda: FirstSpikeCrossEntropy(1.0, alpha=-1.0),
        lambda: ShiftInvariantMSE(-0.1),
        lambda: FirstSpikeTraining(ShiftInvariantMSE(), noise=-1.0),
        lambda: FirstSpikeTraining(ShiftInvariantMSE(), gradient_limit=0.0),
        lambda: WeightBumping(amount=0.0),
        lambda: WeightBumping(tolerated=(1.0, 0.1)),
        lambda: SparseFirstSpikes(-1.0),
        lambda: SparseFirstSpikes(1.0, weight_bits=1),
        lambda: first_spike_network(4, 0, 3),
        lambda: first_spike_network(4, 10, 3, delays="dendritic"),
    ):
        with pytest.raises(ParameterError):
            wrong()


def test_tasks_can_be_learnt_by_first_spikes() -> None:
    split = load("yin-yang")
    task = first_spike_task(TASKS["yin-yang"], FirstSpikeCoding(20, delays="axonal"))
    plans = [planned(task, split, seed) for seed in (3, 3, 4)]
    weights = [plan.network.get_parameter("hidden/weight") for plan in plans]
    assert weights[0].shape == (20, 5)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    cost = plans[0].loss(plans[0].network.train(), split.train_x[:50], split.train_y[:50])
    cost.backward()
    assert bool(torch.isfinite(cost.detach()))
    assert plans[0].after_step is not None
    assert float(plans[0].network.get_parameter("hidden/axonal").grad.abs().sum()) > 0
    assert "20 hidden" in str(task.plan)


def test_published_energies_say_what_is_unconfirmed() -> None:
    table = EnergyTable((Modelled("ours", "a task", 0.97, 1e-7, "arithmetic", "counts"),))
    rows = table.sheet()[2]
    assert rows[0][-1] == "modelled"
    assert rows[0][3] == "0.1"
    assert {row[-1] for row in rows[1:]} == {"quoted", "recalled, unconfirmed"}
    assert [row[3] for row in rows[1:]] == ["8.4", "27", "108", "0.268"]
    with pytest.raises(ParameterError):
        EnergyTable((Modelled("ours", "a task", 97.0, 1e-7, "arithmetic", "counts"),))
