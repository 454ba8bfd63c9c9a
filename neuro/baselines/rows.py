"""The rivals by name: each is built and trained on one split with one seed and one budget, and ends as a Graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from neuro.baselines.experts import balanced_loss, mixture_of_mlps, routing_statistics
from neuro.baselines.networks import mlp
from neuro.baselines.quantised import QuantisedMLP, bits_for, integers_of
from neuro.baselines.rewiring import Rule, evolutionary, fit_sparse, rigl, sparse_momentum, static
from neuro.baselines.routing import BiasBalanced, NoisyTopK, Router, Switch, random_routing
from neuro.baselines.sparse import nm_masks, prune, tuned
from neuro.baselines.standardise import Standardise
from neuro.datasets import Split
from neuro.errors import ParameterError
from neuro.graph import Graph
from neuro.trace import trace
from neuro.training import Cosine, accuracy, fit


@dataclass(frozen=True)
class Plan:
    """What all rivals share: the dense network that they are measured against, and the budget of training.

    `hidden` widths of the dense multilayer perceptron; `density` of sparse networks; `experts` of a mixture; `steps`:
    T of the spiking network whose rate code the quantised one matches in bits.
    """

    hidden: tuple[int, ...] = (300, 100)
    density: float = 0.05
    experts: int = 8
    steps: int = 15
    epochs: int = 40
    batch_size: int = 100
    optimizer: Literal["sgd", "adamw"] = "sgd"
    threads: int | None = 1
    progress: bool = False

    def __post_init__(self) -> None:
        if not self.hidden or self.epochs < 2:
            raise ParameterError(f"Plan: needs a hidden layer and 2 epochs or more, got {self.hidden}, {self.epochs}")
        if not 0 < self.density < 1 or self.experts < 2:
            raise ParameterError(f"Plan: density in (0, 1) and experts >= 2, got {self.density}, {self.experts}")
        if self.optimizer not in ("sgd", "adamw"):
            raise ParameterError(f"Plan: optimizer must be 'sgd' or 'adamw', got {self.optimizer!r}")

    def sizes(self, data: Split) -> tuple[int, ...]:
        """Widths from the input to the classes."""
        return (prod(data.features), *self.hidden, len(data.classes))

    def training(self, seed: int, epochs: int | None = None) -> dict[str, Any]:
        """Settings of `neuro.training.fit`, the same for every rival.

        SGD as Dettmers and Zettlemoyer 2019 train LeNet-300-100 (0.1, Nesterov, decay 5e-4, standardised input), but
        along a cosine.
        """
        rates = {"sgd": (0.1, 5e-4), "adamw": (3e-3, 1e-2)}
        learning_rate, weight_decay = rates[self.optimizer]
        return {
            "epochs": self.epochs if epochs is None else epochs, "batch_size": self.batch_size, "seed": seed,
            "optimizer": self.optimizer, "learning_rate": learning_rate, "weight_decay": weight_decay,
            "schedule": Cosine(), "threads": self.threads, "progress": self.progress,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Trained:
    """A rival that is ready: its Graph, its accuracy on the validation part (to choose by), and what to know of it."""

    graph: Graph
    validation_accuracy: float
    notes: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)


Made = TypeVar("Made", bound=nn.Module)
Build = Callable[[Split, int, Plan], Trained]


@dataclass(frozen=True)
class Rival:
    """How a row is called, and `build(data, seed, plan) -> Trained`."""

    title: str
    build: Build


def macs_of(sizes: Sequence[int]) -> int:
    """Multiply-accumulates, and weights, of `mlp(sizes)`."""
    return sum(width * following for width, following in pairwise(sizes))


def widest(sizes: Sequence[int], fits: Callable[[tuple[int, ...]], bool], multiple: int = 1) -> tuple[int, ...]:
    """`sizes` whose hidden widths are scaled by one factor <= 1, the largest at which `fits(sizes)`.

    Widths are rounded down to a multiple, and are at least that. Raises ParameterError where not even these fit.
    """

    def scaled(factor: float) -> tuple[int, ...]:
        hidden = (max(multiple, int(width * factor) // multiple * multiple) for width in sizes[1:-1])
        return (sizes[0], *hidden, sizes[-1])

    low, high = 0.0, 1.0
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
            note = "Two of every four weights are zero; hardware for it skips them and stores 2 bits with each weight."
            return _trained(name, sparse, data, note, density=0.5)
        sparse, _ = prune(module, data, fraction=1 - plan.density, **rest)
        return _trained(name, sparse, data, _ZEROS, density=plan.density)

    return build


def _experts(
    name: str, router: Callable[[int, int], Router], balance: float, match: Literal["macs", "parameters"] = "macs"
) -> Build:
    """A mixture of whole networks with the active MACs, or the stored weights, of the dense one; router included."""

    def build(data: Split, seed: int, plan: Plan) -> Trained:
        dense, count = plan.sizes(data), plan.experts
        routed = _seeded(seed, lambda: router(dense[0], count))
        at_once = routed.k if match == "macs" else count
        sizes = widest(dense, lambda w: at_once * macs_of(w) + dense[0] * count <= macs_of(dense), multiple=4)
        mixture = _seeded(seed, lambda: mixture_of_mlps(sizes, count, router=routed))
        module = nn.Sequential(Standardise.of(data.train_x), nn.Sequential(nn.Flatten(), mixture))
        fit(module, data, loss=balanced_loss(balance), **plan.training(seed))
        found = _trained(name, module, data)
        (seen,) = routing_statistics(found.graph, data.validation_x).values()
        shared = f"Top-{routed.k} of {count} experts {'-'.join(map(str, sizes))}, all stored; on validation: {seen}."
        facts = {"unevenness": seen.unevenness, "overflow": seen.overflow}
        return Trained(found.graph, found.validation_accuracy, (shared,), facts)

    return build


def _linear(features: int, experts: int) -> nn.Linear:
    return nn.Linear(features, experts, bias=False)


def _switch(features: int, experts: int) -> Router:
    return Switch(_linear(features, experts), experts)


def _bias(features: int, experts: int) -> Router:
    return BiasBalanced(_linear(features, experts), experts)


ROWS: Mapping[str, Rival] = {
    name: Rival(title, make(title))
    for name, title, make in (
        ("dense", "dense fp32", lambda t: _dense(t, lambda data, plan: plan.sizes(data))),
        ("int8", "dense int8", lambda t: _quantised(t, lambda plan: 8)),
        ("quantised", "quantised, bits of T steps", lambda t: _quantised(t, lambda plan: bits_for(plan.steps))),
        ("small", "small dense", lambda t: _dense(t, _small, "As many MACs as the sparse network.")),
        ("logistic", "logistic regression", lambda t: _dense(t, _without_hidden)),
        ("pruned", "pruned once", lambda t: _pruned(t, structured=False)),
        ("gradual", "pruned gradually", lambda t: _sparse(t, "gradual")),
        ("2:4", "pruned 2:4", lambda t: _pruned(t, structured=True)),
        ("sparse-momentum", "sparse momentum", lambda t: _sparse(t, sparse_momentum())),
        ("rigl", "RigL ERK", lambda t: _sparse(t, rigl())),
        ("rigl-uniform", "RigL uniform", lambda t: _sparse(t, rigl("uniform"))),
        ("set", "SET", lambda t: _sparse(t, evolutionary())),
        ("static", "static random mask ERK", lambda t: _sparse(t, static("erdos-renyi"))),
        ("static-uniform", "static random mask uniform", lambda t: _sparse(t, static("uniform"))),
        ("switch", "experts, Switch", lambda t: _experts(t, _switch, 0.1)),
        ("noisy", "experts, noisy top-2", lambda t: _experts(t, lambda i, e: NoisyTopK(i, e, 2), 0.1)),
        ("bias", "experts, balanced by bias", lambda t: _experts(t, _bias, 0.0)),
        ("switch-parameters", "experts, Switch, equal storage", lambda t: _experts(t, _switch, 0.1, "parameters")),
        ("random-routing", "experts, random routing", lambda t: _experts(t, random_routing, 0.0)),
    )
}  # fmt: skip
