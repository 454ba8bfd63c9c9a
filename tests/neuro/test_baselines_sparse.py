"""Sparse training: exact numbers of connections, the published rules against slow readings of them, and real speed-ups
that equal the dense product."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hardware_targets import price
from neuro.baselines.compressed import compressed, measured_speed, stored_words
from neuro.baselines.networks import lenet5_caffe, mlp
from neuro.baselines.quantised import QuantisedMLP, integers_of
from neuro.baselines.rewiring import (
    Gradual,
    Rewiring,
    Rule,
    densities,
    evolutionary,
    fit_sparse,
    random_masks,
    rigl,
    shared_out,
    sparse_momentum,
    static,
)
from neuro.baselines.sparse import apply_masks, nm_masks, sparsity, tuned, weights_of
from neuro.counts import Tally, active_parameters
from neuro.datasets import Split
from neuro.errors import ParameterError
from neuro.evaluate import evaluate
from neuro.nodes import Affine
from neuro.simulate import simulate
from neuro.trace import trace
from neuro.training import accuracy, fit

SETTINGS = {"batch_size": 20, "learning_rate": 0.05, "optimizer": "sgd"}


def blobs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Four well-separated Gaussian classes in eight dimensions."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 4
    return 4 * torch.eye(4, 8)[y] + torch.randn(count, 8, generator=generator), y


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return mlp((8, 30, 4))


def test_check_3_uniform_5_percent_of_lenet_300_100() -> None:
    module = mlp((784, 300, 100, 10))
    masks = random_masks(module, densities(module, 0.05))
    assert [int(mask.sum()) for mask in masks.values()] == [11_760, 1_500, 50]
    for tensor in module.parameters():
        nn.init.uniform_(tensor, 0.5, 1.0)
    apply_masks(module, masks)
    x = torch.rand(3, 784)
    graph = trace(module, x)
    assert simulate(graph, x).counts.per_sample("macs") == 13_310
    assert active_parameters(graph) == 13_310 + 410


def test_check_4_dense_int8_costs_what_5_percent_of_fp32_cost() -> None:
    """Energy of the multiply-accumulates at 45 nm: 1.2245 uJ in fp32, 61.2 nJ in int8 as in 5 % of the fp32."""
    sizes, x = (784, 300, 100, 10), torch.rand(2, 784) + 0.01
    dense, sparse, integer = mlp(sizes), mlp(sizes), QuantisedMLP(sizes, 8)
    for module in (dense, sparse, integer):
        for tensor in weights_of(module).values():
            nn.init.uniform_(tensor, 0.5, 1.0)
    apply_masks(sparse, random_masks(sparse, densities(sparse, 0.05)))
    joules = []
    for graph in (trace(dense, x), trace(sparse, x), integers_of(integer, (784,))):
        counts = simulate(graph, x).counts
        macs = Tally(macs=counts.total.macs)
        joules.append(price(replace(counts, nodes={"macs": macs}), "45nm").per_sample)
    assert joules == pytest.approx([1.2245e-6, 61.2e-9, 61.2e-9], rel=1e-3)


@pytest.mark.parametrize("module", [mlp((784, 300, 100, 10)), lenet5_caffe()])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.5])
def test_erdos_renyi_spends_the_same_number_of_weights(module: nn.Module, density: float) -> None:
    shares = densities(module, density, "erdos-renyi")
    sizes = {name: weight.numel() for name, weight in weights_of(module).items()}
    assert sum(shares[name] * size for name, size in sizes.items()) == pytest.approx(density * sum(sizes.values()))
    raw = {name: sum(weight.shape) / weight.numel() for name, weight in weights_of(module).items()}
    scales = [shares[name] / raw[name] for name in shares if shares[name] < 1]
    assert max(shares.values()) <= 1
    assert scales == pytest.approx([scales[0]] * len(scales))
    assert all(scales[0] * raw[name] >= 1 - 1e-9 for name in shares if shares[name] == 1)


def test_uniform_density_is_no_uniform_saving() -> None:
    """Of equal weights, ERK keeps more of a convolution, which works at many places: density is no MAC count."""
    x = torch.rand(2, 1, 28, 28)
    macs = {}
    for distribution in ("uniform", "erdos-renyi"):
        torch.manual_seed(0)
        module = lenet5_caffe()
        apply_masks(module, random_masks(module, densities(module, 0.1, distribution)))
        macs[distribution] = simulate(trace(module, x), x).counts.per_sample("macs") / 2_293_000
    assert macs["uniform"] == pytest.approx(0.1, abs=0.002)
    assert macs["erdos-renyi"] > 0.2


@given(
    total=st.integers(0, 60),
    parts=st.lists(st.tuples(st.floats(0, 1e3), st.integers(0, 20)), min_size=1, max_size=6),
)
def test_what_is_shared_out_fits_and_is_all_given(total: int, parts: list[tuple[float, int]]) -> None:
    values = {str(number): value for number, (value, _) in enumerate(parts)}
    room = {str(number): space for number, (_, space) in enumerate(parts)}
    given_out = shared_out(total, values, room)
    assert sum(given_out.values()) == min(total, sum(room.values()))
    assert all(0 <= given_out[name] <= room[name] for name in room)


def test_it_is_shared_out_in_proportion() -> None:
    assert shared_out(10, {"a": 3.0, "b": 2.0}, {"a": 99, "b": 99}) == {"a": 6, "b": 4}
    assert shared_out(10, {"a": 3.0, "b": 2.0, "c": 0.0}, {"a": 2, "b": 5, "c": 9}) == {"a": 2, "b": 5, "c": 3}


def step_by_hand(
    rule: Rule, weights: dict[str, Tensor], masks: dict[str, Tensor], scores: dict[str, Tensor], share: float
) -> dict[str, set[int]]:
    """Which connections exist afterwards, weight by weight in plain lists."""
    kept, dropped = {}, {}
    for name, weight in weights.items():
        alive = [place for place in range(weight.numel()) if masks[name].flatten()[place]]
        alive.sort(key=lambda place: abs(float(weight.flatten()[place])))
        dropped[name] = min(math.ceil(share * len(alive)), len(alive) - 1)
        kept[name] = set(alive[dropped[name] :])
    grown = dropped
    if rule.redistribute:
        means = {name: float(scores[name][masks[name]].abs().mean()) for name in weights}
        whole = sum(means.values())
        total = sum(dropped.values())
        grown = {name: total * mean / whole for name, mean in means.items()}  # to within one by rounding
    found = {}
    for name, weight in weights.items():
        free = [place for place in range(weight.numel()) if place not in kept[name]]
        free.sort(key=lambda place: -abs(float(scores[name].flatten()[place])))
        found[name] = kept[name] | set(free[: round(grown[name])])
    return found


@pytest.mark.parametrize("rule", [sparse_momentum(rate=0.4), rigl(every=1, alpha=0.4), rigl("uniform", every=1)])
def test_one_step_is_the_published_one(rule: Rule) -> None:
    """Drop the smallest, grow the missing of largest gradient or momentum; redistribute by mean momentum."""
    module = network()
    keep = Rewiring(module, replace(rule, every=3), 0.4, updates=10, epoch=5)
    x, y = blobs(80)
    momentum = {name: torch.zeros_like(weight) for name, weight in weights_of(module).items()}
    updates = torch.optim.SGD(module.parameters(), 0.1)
    for step, rows in enumerate(torch.arange(80).split(20), start=1):
        updates.zero_grad()
        nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
        updates.step()
        before = {name: mask.clone() for name, mask in keep.masks.items()}
        weights = {name: weight.detach().clone() for name, weight in weights_of(module).items()}
        for name, weight in weights_of(module).items():
            momentum[name] = rule.momentum * momentum[name] + (1 - rule.momentum) * weight.grad
        keep(module)
        if step < 4:
            assert all(torch.equal(before[name], keep.masks[name]) for name in before)
    share = rule.share(4 / 10)
    expected = step_by_hand(rule, weights, before, momentum, share)
    for name, mask in keep.masks.items():
        found = set(mask.flatten().nonzero()[:, 0].tolist())
        assert len(found ^ expected[name]) <= (1 if rule.redistribute else 0)
        weight = weights_of(module)[name]
        assert bool((weight[~mask] == 0).all())
        assert bool((weight[mask & ~before[name]] == 0).all()), "what grows starts from zero"
    assert sum(int(mask.sum()) for mask in keep.masks.values()) == sum(int(mask.sum()) for mask in before.values())


def test_shares_fall_along_their_cosines() -> None:
    assert sparse_momentum().share(0.0) == 0.5
    assert sparse_momentum().share(0.5) == pytest.approx((0.5 + 0.005) / 2)
    assert rigl().share(0.0) == 0.3
    assert rigl().share(0.375) == pytest.approx(0.15)
    assert rigl().share(0.75) == rigl().share(1.0) == 0
    assert evolutionary().share(0.2) == evolutionary().share(0.9) == 0.3
    assert static().share(0.0) == 0


@pytest.mark.parametrize("rule", [sparse_momentum(), rigl(every=5), evolutionary(), static()])
def test_density_is_kept_through_the_whole_training(rule: Rule) -> None:
    module = network()
    keep = Rewiring(module, rule, 0.3, updates=60, epoch=10, seed=1)
    wanted = sum(int(mask.sum()) for mask in keep.masks.values())
    start = {name: mask.clone() for name, mask in keep.masks.items()}
    seen = []

    def watched(module: nn.Module) -> None:
        keep(module)
        seen.append(sum(int(mask.sum()) for mask in keep.masks.values()))
        assert all(bool((weight[~keep.masks[name]] == 0).all()) for name, weight in weights_of(module).items())

    fit(module, blobs(200), epochs=6, after_step=watched, **SETTINGS)
    assert seen == [wanted] * 60
    moved = any(not torch.equal(start[name], mask) for name, mask in keep.masks.items())
    assert moved == (rule != static())


@given(
    sizes=st.lists(st.integers(2, 30), min_size=2, max_size=4),
    density=st.floats(0.02, 0.9),
    rule=st.sampled_from([evolutionary(), rigl(every=2), rigl("uniform", every=1), sparse_momentum()]),
    seed=st.integers(0, 100),
)
def test_after_every_rewiring_as_many_connections_exist(
    sizes: list[int], density: float, rule: Rule, seed: int
) -> None:
    """In every layer what its share says; with sparse momentum, which deals them out anew, in all layers together."""
    torch.manual_seed(seed)
    module = mlp(sizes)
    keep = Rewiring(module, rule, density, updates=9, epoch=3, seed=seed)
    shares = densities(module, density, rule.distribution)
    target = {name: max(1, round(shares[name] * weight.numel())) for name, weight in weights_of(module).items()}
    x, updates = torch.randn(10, sizes[0]), torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(9):
        updates.zero_grad()
        module(x).square().sum().backward()
        updates.step()
        keep(module)
        found = {name: int(mask.sum()) for name, mask in keep.masks.items()}
        if rule.redistribute:
            assert sum(found.values()) == sum(target.values())
        else:
            assert found == target


@pytest.mark.parametrize("rule", [sparse_momentum(), rigl(every=None, until=1.0), evolutionary()])
def test_the_state_that_is_kept_has_learnt_what_has_grown(rule: Rule) -> None:
    """Whichever epoch does best on validation, its new connections are no zeros."""
    parts = [part for seed, count in enumerate((200, 60, 20)) for part in blobs(count, seed)]
    parts[::2] = [(x / 4).sigmoid() for x in parts[::2]]
    data = Split("blobs", *parts, ("0", "1", "2", "3"), "made for this test")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 30), nn.Tanh(), nn.Linear(30, 4))  # no unit is off, so every weight learns
    places = sum(weight.numel() for weight in weights_of(module).values())
    sparse, history = fit_sparse(module, data, rule, density=0.6, epochs=5, seed=3, **SETTINGS)
    assert 1 <= history.kept <= 5
    nonzero = sum(int((weight != 0).sum()) for weight in weights_of(sparse).values())
    assert 0.97 * 0.6 * places < nonzero <= 0.6 * places + 1, "SET may grow some to a unit without a way out"


@pytest.mark.parametrize("rule", [sparse_momentum(), rigl(every=5), evolutionary(), "gradual"])
def test_sparse_training_learns_and_leaves_the_module_alone(rule: Rule) -> None:
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    data = blobs(400)
    sparse, history = fit_sparse(module, data, rule, density=0.25, epochs=12, **SETTINGS)
    assert len(history.epochs) == 12
    assert 0.745 <= sparsity(sparse) < 0.78, (
        "all that exists has learnt, but for what leads to a unit without a way out"
    )
    assert accuracy(sparse, *blobs(200, seed=1)) > 0.95
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    again, _ = fit_sparse(module, data, rule, density=0.25, epochs=12, **SETTINGS)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in sparse.state_dict().items())


@pytest.mark.parametrize("make", [lambda module: Rewiring(module, sparse_momentum(), 0.3, updates=40, epoch=4),
                                  lambda module: Rewiring(module, evolutionary(), 0.3, updates=40, epoch=4),
                                  lambda module: Gradual(0.3, updates=40, every=4)])  # fmt: skip
def test_a_training_that_stopped_goes_on_to_the_same_masks(make: object) -> None:
    """state_dict holds all there is: a fresh object that loads it does what the first one would have done."""
    x, y = blobs(20)
    results = []
    for cut in (None, 17):
        module = network()
        keep = make(module)
        updates = torch.optim.SGD(module.parameters(), 0.1)
        for step in range(40):
            if step == cut:
                state = {name: tensor.clone() for name, tensor in keep.state_dict().items()}
                weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
                keep = make(module)
                module.load_state_dict(weights)
                keep.load_state_dict(state)
            updates.zero_grad()
            nn.functional.cross_entropy(module(x), y).backward()
            updates.step()
            keep(module)
        results.append(module.state_dict())
    assert all(torch.equal(results[0][name], tensor) for name, tensor in results[1].items())


def test_gradual_pruning_follows_its_cubic() -> None:
    """Zhu and Gupta 2017, eq. 1, with s_i = 0."""
    keep = Gradual(0.1, updates=100, begin=0.2, finish=0.7, every=10)
    assert keep.sparsity(0.0) == keep.sparsity(0.2) == 0
    assert keep.sparsity(0.45) == pytest.approx(0.9 + (0 - 0.9) * (1 - 0.5) ** 3)
    assert keep.sparsity(0.7) == keep.sparsity(1.0) == pytest.approx(0.9)
    module, seen = network(), []
    for _ in range(100):
        keep(module)
        seen.append(sparsity(module))
    assert seen == sorted(seen)
    assert seen[8] == 0
    assert seen[69] == seen[-1] == pytest.approx(0.9, abs=0.005)


@given(seed=st.integers(0, 100), m=st.sampled_from([2, 4]), data=st.data())
def test_n_of_m_keeps_the_largest_of_every_group(seed: int, m: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, m - 1))
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 5))
    masks = nm_masks(module, n, m)
    assert set(masks) == {"2.weight"}, "a convolution of three channels has no groups"
    weight, mask = module[2].weight.detach().abs(), masks["2.weight"]
    for row in range(5):
        for first in range(0, 8, m):
            group, kept = weight[row, first : first + m], mask[row, first : first + m]
            assert int(kept.sum()) == n
            assert group[kept].min() >= group[~kept].max()


def test_two_of_four_are_half_the_macs() -> None:
    torch.manual_seed(0)
    module = mlp((8, 32, 4))
    fit(module, blobs(200), epochs=4, **SETTINGS)
    sparse, _ = tuned(module, blobs(200), nm_masks(module), epochs=3, **SETTINGS)
    x, y = blobs(100, seed=1)
    assert simulate(trace(sparse, x), x).counts.per_sample("macs") == (8 * 32 + 32 * 4) / 2
    assert accuracy(sparse, x, y) > 0.95


@given(density=st.floats(0.01, 1), batch=st.integers(1, 6), bias=st.booleans(), seed=st.integers(0, 100))
def test_compressed_networks_equal_the_dense_product(density: float, batch: int, bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    module = mlp((13, 9, 4), bias=bias)
    apply_masks(module, random_masks(module, densities(module, density), seed))
    x = torch.randn(batch, 13)
    graph = trace(module.eval(), x)
    small = compressed(graph, below=1.0, smallest=1)
    left = [name for name, node in small.nodes.items() if isinstance(node, Affine)]
    assert all(bool((graph.nodes[name].weight != 0).all()) for name in left)
    torch.testing.assert_close(evaluate(small, x), evaluate(graph, x), rtol=1e-5, atol=1e-6)


def test_zeros_are_stored_only_where_they_are_cheaper() -> None:
    module = mlp((784, 300, 100, 10))
    x = torch.rand(2, 784)
    assert stored_words(trace(module, x)) == 266_610
    for tensor in module.parameters():
        nn.init.uniform_(tensor, 0.5, 1.0)
    apply_masks(module, random_masks(module, densities(module, 0.05)))
    first = 11_760 + 11_760 * 10 // 32 + 301  # 784 columns take 10 bits
    second = 1_500 + math.ceil(1_500 * 9 / 32) + 101
    third = 50 + math.ceil(50 * 7 / 32) + 11
    assert stored_words(trace(module, x)) == first + second + third + 410


def test_only_large_sparse_matrices_are_compressed() -> None:
    module = mlp((784, 300, 100, 10))
    graph = trace(module, torch.rand(2, 784))
    kinds = lambda graph: [node.kind for node in graph.nodes.values() if "Affine" in node.kind]
    assert kinds(compressed(graph)) == ["Affine"] * 3
    apply_masks(module, random_masks(module, densities(module, 0.05)))
    sparse = trace(module, torch.rand(2, 784))
    assert kinds(compressed(sparse)) == ["CompressedAffine", "CompressedAffine", "Affine"]
    assert measured_speed(sparse, torch.rand(16, 784), 16, seconds=0.01) > 0


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: Rule(0.1, 0.5), "end <= start"),
        (lambda: Rule(0.5, 0.1, every=0), "every"),
        (lambda: Rule(0.5, 0.1, score="luck"), "score"),
        (lambda: Rule(0.5, 0.1, score="random", redistribute=True), "redistribute"),
        (lambda: densities(network(), 0.0), "density"),
        (lambda: densities(nn.ReLU(), 0.5), "no weights"),
        (lambda: densities(network(), 0.5, "wide"), "distribution"),
        (lambda: Gradual(0.0, updates=5), "density"),
        (lambda: Gradual(0.1, updates=5, begin=0.8), "begin"),
        (lambda: nm_masks(network(), 4, 4), "1 <= n < m"),
        (lambda: nm_masks(nn.Linear(3, 2)), "multiple of 4"),
        (lambda: compressed(trace(network(), torch.rand(2, 8)), below=2.0), "below"),
    ],
)
def test_refusals_are_one_line(act: object, words: str) -> None:
    with pytest.raises(ParameterError, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)
