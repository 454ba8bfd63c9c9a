"""Train networks whose neurons fire once: how accurate they become, in how many seconds, with how many spikes.

python tests/benchmarks/train_first_spike.py --task yin-yang --seeds 0,1,2,3,4 --data-root ../shared/data

yin-yang: 4-120-3 in closed form. yin-yang-delays: 4-30-3 whose synapses learn their delays. mnist: 784-350-10 in closed
form. mnist-conv: a small convolutional network with ReLUs, trained, mapped by FirstSpike and trained on with sparse
spikes, times of 6 bits and weights of 6 bits in the loop. All settings were chosen on validation samples; test samples
are looked at once, after the last epoch, in the state that did best on validation. A training that was stopped goes on
where it was when the same command is given again; trained networks lie beside (--keep, TASK-SEED.h5).
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from converters import FirstSpike, convert
from hardware_targets import price
from neuro import Network, datasets, save, trace
from neuro.datasets import Split
from neuro.first_spike.published import EnergyTable, Modelled
from neuro.first_spike.run import run_clocked, run_events
from neuro.graph import Graph
from neuro.training import accuracy, fit
from neuro.training.augment import ShiftFlip
from neuro.training.first_spike import (
    FirstSpikeCrossEntropy,
    FirstSpikeTraining,
    WeightBumping,
    first_spike_network,
)
from neuro.training.first_spike_relu import SparseFirstSpikes, spikes_per_neuron, with_weight_bits

RESOLUTIONS = (0.01, 0.001, 0.0002, 0.00005)
COMPARED = 200
"""Validation samples on which clocked runs are compared with the one without a clock."""


@dataclass(frozen=True)
class Setting:
    """A training in closed form. network: what `first_spike_network` takes beside sizes and seed."""

    data: str
    hidden: int
    epochs: int
    batch_size: int
    network: dict[str, Any]
    learning_rate: float = 5e-3
    shift: int = 0


SETTINGS = {
    "yin-yang": Setting("yin-yang", 120, 200, 100, {"membrane": "double"}),
    "yin-yang-delays": Setting("yin-yang", 30, 300, 100, {"membrane": "double", "delays": "synaptic"}),
    "mnist": Setting(
        "mnist", 350, 30, 128, {"membrane": "double", "bias": None, "means": (0.05, 0.15), "deviations": (0.3, 0.3)},
        shift=1,
    ),
}  # fmt: skip


class Found(NamedTuple):
    """What came of one training: accuracies in [0, 1], processor seconds, spikes per neuron and sample."""

    validation: float
    test: float | None
    seconds: float
    spikes: float


def closed_form(setting: Setting, split: Split, seed: int, kept: Path, look: bool) -> Found:
    network = first_spike_network(
        split.train_x[0].numel(), setting.hidden, len(split.classes), shape=split.features, seed=seed,
        **setting.network,
    )  # fmt: skip
    bump = WeightBumping()
    loss = FirstSpikeTraining(FirstSpikeCrossEntropy(10.0), gradient_limit=0.2, bump=bump)
    start = time.process_time()
    history = fit(
        network, split, epochs=setting.epochs, batch_size=setting.batch_size, learning_rate=setting.learning_rate,
        seed=seed, augment=ShiftFlip(setting.shift) if setting.shift else None, loss=loss, after_step=bump,
        resume=kept.with_suffix(".training.safetensors"),
    )  # fmt: skip
    seconds = time.process_time() - start
    graph = network.eval().graph
    save(graph, kept.with_suffix(".h5"))
    validation = history.best.validation_accuracy or 0.0
    test = accuracy(network, split.test_x, split.test_y, loss=loss) if look else None
    spikes = without_clock(graph, split.validation_x[:COMPARED], validation if test is None else test)
    return Found(validation, test, seconds, spikes)


def without_clock(graph: Graph, x: Tensor, right: float) -> float:
    """Compare event-driven and clocked decisions and their energy; spikes per neuron until the decision.

    right: the accuracy to print in the table. Hidden and output neurons count.
    """
    runs = {"event by event": run_events(graph, x)}
    decided = runs["event by event"].outputs.argmax(1)
    for dt in RESOLUTIONS:
        clocked = run_clocked(graph, x, dt)
        same = clocked.outputs.argmax(1) == decided
        print(f"  ticks of {dt} tau: {int(same.sum())} of {len(x)} decisions as without a clock", flush=True)
        if bool(same.all()):
            runs[f"in ticks of {dt} tau"] = clocked
            break
    modelled = (
        Modelled(
            f"this network, {how}", graph.name, right, price(run.counts, "45nm").per_sample,
            "arithmetic only, 45 nm, until the decision", "counts x 45nm.toml",
        )
        for how, run in runs.items()
    )  # fmt: skip
    print(EnergyTable(tuple(modelled)), flush=True)
    times = runs["event by event"].recordings["times"]
    layers = [times[name] for name, node in graph.nodes.items() if node.kind == "TimeToFirstSpike"]
    return sum(int(torch.isfinite(found).sum()) for found in layers) / sum(found.numel() for found in layers)


def convolutional() -> nn.Module:
    """16C5-P2-32C5-P2-128-10 with batch norms, 28x28."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def relu_equivalent(split: Split, seed: int, kept: Path, look: bool) -> Found:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        dense = convolutional()
    start = time.process_time()
    fit(
        dense, split, epochs=10, batch_size=128, learning_rate=4e-3, seed=seed, augment=ShiftFlip(2),
        resume=kept.with_suffix(".dense.safetensors"),
    )  # fmt: skip
    plain = trace(dense.eval(), split.train_x[:2], name=kept.name)
    graph = convert(plain, FirstSpike(time_bits=6, margin=0.2), calibration=split.train_x[:1000])
    before = spikes_per_neuron(graph, split.validation_x)
    network = Network(graph)
    history = fit(
        network, split, epochs=4, batch_size=128, learning_rate=5e-4, seed=seed, augment=ShiftFlip(2),
        loss=SparseFirstSpikes(0.5, weight_bits=6), resume=kept.with_suffix(".sparse.safetensors"),
    )  # fmt: skip
    seconds = time.process_time() - start
    graph = with_weight_bits(network.eval().graph, 6)
    save(graph, kept.with_suffix(".h5"))
    spikes = spikes_per_neuron(graph, split.validation_x)
    print(f"  spikes per neuron {before:.3f} after conversion, {spikes:.3f} trained; best epoch {history.kept}")
    final = Network(graph)
    return Found(
        accuracy(final, split.validation_x, split.validation_y),
        accuracy(final, split.test_x, split.test_y) if look else None,
        seconds,
        spikes,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[*SETTINGS, "mnist-conv"], required=True)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--keep", type=Path, default=Path("out/benchmarks/train_first_spike"))
    parser.add_argument("--validation-only", action="store_true", help="leave the test samples alone")
    arguments = parser.parse_args()
    arguments.keep.mkdir(parents=True, exist_ok=True)
    setting = SETTINGS.get(arguments.task)
    split = datasets.load(setting.data if setting else "mnist", arguments.data_root)
    print(f"{arguments.task}: {split.provenance}\n{setting or convolutional()}", flush=True)
    found = []
    for seed in map(int, arguments.seeds.split(",")):
        kept = arguments.keep / f"{arguments.task}-{seed}"
        look = not arguments.validation_only
        one = closed_form(setting, split, seed, kept, look) if setting else relu_equivalent(split, seed, kept, look)
        found.append(one)
        test = "" if one.test is None else f", test {100 * one.test:.2f} %"
        print(
            f"{kept.name}: validation {100 * one.validation:.2f} %{test}, {one.seconds:.0f} s of processor time, "
            f"{one.spikes:.3f} spikes per neuron and sample",
            flush=True,
        )
    tests = [one.test for one in found if one.test is not None]
    print(f"validation {spread([one.validation for one in found])}; test {spread(tests)}")


def spread(accuracies: list[float]) -> str:
    if not accuracies:
        return "not looked at"
    apart = f" +- {100 * statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    return f"{100 * statistics.mean(accuracies):.2f}{apart} % (seeds: {len(accuracies)})"


if __name__ == "__main__":
    main()
