"""From connections to the arrays the kernels read, once per program."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from hardware_targets.loihi import kernels
from hardware_targets.loihi.connections import Connection, Conv2d, Dense, Sparse
from hardware_targets.loihi.program import Program


class Lowered(NamedTuple):
    """A kernel and its constant arguments: kernel(spikes, *constants, arriving, first, last)."""

    kernel: Callable[..., None]
    constants: tuple[object, ...]

    def __call__(self, spikes: NDArray, arriving: NDArray, first: int, last: int) -> None:
        self.kernel(spikes, *self.constants, arriving, first, last)


_lowered: WeakKeyDictionary[Program, dict[str, tuple[Lowered, ...]]] = WeakKeyDictionary()


def lower_program(program: Program) -> dict[str, tuple[Lowered, ...]]:
    """{connection name: kernels to run}, kept as long as `program` lives."""
    if program not in _lowered:
        _lowered[program] = {connection.name: lower(connection) for connection in program.connections}
    return _lowered[program]


@singledispatch
def lower(connection: Connection) -> tuple[Lowered, ...]:
    """The kernels of one connection; a connection with several delays becomes one sparse kernel per delay."""
    raise NotImplementedError(type(connection).__name__)


@lower.register
def _(connection: Dense) -> tuple[Lowered, ...]:
    weights = connection.effective_weights
    wide_sums = connection.num_message_bits > 0 and connection.weight_exp < 0
    if connection.delays is not None and (np.ptp(connection.delays) or wide_sums):
        rows, columns = np.nonzero(weights)
        return _lower_synapses(connection, rows, columns, weights[rows, columns], connection.delays[rows, columns])
    delay = connection.max_delay
    if connection.num_message_bits:
        stored = np.ascontiguousarray(weights.T, dtype=np.int16)
        return (Lowered(kernels.add_dense_graded, (stored, connection.weight_exp, delay)),)
    # dropped bits are zero in every weight: without them mixed weights fit a byte
    stored = np.ascontiguousarray((weights >> connection.dropped_bits).T)
    narrow = np.int8 if stored.min() >= -128 and stored.max() <= 127 else np.int16
    net_shift = connection.dropped_bits + connection.weight_exp
    return (Lowered(kernels.add_dense, (stored.astype(narrow), net_shift, delay)),)


@lower.register
def _(connection: Sparse) -> tuple[Lowered, ...]:
    delays = np.zeros_like(connection.weights) if connection.delays is None else connection.delays
    return _lower_synapses(connection, connection.rows, connection.columns, connection.effective_weights, delays)


@lower.register
def _(connection: Conv2d) -> tuple[Lowered, ...]:
    out_channels, group_channels, height, width = connection.weights.shape
    by_source = connection.weights.reshape(connection.groups, -1, group_channels, height, width)
    by_source = (
        by_source[..., ::-1].transpose(0, 2, 3, 4, 1).reshape(-1, height, width, out_channels // connection.groups)
    )
    geometry = (
        *connection.input_shape[1:],
        *connection.output_shape[1:],
        connection.groups,
        *connection.stride,
        *connection.padding,
        *connection.dilation,
    )
    weights = np.ascontiguousarray(by_source, dtype=np.int16)
    graded = connection.num_message_bits > 0
    return (Lowered(kernels.add_conv2d, (weights, geometry, graded, connection.weight_exp)),)


def _lower_synapses(
    connection: Connection, rows: NDArray, columns: NDArray, weights: NDArray, delays: NDArray
) -> tuple[Lowered, ...]:
    lowered = []
    for delay in np.unique(delays):
        here = np.flatnonzero(delays == delay)
        here = here[np.argsort(columns[here], kind="stable")]
        starts = np.searchsorted(columns[here], np.arange(connection.source_size + 1)).astype(np.int64)
        targets, values = rows[here].astype(np.int32), weights[here].astype(np.int16)
        graded = connection.num_message_bits > 0
        # the only sums of Lava that keep 64 bits until the exponent has acted
        wide = isinstance(connection, Dense)
        constants = (starts, targets, values, graded, wide, connection.weight_exp, int(delay))
        lowered.append(Lowered(kernels.add_sparse, constants))
    return tuple(lowered)
