"""Mixture of experts with top-k routing: many parameters are stored, few of them work on a sample."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from neuro.baselines.networks import SmallCNN, mlp
from neuro.errors import ParameterError
from neuro.graph import Shape
from neuro.nodes import Experts
from neuro.trace import register, trace
from neuro.training import Loss


class MixtureOfExperts(nn.Module):
    """y = sum over the top k of p_e(x) E_e(x), with p = softmax(router(x)) in float32; equals `neuro.nodes.Experts`.

    With k = 1 this is Switch routing (Fedus et al. 2021, arXiv 2101.03961, eq. 1-2) without a capacity: no sample
    is ever dropped. `router` maps (batch, *features) to (batch, number of experts); all experts give one shape.
    """

    def __init__(self, router: nn.Module, experts: nn.ModuleList, k: int = 1) -> None:
        super().__init__()
        if not 1 <= k <= len(experts):
            raise ParameterError(f"MixtureOfExperts: k must lie in 1..{len(experts)}, got {k}")
        self.router = router
        self.experts = experts
        self.k = k

    def route(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities (batch, experts), and the gates and numbers of the chosen experts, both (batch, k)."""
        # half precision in the router makes training diverge: Fedus et al. 2021, sec. 2.4
        with torch.autocast(x.device.type, enabled=False):
            probabilities = torch.softmax(self.router(x.float()), dim=1)
        gates, chosen = probabilities.topk(self.k, dim=1)
        return probabilities, gates, chosen

    def forward(self, x: Tensor) -> Tensor:
        _, gates, chosen = self.route(x)
        y: Tensor | None = None
        for number, expert in enumerate(self.experts):
            rows, slot = (chosen == number).nonzero(as_tuple=True)
            if rows.numel():
                given = expert(x[rows])
                gate = gates[rows, slot].reshape(-1, *(1,) * (given.ndim - 1))
                y = given.new_zeros(x.shape[0], *given.shape[1:]) if y is None else y
                y = y.index_add(0, rows, (gate * given).to(y.dtype))
        if y is None:
            raise ParameterError("MixtureOfExperts: the batch is empty")
        return y


def load_balance(probabilities: Tensor, chosen: Tensor) -> Tensor:
    """N sum_i f_i P_i: 1 for uniform routing, N when all samples go to one of the N experts with certainty.

    probabilities (batch, N), chosen (batch, k). f_i is the share of choices that fell on expert i, P_i its mean
    probability; only P carries a gradient. Fedus et al. 2021, eq. 4-6, without the factor alpha.
    """
    experts = probabilities.shape[1]
    share = torch.bincount(chosen.flatten(), minlength=experts).to(probabilities) / chosen.numel()
    return experts * (share * probabilities.mean(0)).sum()


def switch_loss(alpha: float = 0.01) -> Loss:
    """Cross-entropy plus alpha times `load_balance` of every mixture in the network: a `loss` for `neuro.training.fit`.

    alpha = 0.01 is the value of Fedus et al. 2021, sec. 2.2, for long training; a few hundred steps need
    about 0.1 to keep the experts at work.
    """
    if not alpha >= 0:
        raise ParameterError(f"switch_loss: alpha must be >= 0, got {alpha}")

    def loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        balances: list[Tensor] = []

        def observe(mixture: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            assert isinstance(mixture, MixtureOfExperts)
            probabilities, _, chosen = mixture.route(given[0])
            balances.append(load_balance(probabilities, chosen))

        mixtures = [part for part in network.modules() if isinstance(part, MixtureOfExperts)]
        handles = [mixture.register_forward_hook(observe) for mixture in mixtures]
        try:
            cost = F.cross_entropy(network(x), y)
        finally:
            for handle in handles:
                handle.remove()
        return cost + alpha * sum(balances)

    return loss


def mixture_of_mlps(sizes: tuple[int, ...], experts: int = 8, k: int = 1, *, bias: bool = True) -> MixtureOfExperts:
    """`experts` networks `mlp(sizes)` behind a linear router without bias.

    Top-1 of 8 experts 784-64-10: 6,272 (router) + 50,816 (one expert) = 57,088 MACs per sample, 412,800 stored weights;
    biases, 592 more where bias=True, are in neither number.
    """
    router = nn.Linear(sizes[0], experts, bias=False)
    return MixtureOfExperts(router, nn.ModuleList(mlp(sizes, bias=bias) for _ in range(experts)), k)


def experts_cnn(dense: SmallCNN, experts: int = 8) -> SmallCNN:
    """The trained `dense` with a new router in front of `experts` copies of its head; nothing is shared with it.

    Sparse upcycling (Komatsuzaki et al. 2022, arXiv 2212.05055): copies of a trained layer need far less training than
    new experts. Batch norm in the head is folded into its weights, for a batch may leave an expert one sample. A sample
    costs the MACs of `dense` and those of the router, while the head is stored `experts` times: for the default
    `small_cnn` 858,112 MACs against 854,016, and 549,716 parameters against 77,070.
    """
    dense = copy.deepcopy(dense).eval()
    match list(dense.head.children()):
        case [nn.Linear() as first, nn.BatchNorm1d() as norm, nn.ReLU() as relu, nn.Linear() as last]:
            expert = nn.Sequential(fuse_linear_bn_eval(first, norm), relu, last)
        case _:
            raise ParameterError("experts_cnn: the head of `dense` must be Linear, BatchNorm1d, ReLU, Linear")
    router = nn.Linear(first.in_features, experts, bias=False)
    copies = nn.ModuleList(copy.deepcopy(expert) for _ in range(experts))
    return SmallCNN(dense.trunk, MixtureOfExperts(router, copies)).train()


def _as_node(module: nn.Module, shape: Shape) -> Experts:
    assert isinstance(module, MixtureOfExperts)
    example = torch.zeros(2, *shape)
    graphs = tuple(trace(expert, example, name=f"expert{number}") for number, expert in enumerate(module.experts))
    return Experts(trace(module.router, example, name="router"), graphs, module.k)


register(MixtureOfExperts, _as_node)
__all__ = ["MixtureOfExperts", "experts_cnn", "load_balance", "mixture_of_mlps", "switch_loss"]
