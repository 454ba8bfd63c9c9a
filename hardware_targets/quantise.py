"""Real weights, thresholds and biases become a Loihi core's integers, with the error of every layer reported.

A neuron's weights share one unit s: w = s * w_int. The unit is folded into its threshold and bias, so it costs nothing
on the chip and may differ from channel to channel. Paths into one population differ by powers of two (`weight_exp`).
Weights of b signed bits are multiples of 2^(9 - b) up to 2^8: the format does not store the bits below.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from hardware_targets.loihi.program import (
    DECAY_UNITY,
    STATE_SHIFT,
    VOLTAGE_LIMIT,
    Connection,
    Conv2d,
    Dense,
    Population,
    Sparse,
)
from hardware_targets.lower import Layer, Path
from neuro.errors import ParameterError
from neuro.graph import Shape
from neuro.nodes import LIF, Conv, Readout, Spiking

LARGEST_THRESHOLD = 2**12
"""In units of activation. Leaves room for membrane potentials of 32 thresholds before 24 bits saturate."""
LARGEST_ACTIVATION = 2 ** (24 - 1 - STATE_SHIFT) - 1
MOST_SHIFT = 8
"""weight_exp >= -8: sums may lose up to eight bits, weights none."""


@dataclass(frozen=True)
class QuantisationError:
    """What quantising one layer lost, relative to the real values.

    weight, bias: root mean square error over root mean square. threshold: largest relative error. clipped: biases
    beyond their field. unit: median of the units of weight.
    """

    layer: str
    weight: float
    bias: float
    threshold: float
    clipped: int
    unit: float


@dataclass(frozen=True, eq=False)
class QuantisedLayer:
    """A population and its connections in integers.

    unit: (size,), the real current of one integer unit of activation.
    """

    population: Population
    connections: tuple[Connection, ...]
    unit: np.ndarray
    error: QuantisationError


def quantise_layer(
    layer: Layer,
    levels: dict[str, int],
    steps_of: dict[str, float],
    weight_bits: int,
    mantissa_bits: int,
    most_steps: int,
) -> QuantisedLayer:
    """Integers for one population.

    levels: the pipeline level of every source. steps_of: for graded inputs, the real value of one unit of their payload
    (spikes are worth 1 and missing here). weight_bits: signed bits per weight. mantissa_bits: of the bias. most_steps:
    how long a read-out must integrate without saturating, whatever arrives.
    Raises ParameterError where a LIF neuron's decay is no number of the chip.
    """
    matrices = [path.as_matrix() * steps_of.get(path.source, 1.0) for path in layer.paths]
    shared = any(path.conv is not None for path in layer.paths)
    largest = [_row_maxima(matrix, layer, shared) for matrix in matrices]
    exponents = _exponents(largest)
    top, grain = 2 ** (weight_bits - 1) - 1, 2 ** (9 - weight_bits)
    unit = np.max([m / (grain * top * 2.0**e) for m, e in zip(largest, exponents, strict=True)], axis=0, initial=0.0)
    unit = np.where(unit > 0, unit, unit[unit > 0].min() if (unit > 0).any() else 1.0)
    theta = _per_neuron(layer.node.theta, layer) if isinstance(layer.node, Spiking) else None
    if theta is None:
        unit = np.full_like(unit, unit.max())
        reach = np.sum([abs(matrix).sum(axis=1) for matrix in matrices], axis=0) + np.abs(layer.bias)
        needed = reach * most_steps / LARGEST_ACTIVATION
    else:
        needed = theta / LARGEST_THRESHOLD
    shift = int(np.clip(np.ceil(np.log2((needed / unit).max())), 0, MOST_SHIFT))
    unit = np.maximum(unit, (needed if theta is not None else needed.max()) / 2.0**shift)
    connections, squared, total, floored = [], 0.0, 0.0, False
    for path, matrix, exponent in zip(layer.paths, matrices, exponents, strict=True):
        scale = unit * 2.0**exponent
        connection, real = _connection(
            path, matrix, scale, layer, levels, exponent - shift, path.source in steps_of, weight_bits
        )
        connections.append(connection)
        floored |= grain * 2.0 ** (exponent - shift) < 1
        squared += float(((real - matrix).data ** 2).sum())
        total += float((matrix.data**2).sum())
    unit = unit * 2.0**shift
    population, bias_error, clipped, theta_error = _population(layer, unit, theta, floored, mantissa_bits)
    error = QuantisationError(
        layer.name,
        float(np.sqrt(squared / total)) if total else 0.0,
        bias_error,
        theta_error,
        clipped,
        float(np.median(unit)),
    )
    return QuantisedLayer(population, tuple(connections), unit, error)


def _row_maxima(matrix: sp.csr_array, layer: Layer, by_channel: bool) -> np.ndarray:
    """Largest weight of every neuron, or of its channel where a convolution shares weights within channels."""
    maxima = abs(matrix).max(axis=1).toarray().reshape(-1)
    if by_channel:
        channels = layer.shape[0]
        maxima = np.repeat(maxima.reshape(channels, -1).max(1), layer.size // channels)
    return maxima


def _exponents(largest: list[np.ndarray]) -> list[int]:
    """Powers of two that bring the typical weights of all paths to one size; the smallest is 0."""
    typical = [float(np.median(m[m > 0])) if (m > 0).any() else 0.0 for m in largest]
    smallest = min((value for value in typical if value > 0), default=1.0)
    return [int(np.clip(np.round(np.log2(value / smallest)), 0, 7)) if value > 0 else 0 for value in typical]


def _per_neuron(parameter: Tensor, layer: Layer) -> np.ndarray:
    return parameter.detach().double().expand(layer.shape).flatten().numpy()


def _connection(
    path: Path,
    matrix: sp.csr_array,
    scale: np.ndarray,
    layer: Layer,
    levels: dict[str, int],
    weight_exp: int,
    graded: bool,
    weight_bits: int,
) -> tuple[Connection, sp.csr_array]:
    """A connection in integers of the format, and the real matrix that it stands for."""
    integers = matrix.copy()
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    integers.data = _in_format(matrix.data / scale[rows], weight_bits)
    real = integers.copy()
    real.data = integers.data * scale[rows]
    delay = layer.level - levels[path.source] - 1
    if path.conv is not None and delay == 0:
        synapses: Connection = _quantised_kernel(path, path.conv, matrix, scale, layer, weight_bits)
    else:
        synapses = listed_synapses(path.source, layer.name, integers, rows, delay)
    connection = replace(
        synapses,
        weight_exp=weight_exp,
        num_weight_bits=weight_bits,
        sign_mode="mixed",
        num_message_bits=8 if graded else 0,
    )
    return connection, real


def _in_format(values: np.ndarray, weight_bits: int) -> np.ndarray:
    """The nearest weights that signed bits can hold, on the scale of 8-bit magnitudes."""
    top, grain = 2 ** (weight_bits - 1) - 1, 2 ** (9 - weight_bits)
    return grain * np.clip(np.round(values / grain), -top, top)


def _quantised_kernel(
    path: Path, conv: Conv, matrix: sp.csr_array, scale: np.ndarray, layer: Layer, weight_bits: int
) -> Conv2d:
    channel = scale.reshape(layer.shape[0], -1)[:, 0].reshape(-1, 1, 1, 1)
    factor = float(abs(matrix).max() / abs(path.as_matrix()).max()) if matrix.nnz else 1.0
    weight = conv.weight.detach().double().numpy() * factor
    return shared_kernel(path, conv, _in_format(weight / channel, weight_bits))


def shared_kernel(path: Path, conv: Conv, weights: np.ndarray) -> Conv2d:
    """The geometry of a convolution with other weights."""
    channels, height, width = path.input_shape
    return Conv2d(
        source=path.source,
        target=path.target,
        weights=weights.astype(np.int32),
        input_shape=(channels, height, width),
        stride=_pair(conv.stride),
        padding=_pair(conv.padding),
        dilation=_pair(conv.dilation),
        groups=conv.groups,
    )


def _pair(sizes: Shape) -> tuple[int, int]:
    vertical, horizontal = sizes
    return vertical, horizontal


def listed_synapses(source: str, target: str, integers: sp.csr_array, rows: np.ndarray, delay: int) -> Dense | Sparse:
    """The whole matrix where most of it is in use, else only the synapses that exist."""
    delays = np.array(delay, np.int32) if delay else None
    if integers.nnz > 0.5 * integers.shape[0] * integers.shape[1]:
        return Dense(source=source, target=target, weights=integers.toarray().astype(np.int32), delays=delays)
    kept = integers.data != 0
    return Sparse(
        source=source,
        target=target,
        weights=integers.data[kept].astype(np.int32),
        rows=rows[kept].astype(np.int32),
        columns=integers.indices[kept].astype(np.int32),
        shape=integers.shape,
        delays=delays,
    )


def _population(
    layer: Layer, unit: np.ndarray, theta: np.ndarray | None, floored: bool, mantissa_bits: int
) -> tuple[Population, float, int, float]:
    """The population; its bias error, number of clipped biases and threshold error.

    Activations enter the membrane times 2^6. A floored sum (negative weight_exp) loses half a unit a tick on average,
    which the bias gives back. `v >= theta` becomes the chip's strict `v > vth`: one part in 2^6 of a unit, which an
    integrator with soft reset has from the start and keeps.
    """
    node = layer.node
    wanted = layer.bias / unit * 2**STATE_SHIFT
    mantissa, exponent, clipped = _mantissas(wanted + (2 ** (STATE_SHIFT - 1) if floored else 0), mantissa_bits)
    got = np.ldexp(mantissa.astype(np.float64), exponent) - (2 ** (STATE_SHIFT - 1) if floored else 0)
    power = float((wanted**2).sum())
    bias_error = float(np.sqrt(((got - wanted) ** 2).sum() / power)) if power else 0.0
    if not isinstance(node, Spiking) or theta is None:
        integrator = Population(
            name=layer.name,
            size=layer.size,
            bias_mant=mantissa,
            bias_exp=exponent,
            vth=0,
            reset="none",
            start=layer.level + (node.start if isinstance(node, Readout) else 0),
        )
        return integrator, bias_error, clipped, 0.0
    vth = np.maximum(np.round(theta / unit), 1)
    leak = _decay(node, layer.name)
    v0 = _per_neuron(node.v0, layer) / theta * vth * 2**STATE_SHIFT + (node.reset == "subtract" and leak == 0)
    population = Population(
        name=layer.name,
        size=layer.size,
        bias_mant=mantissa,
        bias_exp=exponent,
        vth=vth.astype(np.int32),
        dv=leak,
        reset=node.reset,
        v0=np.clip(np.round(v0), -VOLTAGE_LIMIT, VOLTAGE_LIMIT).astype(np.int32),
        start=layer.level,
    )
    return population, bias_error, clipped, float(np.max(np.abs(vth * unit - theta) / theta))


def _decay(node: Spiking, name: str) -> int:
    """The chip's dv = (1 - beta) 4096 of a LIF population; 0 for neurons that do not leak."""
    if not isinstance(node, LIF):
        return 0
    decays = np.unique(np.round((1 - node.beta.detach().double().numpy()) * DECAY_UNITY))
    if decays.size != 1 or not 0 <= decays[0] < DECAY_UNITY:
        raise ParameterError(
            f"LIF {name!r}: a population has one 12-bit decay, got beta from {node.beta.min():g} to {node.beta.max():g}"
        )
    return int(decays[0])


def _mantissas(values: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Mantissa * 2^exponent nearest to the values: mantissa signed of `bits` bits, exponent 0..7.

    Last comes how many were clipped.
    """
    limit = 2 ** (bits - 1) - 1
    needed = np.ceil(np.log2(np.maximum(np.abs(values), 1) / limit))
    exponent = np.clip(needed, 0, 7).astype(np.int32)
    mantissa = np.round(np.ldexp(values, -exponent))
    clipped = int((np.abs(mantissa) > limit).sum())
    return np.clip(mantissa, -limit, limit).astype(np.int32), exponent, clipped
