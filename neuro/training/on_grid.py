"""Quantisation-aware training: weights are rounded as a chip rounds them in every pass, and learn in between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from neuro.datasets.split import Split
from neuro.encode import Constant
from neuro.errors import ParameterError
from neuro.graph import Graph, Node
from neuro.network import Network, Path
from neuro.nodes import Neuron, Spiking, Weighted
from neuro.training.fit_classifier import fit
from neuro.training.history import History
from neuro.training.losses import Criterion, MembraneCrossEntropy, RateCrossEntropy
from neuro.training.present import Encode, Encoded, TimeFirst


class OnGrid(Network):
    """A `Network` whose weights have `bits` signed bits wherever they are used.

    w becomes s round(w / s), where s = max|w| / (2^(bits - 1) - 1) belongs to an output channel: a chip folds it into
    the threshold of the channel. Weights in front of neurons that never fire share one s. The gradient passes straight
    through the rounding to the weights in full precision, which are the parameters (Bengio, Leonard and Courville 2013,
    arXiv 1308.3432 [recalled]). `graph` has the rounded weights, which a chip of that width keeps as they are.
    """

    def __init__(self, graph: Graph, bits: int, **options: Any) -> None:
        if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 16:
            raise ParameterError(f"OnGrid: bits must be a whole number in 2..16, got {bits!r}")
        super().__init__(graph, **options)
        self.bits = bits
        self._shared = {name for name, node in graph.nodes.items() if isinstance(node, Weighted) and _read(graph, name)}

    def _tensors(self, path: Path, node: Node) -> dict[str, Tensor]:
        tensors = super()._tensors(path, node)
        if isinstance(node, Weighted) and "weight" in tensors:
            tensors["weight"] = rounded(node, tensors["weight"], self.bits, one_step=path[-1] in self._shared)
        return tensors


def rounded(node: Weighted, weight: Tensor, bits: int, *, one_step: bool = False) -> Tensor:
    """`weight` in place of the node's, on the grid of `bits` signed bits; its gradient is that of `weight`.

    The step belongs to an output channel or, with `one_step`, to all.
    """
    with torch.no_grad():
        largest = replace(node, weight=weight.detach()).by_output().abs().amax(1)  # type: ignore[call-arg]
        largest = largest.max().expand_as(largest) if one_step else largest
        step = node.per_output(largest / (2 ** (bits - 1) - 1)).clamp(min=torch.finfo(weight.dtype).tiny)
        change = (weight / step).round() * step - weight
    return weight + change


def _read(graph: Graph, name: str) -> bool:
    """Whether all that a node sends ends in neurons that never fire, or leaves the network."""
    readers = [graph.nodes[reader] for reader in graph.targets[name]]
    return all(
        not isinstance(node, Spiking) if isinstance(node, Neuron) else _read(graph, reader)
        for reader, node in zip(graph.targets[name], readers, strict=True)
    )


def fine_tuned(
    graph: Graph,
    split: Split,
    *,
    bits: int,
    steps: int,
    epochs: int,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Graph, History]:
    """A spiking classifier that has learnt to live with weights of `bits`, and how it learnt.

    Samples are held for `steps` as a constant current unless they have a time of their own. The loss reads spikes where
    the last population fires, the last value of its membrane otherwise; the best epoch on validation data is kept.
    Raises UnsupportedNode for populations that no gradient passes.
    """
    network = OnGrid(graph, bits)
    fires = isinstance(graph.nodes[graph.output], Spiking)
    loss: Criterion = RateCrossEntropy() if fires else MembraneCrossEntropy("last")
    encode: Encode = TimeFirst() if split.timed else Encoded(Constant(), steps)
    history = fit(
        network, split, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, seed=seed, encode=encode,
        loss=loss, progress=progress,
    )  # fmt: skip
    return network.graph, history
