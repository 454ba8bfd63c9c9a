"""Class vectors of a hyperdimensional classifier, learnt by torch-hd on samples that are hypervectors already."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import pairwise
from math import prod
from types import ModuleType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.errors import BackendMissing
from neuro.graph import Graph, Input, Node, Shape
from neuro.nodes import Affine, Dequantise, IDLevel, Reshape, Sign

LARGEST = 127
"""The largest element of a class vector: 8 bits, sign included, as its words are counted and priced."""

Update = Literal["add", "add_adapt", "add_online"]
"""How `torchhd.models.Centroid` takes a batch: every sample; those it gets wrong; those, as far as they are wrong."""


def torchhd() -> ModuleType:
    """torch-hd; BackendMissing where it is not installed."""
    try:
        import torchhd
        import torchhd.classifiers
    except ModuleNotFoundError as error:
        raise BackendMissing(
            "hypervectors need torch-hd, which is not installed: pip install 'neuro-snn[hyperdimensional]'"
        ) from error
    return torchhd


def class_vectors(
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    classes: int,
    update: Update,
    *,
    epochs: int = 1,
    batch_size: int = 100,
    seed: int = 0,
) -> tuple[Tensor, float]:
    """Class vectors (classes, D) after the epoch that did best on validation, and their accuracy there.

    Both parts hold hypervectors (N, D) and labels (N,). There is no learning rate: from zero, it scales all class
    vectors alike and leaves every cosine as it is. Samples pass in another order in every epoch, drawn from `seed`.
    Raises BackendMissing without torch-hd.
    """
    h, y = train
    model = torchhd().models.Centroid(h.shape[1], classes)
    generator = torch.Generator().manual_seed(seed)
    best, kept = -1.0, torch.zeros(0)
    for _ in range(epochs):
        for part in torch.randperm(len(h), generator=generator).split(batch_size):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The norm of a vector is nearly zero")  # classes not met yet
                getattr(model, update)(h[part].float(), y[part])
        vectors = model.weight.detach().as_subclass(Tensor)  # type: ignore[arg-type]
        right = share_right(vectors, *validation)
        if right > best:
            best, kept = right, vectors.clone()
    return kept, best


def share_right(vectors: Tensor, h: Tensor, y: Tensor) -> float:
    """Share of the hypervectors h (N, D) to which the class vector (classes, D) of their label y is nearest."""
    directions = F.normalize(vectors).T
    nearest = [(part.float() @ directions).argmax(1) for part in h.split(1000)]
    return float((torch.cat(nearest) == y).double().mean())


def encoded(encoder: IDLevel, x: Tensor) -> Tensor:
    """Bipolar hypervectors (N, D) of x (N, *features), int8; 0 where a bundle has no majority."""
    return torch.cat([encoder.forward(part).sign().to(torch.int8) for part in x.flatten(1).split(500)])


def bound_graph(name: str, features: Shape, encoder: IDLevel, vectors: Tensor) -> Graph:
    """x -> sign(sum of id * level(x)) -> product with each class vector, divided by the length of that vector.

    Integers until the last step: vectors (classes, D) hold whole numbers, of which those of a class that 8 bits cannot
    hold are scaled down until they can; that turns a class vector by no more than rounding does.
    """
    scale = (LARGEST / vectors.abs().amax(1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
    whole = (vectors.double() * scale).round()
    lengths = whole.norm(dim=1).clamp(min=1e-12)
    similarity = Affine(whole.to(torch.int32))
    parts = {"bundle": encoder, "hypervector": Sign(), "similarity": similarity, "scores": Dequantise(1 / lengths)}
    return chain(name, features, parts)


def chain(name: str, features: Shape, parts: Mapping[str, Node]) -> Graph:
    """Nodes one after the other, behind an input of `features` that is flattened."""
    nodes: dict[str, Node] = {"x": Input(features)}
    if len(features) > 1:
        nodes["flat"] = Reshape((prod(features),))
    nodes |= parts
    return Graph(nodes, {after: (before,) for before, after in pairwise(nodes)}, name)
