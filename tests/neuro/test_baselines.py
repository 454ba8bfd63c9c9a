"""The rivals: their published sizes, and exact zeros."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from neuro.baselines.experts import balanced_loss, mixture_of_mlps, upcycled
from neuro.baselines.networks import lenet5_caffe, mlp, small_cnn
from neuro.baselines.routing import Switch
from neuro.baselines.sparse import apply_masks, magnitude_masks, prune, sparsity, weights_of
from neuro.errors import NeuroError, ParameterError
from neuro.simulate import simulate
from neuro.trace import trace
from neuro.training import accuracy, fit

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
def test_checks_1_2_and_5_published_sizes(
    module: nn.Module, shape: tuple[int, ...], macs: int, parameters: int
) -> None:
    for tensor in module.parameters():  # a random start may hold an exact zero, which is no MAC
        nn.init.uniform_(tensor, 0.5, 1.0)
    x = torch.rand(5, *shape)
    graph = trace(module, x)
    assert simulate(graph, x).counts.per_sample("macs") == macs
    assert graph.parameters == parameters == sum(tensor.numel() for tensor in module.parameters())


def test_the_convolutional_network_costs_what_its_docstring_says() -> None:
    x = torch.rand(2, 1, 28, 28)
    graph = trace(small_cnn(), x)
    assert simulate(graph, x).counts.per_sample("macs") == 854_016
    assert graph.parameters == 77_070
    assert small_cnn((3, 17, 20), 7, channels=(4, 6), hidden=16)(torch.rand(3, 3, 17, 20)).shape == (3, 7)


def test_strides_shrink_as_much_as_averages_and_hold_no_average() -> None:
    x = torch.rand(2, 1, 28, 28)
    average, stride = (trace(small_cnn(pooling=pooling), x) for pooling in ("average", "stride"))
    assert {node.kind for node in average.nodes.values()} - {node.kind for node in stride.nodes.values()} == {"AvgPool"}
    assert stride.parameters == average.parameters
    macs = [simulate(graph, x).counts.per_sample("macs") for graph in (average, stride)]
    assert macs[1] == 144 * 12 * 25 + 16 * 32 * 12 * 25 + 512 * 128 + 128 * 10 < macs[0] / 3


def test_untrained_experts_are_the_dense_network_times_their_gate() -> None:
    dense, x = mlp((64, 12, 4)), torch.rand(40, 64)
    fit(dense, (x, torch.arange(40) % 4), epochs=2, **SETTINGS)
    mixture = upcycled(dense, Switch(nn.Linear(64, 3, bias=False), 3)).eval()
    with torch.no_grad():
        routing = mixture.router(x)
        torch.testing.assert_close(mixture(x), routing.gates * dense(x))
    assert len(routing.chosen.unique()) > 1


def test_experts_share_nothing_with_the_dense_network() -> None:
    dense = mlp((64, 12, 4))
    before = copy.deepcopy(dense.state_dict())
    mixture = upcycled(dense, Switch(nn.Linear(64, 3, bias=False), 3))
    fit(mixture, (torch.rand(40, 64), torch.arange(40) % 4), epochs=1, loss=balanced_loss(), **SETTINGS)
    for name, tensor in dense.state_dict().items():
        assert torch.equal(before[name], tensor), name
    assert not torch.equal(mixture.experts.weights[0][0], mixture.experts.weights[0][1])


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
    ],
)
def test_refusals_are_one_line(act: object, words: str) -> None:
    with pytest.raises(ParameterError, match=words) as caught:
        act()
    assert isinstance(caught.value, NeuroError)
    assert "\n" not in str(caught.value)
