"""Hypervectors of few dimensions: the levels are searched, for accuracy and for few dimensions at once.

Basaklar et al. 2021 (arXiv 2103.06709) choose how many bits flip between one level vector and the next [recalled], by a
search with two objectives. Here an element flips once, and the search chooses at which level each one does: with ids
that stay, elements cannot be exchanged for each other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from neuro.baselines.class_vectors import bound_graph, class_vectors, encoded, share_right, torchhd
from neuro.baselines.rival import Plan, Trained
from neuro.datasets import Split
from neuro.errors import ParameterError
from neuro.nodes import IDLevel
from neuro.training import accuracy

TITLE = "searched levels"
LEVELS_SEARCHED = 16
TRIALS = 300
SAMPLES = 4000
"""Training samples on which a candidate is judged."""

CONTROLS = 3


@dataclass(frozen=True, eq=False)
class Candidate:
    """Elements that are kept, the level at which each flips (1 to L - 1), and the accuracy of class sums on training.

    kept and flips (D,), whole numbers.
    """

    kept: Tensor
    flips: Tensor
    accuracy: float = 0.0

    @property
    def dimensions(self) -> int:
        return len(self.kept)

    def encoder(self, ids: Tensor, levels: int) -> IDLevel:
        """With ids (features, all elements); levels are 1 before the flip and -1 from there on."""
        below = torch.arange(levels)[:, None] < self.flips
        return IDLevel(ids[:, self.kept], (2 * below.to(torch.int8) - 1))


def dominated(one: Candidate, others: list[Candidate]) -> bool:
    """Whether another is at least as accurate with no more dimensions."""
    return any(other.accuracy >= one.accuracy and other.dimensions <= one.dimensions for other in others)


def random_ids(features: int, dimensions: int, generator: torch.Generator) -> Tensor:
    """Bipolar ids (features, D), int8."""
    return 2 * torch.randint(0, 2, (features, dimensions), generator=generator).to(torch.int8) - 1


def random_flips(dimensions: int, levels: int, generator: torch.Generator) -> Tensor:
    """Level vectors as torch-hd makes them, but for the elements that never flip and tell nothing."""
    return torch.randint(1, levels, (dimensions,), generator=generator)


def search_levels(
    x: Tensor, y: Tensor, ids: Tensor, *, levels: int = LEVELS_SEARCHED, trials: int = TRIALS, seed: int = 0
) -> tuple[Candidate, ...]:
    """Candidates that none other beats in both accuracy and dimensions, fewest dimensions first.

    x (N, *features) in [0, 1], y (N,), ids (features, most dimensions). An evolution: a candidate of the front, chosen
    at random, flips a tenth of its elements elsewhere, and every second time a quarter of them go or unused ones come.
    Raises ParameterError for fewer than two levels or one trial.
    """
    if levels < 2 or trials < 1:
        raise ParameterError(f"search_levels: needs 2 levels and 1 trial or more, got {levels} and {trials}")
    generator = torch.Generator().manual_seed(seed)
    table = _responses(x.flatten(1), ids, levels)
    whole = torch.arange(ids.shape[1])

    def judged(candidate: Candidate) -> Candidate:
        h = table[candidate.flips - 1, candidate.kept].T.float().contiguous()
        sums = torch.zeros(int(y.max()) + 1, candidate.dimensions).index_add_(0, y, h)
        return replace(candidate, accuracy=share_right(sums, h, y))

    front = [judged(Candidate(whole, random_flips(len(whole), levels, generator)))]
    for _ in range(trials - 1):
        parent = front[int(torch.randint(len(front), (1,), generator=generator))]
        child = judged(_mutated(parent, len(whole), levels, generator))
        if not dominated(child, front):
            front = [one for one in front if not dominated(one, [child])] + [child]
    return tuple(sorted(front, key=lambda one: one.dimensions))


def _responses(x: Tensor, ids: Tensor, levels: int) -> Tensor:
    """What every element would be if it flipped at each level: (L - 1, D, N), int8; the search only picks from it."""
    elements = torch.arange(ids.shape[1])
    found = [
        encoded(Candidate(elements, torch.full_like(elements, level)).encoder(ids, levels), x).T
        for level in range(1, levels)
    ]
    return torch.stack(found)


def _mutated(parent: Candidate, most: int, levels: int, generator: torch.Generator) -> Candidate:
    flips, kept = parent.flips.clone(), parent.kept
    moved = torch.rand(len(flips), generator=generator) < 0.1
    moved[torch.randint(len(flips), (1,), generator=generator)] = True
    flips[moved] = random_flips(int(moved.sum()), levels, generator)
    size, change = len(kept), int(torch.randint(4, (1,), generator=generator))
    if change == 0 and size > 1:
        staying = torch.randperm(size, generator=generator)[: max(1, size - size // 4)].sort().values
        return Candidate(kept[staying], flips[staying])
    if change == 1 and size < most:
        unused = torch.ones(most, dtype=torch.bool).index_fill(0, kept, False).nonzero()[:, 0]
        coming = unused[torch.randperm(len(unused), generator=generator)[: max(1, size // 4)]]
        return Candidate(torch.cat([kept, coming]), torch.cat([flips, random_flips(len(coming), levels, generator)]))
    return Candidate(kept, flips)


def searched(data: Split, seed: int, plan: Plan) -> Trained:
    """The most accurate candidate of at most `plan.dimensions`, its class vectors trained as AdaptHD's.

    Facts: its dimensions; the accuracy on validation of random flips with as many dimensions, ids and training alike
    (mean of three draws); how many candidates were on the front.
    """
    torchhd()  # what is missing is missed before the search, not after it
    generator = torch.Generator().manual_seed(seed)
    ids = random_ids(prod(data.features), plan.dimensions, generator)
    few = torch.randperm(len(data.train_x), generator=generator)[:SAMPLES]
    front = search_levels(data.train_x[few], data.train_y[few], ids, seed=seed)
    best = max(front, key=lambda one: one.accuracy)
    flips = (random_flips(best.dimensions, LEVELS_SEARCHED, generator) for _ in range(CONTROLS))
    controls = [replace(best, flips=drawn) for drawn in flips]

    def taught(candidate: Candidate) -> tuple[IDLevel, Tensor, float]:
        encoder = candidate.encoder(ids, LEVELS_SEARCHED)
        train, validation = ((encoded(encoder, x), y) for x, y in (data.parts["train"], data.parts["validation"]))
        vectors, right = class_vectors(
            train, validation, len(data.classes), "add_adapt", epochs=plan.epochs, batch_size=plan.batch_size, seed=seed
        )
        return encoder, vectors, right

    encoder, vectors, _ = taught(best)
    random = sum(taught(control)[2] for control in controls) / CONTROLS
    graph = bound_graph(TITLE, data.features, encoder, vectors)
    right = accuracy(graph, data.validation_x, data.validation_y)
    note = (
        f"{best.dimensions:,} dimensions, {LEVELS_SEARCHED} levels searched in {TRIALS} trials; random levels of the "
        f"same size reach {100 * random:.1f} % on validation, these {100 * right:.1f} %."
    )
    facts = {
        "dimensions": best.dimensions, "numbers_stored": graph.parameters, "random_validation": random,
        "front": len(front),
    }  # fmt: skip
    return Trained(graph, right, (note,), facts)
