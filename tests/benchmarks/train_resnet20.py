"""Train the ResNet-20 that bench_conversion.py and bench_recipes.py work with (about 25 minutes on two cores).

python tests/benchmarks/train_resnet20.py --data-root ../shared/data --out out/benchmarks/resnet20.safetensors
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from resnet20 import ResNet20
from safetensors.torch import save_file
from torch import Tensor

from neuro import datasets
from neuro.atomic import replacing
from neuro.training import accuracy
from neuro.weights import load_weights

BATCH = 128


def crops(x: Tensor, rows: Tensor) -> Tensor:
    """One random shift by up to four pixels for the batch, a random flip for each image. x padded by four."""
    across, down = torch.randint(0, 9, (2,)).tolist()
    part = x[rows, :, across : across + 32, down : down + 32]
    flip = torch.rand(len(rows)) < 0.5
    return torch.where(flip[:, None, None, None], part.flip(3), part).contiguous(memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/resnet20.safetensors"))
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.4, help="largest learning rate")
    parser.add_argument("--start", type=Path, help="weights to go on from, with a smaller rate")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    data = datasets.load("cifar10", arguments.data_root)
    padded, labels = F.pad(data.train_x, (4, 4, 4, 4)), data.train_y
    network = ResNet20()
    if arguments.start is not None:
        network.load_state_dict(load_weights(arguments.start))
    network = network.to(memory_format=torch.channels_last)
    steps = len(labels) // BATCH
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.rate, total_steps=arguments.epochs * steps, pct_start=0.25
    )
    started = time.perf_counter()
    for epoch in range(1, arguments.epochs + 1):
        network.train()
        order = torch.randperm(len(labels))
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                scores = network(crops(padded, rows))
            loss = F.cross_entropy(scores.float(), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
        correct = accuracy(network, data.validation_x, data.validation_y)
        print(f"epoch {epoch}: validation {100 * correct:.1f} %, {time.perf_counter() - started:.0f} s", flush=True)
    network.eval()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(arguments.out) as partial:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, partial)
    print(f"test {100 * accuracy(network, data.test_x, data.test_y):.2f} %, written: {arguments.out}")


if __name__ == "__main__":
    main()
