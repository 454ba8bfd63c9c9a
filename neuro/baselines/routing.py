"""Which experts work on a sample: routers, and what keeps them from sending everything to one expert."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.errors import ParameterError, ShapeError


class Routing(NamedTuple):
    """What a router decided on a batch.

    gates, chosen, kept (batch, k): weight and number of each chosen expert, and whether it had room for the sample.
    balance: what to add to the loss for an even load, without its factor; a scalar.
    """

    gates: Tensor
    chosen: Tensor
    kept: Tensor
    balance: Tensor


def load_balance(probabilities: Tensor, chosen: Tensor) -> Tensor:
    """N sum_i f_i P_i: 1 for uniform routing, N when all samples go to one of the N experts with certainty.

    probabilities (batch, N), chosen (batch, k). f_i is the share of choices that fell on expert i, P_i its mean
    probability; only P carries a gradient. Fedus et al. 2021 (arXiv 2101.03961), eq. 4-6, without the factor alpha.
    """
    experts = probabilities.shape[1]
    share = loads(chosen, experts).to(probabilities) / chosen.numel()
    return experts * (share * probabilities.mean(0)).sum()


def squared_variation(amounts: Tensor) -> Tensor:
    """CV^2 = variance / mean^2 of what each of the N experts got (N,): 0 if equal, N - 1 if one got everything."""
    return amounts.var(correction=0) / amounts.mean().square().clamp(min=1e-10)


def loads(chosen: Tensor, experts: int) -> Tensor:
    """How often each expert was chosen, (experts,)."""
    return torch.bincount(chosen.flatten(), minlength=experts)


def capacity(samples: int, experts: int, factor: float) -> int:
    """Samples an expert takes of a batch: samples / experts * factor, at least one. Fedus et al. 2021, eq. 3."""
    return max(1, int(samples / experts * factor))


def within_capacity(chosen: Tensor, experts: int, limit: int) -> Tensor:
    """Which choices (batch, k) find room in experts of `limit` places: first choices first, then in order of samples.

    The order of GShard: Lepikhin et al. 2020 (arXiv 2006.16668), algorithm 1.
    """
    in_order = chosen.T.flatten()
    place = F.one_hot(in_order, experts).cumsum(0).gather(1, in_order[:, None])[:, 0]
    return (place <= limit).view_as(chosen.T).T


class Router(nn.Module):
    """What routers share: `scores` (a network: batch, *features -> batch, experts) in float32, from which `forward`
    makes a `Routing`.

    `renormalise`: the gates of the chosen sum to one, which is the softmax over the chosen alone.
    """

    renormalise: bool = False
    experts: int
    k: int

    def __init__(self, scores: nn.Module, experts: int, k: int = 1) -> None:
        super().__init__()
        if not 1 <= k <= experts:
            raise ParameterError(f"{type(self).__name__}: k must lie in 1..{experts}, got {k}")
        self.scores = scores
        self.experts = experts
        self.k = k

    @property
    def selection_bias(self) -> Tensor | None:
        """What is added to the probabilities (experts,) to choose, but not to weigh; None for nothing."""
        return None

    def logits(self, x: Tensor) -> Tensor:
        # half precision in the router makes training diverge: Fedus et al. 2021, sec. 2.4
        with torch.autocast(x.device.type, enabled=False):
            logits = self.scores(x.float())
        if logits.shape[1:] != (self.experts,):
            raise ShapeError(f"{type(self).__name__}: {tuple(logits.shape[1:])} scores for {self.experts} experts")
        return logits

    def _routing(self, gates: Tensor, chosen: Tensor, balance: Tensor) -> Routing:
        if self.renormalise:
            gates = gates / gates.sum(1, keepdim=True)
        return Routing(gates, chosen, torch.ones_like(chosen, dtype=torch.bool), balance)


class Switch(Router):
    """p = softmax(scores(x)), the k largest, weighed by p; balance N sum f P. Fedus et al. 2021, eq. 1-6 (k = 1).

    In training no expert takes more samples of a batch than its `capacity`; the mixture gives zero for what finds no
    room. In inference there is room for all, so that an answer depends on its sample alone.
    """

    def __init__(self, scores: nn.Module, experts: int, k: int = 1, capacity_factor: float | None = None) -> None:
        super().__init__(scores, experts, k)
        if capacity_factor is not None and not capacity_factor > 0:
            raise ParameterError(f"Switch: capacity_factor must be > 0 or None, got {capacity_factor}")
        self.capacity_factor = capacity_factor

    def forward(self, x: Tensor) -> Routing:
        probabilities = torch.softmax(self.logits(x), 1)
        gates, chosen = probabilities.topk(self.k, 1)
        found = self._routing(gates, chosen, load_balance(probabilities, chosen))
        if not self.training or self.capacity_factor is None:
            return found
        limit = capacity(len(x), self.experts, self.capacity_factor)
        return found._replace(kept=within_capacity(chosen, self.experts, limit))


class NoisyTopK(Router):
    """H = x W_g + N(0, 1) softplus(x W_n), G = softmax of the k largest of H; no noise in inference.

    balance = CV^2(sum_x G) + CV^2(sum_x P), with P(x, i) the chance that i is chosen if its noise were drawn again:
    Shazeer et al. 2017 (arXiv 1701.06538), eq. 3-11; both losses have the factor 0.1 there. x (batch, features); W_g
    and W_n start at zero.
    """

    renormalise = True

    def __init__(self, features: int, experts: int, k: int = 2) -> None:
        gate, noise = (nn.Linear(features, experts, bias=False) for _ in range(2))
        for linear in (gate, noise):
            nn.init.zeros_(linear.weight)
        super().__init__(gate, experts, k)
        self.noise = noise

    def forward(self, x: Tensor) -> Routing:
        clean = self.logits(x)
        if not self.training:
            gates, chosen = torch.softmax(clean, 1).topk(self.k, 1)
            return self._routing(gates, chosen, clean.new_zeros(()))
        with torch.autocast(x.device.type, enabled=False):
            spread = F.softplus(self.noise(x.float())) + 1e-6
        noisy = clean + spread * torch.randn_like(clean)
        top, chosen = noisy.topk(self.k, 1)
        gates = torch.softmax(top, 1)
        importance = torch.zeros_like(clean).scatter(1, chosen, gates).sum(0)
        balance = squared_variation(importance)
        if self.k < self.experts:
            balance = balance + squared_variation(chance_of_choice(clean, noisy, spread, self.k).sum(0))
        return Routing(gates, chosen, torch.ones_like(chosen, dtype=torch.bool), balance)


def chance_of_choice(clean: Tensor, noisy: Tensor, spread: Tensor, k: int) -> Tensor:
    """P(x, i) = Phi((clean_i - kth largest of the other noisy) / spread_i), all (batch, experts), k below their number.

    Its sum over a batch is the load, about k * batch in all. Shazeer et al. 2017, eq. 8-10.
    """
    top = noisy.topk(k + 1, 1).values
    among = noisy >= top[:, k - 1 : k]
    other = torch.where(among, top[:, k : k + 1], top[:, k - 1 : k])
    return torch.special.ndtr((clean - other) / spread)


class BiasBalanced(Router):
    """The k largest of p_i + b_i, weighed by p_i; after every batch b_i grows by gamma if i had less than its share of
    the load, and falls if it had more. No loss: Wang et al. 2024 (arXiv 2408.15664), algorithm 1 [recalled].
    """

    bias: Tensor

    def __init__(self, scores: nn.Module, experts: int, k: int = 1, gamma: float = 1e-3) -> None:
        super().__init__(scores, experts, k)
        if not gamma > 0:
            raise ParameterError(f"BiasBalanced: gamma must be > 0, got {gamma}")
        self.gamma = gamma
        self.register_buffer("bias", torch.zeros(experts))

    @property
    def selection_bias(self) -> Tensor:
        return self.bias

    def forward(self, x: Tensor) -> Routing:
        probabilities = torch.softmax(self.logits(x), 1)
        chosen = (probabilities + self.bias).topk(self.k, 1).indices
        if self.training:
            load = loads(chosen, self.experts).to(self.bias)
            self.bias += self.gamma * (load.mean() - load).sign()
        return self._routing(probabilities.gather(1, chosen), chosen, probabilities.new_zeros(()))


def random_routing(scores: nn.Module, experts: int, k: int = 1, gamma: float = 1e-2) -> BiasBalanced:
    """The control: `scores` stay as they were drawn and are only balanced, so that nothing is learnt about who should
    do what. Similar samples still meet the same experts, as in locality-sensitive hashing."""
    return BiasBalanced(scores.requires_grad_(False), experts, k, gamma)
