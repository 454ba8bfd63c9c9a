"""What is wrong with an answer, as one number: losses of the output, and bounds on how much may be fired."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.errors import ParameterError, ShapeError
from neuro.training.activity import watch

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Network in training mode, x (as the network takes it) and y of one batch in; the mean loss, a scalar, out."""


class Criterion(ABC):
    """A loss that depends on the outputs of the network alone, and so also says what its answer is."""

    @abstractmethod
    def scores(self, outputs: Tensor) -> Tensor:
        """(batch, classes): the largest score is the answer."""

    def cost(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The mean over the batch, a scalar: here the cross-entropy -log softmax(scores)[y]."""
        return F.cross_entropy(self.scores(outputs), y)

    def __call__(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return self.cost(network(x), y)


@dataclass(frozen=True)
class CrossEntropy(Criterion):
    """-log softmax(outputs)[y] of a network that knows no time: outputs (batch, classes)."""

    def scores(self, outputs: Tensor) -> Tensor:
        if outputs.ndim != 2:
            raise ShapeError(
                f"CrossEntropy reads (batch, classes), got {tuple(outputs.shape)}; networks that answer in time take "
                "RateCrossEntropy, MembraneCrossEntropy, MaxOverTime or MSECount"
            )
        return outputs


@dataclass(frozen=True)
class RateCrossEntropy(Criterion):
    """Cross-entropy of softmax(gain * rate); rate = spikes of an output neuron per step, over all T steps.

    outputs: spikes (time, batch, classes). gain None: T, so that the softmax is that of the spike counts.
    """

    gain: float | None = None

    def __post_init__(self) -> None:
        if self.gain is not None and not (math.isfinite(self.gain) and self.gain > 0):
            raise ParameterError(f"RateCrossEntropy: gain must be finite and > 0, got {self.gain}")

    def scores(self, outputs: Tensor) -> Tensor:
        counts = in_time(self, outputs).sum(0)
        return counts if self.gain is None else counts * (self.gain / len(outputs))


@dataclass(frozen=True)
class MembraneCrossEntropy(Criterion):
    """Cross-entropy of softmax(v), v the membrane potential of output neurons that do not fire (LI).

    outputs: v (time, batch, classes). at "mean": its mean over time; "last": its last value; "every": the mean over
    time of the cross-entropy at every step, which is temporal efficient training (Deng et al. 2022, arXiv 2202.11946,
    eq. 9 [recalled]); the answer is then that of the mean.
    """

    at: Literal["mean", "last", "every"] = "mean"

    def __post_init__(self) -> None:
        if self.at not in ("mean", "last", "every"):
            raise ParameterError(f"MembraneCrossEntropy: at must be 'mean', 'last' or 'every', got {self.at!r}")

    def scores(self, outputs: Tensor) -> Tensor:
        v = in_time(self, outputs)
        return v[-1] if self.at == "last" else v.mean(0)

    def cost(self, outputs: Tensor, y: Tensor) -> Tensor:
        if self.at == "every":
            return F.cross_entropy(in_time(self, outputs).flatten(0, 1), y.repeat(len(outputs)))
        return super().cost(outputs, y)


@dataclass(frozen=True)
class MaxOverTime(Criterion):
    """Cross-entropy of softmax(max over time of v), v the membrane potential of output neurons that do not fire.

    outputs: v (time, batch, classes). Cramer et al. 2022, The Heidelberg spiking data sets, eq. 9 [recalled].
    """

    def scores(self, outputs: Tensor) -> Tensor:
        return in_time(self, outputs).amax(0)


@dataclass(frozen=True)
class MSECount(Criterion):
    """Squared error of the spike counts n in units of T^2: the mean over batch and classes of (n / T - target)^2.

    outputs: spikes (time, batch, classes). correct, incorrect: the targets, in spikes per step.
    """

    correct: float = 1.0
    incorrect: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.incorrect < self.correct <= 1:
            raise ParameterError(
                f"MSECount: needs 0 <= incorrect < correct <= 1, got {self.incorrect} and {self.correct}"
            )

    def scores(self, outputs: Tensor) -> Tensor:
        return in_time(self, outputs).mean(0)

    def cost(self, outputs: Tensor, y: Tensor) -> Tensor:
        rate = self.scores(outputs)
        target = torch.full_like(rate, self.incorrect).scatter_(1, y[:, None], self.correct)
        return F.mse_loss(rate, target)


def in_time(criterion: Criterion, outputs: Tensor) -> Tensor:
    """`outputs` if they are (time, batch, classes), ShapeError otherwise."""
    if outputs.ndim != 3:
        raise ShapeError(
            f"{type(criterion).__name__} reads (time, batch, classes), got {tuple(outputs.shape)}; "
            "give the samples a time axis with encode=..."
        )
    return outputs


@dataclass(frozen=True)
class RateBound(ABC):
    """A bound on firing rates; `limit` in spikes per neuron and step, `weight` is what a violation of 1 costs.

    per "neuron": every neuron keeps it; "layer": the mean over a layer keeps it. Both sample by sample.
    """

    limit: float
    weight: float = 1.0
    per: Literal["neuron", "layer"] = "neuron"

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not 0 <= self.limit <= 1:
            raise ParameterError(f"{name}: limit must lie in [0, 1] spikes per neuron and step, got {self.limit}")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ParameterError(f"{name}: weight must be finite and >= 0, got {self.weight}")
        if self.per not in ("neuron", "layer"):
            raise ParameterError(f"{name}: per must be 'neuron' or 'layer', got {self.per!r}")

    @abstractmethod
    def violation(self, rates: Tensor) -> Tensor:
        """How far rates are beyond the limit, 0 where they keep it."""

    def __call__(self, spikes: Mapping[str, Tensor]) -> Tensor:
        """weight * violation^2, mean over neurons (or none, see `per`), samples and layers.

        spikes: (time, batch, *neurons) of every population.
        """
        each = []
        for fired in spikes.values():
            rates = fired.mean(0).flatten(1)
            rates = rates.mean(1, keepdim=True) if self.per == "layer" else rates
            each.append(self.violation(rates).square().mean())
        return self.weight * torch.stack(each).mean()


@dataclass(frozen=True)
class UpperRate(RateBound):
    """Firing more often than `limit` costs: max(0, rate - limit)^2.

    After Zenke and Vogels 2021 (Neural Computation 33), sec. 4 [recalled].
    """

    def violation(self, rates: Tensor) -> Tensor:
        return (rates - self.limit).relu()


@dataclass(frozen=True)
class LowerRate(RateBound):
    """Firing less often than `limit` costs: max(0, limit - rate)^2. It wakes silent neurons. After the same paper."""

    def violation(self, rates: Tensor) -> Tensor:
        return (self.limit - rates).relu()


@dataclass(frozen=True)
class Regularised(Criterion):
    """A criterion plus bounds on the firing rates of the hidden populations (all that fire but the output).

    The bounds count while the network trains; validation shows the criterion alone. ParameterError where the network
    does not say what its neurons fire.
    """

    criterion: Criterion
    bounds: tuple[RateBound, ...]

    def scores(self, outputs: Tensor) -> Tensor:
        return self.criterion.scores(outputs)

    def cost(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.criterion.cost(outputs, y)

    def __call__(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        seen = watch(network, x)
        if not seen.hidden:
            raise ParameterError(
                f"Regularised: of {type(network).__name__} no hidden populations are known; use a neuro.Network"
            )
        return sum((bound(seen.hidden) for bound in self.bounds), self.criterion.cost(seen.outputs, y))


cross_entropy = CrossEntropy()
"""-log softmax(network(x))[y], mean over the batch."""
