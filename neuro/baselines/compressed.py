"""Sparse inference for real: only the non-zero weights are stored and multiplied.

A share of zeros is no speed: `measured_speed` says what the zeros save on the machine at hand.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numba
import numpy as np
import torch
from torch import Tensor

from neuro.errors import ParameterError
from neuro.evaluate import evaluate
from neuro.graph import Graph, Shape, Stateless
from neuro.nodes import Affine, Conv, IDLevel
from neuro.nodes.hyperdimensional import BIPOLAR_BITS


@numba.njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _rows_times(starts, columns, weights, x, y):  # type: ignore[no-untyped-def]
    """y += W x for x (in, batch) and y (out, batch): one multiply-accumulate per non-zero weight and sample."""
    batch = x.shape[1]
    if batch == 1:  # a sum in a register; the loop over one sample would cost more than its work
        vector = x[:, 0]
        for row in range(y.shape[0]):
            total = y[row, 0]
            for place in range(starts[row], starts[row + 1]):
                total += weights[place] * vector[columns[place]]
            y[row, 0] = total
        return
    for row in range(y.shape[0]):
        for place in range(starts[row], starts[row + 1]):
            weight, column = weights[place], columns[place]
            for sample in range(batch):
                y[row, sample] += weight * x[column, sample]


@dataclass(frozen=True, eq=False)
class CompressedAffine(Stateless):
    """y = W x + b as `Affine`, on vectors, with W in compressed sparse rows (CSR).

    weights (nonzero,) float32, columns (nonzero,) int32, starts (out + 1,) int32, bias (out,).
    """

    weights: np.ndarray
    columns: np.ndarray
    starts: np.ndarray
    bias: Tensor

    @classmethod
    def of(cls, node: Affine) -> CompressedAffine:
        weight = node.weight.detach()
        rows, columns = weight.nonzero(as_tuple=True)
        starts = torch.cat([rows.new_zeros(1), torch.bincount(rows, minlength=len(weight)).cumsum(0)])
        bias = torch.zeros(len(weight)) if node.bias is None else node.bias.detach()
        return cls(weight[rows, columns].numpy(), columns.int().numpy(), starts.int().numpy(), bias)

    def output_shape(self, *shapes: Shape) -> Shape:
        return (len(self.bias),)

    def forward(self, *inputs: Tensor) -> Tensor:
        x = inputs[0].T.contiguous()
        y = self.bias[:, None].repeat(1, x.shape[1])
        _rows_times(self.starts, self.columns, self.weights, x.numpy(), y.numpy())
        return y.T


def compressed(graph: Graph, below: float = 0.25, smallest: int = 10_000) -> Graph:
    """`graph` with its sparse matrices compressed: float, on vectors, of `smallest` elements or more, and less than a
    share `below` of them not zero. The defaults are where it begins to pay on batches.

    For `neuro.evaluate` on a CPU, in float32, up to the order of additions. Counts and files want the graph itself.
    """
    if not 0 <= below <= 1:
        raise ParameterError(f"compressed: below must lie in [0, 1], got {below}")
    nodes = {
        name: CompressedAffine.of(node)
        if isinstance(node, Affine) and _pays(graph, name, node, below, smallest)
        else node
        for name, node in graph.nodes.items()
    }
    return replace(graph, nodes=nodes)


def _pays(graph: Graph, name: str, node: Affine, below: float, smallest: int) -> bool:
    on_vectors = len(graph.shapes[name]) == 1 and node.weight.dtype == torch.float32
    share = float((node.weight != 0).double().mean())
    return on_vectors and node.weight.numel() >= smallest and share < below


def stored_words(graph: Graph) -> int:
    """Words that hold the numbers of `graph`, its matrices as `matrix_words` says.

    Words have 32 bits, in integer networks 8, which hold as many bipolar elements of an `IDLevel`.
    """
    words = graph.parameters
    for node in graph.nodes.values():
        if isinstance(node, IDLevel):
            words -= node.parameters - math.ceil(node.parameters / BIPOLAR_BITS)
        if isinstance(node, Affine | Conv):
            words -= node.weight.numel() - sum(_kept(node.weight))
    return words


def places(graph: Graph) -> int:
    """Words among `stored_words` that say where weights stand in matrices kept without zeros; read with the weights."""
    return sum(_kept(node.weight)[1] for node in graph.nodes.values() if isinstance(node, Affine | Conv))


def _kept(weight: Tensor) -> tuple[int, int]:
    """Words of the weights that a matrix or a kernel keeps, and words that say where these stand."""
    rows, columns = weight.flatten(1).shape
    used = int((weight != 0).sum())
    words = matrix_words(rows, columns, used, 32 if weight.is_floating_point() else 8)
    return (used, words - used) if words < weight.numel() else (words, 0)


def matrix_words(rows: int, columns: int, used: int, bits: int = 32) -> int:
    """Words of `bits` that hold a matrix of which `used` weights are not zero: dense, or without zeros if that is less.

    Without zeros: the weights, the column of each in as few bits as the columns need, and 32 bits for the start of each
    row and for the end (CSR).
    """
    where = used * max(1, (columns - 1).bit_length()) + 32 * (rows + 1)
    return min(rows * columns, used + math.ceil(where / bits))


def mlp_words(sizes: Sequence[int], density: float = 1.0) -> int:
    """`stored_words` of `networks.mlp(sizes)` with the same density of weights in each layer, biases included."""
    return sum(
        matrix_words(after, before, round(density * before * after)) + after for before, after in pairwise(sizes)
    )


def measured_speed(graph: Graph, x: Tensor, batch: int, seconds: float = 0.2) -> float:
    """How many times as fast `compressed(graph)` is as `graph` on `batch` samples at once, in processor time."""
    return stopwatch(graph, x[:batch], seconds) / stopwatch(compressed(graph), x[:batch], seconds)


def stopwatch(graph: Graph, x: Tensor, seconds: float = 0.2) -> float:
    """Processor seconds per sample of `evaluate` on x (batch, *features) at once, one thread: best of many runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            evaluate(graph, x)
            best, until = float("inf"), time.process_time() + seconds
            while time.process_time() < until:
                began = time.process_time()
                evaluate(graph, x)
                best = min(best, time.process_time() - began)
    finally:
        torch.set_num_threads(threads)
    return best / len(x)
