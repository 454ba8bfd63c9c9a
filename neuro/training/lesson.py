"""One epoch of a training: every sample once, and a look at the validation data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from neuro.errors import ParameterError
from neuro.training.augment import Augment
from neuro.training.devices import summed
from neuro.training.interrupt import stop
from neuro.training.losses import Loss
from neuro.training.present import Encode
from neuro.training.progress import Bar
from neuro.training.resume import Course, Position
from neuro.training.schedules import Schedule
from neuro.training.scores import Samples, Tally, tally

EVALUATED = 500
"""Samples that a network without time takes at once in validation."""


class Objective(nn.Module):
    """The loss as a module, so that whatever a loss does with the network happens where Fabric watches."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module = module
        self._loss = (loss,)  # a loss that is a module itself must not be trained

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self._loss[0](self.module, x, y)


@dataclass(frozen=True, eq=False)
class Keeper:
    """Writes the training where it is to be kept, and ends it where somebody asked for it."""

    course: Course
    path: Path | str | None
    training: str
    every: int | None
    asked: Callable[[], int]

    def now(self, position: Position) -> None:
        if self.path is not None:
            self.course.write(self.path, self.training, position)

    def between_updates(self, updates: int, position: Callable[[], Position]) -> None:
        """After so many updates of the whole training, with more to come in this epoch."""
        asked = self._asked()
        if asked or (self.every is not None and updates % self.every == 0):
            self.now(position())
        if asked:
            stop(asked)

    def stop_if_asked(self) -> None:
        if asked := self._asked():
            stop(asked)

    def _asked(self) -> int:
        """The signal that any of the processes got."""
        fabric = self.course.fabric
        if self.path is None or fabric.world_size == 1:
            return self.asked()
        most = fabric.all_reduce(torch.tensor(self.asked(), device=fabric.device), reduce_op="max")
        assert isinstance(most, Tensor)
        return int(most)


@dataclass(frozen=True, eq=False)
class Lesson:
    """How one epoch is learnt. objective, updates: as Fabric wraps them; steps: updates per epoch, total: in all."""

    course: Course
    objective: nn.Module
    updates: torch.optim.Optimizer
    samples: Samples
    steps: int
    total: int
    batch_size: int
    learning_rate: float
    schedule: Schedule
    clip: float | None
    loss: Loss
    augment: Augment | None
    encode: Encode | None
    seed: int
    bar: Bar

    def learn(self, position: Position, keep: Keeper) -> tuple[float, float]:
        """The updates of one epoch that `position` has not had: the mean loss and the last learning rate."""
        fabric, module = self.course.fabric, self.course.module
        x, y = self.samples
        number = len(position.epochs) + 1
        module.train()
        order = position.order if position.order is not None else self._order()
        total = torch.tensor(position.loss, dtype=torch.float64, device=fabric.device)
        rate = 0.0
        # equal parts: no last batch of one sample, which batch norm could not take
        for step, batch in enumerate(order.tensor_split(self.steps)):
            done = (number - 1) * self.steps + step
            rate = self.schedule(self.learning_rate, done, self.total)
            if step < position.steps:
                continue
            rows = batch.tensor_split(fabric.world_size)[fabric.global_rank].to(x.device)
            if self.bar.visible and step == position.steps:
                self.bar.spike_rate = self._look((x[rows], y[rows.to(y.device)])).spike_rate
            for group in self.course.updates.param_groups:
                group["lr"] = rate
            self.updates.zero_grad(set_to_none=True)
            cost = self.objective(*self._shown(x[rows], y[rows.to(y.device)]))
            # the mean of the processes is the mean of the batch, also where their shares differ by a sample
            fabric.backward(cost * (len(rows) * fabric.world_size / len(batch)))
            if self.clip is not None:
                fabric.clip_gradients(self.objective, self.updates, max_norm=self.clip, error_if_nonfinite=False)
            self.updates.step()
            if self.course.after_step is not None:
                self.course.after_step(module)  # type: ignore[operator]
            total += cost.detach().double() * len(rows)
            self.bar.advance(len(batch), f"epoch {number}/{self.total // self.steps}", lambda: float(cost.detach()))  # noqa: B023
            if step + 1 < self.steps:
                keep.between_updates(
                    done + 1, lambda: replace(position, order=order, steps=step + 1, loss=float(total))  # noqa: B023
                )  # fmt: skip
        mean = float(summed(fabric, total)) / len(y)
        if not math.isfinite(mean):
            raise ParameterError(
                f"fit: the loss of epoch {number} is {mean}; lower learning_rate ({self.learning_rate:g})"
            )
        return mean, rate

    def judge(self, validation: Samples) -> Tally:
        """How the network does on the validation data, of which every process takes its share."""
        fabric, module = self.course.fabric, self.course.module
        if fabric.world_size > 1:
            for buffer in module.buffers():
                buffer.copy_(fabric.broadcast(buffer))
        x, y = (part.tensor_split(fabric.world_size)[fabric.global_rank] for part in validation)
        seen = self._look((x, y))
        seen.take(summed(fabric, seen.numbers().to(fabric.device)))
        self.bar.spike_rate = seen.spike_rate
        return seen

    def _order(self) -> Tensor:
        """The samples in random order, drawn by the first process."""
        count = len(self.samples[1])
        first = self.course.fabric.is_global_zero
        drawn = torch.randperm(count, generator=self.course.generators["order"]) if first else torch.empty(0)
        return self.course.fabric.broadcast(drawn)

    def _shown(self, x: Tensor, y: Tensor) -> Samples:
        """A batch as the network takes it, on its device."""
        device = self.course.fabric.device
        if self.augment is not None:
            x = self.augment(x, self.course.generators["order"])
        x = x.to(device)
        return x if self.encode is None else self.encode(x, self.course.generators["shown"]), y.to(device)

    def _look(self, samples: Samples) -> Tally:
        size = EVALUATED if self.encode is None else self.batch_size
        with self.course.fabric.autocast():
            return tally(
                self.course.module, samples, batch_size=size, loss=self.loss, encode=self.encode, seed=self.seed
            )
