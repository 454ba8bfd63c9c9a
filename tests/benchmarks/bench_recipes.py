"""What every recipe keeps of a CIFAR-10 ResNet-20, on test images: accuracy, ticks, spikes, seconds to convert.

python tests/benchmarks/bench_recipes.py --data-root ../shared/data            # all parts, 10,000 images: hours
python tests/benchmarks/bench_recipes.py --data-root ../shared/data --samples 1000 --only exact,rates

Recipes and their settings are fixed here and were chosen on validation images. Exact is proved equal to its integers on
--proved images. QCFS trains for nine epochs, the last two with spikes (the longest part by far), and keeps its
checkpoints beside the weights. The parts "corrected" and "graded" have no fused kernels: give them fewer --samples.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch
from resnet20 import ResNet20
from torch import Tensor

from converters import (
    QCFS,
    Calibrated,
    Exact,
    FirstSpike,
    Graded,
    LocalThreshold,
    OffsetSpikes,
    RateCode,
    ResidualPotential,
    convert,
    prove,
)
from converters.recipes.first_spike import first_spike_report
from neuro import datasets, simulate, trace
from neuro.evaluate import evaluate
from neuro.flow import has_neurons
from neuro.graph import Graph
from neuro.weights import load_weights
from neuro.windows import duration

PARTS = ("exact", "calibrated", "first-spike", "rates", "corrected", "graded", "qcfs")


class Bench:
    """One network, one calibration set, one test set."""

    def __init__(self, graph: Graph, calibration: Tensor, x: Tensor, y: Tensor) -> None:
        self.graph, self.calibration, self.x, self.y = graph, calibration, x, y
        scores = torch.cat([evaluate(graph, part) for part in x.split(250)])
        self.dense = float((scores.argmax(1) == y).double().mean())
        print(f"dense: {100 * self.dense:.2f} % on {len(y):,} test images", flush=True)

    def convert(self, recipe: object) -> Graph:
        started = time.perf_counter()
        spiking = convert(self.graph, recipe, calibration=self.calibration)
        print(f"{recipe!r}: converted in {time.perf_counter() - started:.1f} s", flush=True)
        return spiking

    def measure(self, spiking: Graph, steps: tuple[int, ...] = ()) -> None:
        timed = has_neurons(spiking) and duration(spiking) is None
        for count in steps if timed else (None,):
            run = simulate(spiking, self.x, steps=count)
            accuracy = float((run.outputs.argmax(1) == self.y).double().mean())
            took = "" if count is None else f"T={count}, "
            spikes, accumulates = (run.counts.per_sample(what) for what in ("spikes", "accumulates"))
            print(
                f"    {took}{run.counts.steps} ticks: {100 * accuracy:.2f} % ({100 * (accuracy - self.dense):+.2f}), "
                f"{spikes:,.0f} spikes, {accumulates / 1e6:.1f} M accumulates",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--weights", type=Path, default=Path("out/benchmarks/resnet20.safetensors"))
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--calibration", type=int, default=1024)
    parser.add_argument("--proved", type=int, default=0)
    parser.add_argument("--only", default=",".join(PARTS))
    arguments = parser.parse_args()
    if not arguments.weights.exists():
        command = [sys.executable, str(Path(__file__).parent / "train_resnet20.py"), "--out", str(arguments.weights)]
        root = [] if arguments.data_root is None else ["--data-root", str(arguments.data_root)]
        subprocess.run([*command, *root], check=True)
    data = datasets.load("cifar10", arguments.data_root)
    network = ResNet20().eval()
    network.load_state_dict(load_weights(arguments.weights))
    x, y = data.test_x[: arguments.samples], data.test_y[: arguments.samples]
    bench = Bench(trace(network, data.train_x[:2]), data.train_x[: arguments.calibration], x, y)
    for part in arguments.only.split(","):
        match part:
            case "first-spike":
                for bits in (None, 8):
                    spiking = bench.convert(FirstSpike(time_bits=bits))
                    bench.measure(spiking)
                    print(f"    {first_spike_report(bench.graph, spiking, x)}", flush=True)
            case "exact":
                for levels in (16, 8, 4):
                    spiking = bench.convert(Exact(levels))
                    bench.measure(spiking)
                    if arguments.proved:
                        started = time.perf_counter()
                        said = str(prove(spiking, x[: arguments.proved])).splitlines()[0]
                        print(f"    {said}, {time.perf_counter() - started:.0f} s", flush=True)
            case "rates":
                for recipe in (RateCode(), LocalThreshold()):
                    bench.measure(bench.convert(recipe), (8, 16, 32))
            case "calibrated":
                for steps in (4, 8, 16, 32):
                    bench.measure(bench.convert(Calibrated(steps)), (steps,))
            case "corrected":
                for recipe in (OffsetSpikes(), ResidualPotential()):
                    bench.measure(bench.convert(recipe), (4, 8, 16))
            case "graded":
                for levels in (3, 15):
                    bench.measure(bench.convert(Graded(levels)), (1, 2, 4))
            case "qcfs":
                bench.calibration = data.train_x
                checkpoint = arguments.weights.with_name("qcfs.safetensors")
                recipe = QCFS(8, epochs=9, spiking_epochs=2, shift=4, flip=True, checkpoint=checkpoint, progress=True)
                bench.measure(bench.convert(recipe), (4, 8, 16))
            case _:
                sys.exit(f"--only takes {', '.join(PARTS)}, got {part!r}")


if __name__ == "__main__":
    main()
