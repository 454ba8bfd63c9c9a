"""Converted networks on the chip's integers: the full MNIST test set through a placed LeNet, and what it loses.

    python tests/benchmarks/bench_on_chip.py --data-root data

One LeNet with average pools is trained (one epoch, seed 0); everything is set on training samples and the test set is
looked at once. `Exact` must give the logits of its graph on every sample. About two minutes on two cores.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

from converters import Calibrated, Exact, FirstSpike, RateCode, convert
from hardware_targets import compile, run
from neuro import datasets, simulate, trace
from neuro.flow import has_neurons
from neuro.training import fit
from neuro.windows import duration

STEPS = 20


def lenet() -> nn.Module:
    """LeNet-5 with ReLU and average pools."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data-root", default=None)
    options.add_argument("--data", default="mnist")
    options.add_argument("--chip", default="loihi2")
    options.add_argument("--samples", type=int, default=None)
    given = options.parse_args()
    split = datasets.load(given.data, given.data_root)
    x, y = split.test_x[: given.samples], split.test_y[: given.samples]
    module = lenet()
    fit(module, (split.train_x, split.train_y), epochs=1, batch_size=128, seed=0)
    graph, seen = trace(module, x[:1], name="lenet"), split.train_x[:512]

    def percent(outputs: torch.Tensor) -> float:
        return 100 * float((outputs.argmax(1) == y).double().mean())

    print(f"dense: {percent(simulate(graph, x, count=False).outputs):.2f} % of {len(y):,} test samples")
    for recipe in (
        Exact(levels=8, potential_bits=18), FirstSpike(time_bits=4, margin=0.0), RateCode(),
        Calibrated(steps=STEPS, method="light"),
    ):  # fmt: skip
        snn = convert(graph, recipe, calibration=seen)
        steps = STEPS if has_neurons(snn) and duration(snn) is None else None
        program = compile(snn, given.chip, calibration=seen)
        run(program, x[:2], steps=steps)  # kernels are compiled
        began, worked = time.perf_counter(), time.process_time()
        on_chip = run(program, x, steps=steps)
        seconds, cpu = time.perf_counter() - began, time.process_time() - worked
        in_float = simulate(snn, x, steps=steps, count=False)
        equal = int((on_chip.outputs == in_float.outputs).all(1).sum())
        print(
            f"{type(recipe).__name__}: {on_chip.counts.steps} ticks, {len(program.placement.cores)} cores, "
            f"{seconds:.1f} s ({cpu:.1f} s of CPU): {percent(on_chip.outputs):.2f} % on {given.chip}, "
            f"{percent(in_float.outputs):.2f} % in floating point, equal outputs on {equal:,} of {len(y):,}",
            flush=True,
        )


if __name__ == "__main__":
    main()
