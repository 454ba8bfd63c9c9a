"""Speed and memory of converted networks against SpikingJelly 2.0 on a CIFAR-10 ResNet-20, both in this run.

python tests/benchmarks/bench_conversion.py --data-root ../shared/data --peer /path/to/python/with/spikingjelly

The network is trained first (train_resnet20.py) where --weights does not exist yet. Without --peer (or
NEURO_PEER_PYTHON) our own figures are printed alone. Nothing here sees a test image.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from memory import peak_megabytes, reset_peak
from resnet20 import ResNet20
from torch import Tensor

from converters import Exact, FirstSpike, RateCode, convert
from neuro import datasets, simulate, trace
from neuro.evaluate import evaluate
from neuro.graph import Graph
from neuro.weights import load_weights

FOLDER = Path(__file__).parent
STEPS = 16
PEER_STEPS = (16, 32, 64, 128)
WITHIN = 0.01


def rate(work: Callable[[Tensor], object], x: Tensor, batch: int, seconds: float) -> float:
    """Images per second of `work` on batches of x, after one to warm up."""
    work(x[:batch])
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        work(x[:batch])
        done += batch
    return done / (time.perf_counter() - started)


def share_right(graph: Graph, x: Tensor, y: Tensor, steps: int | None) -> float:
    return float((simulate(graph, x, steps=steps, count=False).outputs.argmax(1) == y).double().mean())


def measure_peer(python: str, weights: Path, tensors: Path, batch: int, seconds: float) -> dict[str, object]:
    steps = ",".join(map(str, PEER_STEPS))
    command = [
        python,
        str(FOLDER / "peer_spikingjelly.py"),
        str(weights),
        str(tensors),
        steps,
        str(batch),
        str(seconds),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the peer failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--weights", type=Path, default=Path("out/benchmarks/resnet20.safetensors"))
    parser.add_argument("--peer", default=os.environ.get("NEURO_PEER_PYTHON"))
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=15.0)
    arguments = parser.parse_args()
    if not arguments.weights.exists():
        command = [sys.executable, str(FOLDER / "train_resnet20.py"), "--out", str(arguments.weights)]
        root = [] if arguments.data_root is None else ["--data-root", str(arguments.data_root)]
        subprocess.run([*command, *root], check=True)
    torch.set_num_threads(2)
    data = datasets.load("cifar10", arguments.data_root)
    network = ResNet20().eval()
    network.load_state_dict(load_weights(arguments.weights))
    graph = trace(network, data.train_x[:2])
    calibration = data.train_x[:512].clone()
    x, y = data.validation_x[: arguments.samples].clone(), data.validation_y[: arguments.samples].clone()
    del data
    reset_peak()
    dense = float((evaluate(graph, x).argmax(1) == y).double().mean())
    print(f"ResNet-20, {len(y)} validation images, batches of {arguments.batch}: dense {100 * dense:.1f} %")

    started = time.perf_counter()
    rates = convert(graph, RateCode(), calibration=calibration)
    print(f"convert with RateCode and 512 images: {time.perf_counter() - started:.1f} s")
    ours = rate(lambda part: simulate(rates, part, steps=STEPS), x, arguments.batch, arguments.seconds) * STEPS
    print(f"rate code, T={STEPS}: {ours:,.0f} image-steps/s with all counts")
    plain = rate(lambda part: evaluate(graph, part), x, arguments.batch, arguments.seconds)
    print(f"the dense network: {plain:,.0f} images/s")
    within = []
    for name, recipe in (("Exact(8)", Exact(8)), ("Exact(16)", Exact(16)), ("FirstSpike()", FirstSpike())):
        spiking = convert(graph, recipe, calibration=calibration)
        accuracy = share_right(spiking, x, y, None)
        speed = rate(lambda part: simulate(spiking, part), x, arguments.batch, arguments.seconds)  # noqa: B023 - called now
        print(f"{name}: {100 * accuracy:.1f} %, {speed:,.0f} images/s with all counts")
        if accuracy >= dense - WITHIN:
            within.append((speed, name))
    print(f"peak memory of all this, data set aside: {peak_megabytes():,.0f} MB")
    if arguments.peer is None:
        print("no --peer: nothing to compare with")
        return
    with tempfile.TemporaryDirectory() as folder:
        weights, tensors = Path(folder) / "weights.pt", Path(folder) / "data.pt"
        torch.save(network.state_dict(), weights)
        torch.save({"calibration": calibration, "x": x, "y": y}, tensors)
        peer = measure_peer(arguments.peer, weights, tensors, arguments.batch, arguments.seconds)
    speeds: dict[str, float] = peer["rates"]  # type: ignore[assignment]
    accuracies: dict[str, float] = peer["accuracy"]  # type: ignore[assignment]
    best = max(speeds.values())
    print(f"peer: dense {100 * float(peer['dense']):.1f} %, converts in {peer['conversion_s']:.1f} s, "  # type: ignore[arg-type]
          f"peak memory {peer['peak_MB']:,.0f} MB")  # fmt: skip
    print(
        f"peer image-steps/s at T={STEPS}: " + ", ".join(f"mode {mode}: {speed:,.0f}" for mode, speed in speeds.items())
    )
    print("peer accuracy: " + ", ".join(f"T={steps}: {100 * value:.1f} %" for steps, value in accuracies.items()))
    print(f"image-steps per second, ours over the peer's: {ours / best:.1f}")
    enough = [int(steps) for steps, accuracy in accuracies.items() if accuracy >= dense - WITHIN]
    if within and enough:
        speed, name = max(within)
        reached = best / min(enough)
        print(f"images per second within {100 * WITHIN:g} point of the original: {name} {speed:,.0f}, "
              f"peer at T={min(enough)} {reached:,.1f}: {speed / reached:.1f} times")  # fmt: skip
    else:
        print("one of the two did not come within a point: no ratio")


if __name__ == "__main__":
    main()
