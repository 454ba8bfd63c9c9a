"""Trinary networks for a TrueNorth-like chip: trained, compiled to cores, run on the simulated chip, billed.

python tests/benchmarks/train_truenorth.py --task mnist-30 --data-root ../shared/data

Tasks: mnist-30 (MNIST on at most 30 cores), mnist (on the cores that it takes), cifar10 (on one chip, from JPEG files).
Every image is shown for one tick, as bits; pixels become bits and votes are counted on the host, everything between
runs on the chip. All settings were chosen on validation samples; test samples are looked at once, in the state that did
best on validation. A training that was stopped goes on where it was when the same command is given again (--keep).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hardware_targets import compile, load_chip, price, run
from hardware_targets.truenorth.program import CoreProgram, as_bits
from neuro import datasets, load, save, simulate, trace
from neuro.counts import Counts
from neuro.datasets import Split
from neuro.graph import Graph
from neuro.training import Augment, Epoch, ShiftFlip, accuracy, fit, random_affine
from neuro.trinary import Thermometer, TrinaryConv2d, TrinaryLinear, Votes


class Patches(nn.Module):
    """Square windows of an image at all pairs of `corners`, one behind the other, flattened."""

    def __init__(self, size: int, corners: tuple[int, ...]) -> None:
        super().__init__()
        self.windows = [(slice(row, row + size), slice(column, column + size)) for row in corners for column in corners]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :, rows, columns].flatten(1) for rows, columns in self.windows], 1)


class Shuffle(nn.Module):
    """Channels dealt out anew, so that each of `groups` parts holds channels of all parts before it."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.groups)).transpose(1, 2).flatten(1, 2)


def patches() -> nn.Module:
    """16 windows of 11 x 11 pixels with 112 features each; 14 groups that read 8 features of every window."""
    return nn.Sequential(
        Patches(11, (0, 6, 11, 17)), TrinaryLinear(16 * 121, 16 * 112, groups=16),
        Shuffle(14), TrinaryLinear(14 * 128, 14 * 250, groups=14), Votes(14 * 250, 10),
    )  # fmt: skip


def digits() -> nn.Module:
    """48C5S2-192C3S2-384C3S2-1920, in groups of at most 128 inputs."""
    return nn.Sequential(
        TrinaryConv2d(1, 48, 5, 2, 2),
        TrinaryConv2d(48, 192, 3, 2, 1, groups=4), Shuffle(24),
        TrinaryConv2d(192, 384, 3, 2, 1, groups=24), Shuffle(48),
        nn.Flatten(), TrinaryLinear(384 * 16, 48 * 40, groups=48), Votes(48 * 40, 10),
    )  # fmt: skip


def pictures() -> nn.Module:
    """96C3S2-256C3S2-256C1-512C3S2-512C1-2560, in groups of at most 128 inputs."""
    return nn.Sequential(
        TrinaryConv2d(12, 96, 3, 2, 1),
        TrinaryConv2d(96, 256, 3, 2, 1, groups=8), Shuffle(2),
        TrinaryConv2d(256, 256, 1, groups=2), Shuffle(32),
        TrinaryConv2d(256, 512, 3, 2, 1, groups=32), Shuffle(4),
        TrinaryConv2d(512, 512, 1, groups=4), Shuffle(64),
        nn.Flatten(), TrinaryLinear(512 * 16, 64 * 40, groups=64), Votes(64 * 40, 10),
    )  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One training; `bits` per channel of an image."""

    data: str
    network: Callable[[], nn.Module]
    bits: int
    epochs: int
    batch_size: int
    learning_rate: float
    augment: Augment


SETTINGS = {
    "mnist-30": Setting("mnist", patches, 1, 20, 100, 5e-3, random_affine(shift=1.5, degrees=8, scale=0.08)),
    "mnist": Setting("mnist", digits, 1, 14, 100, 5e-3, random_affine(shift=1.5, degrees=8, scale=0.08)),
    "cifar10": Setting("cifar10", pictures, 4, 6, 100, 5e-3, ShiftFlip(3, flip=True)),
}


class Spoken:
    """Says every epoch as it ends."""

    @contextmanager
    def open(self, done: int) -> Iterator[Callable[[Epoch], None]]:
        def say(epoch: Epoch) -> None:
            right = epoch.validation_accuracy or 0.0
            print(
                f"  epoch {epoch.number}: loss {epoch.train_loss:.4f}, validation {100 * right:.2f} %, "
                f"{epoch.seconds:.1f} s",
                flush=True,
            )

        yield say


def trained(task: str, split: Split, seed: int, kept: Path) -> None:
    """One training from its first weights on, or from where it is kept; the graph is written to `kept`.h5."""
    setting = SETTINGS[task]
    encode = Thermometer(setting.bits)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = setting.network()
    history = fit(
        network, split, epochs=setting.epochs, batch_size=setting.batch_size, learning_rate=setting.learning_rate,
        seed=seed, augment=setting.augment, encode=encode, resume=kept.with_suffix(".training.safetensors"),
        logs=(Spoken(),),
    )  # fmt: skip
    best = history.best.validation_accuracy or 0.0
    print(f"{kept.name}: epoch {history.kept} of {setting.epochs} kept, validation {100 * best:.2f} %", flush=True)
    again = accuracy(network, split.validation_x, split.validation_y, encode=encode)
    assert abs(again - best) < 1e-9, (again, best)
    save(trace(network, encode(split.validation_x[:2]), name=task), kept.with_suffix(".h5"))


PUBLISHED = {
    "mnist-30": "Esser 2015, MNIST: 92.7 % at 0.268 uJ per image (paper; 0.408 uJ in its web abstract)",
    "mnist": "Esser 2015, MNIST: 99.42 % at 108 uJ per image (paper; 121 uJ in its web abstract)",
    "cifar10": "EEDN 2016, CIFAR-10 on one chip: 83.41 %, 1249 images/s, 204.4 mW [recalled]",
}


def deployed(task: str, x: Tensor, y: Tensor, graph: Graph) -> None:
    """Compile, run every sample on the cores and as a graph, compare all spikes, bill."""
    chip = load_chip("truenorth")
    started = time.process_time()
    program = compile(graph, chip)
    assert isinstance(program, CoreProgram)
    print(f"compiled in {time.process_time() - started:.1f} s of processor time\n{program.placement}", flush=True)
    right = apart = fired = 0
    counts: list[Counts] = []
    seconds = 0.0
    for images, labels in zip(x.split(250), y.split(250), strict=True):
        shown = as_bits(program, images, 1)
        started = time.process_time()
        found = run(program, shown, record=["spikes"])
        seconds += time.process_time() - started
        wanted = simulate(graph, shown, steps=1, record=["spikes"], count=False)
        for name, spikes in wanted.recordings["spikes"].items():
            apart += int((spikes.float() != found.recordings["spikes"][name]).sum())
            fired += int(spikes.sum())
        assert torch.equal(found.outputs, wanted.outputs)
        right += int((found.outputs.argmax(1) == labels).sum())
        counts.append(found.counts)
    total = sum(counts[1:], counts[0])
    bill, cores = price(total, chip), len(program.placement.cores)
    power, tick = chip.energy["running_power"].in_base("W"), chip.energy["tick"].in_base("s")
    share = power * cores / chip.limit("cores") * tick
    print(
        f"{len(y):,} images: {100 * right / len(y):.2f} % right; "
        f"spikes that differ between chip and graph: {apart} ({fired:,} fired)"
    )
    print(
        f"{cores} cores, an image every tick (1 ms), answered after {total.steps} ticks; per image "
        f"{total.per_sample('accumulates'):,.0f} synaptic events, {total.per_sample('spikes'):,.0f} spikes, "
        f"{total.per_sample('hops'):,.0f} hops"
    )
    print(
        f"energy per image: {1e6 * bill.per_sample:.3f} uJ at {chip.energy['synaptic_event']} per synaptic event "
        f"[{bill.status}]; {1e6 * share:.3f} uJ as {cores}/{chip.limit('cores')} of {chip.energy['running_power']} "
        f"[{chip.energy['running_power'].status}] for one tick"
    )
    print(f"beside: {PUBLISHED[task]}\n{1e3 * seconds / len(y):.2f} ms of processor time per image", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=SETTINGS, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--keep", type=Path, default=Path("out/benchmarks/train_truenorth"))
    parser.add_argument("--validation-only", action="store_true", help="leave the test samples alone")
    parser.add_argument("--train-only", action="store_true", help="stop before the chip")
    arguments = parser.parse_args()
    arguments.keep.mkdir(parents=True, exist_ok=True)
    split = datasets.load(SETTINGS[arguments.task].data, arguments.data_root)
    print(f"{arguments.task}: {split.provenance}\n{SETTINGS[arguments.task]}", flush=True)
    kept = arguments.keep / f"{arguments.task}-{arguments.seed}"
    if not kept.with_suffix(".h5").exists():
        trained(arguments.task, split, arguments.seed, kept)
    if not arguments.train_only:
        part = (split.validation_x, split.validation_y) if arguments.validation_only else (split.test_x, split.test_y)
        deployed(arguments.task, *part, load(kept.with_suffix(".h5")))


if __name__ == "__main__":
    main()
