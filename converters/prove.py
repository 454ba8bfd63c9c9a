"""prove: the spiking network and the quantised network agree on every layer, sample and neuron, in integers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from converters.recipes.exact import without_time
from neuro.errors import NeuroError, ParameterError
from neuro.evaluate import evaluate
from neuro.graph import Graph
from neuro.kernels import Kernel
from neuro.nodes import CountThenFire, MaxCount
from neuro.simulate import simulate
from neuro.windows import duration

SERIES = 2**24
"""Bytes that the spikes of one layer over all steps may take: beyond the caches memory costs more than arithmetic."""

MOST = 64
"""Samples compared at a time, at most."""


class NotExact(NeuroError):
    """A spiking network and its quantised network differ; the text names the first place."""


@dataclass(frozen=True)
class Proof:
    """samples: how many were compared; spikes: (layer, neurons, spikes of all samples) of every population compared."""

    samples: int
    spikes: tuple[tuple[str, int, int], ...]

    def __str__(self) -> str:
        lines = [
            f"  {name}: {neurons:,} neurons, {spikes:,} spikes, all equal" for name, neurons, spikes in self.spikes
        ]
        return "\n".join([f"equal on {self.samples:,} samples in {len(self.spikes)} populations", *lines])


def prove(snn: Graph, x: Tensor, reference: Graph | None = None, kernel: Kernel = "numba") -> Proof:
    """Compare the spikes of `snn`, counted step by step, with the integers of its quantised network.

    x (samples, *features). reference: the quantised network; the one that `snn` implies if left out. kernel: "numba"
    and "reference" take every step of every neuron, "auto" the closed form that `simulate` uses. The logits are
    compared too. Raises NotExact at the first difference and ParameterError for networks that do not count in windows.
    """
    layers = [name for name, node in snn.nodes.items() if isinstance(node, CountThenFire | MaxCount)]
    if not any(isinstance(node, CountThenFire) for node in snn.nodes.values()):
        raise ParameterError(f"{snn.name!r} does not count in windows; convert with Exact(levels) to have a proof")
    plain = without_time(snn) if reference is None else reference
    totals = dict.fromkeys(layers, 0)
    widest = max(torch.Size(snn.shapes[name]).numel() for name in layers)
    batch = min(MOST, max(1, SERIES // (4 * widest * (duration(snn) or 1))))
    for first in range(0, len(x), batch):
        part = x[first : first + batch]
        wanted: dict[str, Tensor] = {}

        def keep(name: str, value: Tensor, wanted: dict[str, Tensor] = wanted) -> None:
            if name in totals:
                wanted[name] = value

        with torch.no_grad():
            logits = evaluate(plain, part.to(torch.float32), observe=keep)
        run = simulate(snn, part, record=("counts",), kernel=kernel, count=False)
        for name in layers:
            _compare(name, run.recordings["counts"][name][0], wanted[name], first)
            totals[name] += int(wanted[name].sum())
        _compare(plain.output, run.outputs, logits, first)
    sizes = {name: torch.Size(snn.shapes[name]).numel() for name in layers}
    return Proof(len(x), tuple((name, sizes[name], totals[name]) for name in layers))


def _compare(name: str, found: Tensor, wanted: Tensor, first: int) -> None:
    if torch.equal(found.double(), wanted.double()):
        return
    sample, *place = (found.double() != wanted.double()).nonzero()[0].tolist()
    where = f"{name!r}, sample {first + sample}, neuron {tuple(place)}"
    values = f"{found[sample][tuple(place)].item()} in spikes, {wanted[sample][tuple(place)].item()} in integers"
    raise NotExact(f"{where}: {values}; the network was changed after conversion, or this is a bug to report")
