"""A Loihi program in plain NumPy, tick by tick: the meaning of every number, restated for speed in the kernels.

Each function follows one fixed-point model of lava-nc 0.10.0 to the bit, 32-bit wrap-around included. It claims
equality with those models, not with silicon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch

import numpy as np
from numpy.typing import NDArray

from hardware_targets.loihi.connections import Connection, Conv2d, Dense, IntArray, Sparse
from hardware_targets.loihi.dynamics import State, step
from hardware_targets.loihi.program import Program

LONGEST_WAY = 1 + 63  # ticks from a spike to what it does, delay included


def wrap24(total: IntArray) -> IntArray:
    """The signed 24-bit word that Lava's Conv sends."""
    return ((total + 2**23) % 2**24 - 2**23).astype(np.int32)


def shift(total: IntArray, exponent: int) -> IntArray:
    """total 2**exponent, floor, in the width of `total`."""
    return total << exponent if exponent >= 0 else total >> -exponent


@singledispatch
def activation(connection: Connection, spikes: IntArray) -> Mapping[int, IntArray]:
    """What `connection` delivers for spikes (batch, source_size): {delay: (batch, target_size)}, int32."""
    raise NotImplementedError(type(connection).__name__)


@activation.register
def _(connection: Dense, spikes: IntArray) -> Mapping[int, IntArray]:
    payload, weights = _payload(connection, spikes), connection.effective_weights.astype(np.int64)
    if connection.delays is None:
        return {0: shift(_word(payload @ weights.T), connection.weight_exp)}
    delivered = {}
    for d in np.unique(connection.delays):
        # Lava's DelayDense wraps every product, but adds them up and shifts in 64 bits
        products = _word(payload[:, None, :] * np.where(connection.delays == d, weights, 0)).astype(np.int64)
        delivered[int(d)] = _word(shift(products.sum(axis=2), connection.weight_exp))
    return delivered


@activation.register
def _(connection: Sparse, spikes: IntArray) -> Mapping[int, IntArray]:
    delays = np.zeros_like(connection.weights) if connection.delays is None else connection.delays
    payload = _payload(connection, spikes)
    delivered = {}
    for d in np.unique(delays):
        here = delays == d
        total = np.zeros((len(spikes), connection.target_size), np.int64)
        for row, column, weight in zip(
            connection.rows[here], connection.columns[here], connection.effective_weights[here], strict=True
        ):
            total[:, row] += weight * payload[:, column]
        delivered[int(d)] = shift(_word(total), connection.weight_exp)
    return delivered


@activation.register
def _(connection: Conv2d, spikes: IntArray) -> Mapping[int, IntArray]:
    _, group_channels, height, width = connection.weights.shape
    _, out_height, out_width = connection.output_shape
    (sy, sx), (py, px), (dy, dx) = connection.geometry
    image = _payload(connection, spikes).reshape(-1, connection.groups, group_channels, *connection.input_shape[1:])
    image = np.pad(image, ((0, 0), (0, 0), (0, 0), (py, py), (px, px)))
    weights = connection.weights.reshape(connection.groups, -1, group_channels, height, width).astype(np.int64)
    total = np.zeros((len(spikes), connection.groups, weights.shape[1], out_height, out_width), np.int64)
    for k in range(height):
        for m in range(width):
            seen = image[..., k * dy : k * dy + sy * out_height : sy, m * dx : m * dx + sx * out_width : sx]
            total += np.einsum("goc,bgcyx->bgoyx", weights[..., k, m], seen[..., :out_height, :out_width])
    return {0: wrap24(shift(total, connection.weight_exp)).reshape(len(spikes), -1)}


def run_reference(program: Program, inputs: Mapping[str, IntArray], steps: int) -> dict[str, dict[str, IntArray]]:
    """Every population of `program` over `steps` ticks; inputs {name: (time, batch, size)}, silent after their end.

    Returns {population: {"spikes" or a variable: (time, batch, size)}}: events, and variables after the update.
    """
    batch = next(iter(inputs.values())).shape[1] if inputs else 1
    silence = {part.name: np.zeros((batch, part.size), np.int32) for part in program.sources}
    state: dict[str, State] = {
        p.name: {what: np.tile(x, (batch, 1)) for what, x in p.rest.items()} for p in program.populations
    }
    arriving = {
        p.name: [np.zeros((steps + LONGEST_WAY + 1, batch, p.size), np.int32) for _ in p.ports]
        for p in program.populations
    }  # by tick of arrival
    records: dict[str, list[State]] = {p.name: [] for p in program.populations}
    for tick in range(steps):
        sent = {i.name: inputs[i.name][tick] if tick < len(inputs[i.name]) else silence[i.name] for i in program.inputs}
        for population in program.populations:
            name = population.name
            sent[name] = silence[name]
            if tick >= population.start:
                now = [port[tick] for port in arriving[name]]
                sent[name], state[name] = step(population, tick, state[name], now)
            records[name].append({"spikes": sent[name], **state[name]})
        for connection in program.connections:
            for delay, a in activation(connection, sent[connection.source]).items():
                arriving[connection.target][connection.port][tick + 1 + delay] += a
    return {
        name: {what: np.stack([now[what] for now in record]) for what in record[0]} for name, record in records.items()
    }


def _payload(connection: Connection, spikes: IntArray) -> NDArray[np.int64]:
    return spikes.astype(np.int64) if connection.num_message_bits else (spikes != 0).astype(np.int64)


def _word(total: IntArray) -> IntArray:
    """The 32-bit word of the accumulator: what does not fit wraps, before the exponent acts."""
    return total.astype(np.int32)


__all__: Sequence[str] = ("activation", "run_reference", "shift", "wrap24")
