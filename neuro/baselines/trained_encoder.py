"""Hypervectors of few dimensions: the encoder is trained, and everything runs in integers.

Yan et al. 2023 (arXiv 2301.10902): a linear map with integer weights and bipolar outputs in place of random ids and
levels. Their class vectors are the signs of class sums; here they are trained with the encoder, as LeHDC does
[recalled], and rounded to 8 bits.
"""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.baselines.class_vectors import chain, share_right
from neuro.baselines.quantised import PIXEL, quantised_weight
from neuro.baselines.rival import Plan, Trained
from neuro.baselines.standardise import Standardise
from neuro.datasets import Split
from neuro.errors import ParameterError
from neuro.graph import Graph, Shape
from neuro.nodes import Affine, Dequantise, Quantise, Sign
from neuro.training import accuracy, fit

TITLE = "trained hypervectors"
BITS = 8
"""Bits of pixels and of all weights."""


def bipolar(x: Tensor) -> Tensor:
    """sign(x), with the gradient of clip(x, -1, 1): the straight-through estimator."""
    passed = x.clamp(-1, 1)
    return passed + (x.sign() - passed).detach()


class TrainedEncoder(nn.Module):
    """scores = C sign(norm(W x) + b), W (D, features) and C (classes, D) in integers of 8 bits, times a step per row.

    The batch norm has no weights of its own. `encoder_graph` makes the Graph.
    """

    def __init__(self, features: int, dimensions: int, classes: int, entry: Standardise) -> None:
        super().__init__()
        if min(features, dimensions, classes) < 1:
            raise ParameterError(
                f"TrainedEncoder: needs features, dimensions and classes, got {features}, {dimensions}, {classes}"
            )
        self.entry = entry
        self.weight = nn.Parameter(torch.randn(dimensions, features) / features**0.5)
        self.bias = nn.Parameter(torch.zeros(dimensions))
        self.norm = nn.BatchNorm1d(dimensions, affine=False)
        self.classes = nn.Parameter(0.1 * torch.randn(classes, dimensions))

    def encode(self, x: Tensor) -> Tensor:
        """Bipolar hypervectors (batch, D) of x (batch, *features) in [0, 1], which is rounded to 8 bits."""
        pixels = (x.flatten(1) / PIXEL).round().clamp(0, 255) * PIXEL
        whole, step = quantised_weight(self.weight, BITS)
        return bipolar(self.norm(F.linear(self.entry(pixels), whole * step[:, None])) + self.bias)

    def forward(self, x: Tensor) -> Tensor:
        whole, step = quantised_weight(self.classes, BITS)
        return F.linear(self.encode(x), whole * step[:, None])


@torch.no_grad()
def encoder_graph(module: TrainedEncoder, features: Shape, name: str = TITLE) -> Graph:
    """The network in integers, for samples of `features`. It equals the module up to the rounding of its thresholds."""
    whole, step = (part.double() for part in quantised_weight(module.weight, BITS))
    entry, norm = module.entry, module.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    deviation = (norm.running_var.double() + norm.eps).sqrt()
    offset = module.bias.double() * deviation - norm.running_mean.double()
    offset -= entry.mean / entry.deviation * step * whole.sum(1)
    threshold = (offset / (step * PIXEL / entry.deviation)).round().to(torch.int32)
    classes, unit = quantised_weight(module.classes, BITS)
    parts = {
        "pixels": Quantise(PIXEL, 0, 255), "projection": Affine(whole.to(torch.int32), threshold),
        "hypervector": Sign(), "similarity": Affine(classes.to(torch.int32)), "scores": Dequantise(unit.double()),
    }  # fmt: skip
    return chain(name, features, parts)


def trained(data: Split, seed: int, plan: Plan) -> Trained:
    """The rival of `plan.dimensions`. Facts: its integer operations, and how well the signs of class sums would do."""
    features, classes = prod(data.features), len(data.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = TrainedEncoder(features, plan.dimensions, classes, Standardise.of(data.train_x))
    fit(module, data, **plan.training(seed))
    graph = encoder_graph(module, data.features)
    operations = plan.dimensions * (features + classes)
    with torch.no_grad():
        h = torch.cat([module.encode(part) for part in data.train_x.split(1000)])
        sums = torch.zeros(classes, plan.dimensions).index_add_(0, data.train_y, h)
        bundled = share_right(sums.sign(), module.encode(data.validation_x), data.validation_y)
    note = (
        f"{plan.dimensions:,} dimensions: {plan.dimensions * features:,} integer multiply-adds encode, "
        f"{plan.dimensions * classes:,} compare."
    )
    facts = {
        "dimensions": plan.dimensions, "numbers_stored": graph.parameters, "operations": operations,
        "validation_of_bundles": bundled,
    }  # fmt: skip
    return Trained(graph, accuracy(graph, data.validation_x, data.validation_y), (note,), facts)
