"""Real weights, thresholds and biases become a Loihi core's integers, with the error of every layer reported.

A neuron's weights share one unit s: w = s * w_int. The unit is folded into its threshold and bias, so it costs nothing on
the chip and may differ from channel to channel. Paths into one population differ by powers of two (`weight_exp`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

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
from neuro.nodes import LIF, Readout, Spiking

LARGEST_THRESHOLD = 2**12
"""In units of activation. Leaves room for membrane potentials of 32 thresholds before 24 bits saturate."""
LARGEST_ACTIVATION = 2 ** (24 - 1 - STATE_SHIFT) - 1
MOST_SHIFT = 8
"""weight_exp >= -8: sums may lose up to eight bits, weights none."""


@dataclass(frozen=True)
class QuantisationError:
    """What quantising one layer lost, relative to the real values.

    weight, bias: root mean square error over root mean square. threshold: largest relative error. clipped: biases beyond
    their field. unit: median of the units of weight.
    """

    layer: str
    weight: float
    bias: float
    threshold: float
    clipped: int
    unit: float


@dataclass(frozen=True, eq=False)
class QuantisedLayer:
    """A population and its connections in integers; `unit` (size,) is the real current of one integer unit of activation."""

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
    (spikes are worth 1 and missing here). weight_bits: signed bits per weight. mantissa_bits: of the bias. most_steps: how long
    a read-out must integrate without saturating, whatever arrives.
    Raises ParameterError where a LIF neuron's decay is no number of the chip.
    """
    matrices = [path.as_matrix() * steps_of.get(path.source, 1.0) for path in layer.paths]
    shared = any(path.conv is not None for path in layer.paths)
    largest = [_row_maxima(matrix, layer, shared) for matrix in matrices]
    exponents = _exponents(largest)
    top = 2 ** (weight_bits - 1) - 1
    unit = np.max([m / (2 * top * 2.0**e) for m, e in zip(largest, exponents, strict=True)], axis=0, initial=0.0)
    unit = np.where(unit > 0, unit, unit[unit > 0].min() if (unit > 0).any() else 1.0)
    theta = _theta(layer)
    if theta is None:
        unit = np.full_like(unit, unit.max())
        reach = np.sum([abs(matrix).sum(axis=1) for matrix in matrices], axis=0) + np.abs(layer.bias)
        needed = reach * most_steps / LARGEST_ACTIVATION
    else:
        needed = theta / LARGEST_THRESHOLD
    shift = int(np.clip(np.ceil(np.log2((needed / unit).max())), 0, MOST_SHIFT))
    unit = np.maximum(unit, (needed if theta is not None else needed.max()) / 2.0**shift)
    connections, squared, total = [], 0.0, 0.0
    for path, matrix, exponent in zip(layer.paths, matrices, exponents, strict=True):
        scale = unit * 2.0**exponent
        connection, real = _connection(
            path, matrix, scale, layer, levels, exponent - shift, path.source in steps_of, top, weight_bits
        )
        connections.append(connection)
        squared += float(((real - matrix).data ** 2).sum())
        total += float((matrix.data**2).sum())
    unit = unit * 2.0**shift
    population, bias_error, clipped, theta_error = _population(layer, unit, theta, shift > 0, mantissa_bits)
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


def _theta(layer: Layer) -> np.ndarray | None:
    if not isinstance(layer.node, Spiking):
        return None
    return layer.node.theta.detach().double().expand(layer.shape).flatten().numpy()


def _connection(
    path: Path,
    matrix: sp.csr_array,
    scale: np.ndarray,
    layer: Layer,
    levels: dict[str, int],
    weight_exp: int,
    graded: bool,
    top: int,
    weight_bits: int,
) -> tuple[Connection, sp.csr_array]:
    """A connection in even integers of at most 2 * top, and the real matrix that it stands for."""
    integers = matrix.copy()
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    integers.data = 2 * np.clip(np.round(matrix.data / (2 * scale[rows])), -top, top)
    real = integers.copy()
    real.data = integers.data * scale[rows]
    delay = layer.level - levels[path.source] - 1
    common = {
        "source": path.source,
        "target": layer.name,
        "weight_exp": weight_exp,
        "num_weight_bits": weight_bits,
        "sign_mode": "mixed",
        "num_message_bits": 8 if graded else 0,
    }
    if path.conv is not None and delay == 0:
        channel = scale.reshape(layer.shape[0], -1)[:, 0].reshape(-1, 1, 1, 1)
        weight = path.conv.weight.detach().double().numpy()
        factor = float(abs(matrix).max() / abs(path.as_matrix()).max()) if matrix.nnz else 1.0
        weights = 2 * np.clip(np.round(weight * factor / (2 * channel)), -top, top)
        node = path.conv
        return (
            Conv2d(
                weights=weights.astype(np.int32), input_shape=path.input_shape, stride=node.stride,
                padding=node.padding, dilation=node.dilation, groups=node.groups, **common,
            ),
            real,
        )  # fmt: skip
    dense = matrix.nnz > 0.5 * matrix.shape[0] * matrix.shape[1]
    if dense:
        weights = integers.toarray().astype(np.int32)
        return Dense(weights=weights, delays=np.int32(delay) if delay else None, **common), real
    kept = integers.data != 0
    return (
        Sparse(
            weights=integers.data[kept].astype(np.int32), rows=rows[kept].astype(np.int32),
            columns=integers.indices[kept].astype(np.int32), shape=matrix.shape,
            delays=np.int32(delay) if delay else None, **common,
        ),
        real,
    )  # fmt: skip


def _population(
    layer: Layer, unit: np.ndarray, theta: np.ndarray | None, floored: bool, mantissa_bits: int
) -> tuple[Population, float, int, float]:
    """The population; its bias error, number of clipped biases and threshold error.

    Activations enter the membrane times 2^6. A floored sum (negative weight_exp) loses half a unit a tick on average, which
    the bias gives back. `v >= theta` becomes the chip's strict `v > vth`: one part in 2^6 of a unit.
    """
    node = layer.node
    wanted = layer.bias / unit * 2**STATE_SHIFT
    mantissa, exponent, clipped = _mantissas(wanted + (2 ** (STATE_SHIFT - 1) if floored else 0), mantissa_bits)
    got = np.ldexp(mantissa.astype(np.float64), exponent) - (2 ** (STATE_SHIFT - 1) if floored else 0)
    power = float((wanted**2).sum())
    bias_error = float(np.sqrt(((got - wanted) ** 2).sum() / power)) if power else 0.0
    plain = {"name": layer.name, "size": layer.size, "bias_mant": mantissa, "bias_exp": exponent, "start": layer.level}
    if isinstance(node, Readout) or theta is None:
        start = layer.level + (node.start if isinstance(node, Readout) else 0)
        return Population(**{**plain, "start": start}, vth=0, reset="none"), bias_error, clipped, 0.0
    decay = 0
    if isinstance(node, LIF):
        decays = np.unique(np.round((1 - node.beta.detach().double().numpy()) * DECAY_UNITY))
        if decays.size != 1 or not 0 <= decays[0] < DECAY_UNITY:
            raise ParameterError(
                f"LIF {layer.name!r}: a population has one 12-bit decay, got beta from {node.beta.min():g} to {node.beta.max():g}"
            )
        decay = int(decays[0])
    vth = np.maximum(np.round(theta / unit), 1)
    v0 = node.v0.detach().double().expand(layer.shape).flatten().numpy() / theta * vth * 2**STATE_SHIFT
    population = Population(
        **plain, vth=vth.astype(np.int32), dv=decay, reset=node.reset,
        v0=np.clip(np.round(v0), -VOLTAGE_LIMIT, VOLTAGE_LIMIT).astype(np.int32),
    )  # fmt: skip
    return population, bias_error, clipped, float(np.max(np.abs(vth * unit - theta) / theta))


def _mantissas(values: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Mantissa * 2^exponent nearest to the values, mantissa signed of `bits` bits, exponent 0..7; how many were clipped."""
    limit = 2 ** (bits - 1) - 1
    needed = np.ceil(np.log2(np.maximum(np.abs(values), 1) / limit))
    exponent = np.clip(needed, 0, 7).astype(np.int32)
    mantissa = np.round(np.ldexp(values, -exponent))
    clipped = int((np.abs(mantissa) > limit).sum())
    return np.clip(mantissa, -limit, limit).astype(np.int32), exponent, clipped
