"""The networks of bench_training.py in other libraries: snnTorch, Norse, SpikingJelly and the dense products alone.

Each builder gives (module, run): run(module, x) takes (time, batch, *features) and gives scores (batch, classes). Run
as a script, by an interpreter that has SpikingJelly, it answers every line "mode timed|peak step|forward" on stdin
with a number.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from memory import peak_megabytes, reset_peak
from torch import Tensor, nn

Built = tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]

SIZES = {"mlp": (25, 128, (784,)), "conv": (16, 32, (1, 28, 28))}
"""Steps, batch, features."""


def linear_parts(network: str) -> list[nn.Module]:
    """What comes before each of the populations."""
    if network == "mlp":
        return [nn.Linear(784, 1000), nn.Linear(1000, 10)]
    pool = nn.AvgPool2d(2)
    return [
        nn.Conv2d(1, 32, 3, padding=1),
        nn.Sequential(pool, nn.Conv2d(32, 64, 3, padding=1)),
        nn.Sequential(pool, nn.Flatten(), nn.Linear(64 * 49, 10)),
    ]


def dense(network: str) -> Built:
    """All steps as rows of one batch, ReLU for populations."""
    first, *others = linear_parts(network)
    module = nn.Sequential(first, *(part for other in others for part in (nn.ReLU(), other)))
    return module, lambda m, x: m(x.flatten(0, 1)).unflatten(0, x.shape[:2]).sum(0)


def snntorch(network: str) -> Built:
    """Leaky, one step after the other, as its tutorials do."""
    import snntorch as snn

    module = nn.ModuleList()
    for part in linear_parts(network):
        module.extend([part, snn.Leaky(beta=0.95)])

    def run(m: nn.ModuleList, x: Tensor) -> Tensor:
        states = [neuron.init_leaky() for neuron in m[1::2]]
        total: Tensor | float = 0.0
        for z in x:
            for k, part in enumerate(m[::2]):
                z, states[k] = m[2 * k + 1](part(z), states[k])
            total = total + z
        return total  # type: ignore[return-value]

    return module, run  # type: ignore[return-value]


def norse(network: str) -> Built:
    """LIFBoxCell, the LIF without a synaptic current."""
    import norse.torch as norse_

    parameters = norse_.LIFBoxParameters(tau_mem_inv=torch.tensor(50.0))
    module = nn.ModuleList()
    for part in linear_parts(network):
        module.extend([part, norse_.LIFBoxCell(parameters)])

    def run(m: nn.ModuleList, x: Tensor) -> Tensor:
        states = [None] * (len(m) // 2)
        total: Tensor | float = 0.0
        for z in x:
            for k, part in enumerate(m[::2]):
                z, states[k] = m[2 * k + 1](part(z), states[k])
            total = total + z
        return total  # type: ignore[return-value]

    return module, run  # type: ignore[return-value]


def spikingjelly(network: str, mode: str) -> Built:
    """LIFNode, all steps at once ("m") or one after the other ("s")."""
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    parts: list[nn.Module] = []
    for part in linear_parts(network):
        parts.append(layer.SeqToANNContainer(part) if mode == "m" else part)
        parts.append(
            neuron.LIFNode(
                tau=20.0, decay_input=False, detach_reset=True, surrogate_function=surrogate.ATan(), step_mode=mode
            )
        )
    module = nn.Sequential(*parts)

    def run(m: nn.Module, x: Tensor) -> Tensor:
        functional.reset_net(m)
        return m(x).sum(0) if mode == "m" else sum(m(step) for step in x)  # type: ignore[return-value]

    return module, run


class Contender:
    """One network with its optimiser on one batch; timed on the wall, or by the work of the processor."""

    def __init__(self, built: Built, x: Tensor, y: Tensor, processor_time: bool = False) -> None:
        self.module, self.run = built
        self.processor_time = processor_time
        self.x, self.y = x, y
        self.optimiser = torch.optim.AdamW(self.module.parameters(), lr=1e-3, fused=True)

    def step(self) -> None:
        self.optimiser.zero_grad()
        F.cross_entropy(self.run(self.module, self.x), self.y).backward()
        self.optimiser.step()

    def forward(self) -> None:
        with torch.no_grad():
            self.run(self.module, self.x)

    def timed(self, what: str) -> float:
        """Milliseconds of one call."""
        clock = time.process_time if self.processor_time else time.perf_counter
        started = clock()
        getattr(self, what)()
        return 1000 * (clock() - started)

    def peak(self, what: str) -> float:
        """Megabytes that one call adds at most to the resident memory, once what lies idle has gone back."""
        ctypes.CDLL(None).malloc_trim(0)
        reset_peak()
        before = peak_megabytes()
        getattr(self, what)()
        return peak_megabytes() - before


def batch(network: str, share: float = 0.125) -> tuple[Tensor, Tensor]:
    """Random spikes and labels; the times of dense libraries do not depend on them."""
    steps, size, features = SIZES[network]
    return (torch.rand(steps, size, *features) < share).float(), torch.randint(10, (size,))


def main(network: str, threads: int, processor_time: bool) -> None:
    torch.set_num_threads(threads)
    contenders = {mode: Contender(spikingjelly(network, mode), *batch(network), processor_time) for mode in ("m", "s")}
    print("ready", flush=True)
    for line in sys.stdin:
        mode, measure, what = line.split()
        print(json.dumps(getattr(contenders[mode], measure)(what)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), bool(int(sys.argv[3])))
