"""Milliseconds per tick of a full simulated chip: `python tests/benchmarks/bench_truenorth.py [--quick] [--json]`.

4,096 cores, 1,048,576 neurons, 128 synapses per neuron on average (half of each crossbar), random targets and delays,
20 Hz. Real time is 1.0 ms per tick.

uniform: all neurons share weights and threshold, so that these are stored once. varied: weights, thresholds and floors
differ from neuron to neuron, so that every table is read in full. stochastic: synapses, leak and thresholds of all
neurons are drawn. `processor` is the time of all threads together: on a machine that others use too, it and the least
of many short runs (--ticks 10 --repeats 100) say more than the clock.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hardware_targets.truenorth import ChipRun, CoreShape, Network, Targets, make_cores, make_network, rest, run
from hardware_targets.truenorth.simulate import processors

WARM_UP = 100


def random_chip(cores: int = 4096, rate: float = 20.0, kind: str = "uniform", seed: int = 0) -> Network:
    """A random network of neurons that a leak of 1 per tick drives to `rate` spikes per second. kind: uniform, varied,
    stochastic.
    """
    rng, shape = np.random.default_rng(seed), CoreShape()
    size = (cores, shape.neurons)
    crossbar = rng.integers(0, 1 << 64, (cores, shape.axons, shape.neurons // 64), dtype=np.uint64)
    period = round(1000 / rate)
    fields: dict[str, Any] = {"alpha": period, "leak": 1, "floor": True, "v": rng.integers(0, period, size)}
    weights: Any = [1, -1, 2, -2]
    if kind == "varied":
        sizes = rng.integers(1, 3, (*size, 1), np.int8) * rng.integers(1, 3, (*size, 2), np.int8)
        weights = np.concatenate([sizes, -sizes], -1)
        spread = max(1, period // 10)
        fields |= {"alpha": period + rng.integers(-spread, spread + 1, size), "beta": rng.integers(0, 20, size)}
    if kind == "stochastic":
        # Every mode at once: |s| and lambda of 255 always toss a one, so the rate stays that of the deterministic chip.
        weights = [255, -255, 255, -255]
        fields |= {
            "stochastic_weights": True,
            "stochastic_leak": True,
            "leak": 255,
            "mask": 3,
            "alpha": max(1, period - 1),
        }
    made = make_cores(shape, crossbar, rng.integers(0, 4, (cores, shape.axons)), weights, **fields)
    targets = Targets(rng.integers(0, cores, size), rng.integers(0, shape.axons, size), rng.integers(1, 16, size))
    return make_network(shape, made, targets, seed=seed)


def measure(network: Network, ticks: int, repeats: int, threads: int) -> dict[str, float]:
    """Least of `repeats` runs of `ticks` ticks, without the fixed cost of a call."""
    state = run(network, rest(network), WARM_UP, threads=threads).state
    fixed, best = [float("inf")] * 2, [float("inf")] * 2
    for _ in range(repeats):
        nothing, done = (_timed(lambda n=n: run(network, state, n, threads=threads)) for n in (0, ticks))
        fixed, best = list(map(min, fixed, nothing[:2])), list(map(min, best, done[:2]))
    seconds, processor = ((b - f) / ticks for b, f in zip(best, fixed, strict=True))
    events = float(done[2].counts["synaptic_events"].mean())
    return {
        "ms_per_tick": 1e3 * seconds,
        "processor_ms_per_tick": 1e3 * processor,
        "hz": 1e3 * float(done[2].counts["spikes"].mean()) / network.neurons,
        "synaptic_events_per_tick": events,
        "synaptic_events_per_second": events / seconds,
        "megabytes": network.nbytes() / 1e6,
    }


def _timed(work: Callable[[], ChipRun]) -> tuple[float, float, ChipRun]:
    clock, processor = time.perf_counter(), time.process_time()
    done = work()
    return time.perf_counter() - clock, time.process_time() - processor, done


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="only the full chip at 20 Hz")
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--threads", type=int, default=min(2, len(processors())))
    arguments.add_argument("--ticks", type=int, default=200)
    arguments.add_argument("--repeats", type=int, default=5)
    a = arguments.parse_args()
    cases: list[tuple[int, float, str]] = [(4096, 20, kind) for kind in ("uniform", "varied", "stochastic")]
    if not a.quick:
        cases += [(4096, rate, "uniform") for rate in (1, 5, 10, 50, 100)]
        cases += [(cores, 20, "uniform") for cores in (64, 256, 1024, 2048)]
    rows = []
    for cores, rate, kind in cases:
        row: dict[str, Any] = {"cores": cores, "kind": kind} | measure(
            random_chip(cores, rate, kind), a.ticks, a.repeats, a.threads
        )
        rows.append(row)
        if not a.json:
            speed = f"{row['ms_per_tick']:7.3f} ms per tick ({row['processor_ms_per_tick']:.3f} processor)"
            events = f"{row['synaptic_events_per_second'] / 1e9:6.2f} G synaptic events/s"
            print(f"{cores:5d} cores  {row['hz']:6.1f} Hz  {kind:10s}  {speed}  {events}  {row['megabytes']:6.1f} MB")
            sys.stdout.flush()
    at_20_hz = {row["kind"]: row["ms_per_tick"] for row in rows if (row["cores"], round(row["hz"], -1)) == (4096, 20)}
    ratio = at_20_hz["stochastic"] / at_20_hz["uniform"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    if a.json:
        print(json.dumps({"rows": rows, "peak_resident_MB": peak, "threads": a.threads, "stochastic_ratio": ratio}))
    else:
        print(f"stochastic modes cost {ratio:.2f} times as much as deterministic ones (uniform)")
        print(f"peak resident memory {peak:.0f} MB, {a.threads} threads")


if __name__ == "__main__":
    main()
