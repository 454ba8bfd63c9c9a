"""Networks that are sparse from the first step: while they learn, weak connections are dropped and others grown."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from neuro.baselines.sparse import Masks, apply_masks, weights_of
from neuro.datasets.split import Split
from neuro.errors import ParameterError
from neuro.training import History, Samples, fit

Network = TypeVar("Network", bound=nn.Module)
Distribution = Literal["uniform", "erdos-renyi"]


@dataclass(frozen=True)
class Rule:
    """How connections move. After `every` updates (None: after an epoch) each layer drops a share of its weights, those
    of smallest magnitude, and as many grow again from zero where the score of a missing weight is largest.

    share: from `start` to `end` along half a cosine over the first `until` of the training; then nothing moves.
    score: |m| with m <- momentum m + (1 - momentum) gradient (momentum 0: the gradient of the present batch), or
    random. `redistribute`: what all layers dropped grows in proportion to the mean |m| of each layer's weights;
    otherwise each layer keeps its number. `distribution`: density of the layers at the start, see `densities`.
    """

    start: float
    end: float
    every: int | None = None
    until: float = 1.0
    score: Literal["gradient", "random"] = "gradient"
    momentum: float = 0.0
    redistribute: bool = False
    distribution: Distribution = "uniform"

    def __post_init__(self) -> None:
        if not (0 <= self.end <= self.start < 1 and 0 <= self.until <= 1 and 0 <= self.momentum < 1):
            raise ParameterError(f"Rule: 0 <= end <= start < 1, until in [0, 1] and momentum in [0, 1), got {self}")
        if self.every is not None and self.every < 1:
            raise ParameterError(f"Rule: every must be >= 1 or None, got {self.every}")
        if self.score not in ("gradient", "random"):
            raise ParameterError(f"Rule: score must be 'gradient' or 'random', got {self.score!r}")
        if self.redistribute and self.score != "gradient":
            raise ParameterError("Rule: redistribute needs score 'gradient', by whose mean it shares out")

    def share(self, progress: float) -> float:
        """Share of the connections that are dropped at `progress` in [0, 1] of the training."""
        if progress >= self.until:
            return 0.0
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress / self.until)) / 2


def sparse_momentum(*, rate: float = 0.5, momentum: float = 0.9) -> Rule:
    """Dettmers and Zettlemoyer 2019 (arXiv 1907.04840), algorithm 1: half the weights move after the first epoch.

    0.5 falls to 0.005 as in the authors' code. The momentum is that of the plain gradient, without weight decay.
    """
    return Rule(rate, min(rate, 0.005), momentum=momentum, redistribute=True)


def rigl(
    distribution: Distribution = "erdos-renyi", *, alpha: float = 0.3, every: int | None = 100, until: float = 0.75
) -> Rule:
    """Evci et al. 2020 (arXiv 1911.11134), sec. 3: f = alpha / 2 (1 + cos(pi t / T_end)), T_end at 3/4 of the training.

    The optimizer's own momentum of a new connection is not set back to zero here.
    """
    return Rule(alpha, 0.0, every=every, until=until, distribution=distribution)


def evolutionary(*, zeta: float = 0.3) -> Rule:
    """SET: a share zeta falls after every epoch and grows at random. Mocanu et al. 2018 (arXiv 1707.04780), alg. 1.

    There the share is taken of positive and of negative weights apart [recalled], here of their magnitudes.
    """
    return Rule(zeta, zeta, score="random", distribution="erdos-renyi")


def static(distribution: Distribution = "uniform") -> Rule:
    """The control: a random mask that never moves."""
    return Rule(0.0, 0.0, until=0.0, distribution=distribution)


def densities(module: nn.Module, density: float, distribution: Distribution = "uniform") -> dict[str, float]:
    """Share of the weights of each layer that exist, `density` of all in the mean.

    "uniform": the same in each. "erdos-renyi": in proportion to sum(shape) / product(shape), at most 1: Mocanu et al.
    2018, eq. 3; for convolutions (ERK) Evci et al. 2020, sec. 3. Small layers stay denser. Raises ParameterError for
    a density outside (0, 1] or a network without weights.
    """
    shapes = {name: weight.shape for name, weight in weights_of(module).items()}
    if not 0 < density <= 1:
        raise ParameterError(f"densities: density must lie in (0, 1], got {density}")
    if not shapes:
        raise ParameterError(f"densities: {type(module).__name__} has no weights")
    if distribution == "uniform":
        return dict.fromkeys(shapes, density)
    if distribution != "erdos-renyi":
        raise ParameterError(f"densities: distribution must be 'uniform' or 'erdos-renyi', got {distribution!r}")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    found = dict.fromkeys(shapes, 1.0)
    free = set(shapes)
    while free:
        left = density * sum(sizes.values()) - sum(size for name, size in sizes.items() if name not in free)
        scale = left / sum(sum(shapes[name]) for name in free)
        wanted = {name: scale * sum(shapes[name]) / sizes[name] for name in free}
        if max(wanted.values()) <= 1:
            return found | wanted
        free -= {name for name, share in wanted.items() if share > 1}
    return found


def random_masks(module: nn.Module, shares: Mapping[str, float], seed: int = 0) -> dict[str, Tensor]:
    """round(share * n) of the n weights of each layer, at least one, drawn uniformly."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, weight in weights_of(module).items():
        kept = max(1, round(shares[name] * weight.numel()))
        masks[name] = largest(torch.rand(weight.shape, generator=generator), kept)
    return masks


def largest(scores: Tensor, count: int) -> Tensor:
    """A mask of the `count` largest of `scores`; of equal ones the first stored."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.flatten().argsort(descending=True, stable=True)[:count]] = True
    return mask.view_as(scores)


def shared_out(total: int, values: Mapping[str, float], room: Mapping[str, int]) -> dict[str, int]:
    """`total` things dealt in proportion to `values`, to none more than its `room`; what is over goes to the others."""
    given = dict.fromkeys(values, 0)
    while left := min(total, sum(room.values())) - sum(given.values()):
        takers = {name: values[name] for name in values if given[name] < room[name]}
        whole = sum(takers.values())
        wanted = {name: left * value / whole if whole > 0 else left / len(takers) for name, value in takers.items()}
        step = {name: min(math.floor(value), room[name] - given[name]) for name, value in wanted.items()}
        if not any(step.values()):
            step = {max(wanted, key=lambda name: wanted[name]): 1}
        for name, count in step.items():
            given[name] += count
    return given


class Rewiring:
    """Keeps a network sparse while it learns and moves its connections by `rule`: an `after_step` of `fit`.

    `updates` of the whole training and of one `epoch`; the module is made sparse at once. Connections move at the first
    update after their time, so that an epoch is judged, and its state kept, when what has grown has learnt. Nothing
    moves at the last update. `state_dict` holds what is needed to go on.
    """

    def __init__(self, module: nn.Module, rule: Rule, density: float, *, updates: int, epoch: int, seed: int = 0):
        self.rule = rule
        self.updates = updates
        self.every = rule.every or epoch
        self.done = 0
        self.generator = torch.Generator().manual_seed(seed)
        self.masks: dict[str, Tensor] = random_masks(module, densities(module, density, rule.distribution), seed)
        self.momentum = {name: torch.zeros_like(weight) for name, weight in weights_of(module).items()}
        apply_masks(module, self.masks)

    def __call__(self, module: nn.Module) -> None:
        weights = weights_of(module)
        self.done += 1
        share = self.rule.share(self.done / self.updates)
        due = share > 0 and 1 < self.done < self.updates and (self.done - 1) % self.every == 0
        if self.rule.score == "gradient" and share > 0 and (due or self.rule.momentum):
            for name, weight in weights.items():
                if weight.grad is not None:
                    self.momentum[name].lerp_(weight.grad, 1 - self.rule.momentum)
        apply_masks(module, self.masks)
        if due:
            self._rewire({name: weight.detach().abs() for name, weight in weights.items()}, share)
            apply_masks(module, self.masks)

    def _rewire(self, magnitudes: Mapping[str, Tensor], share: float) -> None:
        before = {name: int(mask.sum()) for name, mask in self.masks.items()}
        # a layer of one weight keeps it
        kept = {name: count - min(math.ceil(share * count), count - 1) for name, count in before.items()}
        survivors = {name: largest(magnitudes[name].where(mask, -1.0), kept[name]) for name, mask in self.masks.items()}
        grown = {name: before[name] - kept[name] for name in before}
        if self.rule.redistribute:
            means = {name: float(self.momentum[name][mask].abs().mean()) for name, mask in self.masks.items()}
            room = {name: mask.numel() - kept[name] for name, mask in self.masks.items()}
            grown = shared_out(sum(grown.values()), means, room)
        for name, survivor in survivors.items():
            scores = self._scores(name).where(~survivor, -1.0)
            self.masks[name] = survivor | largest(scores, grown[name])

    def _scores(self, name: str) -> Tensor:
        if self.rule.score == "random":
            return torch.rand(self.masks[name].shape, generator=self.generator)
        return self.momentum[name].abs()

    def state_dict(self) -> dict[str, Tensor]:
        masks = {f"mask.{name}": mask for name, mask in self.masks.items()}
        momentum = {f"momentum.{name}": tensor for name, tensor in self.momentum.items()}
        return {**masks, **momentum, "done": torch.tensor(self.done), "random": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor], /) -> None:
        self.masks = {name: state[f"mask.{name}"].bool() for name in self.masks}
        self.momentum = {name: state[f"momentum.{name}"].clone() for name in self.momentum}
        self.done = int(state["done"])
        self.generator.set_state(state["random"].to(torch.uint8))


class Gradual:
    """Prunes a dense network while it learns: an `after_step` of `fit`. Zhu and Gupta 2017 (arXiv 1710.01878), eq. 1.

    s_t = s_f - s_f (1 - (t - t_0) / (t_1 - t_0))^3 of the weights of each layer are zero, t from t_0 to t_1 as shares
    (`begin`, `finish`) of all `updates`, brought up to date once in `every`.
    """

    def __init__(
        self, density: float, *, updates: int, begin: float = 0.1, finish: float = 0.75, every: int = 100
    ) -> None:
        if not (0 < density <= 1 and 0 <= begin < finish <= 1 and every >= 1):
            raise ParameterError(
                "Gradual: density in (0, 1], 0 <= begin < finish <= 1 and every >= 1, "
                f"got {density}, {begin}, {finish}, {every}"
            )
        self.density, self.updates, self.begin, self.finish, self.every = density, updates, begin, finish, every
        self.done = 0
        self.masks: Masks = {}

    def sparsity(self, progress: float) -> float:
        """s_t at `progress` in [0, 1] of the training."""
        passed = min(max((progress - self.begin) / (self.finish - self.begin), 0.0), 1.0)
        return (1 - self.density) * (1 - (1 - passed) ** 3)

    def __call__(self, module: nn.Module) -> None:
        self.done += 1
        last = math.ceil(self.finish * self.updates)
        if self.done == last or (self.done < last and self.done % self.every == 0):
            sparsity = self.sparsity(self.done / self.updates)
            self.masks = {
                name: largest(weight.detach().abs(), max(1, round((1 - sparsity) * weight.numel())))
                for name, weight in weights_of(module).items()
            }
        apply_masks(module, self.masks)

    def state_dict(self) -> dict[str, Tensor]:
        return {f"mask.{name}": mask for name, mask in self.masks.items()} | {"done": torch.tensor(self.done)}

    def load_state_dict(self, state: dict[str, Tensor], /) -> None:
        self.done = int(state["done"])
        self.masks = {name.removeprefix("mask."): mask.bool() for name, mask in state.items() if name != "done"}


def fit_sparse(
    module: Network,
    data: Split | Samples,
    rule: Rule | Literal["gradual"],
    *,
    density: float,
    epochs: int,
    batch_size: int = 100,
    seed: int = 0,
    **training: Any,
) -> tuple[Network, History]:
    """A trained copy of `module` of which `density` of the weights exist, and how its training went.

    `training` are further arguments of `neuro.training.fit`. A connection without any gradient, such as one behind a
    pixel that is always zero, stays at zero and counts as none. With "gradual", the best state may be an early,
    denser one, so the last is kept. Gradients are dense all the while: training is no cheaper than that of the module.
    """
    sparse = copy.deepcopy(module)
    samples = len(data.train_y) if isinstance(data, Split) else len(data[1])
    epoch = max(1, min(-(-samples // batch_size), samples))
    updates = epochs * epoch
    if rule == "gradual":
        keep: Gradual | Rewiring = Gradual(density, updates=updates)
        if isinstance(data, Split):
            data = (data.train_x, data.train_y)
    else:
        keep = Rewiring(sparse, rule, density, updates=updates, epoch=epoch, seed=seed)
    history = fit(sparse, data, epochs=epochs, batch_size=batch_size, seed=seed, after_step=keep, **training)
    return sparse, history
