"""A Loihi program in plain NumPy, tick by tick: the meaning of every number, restated for speed in `kernels`.

Each function follows one fixed-point model of lava-nc 0.10.0 to the bit, 32-bit wrap-around included. It claims
equality with those models, not with silicon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware_targets.loihi.connections import Connection, Conv2d, Dense, IntArray, Sparse
from hardware_targets.loihi.program import DECAY_UNITY, STATE_SHIFT, VOLTAGE_LIMIT, Population, Program


class Trace(NamedTuple):
    """One population over time, each (time, batch, size): spikes 0/1, current u and voltage v after the update."""

    spikes: NDArray[np.uint8]
    u: IntArray
    v: IntArray


def decay(state: IntArray, keep: int) -> NDArray[np.int64]:
    """state keep / 4096, rounded toward zero. The product needs more than 32 bits."""
    product = state.astype(np.int64) * keep
    return np.sign(product) * (np.abs(product) >> 12)


def wrap24_once(u: IntArray) -> IntArray:
    """Lava's overflow of the current: one 2**24 back beyond +2**23, one 2**24 up at -2**23 and below; never twice."""
    return np.where(u > 2**23, u - 2**24, np.where(u <= -(2**23), u + 2**24, u)).astype(np.int32)


def wrap24(total: IntArray) -> IntArray:
    """The signed 24-bit word that Lava's Conv sends."""
    return ((total + 2**23) % 2**24 - 2**23).astype(np.int32)


def shift(total: IntArray, exponent: int) -> IntArray:
    """total 2**exponent, floor, in the width of `total`."""
    return total << exponent if exponent >= 0 else total >> -exponent


def step(population: Population, u: IntArray, v: IntArray, a: IntArray) -> tuple[NDArray[np.bool_], IntArray, IntArray]:
    """One tick of `population` on activations a (batch, size): spikes, u, v. Equations in `Population`."""
    u = wrap24_once(decay(u, DECAY_UNITY - population.du - 1).astype(np.int32) + np.left_shift(a, STATE_SHIFT))
    v = decay(v, DECAY_UNITY - population.dv).astype(np.int32) + u + population.bias
    v = np.clip(v, -VOLTAGE_LIMIT, VOLTAGE_LIMIT)
    if population.reset == "none":
        return np.zeros(v.shape, bool), u, v
    spikes = v > population.threshold
    return spikes, u, np.where(spikes, v - population.threshold if population.reset == "subtract" else 0, v)


@singledispatch
def activation(connection: Connection, spikes: IntArray) -> Mapping[int, IntArray]:
    """What `connection` delivers for spikes (batch, source_size): {delay: (batch, target_size)}, int32."""
    raise NotImplementedError(type(connection).__name__)


@activation.register
def _(connection: Dense, spikes: IntArray) -> Mapping[int, IntArray]:
    delays = np.zeros_like(connection.weights) if connection.delays is None else connection.delays
    payload, weights = _payload(connection, spikes), connection.effective_weights.astype(np.int64)
    return {
        int(d): shift(_word(payload @ np.where(delays == d, weights, 0).T), connection.weight_exp)
        for d in np.unique(delays)
    }


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


def run_reference(program: Program, inputs: Mapping[str, IntArray], steps: int) -> dict[str, Trace]:
    """Every population of `program` over `steps` ticks; inputs {name: (time, batch, size)}, silent after their end."""
    batch = next(iter(inputs.values())).shape[1] if inputs else 1
    silence = {part.name: np.zeros((batch, part.size), np.int32) for part in program.sources}
    state = {p.name: (np.tile(p.u0, (batch, 1)), np.tile(p.v0, (batch, 1))) for p in program.populations}
    arriving = {
        p.name: np.zeros((steps + 65, batch, p.size), np.int32) for p in program.populations
    }  # by tick of arrival; a spike travels at most 1 + 63 ticks
    records: dict[str, list[tuple[NDArray, ...]]] = {p.name: [] for p in program.populations}
    for tick in range(steps):
        sent = {i.name: inputs[i.name][tick] if tick < len(inputs[i.name]) else silence[i.name] for i in program.inputs}
        for population in program.populations:
            name, (u, v) = population.name, state[population.name]
            spikes = silence[name] != 0
            if tick >= population.start:
                spikes, u, v = step(population, u, v, arriving[name][tick])
            sent[name], state[name] = spikes, (u, v)
            records[name].append((spikes.astype(np.uint8), u, v))
        for connection in program.connections:
            for delay, a in activation(connection, sent[connection.source]).items():
                arriving[connection.target][tick + 1 + delay] += a
    return {
        name: Trace(*(np.stack(series) for series in zip(*record, strict=True))) for name, record in records.items()
    }


def _payload(connection: Connection, spikes: IntArray) -> NDArray[np.int64]:
    return spikes.astype(np.int64) if connection.num_message_bits else (spikes != 0).astype(np.int64)


def _word(total: NDArray[np.int64]) -> IntArray:
    """The 32-bit word of the accumulator: what does not fit wraps, before the exponent acts."""
    return total.astype(np.int32)


__all__: Sequence[str] = ("Trace", "activation", "decay", "run_reference", "shift", "step", "wrap24", "wrap24_once")
