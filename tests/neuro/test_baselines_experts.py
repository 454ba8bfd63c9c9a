"""Mixtures of experts: the published losses, capacity and gates, and a module that equals its node."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from neuro.baselines.experts import (
    ExpertMLPs,
    MixtureOfExperts,
    RoutingStatistics,
    balanced_loss,
    grouped_product,
    mixture_of_mlps,
    routing_statistics,
)
from neuro.baselines.networks import mlp
from neuro.baselines.routing import (
    BiasBalanced,
    NoisyTopK,
    Router,
    Switch,
    capacity,
    chance_of_choice,
    load_balance,
    loads,
    random_routing,
    squared_variation,
    within_capacity,
)
from neuro.counts import active_parameters
from neuro.errors import ParameterError, ShapeError
from neuro.evaluate import evaluate
from neuro.files import load, save
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


def linear_graph(weight: Tensor, bias: Tensor | None = None) -> Graph:
    return Graph({"in": Input((weight.shape[1],)), "out": Affine(weight, bias)}, {"out": ("in",)})


ROUTERS = {
    "switch": lambda features, experts, k: Switch(nn.Linear(features, experts), experts, k),
    "noisy": lambda features, experts, k: NoisyTopK(features, experts, k),
    "bias": lambda features, experts, k: BiasBalanced(nn.Linear(features, experts), experts, k),
    "random": lambda features, experts, k: random_routing(nn.Linear(features, experts, bias=False), experts, k),
}


def router(kind: str, features: int, experts: int, k: int) -> Router:
    """With random numbers where training would start from zero."""
    made = ROUTERS[kind](features, experts, k)
    for tensor in (*made.parameters(), *made.buffers()):
        nn.init.normal_(tensor, std=0.5)
    return made


@given(
    kind=st.sampled_from(sorted(ROUTERS)),
    experts=st.integers(1, 6),
    data=st.data(),
    batch=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_the_module_equals_its_node(kind: str, experts: int, data: st.DataObject, batch: int, seed: int) -> None:
    k = data.draw(st.integers(1, experts))
    torch.manual_seed(seed)
    module = mixture_of_mlps((5, 3), experts, router=router(kind, 5, experts, k)).eval()
    scores = module.router.scores
    graphs = tuple(linear_graph(module.experts[e][1].weight, module.experts[e][1].bias) for e in range(experts))
    bias = module.router.selection_bias
    node = Experts(linear_graph(scores.weight, scores.bias), graphs, k, module.router.renormalise, bias)
    x = torch.randn(batch, 5)
    with torch.no_grad():
        torch.testing.assert_close(node.forward(x), module(x), rtol=1e-5, atol=1e-6)
        stacked = torch.cat([module(row[None]) for row in x])
        torch.testing.assert_close(stacked, module(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(ROUTERS))
def test_a_traced_mixture_equals_its_module_inside_a_network(kind: str, tmp_path: object) -> None:
    torch.manual_seed(1)
    mixture = mixture_of_mlps((5, 4, 3), router=router(kind, 5, 8, 2))
    module, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), mixture).eval(), torch.randn(9, 6)
    graph = trace(module, x)
    assert [node.kind for node in graph.nodes.values()] == ["Input", "Affine", "ReLU", "Experts"]
    stored = sum(tensor.numel() for tensor in module.parameters()) + (8 if kind in ("bias", "random") else 0)
    unused = 40 if kind == "noisy" else 0  # W_n makes noise in training only
    assert graph.parameters == stored - unused
    save(graph, tmp_path / "mixture.h5")
    with torch.no_grad():
        torch.testing.assert_close(evaluate(graph, x), module(x), rtol=1e-5, atol=1e-6)
        assert torch.equal(evaluate(load(tmp_path / "mixture.h5"), x), evaluate(graph, x))


def test_check_5_top_1_of_8_experts() -> None:
    module = mixture_of_mlps((784, 64, 10), 8, bias=False)
    x = torch.rand(5, 784) + 0.01
    graph = trace(module, x)
    assert simulate(graph, x).counts.per_sample("macs") == 6_272 + 50_816 == 57_088
    assert graph.parameters == 412_800
    assert active_parameters(graph) == 57_088


@pytest.mark.parametrize("k", [1, 2, 8])
def test_unrouted_experts_are_skipped_by_every_router(k: int) -> None:
    x = torch.rand(6, 784) + 0.01
    for kind in ROUTERS:
        graph = trace(mixture_of_mlps((784, 64, 10), 8, bias=False, router=router(kind, 784, 8, k)).eval(), x)
        biases = 8 if kind in ("switch", "bias") else 0
        assert simulate(graph, x).counts.per_sample("macs") == 6_272 + k * 50_816, kind
        own = 8 if kind in ("bias", "random") else 0
        assert active_parameters(graph) == 6_272 + biases + own + k * 50_816, kind


@pytest.mark.parametrize("experts", [2, 8])
def test_check_6_balance_of_uniform_and_of_collapsed_routing(experts: int) -> None:
    """Switch: N sum f P is 1 and N. Shazeer: N sum share^2 = 1 + CV^2 is 1 and N too."""
    everyone = torch.arange(experts).repeat(5)[:, None]
    uniform = torch.full((5 * experts, experts), 1 / experts)
    assert float(load_balance(uniform, everyone)) == pytest.approx(1)
    assert float(1 + squared_variation(uniform.sum(0))) == pytest.approx(1)
    certain = torch.zeros(5 * experts, experts)
    certain[:, 0] = 1
    assert float(load_balance(certain, torch.zeros_like(everyone))) == pytest.approx(experts)
    assert float(1 + squared_variation(certain.sum(0))) == pytest.approx(experts)


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


def noisy_scores(batch: int, experts: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(batch, experts, generator=generator)
    spread = torch.nn.functional.softplus(torch.randn(batch, experts, generator=generator))
    return clean, clean + spread * torch.randn(batch, experts, generator=generator), spread


def test_check_7_loads_sum_to_k_times_the_batch() -> None:
    for k in (1, 2, 4):
        expected = k * 4096
        total = float(chance_of_choice(*noisy_scores(4096, 8, seed=k), k).sum())
        assert total == pytest.approx(expected, rel=0.01)


@given(k=st.integers(1, 3), seed=st.integers(0, 1000))
def test_the_chance_of_choice_is_that_of_new_noise(k: int, seed: int) -> None:
    """Against the definition: draw the noise of one expert again, all others as they are, and look who is chosen."""
    clean, noisy, spread = noisy_scores(1, 4, seed)
    expert, draws = seed % 4, 20_000
    again = noisy.repeat(draws, 1)
    noise = torch.randn(draws, generator=torch.Generator().manual_seed(seed))
    again[:, expert] = clean[0, expert] + spread[0, expert] * noise
    chosen = (again.topk(k, 1).indices == expert).any(1).double().mean()
    assert float(chance_of_choice(clean, noisy, spread, k)[0, expert]) == pytest.approx(float(chosen), abs=0.02)


@given(k=st.integers(1, 5), seed=st.integers(0, 1000))
def test_check_7_renormalised_softmax_of_all_is_the_softmax_of_the_chosen(k: int, seed: int) -> None:
    torch.manual_seed(seed)
    made, x = router("noisy", 6, 5, k).eval(), torch.randn(7, 6)
    top = made.scores(x).topk(k, 1)
    found = made(x)
    assert torch.equal(found.chosen, top.indices)
    torch.testing.assert_close(found.gates, torch.softmax(top.values, 1))


@pytest.mark.parametrize("kind", sorted(ROUTERS))
def test_check_8_all_experts_together_are_their_softmax_weighted_sum(kind: str) -> None:
    torch.manual_seed(0)
    module, x = mixture_of_mlps((5, 6, 3), 4, router=router(kind, 5, 4, 4)).eval(), torch.randn(7, 5)
    probabilities = torch.softmax(module.router.scores(x), 1)
    weighted = sum(probabilities[:, number, None] * module.experts[number](x) for number in range(4))
    torch.testing.assert_close(module(x), weighted)


def test_check_8_capacity_drops_56_of_64() -> None:
    assert capacity(64, 8, 1.0) == 8
    everyone = torch.zeros(64, 1, dtype=torch.int64)
    assert int((~within_capacity(everyone, 8, 8)).sum()) == 56
    module = mixture_of_mlps((6, 3), 8, router=Switch(nn.Linear(6, 8), 8, capacity_factor=1.0))
    with torch.no_grad():
        module.router.scores.bias[2] = 1e3
    x = torch.randn(64, 6)
    assert int((module.train()(x) == 0).all(1).sum()) == 56
    assert int((module.eval()(x) == 0).all(1).sum()) == 0, "in inference there is room for all"


@given(
    batch=st.integers(1, 20),
    experts=st.integers(1, 5),
    data=st.data(),
    limit=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_first_choices_take_the_places(batch: int, experts: int, data: st.DataObject, limit: int, seed: int) -> None:
    k = data.draw(st.integers(1, experts))
    chosen = torch.rand(batch, experts, generator=torch.Generator().manual_seed(seed)).topk(k, 1).indices
    taken = [0] * experts
    expected = torch.zeros(batch, k, dtype=torch.bool)
    for slot, row in itertools.product(range(k), range(batch)):
        expert = int(chosen[row, slot])
        expected[row, slot] = taken[expert] < limit
        taken[expert] += 1
    assert torch.equal(within_capacity(chosen, experts, limit), expected)


@pytest.mark.parametrize("sizes", [(12, 8, 4), (5, 6, 3)])
def test_stacked_experts_are_their_networks(sizes: tuple[int, ...]) -> None:
    """Values and gradients, with an expert that nobody asks."""
    torch.manual_seed(0)
    stacked, load = ExpertMLPs(sizes, 4), torch.tensor([3, 0, 5, 2])
    x = torch.randn(10, sizes[0])
    y = stacked(x, load)
    parts = x.split(load.tolist())
    torch.testing.assert_close(y, torch.cat([stacked[e](part) for e, part in enumerate(parts)]))
    weight = torch.randn(4, sizes[1], sizes[0], requires_grad=True)
    target = torch.randn(10, sizes[1])
    loss = (grouped_product(x, weight, load) - target).square().sum()
    split = zip(parts, target.split(load.tolist()), strict=True)
    loop = sum((part @ weight[e].T - t).square().sum() for e, (part, t) in enumerate(split))
    torch.testing.assert_close(torch.autograd.grad(loss, weight)[0], torch.autograd.grad(loop, weight)[0])


def test_the_router_works_in_float32() -> None:
    module, x = Switch(nn.Linear(5, 4), 4), torch.randn(6, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(x)
    assert found.gates.dtype == torch.float32
    assert torch.equal(found.gates, module(x).gates)


def test_the_loss_is_cross_entropy_and_the_balance_of_what_was_routed() -> None:
    module = nn.Sequential(mixture_of_mlps((8, 6), 4), nn.ReLU(), mixture_of_mlps((6, 4), 3))
    x, y = blobs(20)
    first, second = module[0], module[2]
    balances = [first.router(x).balance, second.router(module[1](first(x))).balance]
    torch.testing.assert_close(balanced_loss(0.5)(module, x, y), cross_entropy(module, x, y) + 0.5 * sum(balances))
    assert not first.router._forward_hooks


@pytest.mark.parametrize("kind", ["switch", "noisy"])
def test_the_losses_spread_the_samples(kind: str) -> None:
    """From a router that sends everything to one expert, the balance brings the others back to work."""
    x, y = blobs(400)
    shares = {}
    for factor in (0.0, 1.0):
        torch.manual_seed(0)
        module = mixture_of_mlps((8, 8, 4), 4, router=ROUTERS[kind](8, 4, 1))
        with torch.no_grad():
            module.router.scores.weight[0] = 0.3
        fit(module, (x, y), epochs=6, loss=balanced_loss(factor), **SETTINGS)
        shares[factor] = float(loads(module.router(x).chosen, 4).max()) / len(x)
        assert accuracy(module, x, y) > 0.9
    assert shares[1.0] < 0.5 < shares[0.0]


def test_the_bias_balances_a_router_that_never_learns() -> None:
    x, y = blobs(400)
    torch.manual_seed(0)
    module = mixture_of_mlps((8, 8, 4), 4, router=random_routing(nn.Linear(8, 4, bias=False), 4))
    with torch.no_grad():
        module.router.scores.weight[0] = 0.3
    before = module.router.scores.weight.clone()
    start = routing_statistics(trace(module.eval(), x), x)
    fit(module, (x, y), epochs=8, **SETTINGS)
    assert torch.equal(before, module.router.scores.weight)
    (found,) = routing_statistics(trace(module, x), x).values()
    assert found.unevenness < 1.5 < next(iter(start.values())).unevenness
    bias = module.router.bias.clone()
    module(x)
    assert torch.equal(bias, module.router.bias), "nothing moves in inference"


def test_statistics_count_what_the_node_chose() -> None:
    scores = torch.eye(4, 6)
    node = Experts(linear_graph(scores), tuple(linear_graph(torch.randn(2, 6)) for _ in range(4)))
    graph = Graph({"in": Input((6,)), "experts": node}, {"experts": ("in",)})
    x = torch.eye(4, 6)[torch.tensor([0, 0, 0, 0, 0, 1, 2, 3])]
    assert routing_statistics(graph, x) == {"experts": RoutingStatistics((5, 1, 1, 1), 3 / 8)}
    assert RoutingStatistics((5, 1, 1, 1), 3 / 8).unevenness == 2.5
    assert routing_statistics(trace(mlp((6, 2)), x), x) == {}


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda: mixture_of_mlps((4, 3), 2, k=3), ParameterError, "k must lie"),
        (lambda: Switch(nn.Linear(4, 2), 2, k=0), ParameterError, "k must lie"),
        (lambda: Switch(nn.Linear(4, 2), 2, capacity_factor=0.0), ParameterError, "capacity_factor"),
        (lambda: BiasBalanced(nn.Linear(4, 2), 2, gamma=0.0), ParameterError, "gamma"),
        (
            lambda: mixture_of_mlps((4, 3), 2, router=random_routing(nn.Linear(4, 3), 3)),
            ParameterError,
            "3 experts got 2",
        ),
        (lambda: Switch(nn.Linear(4, 2), 3)(torch.zeros(1, 4)), ShapeError, "scores for 3"),
        (lambda: balanced_loss(-1.0), ParameterError, "factor"),
        (lambda: mixture_of_mlps((4, 3), 2)(torch.zeros(0, 4)), ParameterError, "empty"),
        (
            lambda: Experts(linear_graph(torch.ones(1, 4)), (linear_graph(torch.ones(2, 4)),), 1, False, torch.ones(2)),
            ParameterError,
            "selection_bias",
        ),
        (lambda: Experts(linear_graph(torch.ones(3, 4)), (linear_graph(torch.ones(2, 4)),)), ShapeError, "scores"),
    ],
)
def test_refusals_are_one_line(act: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_modules_of_any_kind_can_be_experts() -> None:
    experts = nn.ModuleList([nn.Conv2d(1, 2, 3), nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())])
    module = MixtureOfExperts(Switch(mlp((25, 2)), 2), experts).eval()
    x = torch.randn(8, 1, 5, 5)
    assert len(module.router(x).chosen.unique()) == 2
    with torch.no_grad():
        torch.testing.assert_close(evaluate(trace(module, x), x), module(x))
