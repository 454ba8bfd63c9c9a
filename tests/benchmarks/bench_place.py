"""Packets and hops of a placement beside the sequential one, and how long placing takes (processor time).

python tests/benchmarks/bench_place.py        # trains three small networks on 5,000 digits first, about 30 s

Sequential: neurons in the order of their numbers, every slice on a core of its own, cores row by row, as nengo-loihi
does. Greedy: spatial blocks, slices share cores. Placed: greedy with measured rates, then annealed. Rates come from
training images, packets and hops are those of 200 validation images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from converters import RateCode, convert
from hardware_targets import check, compile, load_chip
from hardware_targets.compile import chip_input, spike_rates
from hardware_targets.demand import program_demand
from hardware_targets.loihi.program import Conv2d, Input, Population, Program
from hardware_targets.loihi.simulate import simulate_program
from hardware_targets.place import Placement, allocate, place
from hardware_targets.route import links
from neuro import datasets, trace
from neuro.graph import Graph
from neuro.graph import Input as GraphInput
from neuro.nodes import Affine, ReLU
from neuro.training import fit

STEPS = 16
IMAGES = 200


class Residual(nn.Module):
    """Two stages of a stem and a block with a skip, 16 and 32 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.a, self.b = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.c, self.d = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.classes = nn.Linear(32 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.b(torch.relu(self.a(x))) + x)
        x = torch.relu(self.down(x))
        x = torch.relu(self.d(torch.relu(self.c(x))) + x)
        return self.classes(x.flatten(1))


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
    )


def timed(work: Callable[[], Placement]) -> tuple[Placement, float]:
    began = time.process_time()
    return work(), time.process_time() - began


def placements(table: Table) -> None:
    digits = datasets.load("mnist-5k")
    rivals: tuple[tuple[str, Callable[[], nn.Module], str, str], ...] = (
        ("784-1024-1024-10", perceptron, "loihi2", "subtract"),
        ("LeNet-like", lenet, "loihi1", "zero"),
        ("ResNet-like", Residual, "loihi1", "zero"),
        ("LeNet-like", lenet, "loihi2", "subtract"),
        ("ResNet-like", Residual, "loihi2", "subtract"),
    )
    for name, make, chip_name, reset in rivals:
        torch.manual_seed(0)
        network = make()
        fit(network, digits, epochs=3, learning_rate=2e-3, threads=1)
        graph = trace(network, digits.train_x[:2], name=name)
        snn = convert(graph, RateCode(percentile=99.9, reset=reset), calibration=digits.train_x[:512])
        chip = load_chip(chip_name)
        program = compile(snn, chip, calibration=digits.train_x[:512], effort=0)
        rates = spike_rates(program, digits.train_x[:512])
        given, ticks = chip_input(program, digits.validation_x[:IMAGES], STEPS)
        spikes = simulate_program(program.integers, given, ticks).counts.spikes
        demand = program_demand(program.integers)
        place(program.integers, chip)  # compiles the kernels
        ways: tuple[tuple[str, Callable[[], Placement]], ...] = (
            ("sequential", lambda demand=demand, chip=chip: allocate(demand, chip, sequential=True)[0]),
            ("greedy", lambda demand=demand, chip=chip: allocate(demand, chip)[0]),
            ("placed", lambda p=program, chip=chip, rates=rates: place(p.integers, chip, rates=rates)),
        )
        before = 0
        for way, work in ways:
            found, seconds = timed(work)
            hops = found.hops(spikes)
            before = before or hops
            table.add_row(
                f"{name} on {chip_name}", way, str(len(found.cores)), f"{found.packets(spikes) / IMAGES:,.0f}",
                f"{hops / IMAGES:,.0f}", f"{100 * (hops / before - 1):+.0f} %",
                f"{links(found, spikes).busiest / IMAGES:,.0f}", f"{seconds:.2f} s",
            )  # fmt: skip


def large(rng: np.random.Generator) -> Program:
    """Three convolutions over 32 x 32 pixels, 100,352 neurons."""
    shapes = list(pairwise((3, 32, 32, 34)))
    parts = [f"conv{number}" for number in range(len(shapes))]
    return Program(
        (Input("x", 3 * 1024),),
        tuple(Population(part, outs * 1024, vth=1500) for part, (_, outs) in zip(parts, shapes, strict=True)),
        tuple(
            Conv2d(
                source=source, target=part, weights=rng.integers(-60, 64, (outs, ins, 3, 3)) * 2,
                input_shape=(ins, 32, 32), padding=1,
            )
            for source, part, (ins, outs) in zip(["x", *parts], parts, shapes, strict=False)
        ),
    )  # fmt: skip


def wide(*sizes: int) -> Graph:
    nodes, sources, last = {"x": GraphInput((sizes[0],))}, {}, "x"
    for number, (ins, outs) in enumerate(pairwise(sizes)):
        nodes[f"fc{number}"], sources[f"fc{number}"] = Affine(torch.randn(outs, ins)), (last,)
        last = f"fc{number}"
        if number < len(sizes) - 2:
            nodes[f"relu{number}"], sources[f"relu{number}"] = ReLU(), (last,)
            last = f"relu{number}"
    return Graph(nodes, sources)


def main() -> None:
    console = Console(width=130)
    table = Table(
        "network", "placement", "cores", "packets", "hops", "hops to sequential", "busiest link", "processor time",
        title=f"Per image, {STEPS} steps",
    )  # fmt: skip
    placements(table)
    console.print(table)

    program, chip = large(np.random.default_rng(0)), load_chip("loihi2")
    spikes = {"x": np.random.default_rng(1).random((8, 2, 3072)) < 0.2}
    rates = simulate_program(program, spikes, 12).counts.spikes
    found, seconds = timed(lambda: place(program, chip, rates=rates))
    neurons = sum(population.size for population in program.populations)
    console.print(f"{neurons:,} neurons on {len(found.cores)} cores of loihi2: {seconds:.1f} s of processor time")
    graph = wide(784, 8000, 8000, 10)
    began = time.process_time()
    fitting = check(graph, chip)
    console.print(f"check of 784-8000-8000-10: {time.process_time() - began:.2f} s, {fitting.cores} cores needed")


if __name__ == "__main__":
    main()
