"""The rivals: their published sizes, exact zeros, and routing that equals its node."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from neuro.baselines.experts import MixtureOfExperts, experts_cnn, load_balance, mixture_of_mlps, switch_loss
from neuro.baselines.networks import SmallCNN, lenet5_caffe, mlp, small_cnn
from neuro.baselines.sparse import apply_masks, magnitude_masks, prune, sparsity, weights_of
from neuro.counts import active_parameters
from neuro.errors import NeuroError, ParameterError
from neuro.evaluate import evaluate
from neuro.graph import Graph, Input
from neuro.nodes import Affine, Experts
from neuro.simulate import simulate
from neuro.trace import trace
from neuro.training import accuracy, cross_entropy, fit

SETTINGS = {"batch_size": 32, "learning_rate": 1e-2}


def blobs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Four well-separated Gaussian classes in eight dimensions."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 4
    return 4 * torch.eye(4, 8)[y] + torch.randn(count, 8, generator=generator), y


@pytest.mark.parametrize(
    ("module", "shape", "macs", "parameters"),
    [
        (mlp((784, 300, 100, 10)), (784,), 266_200, 266_610),
        (mlp((784, 300, 100, 10)), (1, 28, 28), 266_200, 266_610),
        (lenet5_caffe(), (1, 28, 28), 2_293_000, 431_080),
        (mixture_of_mlps((784, 64, 10), 8, bias=False), (784,), 57_088, 412_800),
        (mixture_of_mlps((784, 64, 10), 8), (784,), 57_088, 412_800 + 8 * (64 + 10)),
    ],
)
def test_published_sizes(module: nn.Module, shape: tuple[int, ...], macs: int, parameters: int) -> None:
    for tensor in module.parameters():  # a random start may hold an exact zero, which is no MAC
        nn.init.uniform_(tensor, 0.5, 1.0)
    x = torch.rand(5, *shape)
    graph = trace(module, x)
    assert simulate(graph, x).counts.per_sample("macs") == macs
    assert graph.parameters == parameters == sum(tensor.numel() for tensor in module.parameters())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 20)])
def test_the_networks_of_the_demo_cost_what_their_docstrings_say(shape: tuple[int, int, int]) -> None:
    dense = small_cnn(shape, 7, channels=(4, 6), hidden=16)
    for tensor in dense.parameters():  # zeros, as in the biases at the start, are no active parameters
        nn.init.uniform_(tensor, 0.5, 1.0)
    expert = experts_cnn(dense, experts=5)
    x = torch.rand(3, *shape)
    assert dense(x).shape == expert(x).shape == (3, 7)
    rows = [trace(module, x) for module in (dense, expert)]
    macs = [simulate(graph, x).counts.per_sample("macs") for graph in rows]
    width = dense.head[0].in_features
    assert macs[1] - macs[0] == 5 * width
    head = width * 16 + 16 + 16 * 7 + 7
    assert active_parameters(rows[1]) == active_parameters(trace(dense.trunk, x)) + 5 * width + head
    assert rows[1].parameters == trace(dense.trunk, x).parameters + 5 * width + 5 * head
    x = torch.rand(2, 1, 28, 28)
    full = [trace(module, x) for module in (small_cnn(), experts_cnn(small_cnn()))]
    assert [simulate(graph, x).counts.per_sample("macs") for graph in full] == [854_016, 858_112]
    assert [graph.parameters for graph in full] == [77_070, 549_716]


def test_strides_shrink_as_much_as_averages_and_hold_no_average() -> None:
    x = torch.rand(2, 1, 28, 28)
    average, stride = (trace(small_cnn(pooling=pooling), x) for pooling in ("average", "stride"))
    assert {node.kind for node in average.nodes.values()} - {node.kind for node in stride.nodes.values()} == {"AvgPool"}
    assert stride.parameters == average.parameters
    macs = [simulate(graph, x).counts.per_sample("macs") for graph in (average, stride)]
    assert macs[1] == 144 * 12 * 25 + 16 * 32 * 12 * 25 + 512 * 128 + 128 * 10 < macs[0] / 3


def test_untrained_experts_are_the_dense_network_times_their_gate() -> None:
    dense, x = small_cnn((1, 16, 16), 4, channels=(2, 3), hidden=8), torch.rand(40, 1, 16, 16)
    fit(dense, (x, torch.arange(40) % 4), epochs=2, **SETTINGS)
    expert = experts_cnn(dense, experts=3).eval()
    with torch.no_grad():
        _, gates, chosen = expert.head.route(expert.trunk(x))
        torch.testing.assert_close(expert(x), gates * dense(x))
    assert len(chosen.unique()) > 1


def test_experts_share_nothing_with_the_dense_network() -> None:
    dense = small_cnn((1, 16, 16), 4, channels=(2, 3), hidden=8).train()
    before = copy.deepcopy(dense.state_dict())
    expert = experts_cnn(dense, experts=3)
    assert dense.training
    for name, tensor in dense.trunk.state_dict().items():
        assert torch.equal(expert.trunk.state_dict()[name], tensor), name
    fit(expert, (torch.rand(40, 1, 16, 16), torch.arange(40) % 4), epochs=1, loss=switch_loss(), **SETTINGS)
    for name, tensor in dense.state_dict().items():
        assert torch.equal(before[name], tensor), name
    moved = expert.trunk.state_dict()["0.weight"]
    assert not torch.equal(moved, before["trunk.0.weight"])


@given(fraction=st.floats(0, 0.85), scope=st.sampled_from(["global", "layer"]), seed=st.integers(0, 1000))
def test_masks_drop_exactly_the_smallest(fraction: float, scope: str, seed: int) -> None:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Linear(7, 5))
    with torch.no_grad():
        module[0].weight.mul_(4).round_().div_(4)  # ties, zeros among them
    masks = magnitude_masks(module, fraction, scope=scope)
    assert set(masks) == set(weights_of(module)) == {"0.weight", "2.weight"}
    weights = {name: weight.detach().abs() for name, weight in weights_of(module).items()}
    groups = [[name] for name in masks] if scope == "layer" else [list(masks)]
    for names in groups:
        magnitudes = torch.cat([weights[name].flatten() for name in names])
        kept = torch.cat([masks[name].flatten() for name in names])
        assert int((~kept).sum()) == round(fraction * len(kept))
        if not bool(kept.all()):
            assert magnitudes[~kept].max() <= magnitudes[kept].min()
    values = {name: weight.detach().clone() for name, weight in weights_of(module).items()}
    apply_masks(module, masks)
    for name, weight in weights_of(module).items():
        assert torch.equal(weight, torch.where(masks[name], values[name], 0.0))


def test_a_pruned_network_keeps_its_zeros_and_its_accuracy() -> None:
    module, held_out = mlp((8, 64, 4)), blobs(200, seed=1)
    fit(module, blobs(400), epochs=6, **SETTINGS)
    dense, before = accuracy(module, *held_out), copy.deepcopy(module.state_dict())
    settings = {"epochs": 5, "scope": "layer", "weight_decay": 0.01, "validation": blobs(100, seed=2), **SETTINGS}
    pruned, history = prune(module, blobs(400), fraction=0.9, **settings)
    masks = magnitude_masks(module, 0.9, scope="layer")
    untuned = copy.deepcopy(module)
    apply_masks(untuned, masks)
    assert dense > 0.95
    assert accuracy(pruned, *held_out) > max(dense - 0.05, accuracy(untuned, *held_out))
    for name, weight in weights_of(pruned).items():
        assert bool((weight[~masks[name]] == 0).all())
        assert not torch.equal(weight[masks[name]], before[name][masks[name]]), "the kept weights were tuned"
    zeros = round(0.9 * 512) + round(0.9 * 256)
    assert sparsity(pruned) == zeros / 768
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    x = held_out[0]
    macs = [simulate(trace(network, x), x).counts.per_sample("macs") for network in (module, pruned)]
    assert macs == [768, 768 - zeros]
    assert history.best.validation_accuracy == accuracy(pruned, *blobs(100, seed=2))


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: magnitude_masks(mlp((4, 3)), 1.0), "fraction"),
        (lambda: magnitude_masks(mlp((4, 3)), -0.1), "fraction"),
        (lambda: magnitude_masks(mlp((4, 3)), 0.5, scope="row"), "scope"),
        (lambda: magnitude_masks(nn.BatchNorm1d(3), 0.5), "no weights"),
        (lambda: magnitude_masks(mlp((4, 3)), 0.99), "all weights"),
        (lambda: mlp((4,)), "sizes"),
        (lambda: small_cnn((1, 9, 9)), "larger image"),
        (lambda: small_cnn(pooling="max"), "pooling"),
        (lambda: mixture_of_mlps((4, 3), 2, k=3), "k must lie"),
        (lambda: switch_loss(-1.0), "alpha"),
        (lambda: experts_cnn(SmallCNN(nn.Flatten(), nn.Linear(4, 2))), "head"),
        (lambda: mixture_of_mlps((4, 3), 2)(torch.zeros(0, 4)), "empty"),
    ],
)
def test_refusals_are_one_line(act: object, words: str) -> None:
    with pytest.raises(ParameterError, match=words) as caught:
        act()
    assert isinstance(caught.value, NeuroError)
    assert "\n" not in str(caught.value)


def by_hand(module: MixtureOfExperts) -> Experts:
    def layer(linear: nn.Linear) -> Graph:
        bias = None if linear.bias is None else linear.bias.detach()
        return Graph(
            {"in": Input((linear.in_features,)), "out": Affine(linear.weight.detach(), bias)}, {"out": ("in",)}
        )

    return Experts(layer(module.router), tuple(layer(expert[1]) for expert in module.experts), module.k)


@given(experts=st.integers(1, 6), data=st.data(), batch=st.integers(1, 9), seed=st.integers(0, 1000))
def test_the_module_equals_its_node(experts: int, data: st.DataObject, batch: int, seed: int) -> None:
    k = data.draw(st.integers(1, experts))
    torch.manual_seed(seed)
    module, x = mixture_of_mlps((5, 3), experts, k), torch.randn(batch, 5)
    with torch.no_grad():
        torch.testing.assert_close(by_hand(module).forward(x), module(x), rtol=1e-6, atol=1e-6)
        stacked = torch.cat([module(row[None]) for row in x])
        torch.testing.assert_close(stacked, module(x), rtol=1e-5, atol=1e-6)


def test_all_experts_together_are_their_softmax_weighted_sum() -> None:
    module, x = mixture_of_mlps((5, 6, 3), 4, k=4), torch.randn(7, 5)
    probabilities = torch.softmax(module.router(x), 1)
    weighted = sum(probabilities[:, number, None] * expert(x) for number, expert in enumerate(module.experts))
    torch.testing.assert_close(module(x), weighted)


def test_a_traced_mixture_equals_its_module_inside_a_network() -> None:
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), mixture_of_mlps((5, 4, 3), 4)).eval()
    x = torch.randn(9, 6)
    graph = trace(module, x)
    assert [node.kind for node in graph.nodes.values()] == ["Input", "Affine", "ReLU", "Experts"]
    with torch.no_grad():
        torch.testing.assert_close(evaluate(graph, x), module(x), rtol=1e-5, atol=1e-6)


def test_the_router_works_in_float32() -> None:
    module, x = mixture_of_mlps((5, 3), 4), torch.randn(6, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        probabilities, _, _ = module.route(x)
    assert probabilities.dtype == torch.float32
    assert torch.equal(probabilities, module.route(x)[0])


@pytest.mark.parametrize("experts", [2, 8])
def test_balance_of_uniform_and_of_collapsed_routing(experts: int) -> None:
    everyone = torch.arange(experts).repeat(5)[:, None]
    uniform = torch.full((5 * experts, experts), 1 / experts)
    assert float(load_balance(uniform, everyone)) == pytest.approx(1)
    certain = torch.zeros(5 * experts, experts)
    certain[:, 0] = 1
    assert float(load_balance(certain, torch.zeros_like(everyone))) == pytest.approx(experts)


@given(batch=st.integers(1, 20), seed=st.integers(0, 1000))
def test_balance_is_the_published_sum(batch: int, seed: int) -> None:
    torch.manual_seed(seed)
    probabilities = torch.softmax(torch.randn(batch, 4), 1)
    chosen = probabilities.argmax(1)
    expected = 0.0
    for expert in range(4):
        f = sum(int(choice) == expert for choice in chosen) / batch
        expected += 4 * f * float(probabilities[:, expert].mean())
    assert float(load_balance(probabilities, chosen[:, None])) == pytest.approx(expected, rel=1e-5)


def test_the_switch_loss_is_cross_entropy_and_alpha_times_balance() -> None:
    module = nn.Sequential(mixture_of_mlps((8, 6), 4), nn.ReLU(), mixture_of_mlps((6, 4), 3))
    x, y = blobs(20)
    first, second = module[0], module[2]
    inner = module[1](first(x))
    balances = [
        load_balance(*(part.route(given)[index] for index in (0, 2))) for part, given in ((first, x), (second, inner))
    ]
    expected = cross_entropy(module, x, y) + 0.5 * sum(balances)
    torch.testing.assert_close(switch_loss(0.5)(module, x, y), expected)
    assert not first._forward_hooks


def test_the_switch_loss_spreads_the_samples() -> None:
    """From a router that sends everything to one expert, the auxiliary loss brings the others back to work."""
    x, y = blobs(400)
    shares = {}
    for alpha in (0.0, 1.0):
        torch.manual_seed(0)
        module = mixture_of_mlps((8, 8, 4), 4)
        with torch.no_grad():
            module.router.weight[0] = 0.3
        fit(module, (x, y), epochs=6, loss=switch_loss(alpha), **SETTINGS)
        shares[alpha] = float(module.route(x)[2].flatten().bincount(minlength=4).max()) / len(x)
        assert accuracy(module, x, y) > 0.9
    assert shares[1.0] < 0.5 < shares[0.0]
