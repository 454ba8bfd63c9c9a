"""The peer of bench_conversion.py, run by an interpreter that has SpikingJelly 2.0: prints one line of JSON.

It gets the best of what it offers: ReLUs as modules, pixels normalised outside (it refuses the division inside), batch
norm fused, channel-wise 99.9 % thresholds, initial potential at half the threshold, the faster of its two step modes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from memory import peak_megabytes
from resnet20 import ResNet20


def main(weights: str, data: str, steps: list[int], batch: int, seconds: float) -> None:
    from spikingjelly.activation_based import ann2snn, functional

    torch.set_num_threads(2)
    network = ResNet20(modules=True)
    network.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    network.eval()
    tensors = torch.load(data, weights_only=True)
    y = tensors["y"]
    calibration, x = ((tensors[name] - network.mean) / network.std for name in ("calibration", "x"))
    with torch.no_grad():
        dense = float((network(x).argmax(1) == y).float().mean())
    before = time.perf_counter()
    recipe = ann2snn.RateCodingRecipe(
        dataloader=[(part, None) for part in calibration.split(64)], mode="99.9%", channel_wise=True,
        half_threshold=True,
    )  # fmt: skip
    spiking = ann2snn.Converter(recipe=recipe).convert(network)
    conversion = time.perf_counter() - before

    def single(part: torch.Tensor, count: int) -> torch.Tensor:
        functional.reset_net(spiking)
        functional.set_step_mode(spiking, "s")
        return sum(spiking(part) for _ in range(count)) / count  # type: ignore[return-value]

    def multi(part: torch.Tensor, count: int) -> torch.Tensor:
        functional.reset_net(spiking)
        functional.set_step_mode(spiking, "m")
        return spiking(part.expand(count, *part.shape)).mean(0)

    ways = {"s": single, "m": multi}
    result: dict[str, object] = {"dense": dense, "conversion_s": conversion, "rates": {}, "accuracy": {}}
    with torch.no_grad():
        for name, way in ways.items():
            way(x[:2], 2)
            done, before = 0, time.perf_counter()
            while time.perf_counter() - before < seconds:
                way(x[:batch], steps[0])
                done += len(x[:batch]) * steps[0]
            result["rates"][name] = done / (time.perf_counter() - before)  # type: ignore[index]
        for count in steps:
            found = torch.cat([single(part, count).argmax(1) for part in x.split(batch)])
            result["accuracy"][count] = float((found == y).float().mean())  # type: ignore[index]
    result["peak_MB"] = peak_megabytes()
    print(json.dumps(result))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(sys.argv[1], sys.argv[2], [int(n) for n in sys.argv[3].split(",")], int(sys.argv[4]), float(sys.argv[5]))
