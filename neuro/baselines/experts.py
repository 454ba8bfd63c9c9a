"""Mixture of experts: many parameters are stored, few of them work on a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.baselines.networks import mlp
from neuro.baselines.routing import Router, Routing, Switch, capacity, loads
from neuro.errors import ParameterError
from neuro.evaluate import evaluate
from neuro.graph import Graph, Shape
from neuro.nodes import Experts
from neuro.trace import register, trace
from neuro.training import Loss
from neuro.training.losses import cross_entropy


class ExpertMLPs(nn.Module):
    """`experts` networks `mlp(sizes)` whose weights are stacked, so that each layer of all is one grouped product."""

    def __init__(self, sizes: Sequence[int], experts: int, *, bias: bool = True) -> None:
        super().__init__()
        networks = [mlp(sizes, bias=bias) for _ in range(experts)]
        by_network = [[part for part in network if isinstance(part, nn.Linear)] for network in networks]
        layers = list(zip(*by_network, strict=True))
        self.sizes = tuple(sizes)
        self.count = experts
        self.weights = nn.ParameterList(torch.stack([layer.weight.detach() for layer in at]) for at in layers)
        # flat, so that weight decay and pruning leave it alone as they do every bias
        self.biases = nn.ParameterList(torch.cat([layer.bias.detach() for layer in at]) for at in layers if bias)

    def __len__(self) -> int:
        return self.count

    def forward(self, x: Tensor, load: Tensor) -> Tensor:
        """x (rows, *features), sorted by expert; load (experts,): how many rows are of each."""
        y = x.flatten(1)
        for number, weight in enumerate(self.weights):
            y = grouped_product(y if number == 0 else y.relu(), weight, load)
            if self.biases:
                y = y + self.biases[number].view(self.count, -1).repeat_interleave(load, 0)
        return y

    def __getitem__(self, number: int) -> nn.Sequential:
        """One expert as the network it is; its numbers are copies."""
        network = mlp(self.sizes, bias=len(self.biases) > 0)
        with torch.no_grad():
            for index, layer in enumerate(part for part in network if isinstance(part, nn.Linear)):
                layer.weight.copy_(self.weights[index][number])
                if self.biases:
                    layer.bias.copy_(self.biases[index].view(self.count, -1)[number])
        return network


def grouped_product(x: Tensor, weight: Tensor, load: Tensor) -> Tensor:
    """x W_e^T with the expert e of each row: x (rows, in) sorted by expert, weight (experts, out, in), load (experts,).

    By `torch.nn.functional.grouped_mm` where it takes the sizes, else expert by expert.
    """
    aligned = x.dtype == torch.float32 and weight.shape[1] % 4 == 0 and weight.shape[2] % 4 == 0
    if aligned and x.is_contiguous():
        return F.grouped_mm(x, weight.transpose(1, 2), offs=load.cumsum(0).to(torch.int32))
    return torch.cat([part @ one.T for part, one in zip(x.split(load.tolist()), weight, strict=True)])


class MixtureOfExperts(nn.Module):
    """y = sum over the chosen experts of gate_e(x) E_e(x), as `router` says; equals `neuro.nodes.Experts`.

    A choice that finds no room in its expert (see `Switch`) adds nothing: write x + mixture(x) where a sample must go
    on. `experts`: networks of one output shape, or `ExpertMLPs`.
    """

    def __init__(self, router: Router, experts: nn.ModuleList | ExpertMLPs) -> None:
        super().__init__()
        if router.experts != len(experts):
            raise ParameterError(f"MixtureOfExperts: a router for {router.experts} experts got {len(experts)}")
        self.router = router
        self.experts = experts

    def forward(self, x: Tensor) -> Tensor:
        if not len(x):
            raise ParameterError("MixtureOfExperts: the batch is empty")
        routing: Routing = self.router(x)
        choices = routing.chosen.flatten()[routing.kept.flatten()]
        rows = torch.arange(len(x), device=x.device).repeat_interleave(self.router.k)[routing.kept.flatten()]
        order = choices.argsort(stable=True)
        load = loads(choices, len(self.experts))
        given = self._work(x[rows[order]], load)
        gates = routing.gates[routing.kept][order]
        weighed = gates.view(-1, *(1,) * (given.ndim - 1)) * given
        return weighed.new_zeros(len(x), *given.shape[1:]).index_add(0, rows[order], weighed)

    def _work(self, x: Tensor, load: Tensor) -> Tensor:
        if isinstance(self.experts, ExpertMLPs):
            return self.experts(x, load)
        parts = zip(x.split(load.tolist()), self.experts, strict=True)
        return torch.cat([expert(part) for part, expert in parts if len(part)])


def balanced_loss(factor: float = 0.01) -> Loss:
    """Cross-entropy plus `factor` times the balance of every router in the network: a `loss` for `neuro.training.fit`.

    0.01 is the alpha of Fedus et al. 2021, sec. 2.2, for long training (a few hundred steps of `Switch` need about
    0.1); 0.1 the factor of Shazeer et al. 2017 for `NoisyTopK`.
    """
    if not factor >= 0:
        raise ParameterError(f"balanced_loss: factor must be >= 0, got {factor}")

    def loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        balances: list[Tensor] = []
        routers = [part for part in network.modules() if isinstance(part, Router)]
        handles = [
            router.register_forward_hook(lambda _, given, found: balances.append(found.balance)) for router in routers
        ]
        try:
            cost = cross_entropy(network, x, y)
        finally:
            for handle in handles:
                handle.remove()
        return cost + factor * sum(balances)

    return loss


@dataclass(frozen=True)
class RoutingStatistics:
    """How evenly samples fell on experts: `load` per expert, over one data set.

    `overflow`: the share of choices that a capacity factor of 1.25 would drop if the data set were one batch.
    """

    load: tuple[int, ...]
    overflow: float

    @property
    def unevenness(self) -> float:
        """Largest load over mean load: 1 for a perfect balance, the number of experts for a collapse."""
        return max(self.load) * len(self.load) / sum(self.load)

    def __str__(self) -> str:
        return f"load max/mean {self.unevenness:.2f}, {100 * self.overflow:.1f} % over capacity factor 1.25"


def routing_statistics(graph: Graph, x: Tensor) -> dict[str, RoutingStatistics]:
    """For every `Experts` node of a graph without neurons, how x (batch, *features) fell on its experts."""
    mixtures = {name: node for name, node in graph.nodes.items() if isinstance(node, Experts)}
    readers = {graph.sources[name][0]: (name, node) for name, node in mixtures.items()}
    found: dict[str, RoutingStatistics] = {}

    def observe(name: str, value: Tensor) -> None:
        if name in readers:
            mixture, node = readers[name]
            load = loads(node.route(value)[1], len(node.experts))
            room = capacity(len(value) * node.k, len(node.experts), 1.25)
            over = float((load - room).clamp(min=0).sum() / load.sum())
            found[mixture] = RoutingStatistics(tuple(load.tolist()), over)

    with torch.no_grad():
        evaluate(graph, x, observe=observe)
    return found


def mixture_of_mlps(
    sizes: Sequence[int], experts: int = 8, k: int = 1, *, bias: bool = True, router: Router | None = None
) -> MixtureOfExperts:
    """`experts` networks `mlp(sizes)` behind `router` (None: `Switch`, linear, without bias or capacity).

    Top-1 of 8 experts 784-64-10: 6,272 (router) + 50,816 (one expert) = 57,088 MACs per sample, 412,800 stored weights;
    biases, 592 more where bias=True, are in neither number.
    """
    router = Switch(mlp((sizes[0], experts), bias=False), experts, k) if router is None else router
    return MixtureOfExperts(router, ExpertMLPs(sizes, experts, bias=bias))


def upcycled(dense: nn.Sequential, router: Router) -> MixtureOfExperts:
    """A mixture whose experts begin as copies of a trained `mlp`, which the first answers equal but for their scale.

    Sparse upcycling (Komatsuzaki et al. 2022, arXiv 2212.05055): an expert sees a part of the samples only, too few to
    learn from the start what all have in common.
    """
    layers = [part for part in dense if isinstance(part, nn.Linear)]
    sizes = (layers[0].in_features, *(layer.out_features for layer in layers))
    experts = ExpertMLPs(sizes, router.experts)
    with torch.no_grad():
        for weight, bias, layer in zip(experts.weights, experts.biases, layers, strict=True):
            weight.copy_(layer.weight.expand_as(weight))
            bias.copy_(layer.bias.repeat(router.experts))
    return MixtureOfExperts(router, experts)


def _as_node(module: nn.Module, shape: Shape) -> Experts:
    assert isinstance(module, MixtureOfExperts)
    example = torch.zeros(2, *shape)
    graphs = tuple(
        trace(module.experts[number], example, name=f"expert{number}") for number in range(len(module.experts))
    )
    router = module.router
    scores = trace(router.scores, example, name="router")
    bias = None if router.selection_bias is None else router.selection_bias.detach().clone()
    return Experts(scores, graphs, router.k, router.renormalise, bias)


register(MixtureOfExperts, _as_node)
