"""One optimiser step of a first-spike network 784-350-10 against the same-size dense network, and its memory.

Run: python tests/benchmarks/bench_first_spike.py [--threads 2] [--data-root folder]. Without a folder the
5,000 packaged digits are used. Both networks take the same digits, batch 128, Adam, float32; medians of steps in turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numba
import torch
import torch.nn.functional as F

from neuro.datasets import Split, load
from neuro.first_spike import first_spike_times
from neuro.first_spike.reference import CHUNK
from neuro.training.first_spike import FirstSpikeCrossEntropy, FirstSpikeTraining, WeightBumping, first_spike_network

BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    numba.set_num_threads(options.threads)
    split = load("mnist" if options.data_root else "mnist-5k", options.data_root)
    for dark, silent_below in (("are silent", 0.0), ("spike last", None)):
        first, other = steps(split, silent_below, options.steps)
        print(
            f"one step, {options.threads} threads, dark pixels {dark}: first spike {first:.2f} ms, "
            f"dense {other:.2f}: {first / other:.2f}x"
        )
    kept = [BATCH * (784 + 350) * 8 * 6, CHUNK * 8]
    print(f"kernel buffers about {kept[0] / 1e6:.1f} MB for the hidden layer; reference chunks {kept[1] / 1e6:.0f} MB")
    for outputs in (350, 3500):
        times = torch.rand(BATCH, 784)
        weight = torch.randn(outputs, 784) * 0.1
        before = memory()
        first_spike_times(times, weight)
        print(f"784-{outputs}: {memory() - before:.0f} MB more at the peak")


def steps(split: Split, silent_below: float | None, count: int) -> tuple[float, float]:
    """Milliseconds of a step of the first-spike network and of the dense one."""
    network = first_spike_network(
        784, 350, 10, shape=split.features, silent_below=silent_below, bias=None, means=(0.05, 0.15),
        deviations=(0.3, 0.3),
    )  # fmt: skip
    bump = WeightBumping()
    loss = FirstSpikeTraining(FirstSpikeCrossEntropy(10.0), gradient_limit=0.2, bump=bump)
    dense = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(784, 350), torch.nn.ReLU(), torch.nn.Linear(350, 10)
    )
    optimizers = [torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-3) for net in (network, dense)]
    rows = torch.randperm(len(split.train_y), generator=torch.Generator().manual_seed(0))

    def spiking(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizers[0].zero_grad()
        loss(network, x, y).backward()
        optimizers[0].step()
        bump(network)

    def plain(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizers[1].zero_grad()
        F.cross_entropy(dense(x), y).backward()
        optimizers[1].step()

    seconds: dict[Callable, list[float]] = {spiking: [], plain: []}
    for step in range(count + 5):
        batch = rows[(step * BATCH) % (len(rows) - BATCH) :][:BATCH]
        for run, times in seconds.items():
            start = time.perf_counter()
            run(split.train_x[batch], split.train_y[batch])
            if step >= 5:
                times.append(time.perf_counter() - start)
    first, other = (1e3 * statistics.median(times) for times in seconds.values())
    return first, other


def memory() -> float:
    """The peak of this process so far [MB]."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
