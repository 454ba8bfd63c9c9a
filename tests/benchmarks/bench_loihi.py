"""Speed of the Loihi simulator against Lava, and a LeNet-like network over the size of the MNIST test set.

python tests/benchmarks/bench_loihi.py            # Lava is measured too where NEURO_LAVA_PYTHON names one
"""

from __future__ import annotations

import time

import numpy as np

from hardware_targets.lava.via_lava import LavaJob, run_in_lava
from hardware_targets.loihi.program import Connection, Conv2d, Dense, Input, Population, Program
from hardware_targets.loihi.simulate import LoihiRun, simulate_program
from neuro.errors import BackendMissing

STEPS = 20
QUOTED_LAVA_STEP = 6.6e-3  # seconds, 784-1024-1024-10 without monitors, measured once on two cores


def multilayer_perceptron(rng: np.random.Generator, sizes: tuple[int, ...] = (784, 1024, 1024, 10)) -> Program:
    """Even mixed weights, integrate and fire, about one neuron in twenty firing per tick."""
    names = ["x", *(f"layer{i}" for i in range(1, len(sizes)))]
    populations = [Population(name, size, vth=3000) for name, size in zip(names[1:], sizes[1:], strict=True)]
    connections = [
        Dense(source=names[i], target=names[i + 1], weights=rng.integers(-128, 128, (sizes[i + 1], sizes[i])) & ~1)
        for i in range(len(sizes) - 1)
    ]
    return Program((Input("x", sizes[0]),), tuple(populations), tuple(connections))


def lenet(rng: np.random.Generator) -> Program:
    """6@5x5, pool, 16@5x5, pool, 120, 84, 10, with average pooling as strided depthwise convolution."""

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(-120, 128, shape) & ~1

    populations = [
        Population(name, size, vth=vth)
        for name, size, vth in (
            ("conv1", 6 * 28 * 28, 500),
            ("pool1", 6 * 14 * 14, 100),
            ("conv2", 16 * 10 * 10, 1200),
            ("pool2", 16 * 5 * 5, 100),
            ("dense1", 120, 1500),
            ("dense2", 84, 1000),
            ("output", 10, 800),
        )
    ]
    pool = {"stride": (2, 2)}
    connections: list[Connection] = [
        Conv2d(source="x", target="conv1", weights=weights(6, 1, 5, 5), input_shape=(1, 28, 28), padding=(2, 2)),
        Conv2d(
            source="conv1", target="pool1", weights=np.full((6, 1, 2, 2), 64), input_shape=(6, 28, 28), groups=6, **pool
        ),
        Conv2d(source="pool1", target="conv2", weights=weights(16, 6, 5, 5), input_shape=(6, 14, 14)),
        Conv2d(
            source="conv2",
            target="pool2",
            weights=np.full((16, 1, 2, 2), 64),
            input_shape=(16, 10, 10),
            groups=16,
            **pool,
        ),
        Dense(source="pool2", target="dense1", weights=weights(120, 400)),
        Dense(source="dense1", target="dense2", weights=weights(84, 120)),
        Dense(source="dense2", target="output", weights=weights(10, 84)),
    ]
    return Program((Input("x", 784),), tuple(populations), tuple(connections))


def best_of(program: Program, batch: int, rate: float, repeats: int = 9) -> tuple[float, LoihiRun]:
    """Seconds of the fastest run, after one that compiles."""
    spikes = np.random.default_rng(1).random((STEPS, batch, 784)) < rate
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run = simulate_program(program, {"x": spikes}, STEPS)
        times.append(time.perf_counter() - began)
    return min(times[1:]), run


def lava_step(program: Program) -> tuple[float, str]:
    """Lava's seconds per step and where the number comes from."""
    spikes = (np.random.default_rng(1).random((220, 1, 784)) < 0.1).astype(np.int32)
    try:
        (run,) = run_in_lava([LavaJob(program, {"x": spikes}, len(spikes), ())], timeout=120)
    except BackendMissing:
        return QUOTED_LAVA_STEP, "quoted"
    return run.step_seconds, "measured now"


def main() -> None:
    rng = np.random.default_rng(0)
    perceptron = multilayer_perceptron(rng)
    step, origin = lava_step(perceptron)
    print(f"784-1024-1024-10, {STEPS} steps; Lava {step * 1e3:.2f} ms per step ({origin})")
    for batch in (1, 64, 512):
        seconds, run = best_of(perceptron, batch, rate=0.1)
        events = sum(run.counts.synaptic_events.values())
        per_step = seconds / STEPS / batch
        print(
            f"  batch {batch:4d}: {per_step * 1e6:7.2f} us per step and sample = {step / per_step:6.0f} x Lava;"
            f" {events / seconds:.2e} synaptic events/s"
        )
    seconds, run = best_of(lenet(rng), 256, rate=0.13, repeats=3)
    events = sum(run.counts.synaptic_events.values())
    print(
        f"LeNet-like, {STEPS} steps: 10,000 images in {seconds / 256 * 10_000:.1f} s; {events / seconds:.2e} events/s"
    )


if __name__ == "__main__":
    main()
