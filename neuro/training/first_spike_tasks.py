"""Trainings of first-spike networks by name, for `neuro.training.tasks`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from neuro.datasets.split import Split
from neuro.errors import ParameterError
from neuro.first_spike import Kind
from neuro.training.first_spike import (
    FirstSpikeCrossEntropy,
    FirstSpikeTraining,
    WeightBumping,
    first_spike_network,
)

if TYPE_CHECKING:
    from neuro.training.tasks import Plan, Task

LATEST = 10.0


@dataclass(frozen=True)
class FirstSpikeCoding:
    """How a task is learnt by neurons that fire once: a value of `Task.plan`.

    Points of the plane have a bias spike; pixels of images all spike, the dark ones together at the end, and weights
    start smaller, as there are more of them. The first weights follow from torch's global generator, which `planned`
    seeds. gradient_limit: see `neuro.first_spike.gradient_limit`.
    """

    hidden: int = 120
    membrane: Kind = "double"
    delays: Literal["none", "axonal", "synaptic"] = "none"
    noise: float = 0.0
    gradient_limit: float = 0.2

    def __str__(self) -> str:
        delays = "" if self.delays == "none" else f", {self.delays} delays"
        return f"first-spike coding, {self.hidden} hidden neurons, membrane {self.membrane}{delays}"

    def __call__(self, task: Task, split: Split) -> Plan:
        from neuro.training.tasks import Plan

        if any(size < 1 for size in split.features) or len(split.classes) < 2:
            raise ParameterError(f"first-spike coding needs samples of fixed size and classes, got {split!r}")
        inputs = math.prod(split.features)
        image = len(split.features) > 1
        options: dict = {"bias": None, "means": (0.05, 0.15), "deviations": (0.3, 0.3)} if image else {}
        network = first_spike_network(
            inputs, self.hidden, len(split.classes), membrane=self.membrane, delays=self.delays,
            seed=int(torch.randint(2**31, ())), latest=LATEST, shape=split.features, **options,
        )  # fmt: skip
        bump = WeightBumping()
        loss = FirstSpikeTraining(FirstSpikeCrossEntropy(LATEST), self.noise, self.gradient_limit, bump)
        return Plan(network, loss, augment=task.augment, after_step=bump)


EPOCHS = {"yin-yang": 200, "mnist": 30}
"""Where a first-spike training takes longer or shorter than another one of the task."""


def first_spike_task(task: Task, coding: FirstSpikeCoding) -> Task:
    """The same samples, learnt by neurons that fire once; a sample is shown in one go."""
    return replace(task, plan=coding, steps=1, epochs=EPOCHS.get(task.data, 10), batch_size=100, learning_rate=5e-3)
