"""Hyperdimensional rivals: samples become hypervectors, classes are bundles of them, and the nearest bundle wins.

Encoders and the training of class vectors are those of torch-hd (Heddes et al. 2023, JMLR 24(255) [recalled]), but
samples are encoded once, not once per epoch. What was learnt becomes a Graph that decides as torch-hd does, up to the
rounding of class vectors that 8 bits cannot hold: its outputs are the cosine similarities times the length of the
sample's hypervector, which is the same for all classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.baselines.class_vectors import Update, bound_graph, chain, class_vectors, encoded, torchhd
from neuro.baselines.compressed import mlp_words
from neuro.baselines.level_search import LEVELS_SEARCHED, searched
from neuro.baselines.rival import Build, Plan, Rival, Trained, along
from neuro.baselines.standardise import Standardise
from neuro.baselines.trained_encoder import trained
from neuro.datasets import Split
from neuro.graph import Graph, Shape
from neuro.nodes import Affine, IDLevel, Sine
from neuro.nodes.hyperdimensional import BIPOLAR_BITS
from neuro.training import accuracy

LEVELS = 32
"""Level vectors of the encoders that bind values to places."""

LENGTHS = (6.0, 12.0)
"""Root-mean-square lengths of the standardised samples that the sinusoids of OnlineHD see; validation chooses."""


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def id_level(features: int, dimensions: int, levels: int, seed: int) -> IDLevel:
    """The encoder of `torchhd.classifiers.Vanilla` and `AdaptHD` for values in [0, 1], made after `seed`."""
    with _seeded(seed):
        made = torchhd().classifiers.Vanilla(features, dimensions, 1, n_levels=levels, min_level=0, max_level=1)
    ids, rows = (part.weight.detach().as_subclass(Tensor).to(torch.int8) for part in (made.keys, made.levels))
    return IDLevel(ids, rows)


def _bound(title: str, update: Update) -> Build:
    def build(data: Split, seed: int, plan: Plan) -> Trained:
        features, classes = prod(data.features), len(data.classes)
        encoder = id_level(features, plan.dimensions, LEVELS, seed)
        train, validation = ((encoded(encoder, x), y) for x, y in (data.parts["train"], data.parts["validation"]))
        epochs = 1 if update == "add" else plan.epochs
        vectors, _ = class_vectors(
            train, validation, classes, update, epochs=epochs, batch_size=plan.batch_size, seed=seed
        )
        graph = bound_graph(title, data.features, encoder, vectors)
        note = (
            f"{plan.dimensions:,} dimensions; {features:,} ids and {LEVELS} levels of one bit each. A bind is an "
            "exclusive-or that chooses the sign of an addition; the addition is counted."
        )
        return Trained(graph, accuracy(graph, data.validation_x, data.validation_y), (note,), _facts(graph, plan))

    return build


def _facts(graph: Graph, plan: Plan) -> dict[str, float]:
    return {"dimensions": plan.dimensions, "numbers_stored": graph.parameters}


def sinusoids(weight: Tensor, phase: Tensor, entry: Standardise, gain: float) -> Affine:
    """2 p + phase for the p = W gain (x - mean) / deviation that `torchhd.embeddings.Sinusoid` computes.

    weight (D, features), phase (D,).
    """
    scaled = 2 * gain / entry.deviation * weight
    return Affine(scaled, phase - entry.mean * scaled.sum(1))


def sinusoid_graph(name: str, features: Shape, projection: Affine, phase: Tensor, vectors: Tensor) -> Graph:
    """x -> cos(p + phase) sin(p) -> product with each class vector, divided by the length of that vector.

    cos(p + b) sin(p) = (sin(2 p + b) - sin(b)) / 2: one sine for each element; the sums around it take the rest.
    projection: x -> 2 p + phase; vectors (classes, D).
    """
    directions = F.normalize(vectors) / 2
    similarity = Affine(directions, -(directions @ phase.sin()))
    return chain(name, features, {"projection": projection, "hypervector": Sine(), "similarity": similarity})


def _online(data: Split, seed: int, plan: Plan) -> Trained:
    features, classes = prod(data.features), len(data.classes)
    with _seeded(seed):
        sinusoid = torchhd().embeddings.Sinusoid(features, plan.dimensions)
    weight, phase = (part.detach().as_subclass(Tensor) for part in (sinusoid.weight, sinusoid.bias[0]))
    entry = Standardise.of(data.train_x)
    made: list[tuple[float, float, Graph]] = []
    for length in LENGTHS:
        projection = sinusoids(weight, phase, entry, length / features**0.5)

        def hypervectors(x: Tensor, projection: Affine = projection) -> Tensor:
            return (projection.forward(x.flatten(1)).sin() - phase.sin()) / 2

        train, validation = ((hypervectors(x), y) for x, y in (data.parts["train"], data.parts["validation"]))
        vectors, right = class_vectors(
            train, validation, classes, "add_online", epochs=plan.epochs, batch_size=plan.batch_size, seed=seed
        )
        made.append((right, length, sinusoid_graph("OnlineHD", data.features, projection, phase, vectors)))
    _, length, graph = max(made, key=lambda found: (found[0], -found[1]))
    note = f"{plan.dimensions:,} dimensions; samples scaled to a length of {length:g}, as validation chose."
    facts = {**_facts(graph, plan), "length": length}
    return Trained(graph, accuracy(graph, data.validation_x, data.validation_y), (note,), facts)


def storing(words: Callable[[int, int], float]) -> Callable[[Split, Plan], Plan]:
    """The plan whose dimensions take as many words as the dense network; `words(features, classes)` for each."""

    def equal(data: Split, plan: Plan) -> Plan:
        sizes = plan.sizes(data)
        return replace(plan, dimensions=max(1, round(mlp_words(sizes) / words(sizes[0], sizes[-1]))))

    return equal


def _bound_words(levels: int) -> Callable[[int, int], float]:
    """Words of one dimension: an id for each feature and the levels in bits, the class vectors in words."""
    return lambda features, classes: (features + levels) / BIPOLAR_BITS + classes


_WIDE, _NARROW = along("dimensions", 256, 1024, 4096), along("dimensions", 32, 64, 128, 256)
_SEARCHED = along("dimensions", 64, 128, 256, 512)

ROWS: Mapping[str, Rival] = {
    name: Rival(title, build, ladder, storing(words), "hyperdimensional")
    for name, title, build, ladder, words in (
        ("hd-vanilla", "hypervectors", _bound("hypervectors", "add"), _WIDE, _bound_words(LEVELS)),
        ("hd-adapt", "AdaptHD", _bound("AdaptHD", "add_adapt"), _WIDE, _bound_words(LEVELS)),
        ("hd-online", "OnlineHD", _online, _WIDE, lambda f, c: f + 1 + c),
        ("hd-trained", "trained hypervectors", trained, _NARROW, lambda f, c: f + 1 + c),
        ("hd-levels", "searched levels", searched, _SEARCHED, _bound_words(LEVELS_SEARCHED)),
    )
}
