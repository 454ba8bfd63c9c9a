"""Trainings by name: a data set, a network, and how the one is shown to the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuro.datasets.split import Split
from neuro.encode import ENCODERS
from neuro.errors import ParameterError
from neuro.modules import LI, LIF, Readout
from neuro.network import Network
from neuro.surrogate import ArcTan, Boxcar, FastSigmoid, MultiGaussian, Sigmoid, SuperSpike, Surrogate, Triangle
from neuro.trace import trace
from neuro.training.augment import Augment, ShiftFlip
from neuro.training.losses import (
    Criterion,
    Loss,
    LowerRate,
    MaxOverTime,
    MembraneCrossEntropy,
    MSECount,
    RateBound,
    RateCrossEntropy,
    Regularised,
    UpperRate,
)
from neuro.training.networks import BETA, NETWORKS
from neuro.training.present import Encode, Encoded, TimeFirst

SURROGATES: Mapping[str, Surrogate] = {
    "arctan": ArcTan(),
    "fast-sigmoid": FastSigmoid(),
    "sigmoid": Sigmoid(),
    "superspike": SuperSpike(),
    "triangle": Triangle(),
    "boxcar": Boxcar(),
    "multi-gaussian": MultiGaussian(),
}

LOSSES: Mapping[str, tuple[Criterion, Callable[[], nn.Module]]] = {
    "readout": (MembraneCrossEntropy("last"), Readout),
    "membrane": (MembraneCrossEntropy("last"), lambda: LI(BETA)),
    "max-over-time": (MaxOverTime(), lambda: LI(BETA)),
    "rate": (RateCrossEntropy(), lambda: LIF(BETA)),
    "mse-count": (MSECount(), lambda: LIF(BETA)),
}
"""Each with the population that follows the last weights: chips have `Readout`, the mean current."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What `fit` is given for a task besides its data and numbers."""

    network: nn.Module
    loss: Loss
    encode: Encode | None = None
    augment: Augment | None = None
    after_step: Callable[[nn.Module], None] | None = None


@dataclass(frozen=True)
class Task:
    """A training with all that can be chosen about it.

    data: a name in `neuro.datasets.SOURCES`. network, encoder, surrogate, loss: names in `NETWORKS`,
    `neuro.encode.ENCODERS`, `SURROGATES`, `LOSSES`. steps: how long a sample is shown; None where samples have a time
    of their own. gain: what samples are multiplied by inside the network, at first: it learns with the weights.
    most_fired, least_fired: bounds on the firing rates of hidden neurons, bound_weight what breaking them costs. plan:
    how network and loss come of the rest; another way of training is another function.
    """

    about: str
    data: str
    network: str
    steps: int | None
    epochs: int
    batch_size: int
    learning_rate: float
    encoder: str = "constant"
    surrogate: str = "arctan"
    loss: str = "readout"
    gain: float = 1.0
    most_fired: float | None = None
    least_fired: float | None = None
    bound_weight: float = 1.0
    augment: Augment | None = None
    plan: Callable[[Task, Split], Plan] | None = None

    def __post_init__(self) -> None:
        chosen: dict[str, tuple[str, Mapping[str, Any]]] = {
            "network": (self.network, NETWORKS),
            "encoder": (self.encoder, ENCODERS),
            "surrogate": (self.surrogate, SURROGATES),
            "loss": (self.loss, LOSSES),
        }
        for what, (name, known) in chosen.items():
            if name not in known:
                raise ParameterError(f"there is no {what} {name!r}; give one of {', '.join(known)}")


def planned(task: Task, split: Split, seed: int = 0) -> Plan:
    """Network, loss and the rest for the samples of `split`; the first weights follow from the seed.

    Raises ParameterError where the task and the samples do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return (task.plan or through_time)(task, split)


def through_time(task: Task, split: Split) -> Plan:
    """A network of leaky neurons that learns through time with surrogate gradients."""
    if split.timed and task.steps is not None:
        raise ParameterError(f"samples of {split.name} have {split.features[0]} steps of their own; leave steps out")
    if split.timed and task.encoder != "constant":
        raise ParameterError(f"samples of {split.name} are spikes already; leave the encoder out")
    if not split.timed and task.steps is None:
        raise ParameterError(f"samples of {split.name} have no time of their own; say how many steps to show them")
    features = split.features[1:] if split.timed else split.features
    criterion, last = LOSSES[task.loss]
    module = NETWORKS[task.network](features, len(split.classes), last())
    module = module if task.gain == 1 else nn.Sequential(Gain(task.gain), module)
    graph = trace(module, torch.zeros(2, *features), name=task.network)
    encode = TimeFirst() if task.steps is None else Encoded(ENCODERS[task.encoder], task.steps)
    bounds: list[RateBound] = []
    if task.most_fired is not None:
        bounds.append(UpperRate(task.most_fired, task.bound_weight))
    if task.least_fired is not None:
        bounds.append(LowerRate(task.least_fired, task.bound_weight))
    return Plan(
        Network(graph, surrogate=SURROGATES[task.surrogate]),
        Regularised(criterion, tuple(bounds)) if bounds else criterion,
        encode,
        task.augment,
    )


class Gain(nn.Module):
    """x times a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


TASKS: dict[str, Task] = {
    "mnist-5k": Task("5,000 digits, from 784 pixels", "mnist-5k", "mlp", 8, 10, 64, 2e-3),
    "mnist": Task("70,000 digits, from 784 pixels", "mnist", "mlp", 8, 5, 128, 2e-3, augment=ShiftFlip(1)),
    "fashion-mnist": Task("70,000 pieces of clothing", "fashion-mnist", "cnn", 8, 10, 128, 2e-3),
    "cifar10": Task("60,000 colour pictures", "cifar10", "cnn", 4, 30, 128, 2e-3, augment=ShiftFlip(4, flip=True)),
    "fsdd": Task(
        "3,000 spoken digits as spikes of a cochlea", "fsdd", "recurrent", None, 30, 64, 2e-3, surrogate="superspike"
    ),
    "mnist-dvs": Task("100 moving digits seen by an event camera", "mnist-dvs", "cnn", None, 60, 16, 2e-3, gain=64.0),
    "yin-yang": Task("points of the plane in 3 classes", "yin-yang", "mlp", 16, 40, 64, 5e-3),
}
"""What `neuro train` knows by name; more can be entered."""
