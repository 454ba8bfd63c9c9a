"""One optimiser step of a spiking network against snnTorch, Norse, SpikingJelly and the dense products alone.

python tests/benchmarks/bench_training.py --data-root ../shared/data --spikingjelly path/to/python

784-1000-10, T = 25, batch 128, and 1-32C3-P2-64C3-P2-10 (average pools), T = 16, batch 32, on rate-coded MNIST,
float32. Our network trains first (--epochs), so that its activity is that of a trained network. Then all contenders
take turns, call by call, so that whatever else the machine does hits them alike; SpikingJelly sits in a process of its
own. Peak memory is what one more call adds to the resident set.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numba
import torch
import torch.nn.functional as F
from peer_training import SIZES, Contender, dense, linear_parts, norse, snntorch
from torch import Tensor, nn

from neuro import Network, datasets, trace
from neuro.modules import LIF

TARGETS = {("mlp", "step"): (0.5, 0.7), ("mlp", "forward"): (0.35, None), ("conv", "step"): (0.7, None)}
"""Shares of the fastest peer and of the dense products that are wanted."""


def ours(network: str) -> Network:
    _, batch, features = SIZES[network]
    parts = [part for linear in linear_parts(network) for part in (linear, LIF(beta=0.95))]
    return Network(trace(nn.Sequential(*parts), torch.zeros(batch, *features)))


def spikes(pixels: Tensor, network: str, generator: torch.Generator) -> Tensor:
    """Rate code: in every step a pixel fires with its brightness as the probability."""
    steps, _, features = SIZES[network]
    x = pixels.reshape(len(pixels), *features)
    return (torch.rand(steps, *x.shape, generator=generator) < x).float()


def train(module: Network, network: str, data: datasets.Split, epochs: float) -> str:
    """Trains and says how well it does on validation images."""
    batch = SIZES[network][1]
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)
    done, count = 0, int(epochs * len(data.train_x)) // batch
    while done < count:
        for rows in torch.randperm(len(data.train_x), generator=generator).split(batch):
            if done == count or len(rows) < batch:
                break
            optimiser.zero_grad()
            scores = module(spikes(data.train_x[rows], network, generator)).sum(0)
            F.cross_entropy(scores, data.train_y[rows].long()).backward()
            optimiser.step()
            done += 1
    with torch.no_grad():
        x, y = data.validation_x[:2000], data.validation_y[:2000]
        found = [module(spikes(part, network, generator)).sum(0).argmax(1) for part in x.split(batch)]
    return (
        f"{done} steps trained, {100 * float((torch.cat(found) == y).double().mean()):.1f} % of 2,000 validation images"
    )


class Elsewhere:
    """A contender in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self.process, self.name = process, name

    def timed(self, what: str) -> float:
        return self._asked("timed", what)

    def peak(self, what: str) -> float:
        return self._asked("peak", what)

    def _asked(self, measure: str, what: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{self.name} {measure} {what}\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline()))


def measure(network: str, arguments: argparse.Namespace) -> bool:
    """Prints the table of one network; whether all targets are met."""
    data = datasets.load("mnist", arguments.data_root)
    module = ours(network)
    print(f"\n{network}: {train(module, network, data, arguments.epochs)}", flush=True)
    size = SIZES[network][1]
    x, y = spikes(data.train_x[:size], network, torch.Generator().manual_seed(1)), data.train_y[:size].long()
    with torch.no_grad():
        trajectory = module(x, record=True)
    layers = {"input": x, **trajectory.spikes}
    print("activity: " + ", ".join(f"{name} {100 * float(z.mean()):.1f} %" for name, z in layers.items()))
    mine = (module, lambda m, x: m(x).sum(0))
    contenders: dict[str, Contender | Elsewhere] = {"ours": Contender(mine, x, y, arguments.processor_time)}
    for name, build in (("dense products", dense), ("snnTorch", snntorch), ("Norse", norse)):
        contenders[name] = Contender(build(network), x, y, arguments.processor_time)
    process = None
    if arguments.spikingjelly:
        script = str(Path(__file__).with_name("peer_training.py"))
        process = subprocess.Popen(
            [arguments.spikingjelly, script, network, str(arguments.threads), str(int(arguments.processor_time))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        while process.stdout.readline().strip() != "ready":
            if process.poll() is not None:
                sys.exit("SpikingJelly's process ended; does that interpreter have it?")
        contenders |= {f"SpikingJelly {mode!r}": Elsewhere(process, mode) for mode in ("m", "s")}
    met = True
    for what in ("step", "forward"):
        for _ in range(2):
            for contender in contenders.values():
                contender.timed(what)
        calls = [{name: c.timed(what) for name, c in contenders.items()} for _ in range(arguments.repeats)]
        times = {name: statistics.median(call[name] for call in calls) for name in contenders}
        print(f"{what}: median (best) of {arguments.repeats}")
        for name, median in times.items():
            best, peak = min(call[name] for call in calls), contenders[name].peak(what)
            share = times["ours"] / median
            print(f"    {name:17} {median:7.1f} ({best:.1f}) ms, peak {peak:5.0f} MB, ours takes {share:.2f} of it")
        fastest = min(median for name, median in times.items() if name not in ("ours", "dense products"))
        for wanted, reached, against in zip(
            TARGETS.get((network, what), ()),
            (times["ours"] / fastest, times["ours"] / times["dense products"]),
            ("the fastest peer", "the dense products"), strict=False,
        ):  # fmt: skip
            if wanted is not None:
                print(f"    {reached:.2f} of {against}, wanted {wanted}: {'met' if reached <= wanted else 'MISSED'}")
                met &= reached <= wanted
    if process is not None:
        process.terminate()
        process.wait()
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--spikingjelly", help="an interpreter that has SpikingJelly 2.0")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--processor-time", action="store_true", help="time the work, not the wall: for a busy machine, one thread"
    )
    parser.add_argument("--only", default="mlp,conv")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    numba.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    met = [measure(network, arguments) for network in arguments.only.split(",")]
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
