"""What a network answers, and how often it is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from neuro.errors import ParameterError, ShapeError
from neuro.evaluate import evaluate
from neuro.graph import Graph
from neuro.training.activity import watch
from neuro.training.losses import Criterion, CrossEntropy, Loss
from neuro.training.present import Encode

Samples = tuple[Tensor, Tensor]
"""x (N, *features) and y (N,), integer class numbers."""


def accuracy(
    network: nn.Module | Graph,
    x: Tensor,
    y: Tensor,
    *,
    batch_size: int = 500,
    loss: Loss | None = None,
    encode: Encode | None = None,
    seed: int = 0,
) -> float:
    """Share of the samples whose largest score is their class, in [0, 1]. A module is run in eval mode.

    x (N, *features), y (N,). `loss`, `encode` and `seed` as for `outputs`. Raises ShapeError where they do not fit,
    ParameterError where a Graph needs time steps.
    """
    check_samples("data", x, y, floating=encode is None)
    found = outputs(network, x, batch_size=batch_size, loss=loss, encode=encode, seed=seed)
    return float((found.argmax(1) == y).double().mean())


def outputs(
    network: nn.Module | Graph,
    x: Tensor,
    *,
    batch_size: int = 500,
    loss: Loss | None = None,
    encode: Encode | None = None,
    seed: int = 0,
) -> Tensor:
    """What the network gives for x (N, *features), without gradients, in parts of `batch_size`, on the CPU.

    `loss` says how outputs become scores (N, classes), if it is a `Criterion`; `encode` how samples are shown, with
    randomness from `seed`.
    """
    with torch.no_grad():
        if isinstance(network, Graph):
            return torch.cat([evaluate(network, part) for part in x.split(batch_size)]).cpu()
        device = device_of(network, x)
        generator = torch.Generator(device).manual_seed(seed)
        criterion = criterion_of(loss)
        parts = []
        with evaluating(network):
            for part in x.split(batch_size):
                here = part.to(device)
                found = network(here if encode is None else encode(here, generator))
                parts.append((found if criterion is None else criterion.scores(found)).cpu())
        return torch.cat(parts)


@dataclass
class Tally:
    """Sums over samples, which several processes can add up."""

    samples: int = 0
    cost: float = 0.0
    correct: int = 0
    spikes: dict[str, float] = field(default_factory=dict)
    chances: dict[str, float] = field(default_factory=dict)

    def numbers(self) -> Tensor:
        """All sums as one tensor, and `take` takes them back."""
        rates = [*self.spikes.values(), *self.chances.values()]
        return torch.tensor([self.samples, self.cost, self.correct, *rates], dtype=torch.float64)

    def take(self, numbers: Tensor) -> None:
        samples, self.cost, correct, *rates = numbers.tolist()
        self.samples, self.correct = int(samples), int(correct)
        self.spikes = dict(zip(self.spikes, rates, strict=False))
        self.chances = dict(zip(self.chances, rates[len(self.chances) :], strict=True))

    @property
    def spike_rates(self) -> dict[str, float]:
        """Spikes per neuron and step of every population."""
        return {name: count / self.chances[name] for name, count in self.spikes.items()}

    @property
    def spike_rate(self) -> float | None:
        """Spikes per neuron and step of all populations together."""
        return sum(self.spikes.values()) / sum(self.chances.values()) if self.spikes else None


def tally(
    network: nn.Module,
    samples: Samples,
    *,
    batch_size: int,
    loss: Loss,
    encode: Encode | None,
    seed: int,
) -> Tally:
    """How the network does on x and y: the sum of its costs, of its right answers, and of its spikes."""
    x, y = samples
    device = device_of(network, x)
    generator = torch.Generator(device).manual_seed(seed)
    criterion = criterion_of(loss) or CrossEntropy()
    found = Tally()
    with torch.no_grad(), evaluating(network):
        for part, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
            here, wanted = part.to(device), labels.to(device)
            seen = watch(network, here if encode is None else encode(here, generator))
            answer = seen.outputs.double()
            found.samples += len(labels)
            found.cost += float(criterion.cost(answer, wanted)) * len(labels)
            found.correct += int((criterion.scores(answer).argmax(1) == wanted).sum())
            for name, fired in seen.spikes.items():
                found.spikes[name] = found.spikes.get(name, 0.0) + float(fired.sum())
                found.chances[name] = found.chances.get(name, 0.0) + fired.numel()
    return found


def criterion_of(loss: Loss | None) -> Criterion | None:
    """The loss, if it says how outputs become scores."""
    return loss if isinstance(loss, Criterion) else None


def device_of(network: nn.Module, x: Tensor) -> torch.device:
    return next((tensor.device for tensor in network.parameters()), x.device)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside, every part in the mode that it had outside."""
    training = {part: part.training for part in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode


def check_samples(what: str, x: Tensor, y: Tensor, floating: bool = True) -> None:
    """Refuse what is not x (N, *features), floating-point and finite, with integer y (N,)."""
    if y.ndim != 1 or x.ndim < 2 or len(x) != len(y) or not len(y):
        raise ShapeError(
            f"{what}: needs x (N, *features) and y (N,) with N >= 1, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if y.is_floating_point() or (floating and not x.is_floating_point()):
        raise ShapeError(f"{what}: needs floating-point x and integer y, got {x.dtype} and {y.dtype}")
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise ParameterError(f"{what}: x holds NaN or infinite values; repair the data")
