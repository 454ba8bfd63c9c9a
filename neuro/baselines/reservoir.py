"""Photonic reservoir: light through a fixed random medium, intensities, and a linear read-out that alone is trained."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from neuro.baselines.rival import Plan, Rival, Trained, along
from neuro.baselines.shot_noise import counted
from neuro.datasets import Split
from neuro.errors import ParameterError
from neuro.graph import Graph, Input
from neuro.nodes import Affine, Reshape, ScatteredIntensity
from neuro.training import accuracy

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def ridge(x: Tensor, y: Tensor, penalty: float) -> Affine:
    """The W, b that minimise mean |W x + b - y|^2 + penalty mean variance(x) |W|^2, for x (N, in) and y (N, out).

    Hoerl and Kennard 1970, with a penalty in units of the features' variance.
    """
    if not penalty > 0:
        raise ParameterError(f"ridge: penalty must be > 0, got {penalty}")
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    covariance = centred.T @ centred / len(x)
    strength = penalty * covariance.diagonal().mean()
    weight = torch.linalg.solve(covariance + strength * torch.eye(x.shape[1], dtype=x.dtype), centred.T @ y / len(x))
    return Affine(weight.T.float().contiguous(), (mean_y - mean_x @ weight).float())


def _reservoir(data: Split, seed: int, plan: Plan) -> Trained:
    medium = ScatteredIntensity(prod(data.features), plan.dimensions, counted(plan.photons), seed)
    seen = torch.cat([medium.forward(part.flatten(1)) for part in data.train_x.split(2000)]).double()
    targets = one_hot(data.train_y, len(data.classes)).double()
    found = []
    for penalty in PENALTIES:
        nodes = {
            "in": Input(data.features),
            "flat": Reshape((medium.inputs,)),
            "medium": medium,
            "readout": ridge(seen, targets, penalty),
        }
        sources = {"flat": ("in",), "medium": ("flat",), "readout": ("medium",)}
        graph = Graph(nodes, sources, "photonic reservoir")
        found.append((accuracy(graph, data.validation_x, data.validation_y), penalty, graph))
    right, penalty, graph = max(found, key=lambda item: item[:2])
    note = (
        f"A random medium that nobody made or stores, {plan.dimensions} detectors of |S x|^2, {plan.photons:g} photons "
        f"per multiplication at full brightness; the read-out is digital: ridge regression, penalty {penalty:g} by "
        "validation."
    )
    return Trained(graph, right, (note,), {"penalty": penalty})


RESERVOIR = Rival("photonic reservoir", _reservoir, along("dimensions", 256, 512, 1024, 2048), family="photonic")
