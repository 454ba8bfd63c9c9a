"""Train spiking networks with surrogate gradients: how accurate they become, in how many epochs and seconds.

python tests/benchmarks/train_spiking.py --task mnist --seeds 0,1,2 --data-root ../shared/data

All settings were chosen on validation samples; test samples are looked at once, after the last epoch, in the state that
did best on validation. A training that was stopped goes on where it was when the same command is given again. The
trained networks lie beside (--keep, TASK-SEED.h5); `neuro simulate`, `check` and `deploy` take them as they are.

mnist-dvs has 100 recordings: ten trainings per seed leave one recording of every digit out in turn as test and the next
one as validation, and a seed's accuracy is the mean over the ten.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neuro import Network, datasets, save, trace
from neuro.datasets import Split, mnist_dvs_fold
from neuro.encode import Constant
from neuro.modules import LIF, Readout, Recurrent
from neuro.surrogate import ArcTan, SuperSpike, Surrogate
from neuro.training import (
    Augment,
    Criterion,
    Encoded,
    Epoch,
    MembraneCrossEntropy,
    RateCrossEntropy,
    ShiftFlip,
    TimeFirst,
    accuracy,
    fit,
)

FOLDS = 10


@dataclass(frozen=True)
class Setting:
    """One training. network: the module of one step; steps: how long a constant current is shown, None: own time."""

    network: Callable[[], nn.Module]
    steps: int | None
    epochs: int
    batch_size: int
    learning_rate: float
    loss: Criterion
    augment: Augment | None = None
    surrogate: Surrogate = ArcTan()  # noqa: RUF009 - frozen
    clip: float | None = None
    weight_decay: float = 0.0

    @property
    def encode(self) -> Encoded | TimeFirst:
        return TimeFirst() if self.steps is None else Encoded(Constant(), self.steps)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 1000), LIF(0.9), nn.Linear(1000, 10), LIF(0.9))


def strided() -> nn.Module:
    """32C5S2-64C3S2-256-10: strides in place of pools, which need no neurons at full resolution.

    The mean current is read: spikes in 4 steps are too few to tell 10 classes apart.
    """
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, stride=2, padding=2), LIF(0.9),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), LIF(0.9),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 256), LIF(0.9), nn.Linear(256, 10), Readout(),
    )  # fmt: skip


def spoken() -> nn.Module:
    """128 recurrent neurons, read by the mean current of what they fire.

    First weights are small against threshold, so that gradients neither grow nor die within 80 steps.
    """
    into, back, out = nn.Linear(128, 128), nn.Linear(128, 128, bias=False), nn.Linear(128, 10)
    nn.init.orthogonal_(back.weight, 0.075)
    with torch.no_grad():
        for part, gain in ((into, 0.15), (out, 10.0)):
            for tensor in part.parameters():
                tensor.mul_(gain)
    return nn.Sequential(into, Recurrent(back, LIF(0.95, reset="zero")), out, Readout())


def recorded() -> nn.Module:
    """16C5S2-32C3S2-10 for two polarities. First weights are for counts of events, of which x is 1/64."""
    first = nn.Conv2d(2, 16, 5, stride=2, padding=2)
    with torch.no_grad():
        first.weight *= 64
    return nn.Sequential(
        first, LIF(0.9), nn.Conv2d(16, 32, 3, stride=2, padding=1), LIF(0.9),
        nn.Flatten(), nn.Linear(32 * 8 * 8, 10), LIF(0.9),
    )  # fmt: skip


@dataclass(frozen=True)
class AllSteps:
    """The same change at all steps of recordings (batch, time, channels, height, width)."""

    change: Augment

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.change(x.flatten(1, 2), generator).unflatten(1, x.shape[1:3])


SETTINGS = {
    "mnist": Setting(mlp, 8, 5, 128, 2e-3, RateCrossEntropy(), ShiftFlip(1)),
    "fashion-mnist": Setting(strided, 4, 8, 128, 3e-3, MembraneCrossEntropy("last"), ShiftFlip(1, flip=True)),
    "fsdd": Setting(
        spoken, None, 14, 32, 3e-3, MembraneCrossEntropy("last"), surrogate=SuperSpike(), clip=1.0, weight_decay=1e-2
    ),
    "mnist-dvs": Setting(recorded, None, 25, 16, 3e-3, RateCrossEntropy(), AllSteps(ShiftFlip(3)), weight_decay=1e-2),
}


class Found(NamedTuple):
    """What came of one training: accuracies in [0, 1], seconds of its epochs, spikes per neuron and sample."""

    validation: float
    test: float | None
    seconds: float
    spikes: float


def splits(task: str, root: Path) -> list[Split]:
    if task == "mnist-dvs":
        return [mnist_dvs_fold(fold, root / task) for fold in range(FOLDS)]
    return [datasets.load(task, root)]


class Spoken:
    """Says every epoch as it ends."""

    @contextmanager
    def open(self, done: int) -> Iterator[Callable[[Epoch], None]]:
        def say(epoch: Epoch) -> None:
            right, rates = epoch.validation_accuracy or 0.0, epoch.spike_rates.items()
            fired = ", ".join(f"{name} {rate:.3f}" for name, rate in rates)
            print(
                f"  epoch {epoch.number}: loss {epoch.train_loss:.4f}, validation {100 * right:.2f} %, "
                f"{epoch.seconds:.1f} s, spikes per neuron and step: {fired}",
                flush=True,
            )

        yield say


def trained(task: str, split: Split, seed: int, kept: Path, look: bool) -> Found:
    """One training from its first weights on, or from where it is kept; `look`: at the test samples."""
    setting = SETTINGS[task]
    features = split.features if setting.steps else split.features[1:]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        step = trace(setting.network(), torch.zeros(2, *features), name=kept.name)
    network = Network(step, surrogate=setting.surrogate)
    history = fit(
        network, split, epochs=setting.epochs, batch_size=setting.batch_size, learning_rate=setting.learning_rate,
        weight_decay=setting.weight_decay, clip=setting.clip, seed=seed, augment=setting.augment, encode=setting.encode,
        loss=setting.loss, resume=kept.with_suffix(".training.safetensors"), logs=(Spoken(),),
    )  # fmt: skip
    save(network.graph, kept.with_suffix(".h5"))
    right = None
    if look:
        right = accuracy(
            network, split.test_x, split.test_y, batch_size=setting.batch_size, loss=setting.loss,
            encode=setting.encode, seed=seed,
        )  # fmt: skip
    steps = setting.steps or split.features[0]
    rate, validation = history.best.spike_rate or 0.0, history.best.validation_accuracy or 0.0
    return Found(validation, right, sum(epoch.seconds for epoch in history.epochs), rate * steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=SETTINGS, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--keep", type=Path, default=Path("out/benchmarks/train_spiking"))
    parser.add_argument("--validation-only", action="store_true", help="leave the test samples alone")
    arguments = parser.parse_args()
    arguments.keep.mkdir(parents=True, exist_ok=True)
    parts = splits(arguments.task, arguments.data_root)
    print(f"{arguments.task}: {parts[0].provenance}\n{SETTINGS[arguments.task]}", flush=True)
    tests: list[float] = []
    validations: list[float] = []
    for seed in map(int, arguments.seeds.split(",")):
        found = []
        for number, split in enumerate(parts):
            place = f"{arguments.task}-{seed}" + (f"-fold{number}" if len(parts) > 1 else "")
            found.append(trained(arguments.task, split, seed, arguments.keep / place, not arguments.validation_only))
            print(f"{place}: {told(found[-1:])}", flush=True)
        if len(parts) > 1:
            print(f"{arguments.task}-{seed}, mean over {len(parts)} folds: {told(found)}", flush=True)
        validations.append(statistics.mean(each.validation for each in found))
        tests += [statistics.mean(right)] if (right := tested(found)) else []
    print(f"validation {spread(validations)}; test {spread(tests)}")


def tested(found: list[Found]) -> list[float]:
    """The accuracies on test samples, where these were looked at."""
    return [each.test for each in found if each.test is not None]


def told(found: list[Found]) -> str:
    """The mean of trainings, in words."""
    validation, seconds, spikes = (
        statistics.mean(values)
        for values in zip(*((each.validation, each.seconds, each.spikes) for each in found), strict=True)
    )
    test = f"test {100 * statistics.mean(right):.2f} %, " if (right := tested(found)) else ""
    return f"validation {100 * validation:.2f} %, {test}{seconds:.0f} s, {spikes:.2f} spikes per neuron and sample"


def spread(accuracies: list[float]) -> str:
    if not accuracies:
        return "not looked at"
    apart = f" +- {100 * statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    return f"{100 * statistics.mean(accuracies):.2f}{apart} % (seeds: {len(accuracies)})"


if __name__ == "__main__":
    main()
