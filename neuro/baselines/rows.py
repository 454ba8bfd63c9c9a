"""The rivals by name: each is built and trained on one split with one seed and one budget, and ends as a Graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from neuro.baselines.compressed import mlp_words
from neuro.baselines.experts import balanced_loss, routing_statistics, upcycled
from neuro.baselines.networks import mlp
from neuro.baselines.quantised import QuantisedMLP, bits_for, integers_of
from neuro.baselines.rewiring import Rule, evolutionary, fit_sparse, rigl, sparse_momentum, static
from neuro.baselines.rival import Build, Plan, Rival, Trained, along, itself, no_size, single
from neuro.baselines.routing import BiasBalanced, NoisyTopK, Router, Switch, random_routing
from neuro.baselines.sparse import nm_masks, prune, tuned
from neuro.baselines.standardise import Standardise
from neuro.datasets import Split
from neuro.errors import ParameterError
from neuro.trace import trace
from neuro.training import accuracy, fit

Made = TypeVar("Made", bound=nn.Module)

DENSITIES = (0.02, 0.05, 0.1, 0.25)


def macs_of(sizes: Sequence[int]) -> int:
    """Multiply-accumulates, and weights, of `mlp(sizes)`."""
    return sum(width * following for width, following in pairwise(sizes))


def widest(
    sizes: Sequence[int], fits: Callable[[tuple[int, ...]], bool], multiple: int = 1, most: float = 1.0
) -> tuple[int, ...]:
    """`sizes` whose hidden widths are scaled by one factor <= `most`, the largest at which `fits(sizes)`.

    Widths are rounded down to a multiple, and are at least that. Raises ParameterError where not even these fit.
    """

    def scaled(factor: float) -> tuple[int, ...]:
        hidden = (max(multiple, int(width * factor) // multiple * multiple) for width in sizes[1:-1])
        return (sizes[0], *hidden, sizes[-1])

    low, high = 0.0, most
    if fits(scaled(most)):
        return scaled(most)
    if not fits(scaled(low)):
        raise ParameterError(f"widest: not even {scaled(low)} fits")
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(scaled(middle)) else (low, middle)
    return scaled(low)


def _seeded(seed: int, make: Callable[[], Made]) -> Made:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _trained(name: str, module: nn.Sequential, data: Split, *notes: str, **facts: float) -> Trained:
    """The network behind the `Standardise` that it learnt with."""
    entry, network = module
    assert isinstance(entry, Standardise)
    graph = entry.into(trace(network.eval(), data.train_x[:2], name=name))
    return Trained(graph, accuracy(graph, data.validation_x, data.validation_y), notes, facts)


def _mlp(data: Split, sizes: Sequence[int], seed: int) -> nn.Sequential:
    return nn.Sequential(Standardise.of(data.train_x), _seeded(seed, lambda: mlp(sizes)))


def _dense(name: str, sizes: Callable[[Split, Plan], Sequence[int]], note: str = "") -> Build:
    def build(data: Split, seed: int, plan: Plan) -> Trained:
        widths = sizes(data, plan)
        module = _mlp(data, widths, seed)
        fit(module, data, **plan.training(seed))
        return _trained(name, module, data, " ".join(filter(None, ("-".join(map(str, widths)) + ".", note))))

    return build


def _small(data: Split, plan: Plan) -> tuple[int, ...]:
    sizes = plan.sizes(data)
    return widest(sizes, lambda wanted: macs_of(wanted) <= plan.density * macs_of(sizes))


def _without_hidden(data: Split, plan: Plan) -> tuple[int, ...]:
    return plan.sizes(data)[:: len(plan.hidden) + 1]


def _quantised(name: str, bits: Callable[[Plan], int]) -> Build:
    def build(data: Split, seed: int, plan: Plan) -> Trained:
        module = _seeded(seed, lambda: QuantisedMLP(plan.sizes(data), bits(plan), entry=Standardise.of(data.train_x)))
        fit(module, data, **plan.training(seed))
        graph = integers_of(module, data.features).edit(name=name)
        note = f"Weights and pixels of 8 bits, hidden activations of {bits(plan)}, trained as they run."
        right = accuracy(graph, data.validation_x, data.validation_y)
        return Trained(graph, right, (note,), {"activation_bits": bits(plan)})

    return build


RIGL: Mapping[str, Any] = {"alpha": 0.5, "every": None, "until": 0.9}
"""Once an epoch, in any length of training; chosen on validation samples of MNIST (98.38 % over two seeds with 5 % of
LeNet-300-100, against 98.33 with the 0.3, 100 updates and 3/4 of the paper)."""

_ZEROS = "Zero weights cost no operation here; dense hardware gains nothing from them."


def _sparse(name: str, rule: Rule | Literal["gradual"]) -> Build:
    def build(data: Split, seed: int, plan: Plan) -> Trained:
        module = _mlp(data, plan.sizes(data), seed)
        sparse, _ = fit_sparse(module, data, rule, density=plan.density, **plan.training(seed))
        return _trained(name, sparse, data, _ZEROS, density=plan.density)

    return build


def _pruned(name: str, structured: bool) -> Build:
    """Half the budget for the dense network, half for what is left of it."""

    def build(data: Split, seed: int, plan: Plan) -> Trained:
        module = _mlp(data, plan.sizes(data), seed)
        fit(module, data, **plan.training(seed, (plan.epochs + 1) // 2))
        rest = plan.training(seed, plan.epochs // 2)
        if structured:
            sparse, _ = tuned(module, data, nm_masks(module), **rest)
            note = "Two of every four weights are zero. Hardware for it stores 2 bits with each weight; here, a column."
            return _trained(name, sparse, data, note, density=0.5)
        sparse, _ = prune(module, data, fraction=1 - plan.density, **rest)
        return _trained(name, sparse, data, _ZEROS, density=plan.density)

    return build


MakeRouter = Callable[[Split, int], Router]
"""A router for samples of the split, of so many experts."""


def _experts(name: str, router: MakeRouter, balance: float) -> Build:
    """A mixture of whole networks of the hidden widths of the plan.

    Half the budget trains one expert on everything, half the mixture of its copies (`upcycled`).
    """

    def build(data: Split, seed: int, plan: Plan) -> Trained:
        sizes, count = plan.sizes(data), plan.experts
        routed = _seeded(seed, lambda: router(data, count))
        entry, expert = _mlp(data, sizes, seed)
        whole = nn.Sequential(entry, expert)
        fit(whole, data, **plan.training(seed, plan.epochs // 2))
        assert isinstance(expert, nn.Sequential)
        module = nn.Sequential(entry, nn.Sequential(nn.Flatten(), upcycled(expert, routed)))
        settings = {**plan.training(seed, (plan.epochs + 1) // 2), **MIXED}
        fit(module, data, loss=balanced_loss(balance), **settings)
        found = _trained(name, module, data)
        (seen,) = routing_statistics(found.graph, data.validation_x).values()
        shared = f"Top-{routed.k} of {count} experts {'-'.join(map(str, sizes))}, all stored; on validation: {seen}."
        facts = {"unevenness": seen.unevenness, "overflow": seen.overflow}
        return Trained(found.graph, found.validation_accuracy, (shared,), facts)

    return build


def _experts_within(router: MakeRouter, share: float = 1.0, stored: bool = False) -> Callable[[Split, Plan], Plan]:
    """The plan of the widest experts that have a share of the dense network's weights: those that work on one sample
    (MACs), or all (`stored`); router included."""

    def narrowed(data: Split, plan: Plan) -> Plan:
        routed = _seeded(0, lambda: router(data, plan.experts))
        routing = sum(part.weight.numel() for part in routed.scores.modules() if isinstance(part, nn.Linear))
        sizes, count = plan.sizes(data), plan.experts if stored else routed.k
        wide = widest(sizes, lambda wanted: count * macs_of(wanted) + routing <= share * macs_of(sizes))
        return replace(plan, hidden=wide[1:-1])

    return narrowed


def _of_macs(router: MakeRouter) -> Callable[[Split, Plan], tuple[Plan, ...]]:
    """A quarter, a half and all of the dense network's MACs."""
    return lambda data, plan: tuple(_experts_within(router, share)(data, plan) for share in (0.25, 0.5, 1.0))


MIXED: Mapping[str, Any] = {"optimizer": "adamw", "learning_rate": 3e-3, "weight_decay": 0.1}
"""How a mixture learns on from its copies; chosen on validation samples of Fashion-MNIST. Experts that see an eighth of
the samples learn them by heart where less weight decays."""

COARSE = 4
"""Pixels to a side that a router of images sees as one: one that sees every pixel costs as much as a small expert."""


def _linear(data: Split, experts: int) -> nn.Module:
    """Scores linear in the input (batch, inputs), of images in their averages over squares of `COARSE` pixels."""
    if len(data.features) != 3 or min(data.features[1:]) < 2 * COARSE:
        return nn.Linear(prod(data.features), experts, bias=False)
    channels, height, width = data.features
    averages = channels * (height // COARSE) * (width // COARSE)
    return nn.Sequential(
        nn.Unflatten(1, data.features), nn.AvgPool2d(COARSE), nn.Flatten(), nn.Linear(averages, experts, bias=False)
    )


def _switch(data: Split, experts: int) -> Router:
    return Switch(_linear(data, experts), experts)


def _noisy(data: Split, experts: int) -> Router:
    return NoisyTopK(prod(data.features), experts, 2)


def _bias(data: Split, experts: int) -> Router:
    return BiasBalanced(_linear(data, experts), experts, gamma=1e-2)


def _random(data: Split, experts: int) -> Router:
    return random_routing(_linear(data, experts), experts)


def _as_many_words(share: float, multiple: int = 1) -> Callable[[Split, Plan], Plan]:
    """The widest network of which a share of the weights, with their places, takes no more words than the dense one.

    multiple: of the hidden widths.
    """

    def equal(data: Split, plan: Plan) -> Plan:
        sizes = plan.sizes(data)
        wide = widest(sizes, lambda wanted: mlp_words(wanted, share) <= mlp_words(sizes), multiple, most=1 / share)
        return replace(plan, hidden=wide[1:-1], density=share)

    return equal


_LADDERS: dict[str, dict[str, Any]] = {
    "dense": {"equal": itself},
    "sparse": {"ladder": along("density", *DENSITIES), "equal": _as_many_words(DENSITIES[-1])},
    "experts": {},
}

ROWS: Mapping[str, Rival] = {
    name: Rival(title, make(title), family=family, **(_LADDERS[family] | other))
    for name, family, title, make, other in (
        ("dense", "dense", "dense fp32", lambda t: _dense(t, lambda data, plan: plan.sizes(data)), {}),
        ("int8", "dense", "dense int8", lambda t: _quantised(t, lambda plan: 8), {}),
        ("quantised", "dense", "quantised, bits of T steps", lambda t: _quantised(t, lambda plan: bits_for(plan.steps)),
         {"ladder": along("steps", 3, 7, 15)}),
        ("small", "dense", "small dense", lambda t: _dense(t, _small, "As many MACs as the sparse network."),
         {"ladder": along("density", *DENSITIES), "equal": no_size}),
        ("logistic", "dense", "logistic regression", lambda t: _dense(t, _without_hidden), {"equal": no_size}),
        ("pruned", "sparse", "pruned once", lambda t: _pruned(t, structured=False), {}),
        ("gradual", "sparse", "pruned gradually", lambda t: _sparse(t, "gradual"), {}),
        ("2:4", "sparse", "pruned 2:4", lambda t: _pruned(t, structured=True),
         {"ladder": single, "equal": _as_many_words(0.5, multiple=4)}),
        ("sparse-momentum", "sparse", "sparse momentum", lambda t: _sparse(t, sparse_momentum()), {}),
        ("rigl", "sparse", "RigL ERK", lambda t: _sparse(t, rigl(**RIGL)), {}),
        ("rigl-uniform", "sparse", "RigL uniform", lambda t: _sparse(t, rigl("uniform", **RIGL)), {}),
        ("set", "sparse", "SET", lambda t: _sparse(t, evolutionary()), {}),
        ("static", "sparse", "static random mask ERK", lambda t: _sparse(t, static("erdos-renyi")), {}),
        ("static-uniform", "sparse", "static random mask uniform", lambda t: _sparse(t, static("uniform")), {}),
        ("switch", "experts", "experts, Switch", lambda t: _experts(t, _switch, 0.3), {"ladder": _of_macs(_switch)}),
        ("noisy", "experts", "experts, noisy top-2", lambda t: _experts(t, _noisy, 0.1), {"ladder": _of_macs(_noisy)}),
        ("bias", "experts", "experts, balanced by bias", lambda t: _experts(t, _bias, 0.0),
         {"ladder": _of_macs(_bias)}),
        ("switch-parameters", "experts", "experts, Switch, equal storage", lambda t: _experts(t, _switch, 0.3),
         {"ladder": lambda *given: (_experts_within(_switch, stored=True)(*given),),
          "equal": _experts_within(_switch, stored=True)}),
        ("random-routing", "experts", "experts, random routing", lambda t: _experts(t, _random, 0.0),
         {"ladder": _of_macs(_random)}),
    )
}  # fmt: skip
