"""From a spiking graph to populations and the linear maps between them: what a chip can hold.

Between two populations a graph may have pools, reshapes, scales and additions. A chip has synapses only, so all that
lies on the way is multiplied out into one matrix per pair, unless it is a plain convolution or matrix, which stays what
it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import singledispatch

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from neuro.errors import UnsupportedNode
from neuro.graph import Graph, Input, Node, Shape, Stateless
from neuro.nodes import (
    IF,
    LIF,
    Add,
    Affine,
    AvgPool,
    Concat,
    Conv,
    ConvTranspose,
    Neuron,
    Pad,
    Permute,
    Readout,
    Reshape,
    Scale,
    Slice,
)

LINEAR = (Affine, Conv, ConvTranspose, Scale, AvgPool, Reshape, Permute, Pad, Slice, Add, Concat)


@dataclass(frozen=True, eq=False)
class Path:
    """The linear map from one population (or input) to another.

    `conv` is set where the map is one convolution, whose kernel the neurons share, and `affine` where it is one matrix
    as it stands; `matrix` (targets, sources) always can be made from them.
    """

    source: str
    target: str
    conv: Conv | None
    input_shape: Shape
    matrix: sp.csr_array | None
    affine: Affine | None = None

    def as_matrix(self) -> sp.csr_array:
        if self.affine is not None:
            return matrix_of(self.affine, (math.prod(self.input_shape),))
        return matrix_of(self.conv, self.input_shape) if self.matrix is None else self.matrix  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Layer:
    """A population of a spiking graph: its neurons, what flows into it, and the constant current of its biases."""

    name: str
    node: Neuron
    shape: Shape
    paths: tuple[Path, ...]
    bias: np.ndarray
    level: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def lower(graph: Graph) -> tuple[Layer, ...]:
    """The populations of a spiking graph in order, with their inputs.

    Raises UnsupportedNode listing what no chip holds.
    """
    refused = [
        f"  {name!r}: {node.kind}{_remedy(node)}"
        for name, node in graph.nodes.items()
        if not isinstance(node, (*LINEAR, Input, IF, LIF, Readout)) or _never_reset(node)
    ]
    if refused:
        raise UnsupportedNode(f"{graph.name!r}: {len(refused)} node(s) have no form on a chip:\n" + "\n".join(refused))
    layers: list[Layer] = []
    level = dict.fromkeys(graph.inputs, 0)
    for name, node in graph.nodes.items():
        if isinstance(node, Neuron):
            (entry,) = graph.sources[name]
            paths = paths_of(graph, entry, name)
            level[name] = 1 + max((level[path.source] for path in paths), default=0)
            layers.append(Layer(name, node, graph.shapes[name], paths, offset_of(graph, entry), level[name]))
    return tuple(layers)


def _never_reset(node: Node) -> bool:
    return isinstance(node, IF | LIF) and node.reset == "none"


def _remedy(node: Node) -> str:
    if _never_reset(node):
        return ": fires without reset, which no chip does; train with reset 'subtract' or 'zero'"
    remedies = {
        "MaxCount": ": a max-pool of spikes needs a counter per input; train with average pooling or strides instead",
        "MaxPool": ": no synapse takes a maximum; train with average pooling or strides instead",
        "ReLU": ": convert the network first, e.g. convert(graph, RateCode(), calibration=x)",
        "LI": ": a leaky read-out is not compiled yet; read the classes from a Readout",
        "Recurrent": ": loops within a population are not compiled yet; train without recurrent connections",
    }
    return remedies.get(node.kind, ": not a linear map, and not a neuron that a chip offers")


def _ends(graph: Graph, name: str) -> bool:
    return isinstance(graph.nodes[name], Neuron | Input)


def paths_of(graph: Graph, entry: str, target: str) -> tuple[Path, ...]:
    chain = _only_conv(graph, entry)
    if chain is not None:
        source, conv, shape = chain
        return (Path(source, target, conv, shape, None),)
    plain = _only_affine(graph, entry)
    if plain is not None:
        return (Path(plain[0], target, None, graph.shapes[plain[0]], None, plain[1]),)
    if isinstance(graph.nodes[entry], Add):
        branches = [paths_of(graph, source, target) for source in graph.sources[entry]]
        sources = [path.source for branch in branches for path in branch]
        if len(set(sources)) == len(sources):
            return tuple(path for branch in branches for path in branch)
    matrices = matrices_of(graph, entry, {})
    return tuple(
        Path(source, target, None, graph.shapes[source], matrix) for source, matrix in matrices.items() if matrix.nnz
    )


def _only_conv(graph: Graph, entry: str) -> tuple[str, Conv, Shape] | None:
    """Source, convolution and its input shape, where `entry` is one two-dimensional convolution of a population.

    An average pool before the convolution is multiplied into its kernel: the neurons go on sharing it.
    """
    node = graph.nodes[entry]
    if not isinstance(node, Conv) or node.weight.ndim != 4:
        return None
    (source,) = graph.sources[entry]
    if _ends(graph, source):
        return source, node, graph.shapes[source]
    pool = graph.nodes[source]
    if isinstance(pool, AvgPool) and _ends(graph, graph.sources[source][0]):
        (first,) = graph.sources[source]
        merged = _pooled_conv(pool, node, graph.shapes[first])
        return None if merged is None else (first, merged, graph.shapes[first])
    return None


def _only_affine(graph: Graph, entry: str) -> tuple[str, Affine] | None:
    """Source and matrix, where `entry` is one matrix that reads a flattened population: nothing to multiply out."""
    node = graph.nodes[entry]
    if not isinstance(node, Affine) or len(graph.shapes[graph.sources[entry][0]]) != 1:
        return None
    (source,) = graph.sources[entry]
    while isinstance(graph.nodes[source], Reshape):
        (source,) = graph.sources[source]
    return (source, node) if _ends(graph, source) and bool(node.weight.any()) else None


def _pooled_conv(pool: AvgPool, conv: Conv, shape: Shape) -> Conv | None:
    """One convolution equal to `conv` after `pool`; None where borders make that impossible.

    The kernel tap t of the convolution reads the window that starts at t * dilation * stride(pool).
    """
    step = tuple(d * s for d, s in zip(conv.dilation, pool.stride, strict=True))
    size = tuple((k - 1) * d + p for k, d, p in zip(conv.weight.shape[2:], step, pool.kernel, strict=True))
    weight = torch.zeros(*conv.weight.shape[:2], *size, dtype=conv.weight.dtype)
    share = conv.weight.detach() / math.prod(pool.kernel)
    for i in range(conv.weight.shape[2]):
        for j in range(conv.weight.shape[3]):
            top, left = i * step[0], j * step[1]
            weight[:, :, top : top + pool.kernel[0], left : left + pool.kernel[1]] += share[:, :, i : i + 1, j : j + 1]
    stride = tuple(a * b for a, b in zip(conv.stride, pool.stride, strict=True))
    padding = tuple(a * s + b for a, s, b in zip(conv.padding, pool.stride, pool.padding, strict=True))
    merged = Conv(weight, None, stride, padding, (1, 1), conv.groups)
    probe = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = replace(conv, bias=None).forward(pool.forward(probe))
        if merged.output_shape(shape) != tuple(wanted.shape[1:]):
            return None
        same = torch.allclose(merged.forward(probe), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
    return merged if same else None


def matrices_of(graph: Graph, name: str, known: dict[str, Mapping[str, sp.csr_array]]) -> Mapping[str, sp.csr_array]:
    """For every population or input that `name` reads: the matrix from it to the output of `name`."""
    if _ends(graph, name):
        return {name: sp.eye_array(math.prod(graph.shapes[name]), format="csr")}
    if name not in known:
        node, given = graph.nodes[name], graph.sources[name]
        parts = [matrices_of(graph, source, known) for source in given]
        result: dict[str, sp.csr_array] = {}
        for number, part in enumerate(parts):
            block = _block(node, number, [graph.shapes[source] for source in given])
            for source, matrix in part.items():
                product = (block @ matrix).tocsr()
                result[source] = product if source not in result else (result[source] + product).tocsr()
        known[name] = result
    return known[name]


def _block(node: Node, number: int, shapes: list[Shape]) -> sp.csr_array:
    """The matrix of a linear node for its input `number`."""
    if isinstance(node, Concat):
        places = torch.zeros(node.output_shape(*shapes), dtype=torch.bool)
        start = sum(shape[node.dim] for shape in shapes[:number])
        places.narrow(node.dim, start, shapes[number][node.dim])[...] = True
        rows = places.flatten().nonzero()[:, 0].numpy()
        size = (places.numel(), math.prod(shapes[number]))
        return sp.csr_array((np.ones(rows.size), (rows, np.arange(rows.size))), shape=size)
    if isinstance(node, Add):
        return sp.eye_array(math.prod(shapes[number]), format="csr")
    return matrix_of(node, shapes[0])


@singledispatch
def matrix_of(node: Node, shape: Shape) -> sp.csr_array:
    """The matrix (outputs, inputs) of a one-input linear node on features of `shape`, without its bias."""
    raise UnsupportedNode(f"{node.kind} is not a linear map")


@matrix_of.register
def _(node: Affine, shape: Shape) -> sp.csr_array:
    rows = math.prod(shape[:-1])
    dense = sp.csr_array(node.weight.detach().double().numpy())
    return sp.csr_array(sp.kron(sp.eye_array(rows), dense, format="csr")) if rows > 1 else dense


@matrix_of.register
def _(node: Scale, shape: Shape) -> sp.csr_array:
    return sp.csr_array(sp.diags_array(node.factor.detach().double().expand(shape).flatten().numpy()))


@matrix_of.register(Reshape)
@matrix_of.register(Permute)
@matrix_of.register(Slice)
@matrix_of.register(Pad)
def _(node: Stateless, shape: Shape) -> sp.csr_array:
    if isinstance(node, Pad):
        node = replace(node, value=0.0)
    numbered = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64).reshape(1, *shape)
    origin = node.forward(numbered).flatten().long().numpy() - 1
    rows = np.flatnonzero(origin >= 0)
    return sp.csr_array((np.ones(rows.size), (rows, origin[rows])), shape=(origin.size, math.prod(shape)))


@matrix_of.register
def _(node: AvgPool, shape: Shape) -> sp.csr_array:
    if node.ceil:
        raise UnsupportedNode("AvgPool: ceil_mode windows have no matrix here; use a window that divides its input")
    channels, window = shape[0], math.prod(node.kernel)
    if not node.count_padding and any(node.padding):
        raise UnsupportedNode("AvgPool: count_include_pad=False with padding has no matrix here; pad before the pool")
    weight = torch.full((channels, 1, *node.kernel), 1.0 / window)
    return matrix_of(Conv(weight, None, node.stride, node.padding, (1,) * len(node.kernel), channels), shape)


@matrix_of.register
def _(node: Conv, shape: Shape) -> sp.csr_array:
    out, per_group, *kernel = node.weight.shape
    sizes = node.output_shape(shape)[1:]
    positions = np.indices(sizes).reshape(len(sizes), -1)
    taps = np.indices(kernel).reshape(len(kernel), -1)
    where = np.zeros((taps.shape[1], positions.shape[1]), np.int64)
    inside = np.ones_like(where, bool)
    for dim, size in enumerate(shape[1:]):
        place = positions[dim][None, :] * node.stride[dim] - node.padding[dim] + taps[dim][:, None] * node.dilation[dim]
        inside &= (place >= 0) & (place < size)
        where = where * size + place
    tap, position = np.nonzero(inside)
    pixels, area = math.prod(shape[1:]), positions.shape[1]
    weight = node.weight.detach().double().numpy().reshape(out, per_group, -1)
    outs, ins = np.meshgrid(np.arange(out), np.arange(per_group), indexing="ij")
    channel = ins + (outs // (out // node.groups)) * per_group
    data = weight[:, :, tap]
    rows = np.broadcast_to((outs * area)[:, :, None] + position, data.shape)
    columns = np.broadcast_to((channel * pixels)[:, :, None] + where[tap, position], data.shape)
    used = data != 0
    return sp.csr_array((data[used], (rows[used], columns[used])), shape=(out * area, math.prod(shape)))


@matrix_of.register
def _(node: ConvTranspose, shape: Shape) -> sp.csr_array:
    forth = Conv(node.weight, None, node.stride, node.padding, node.dilation, node.groups)
    reach = forth.output_shape(node.output_shape(shape))
    inside = np.arange(math.prod(reach)).reshape(reach)[tuple(slice(0, size) for size in shape)].ravel()
    return sp.csr_array(matrix_of(forth, node.output_shape(shape)).T[:, inside])


def offset_of(graph: Graph, entry: str) -> np.ndarray:
    """The constant current that arrives at `entry` when every population and input is silent, flattened."""
    values: dict[str, Tensor] = {}

    def value(name: str) -> Tensor:
        if name not in values:
            node = graph.nodes[name]
            if not isinstance(node, Stateless):
                values[name] = torch.zeros(1, *graph.shapes[name])
            else:
                values[name] = node.forward(*(value(source) for source in graph.sources[name]))
        return values[name]

    with torch.no_grad():
        return value(entry)[0].flatten().double().numpy()
