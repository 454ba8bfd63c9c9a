"""A network of cores, checked and packed once for the kernels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import ParameterError, ShapeError

from . import kernels, mesh
from .core import INT16, Cores, CoreShape
from .neuron import RESET_NONE, RESET_SUBTRACT, RESET_TO_VALUE

NO_TARGET, OFF_GRID, OUTPUT = -1, -2, -3
INT32 = np.iinfo(np.int32)


@dataclass(frozen=True, eq=False)
class Targets:
    """Where each neuron's spikes go. Arrays (C, N).

    core: index of a core, or NO_TARGET (silent), OUTPUT (leaves the network), OFF_GRID (counted as lost)
    axon: axon of that core, or output line;  delay: ticks until it acts (1 = next tick; outputs may use 0)
    """

    core: NDArray[Any]
    axon: NDArray[Any]
    delay: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Network:
    """Cores, their positions and targets, packed for `run`. Make one with `make_network`; the fields starting at `net`
    are internal.

    shape: CoreShape;  count: number of cores C;  outputs: number of output lines;  seeds: (C,) uint64, one per core
    """

    shape: CoreShape
    count: int
    outputs: int
    seeds: NDArray[np.uint64]
    net: tuple[Any, ...]
    tables: tuple[Any, ...]
    v: NDArray[np.int32]
    kind: NDArray[np.uint8]

    @property
    def neurons(self) -> int:
        """Neurons of the whole network."""
        return self.count * self.shape.neurons

    @property
    def axon_words(self) -> int:
        """64-bit words that hold the axons of one core."""
        return -(-self.shape.axons // 64)

    @property
    def pending_words(self) -> int:
        """Words of one time slot: the axons of every core, then the output lines."""
        return self.count * self.axon_words + -(-self.outputs // 64)

    @property
    def slots(self) -> int:
        """Length of the delay ring: the longest delay, and now."""
        return self.shape.delay[1] + 1

    def nbytes(self) -> int:
        """Bytes that the packed network occupies."""
        arrays = [a for a in (*self.net, *self.tables, self.v, self.kind, self.seeds) if isinstance(a, np.ndarray)]
        return sum(a.nbytes for a in arrays)

    def digest(self) -> str:
        """SHA-256 over everything that decides the network's future, to tie a checkpoint to it."""
        sha = hashlib.sha256(repr((self.shape, self.count, self.outputs)).encode())
        for array in (*self.net[:4], *self.tables, self.kind, self.seeds):
            sha.update(np.ascontiguousarray(array).data)
        return sha.hexdigest()


def make_network(
    shape: CoreShape,
    cores: Cores,
    targets: Targets,
    *,
    positions: Any = None,
    outputs: int = 0,
    output_position: tuple[int, int] | None = None,
    seed: int = 0,
) -> Network:
    """Check targets, pack crossbars into bits, share equal parameter rows between cores.

    positions: (C, 2) grid positions, default: rows of shape.chip[0] cores, chip after chip in x.  outputs: number of
    output lines.
    output_position: where packets to the outputs leave the mesh (for hop counts; None counts no hops for them).
    seed: of the stochastic modes; each core gets its own from it. Errors: ParameterError, ShapeError.
    """
    c, n = cores.count, shape.neurons
    at = default_positions(c, shape) if positions is None else np.asarray(positions, dtype=np.int64)
    if at.shape != (c, 2):
        raise ShapeError(f"network: positions must be ({c}, 2), got {at.shape}")
    if len(np.unique(at, axis=0)) != c:
        raise ParameterError("network: two cores share one position")
    width = -(-n // 64) * 64
    rows = np.zeros((c, 12), np.int32)
    tables, kind = _tables(shape, cores, c, width, rows)
    net = (
        _packed_crossbar(cores.crossbar, width),
        np.ascontiguousarray(np.broadcast_to(cores.axon_types, (c, shape.axons)), dtype=np.uint8),
        rows,
        _packed_targets(shape, targets, c, width, at, outputs, output_position),
        _bounds(shape),
        np.array([_burst(tables[0]), n], np.int64),
    )
    v = np.zeros((c, width), np.int32)
    v[:, :n] = np.broadcast_to(cores.v, (c, n))
    seeds = np.random.SeedSequence(seed).generate_state(c, np.uint64).astype(np.uint64)
    return Network(shape, c, outputs, seeds, net, tables, v, kind)


def default_positions(count: int, shape: CoreShape) -> NDArray[np.int64]:
    """Cores in rows of the chip's width; the next chip stands east of the last."""
    index = np.arange(count)
    chip, inside = index // (shape.chip[0] * shape.chip[1]), index % (shape.chip[0] * shape.chip[1])
    return np.stack([chip * shape.chip[0] + inside % shape.chip[0], inside // shape.chip[0]], 1)


def _bounds(shape: CoreShape) -> NDArray[np.int32]:
    """(half, mask, least, most) of the potential register: a wrap to two's complement, then a clip."""
    if shape.overflow == "wrap":
        half = shape.potential[1] + 1
        return np.array([half, 2 * half - 1, INT32.min, INT32.max], np.int32)
    least, most = shape.potential if shape.overflow == "saturate" else (INT32.min, INT32.max)
    return np.array([0, -1, least, most], np.int32)


def _burst(weights: NDArray[np.int16]) -> int:
    """Axons whose weights a 16-bit sum holds for certain."""
    return int(INT16[1] // max(1, np.abs(weights.astype(np.int32)).max(initial=1)))


def _packed_crossbar(bars: NDArray[Any], width: int) -> NDArray[np.uint64]:
    if bars.dtype == np.uint64:
        return np.ascontiguousarray(bars)
    padded = np.zeros((*bars.shape[:2], width // 8), np.uint8)
    packed = np.packbits(bars, axis=2, bitorder="little")
    padded[:, :, : packed.shape[2]] = packed
    return padded.view("<u8").astype(np.uint64, copy=False)


def _tables(
    shape: CoreShape, cores: Cores, c: int, width: int, rows: NDArray[np.int32]
) -> tuple[tuple[NDArray[Any], ...], NDArray[np.uint8]]:
    """Parameter tables in kernel order with equal rows shared; fills `rows`. Also the kind of each core."""
    n = shape.neurons

    def shared(column: int, field: NDArray[Any], dtype: Any, fill: int) -> NDArray[Any]:
        if field.shape[0] == 1 or (field == field[:1]).all():
            unique, index = field[:1], np.zeros(c, np.int64)
        else:
            bare = np.ascontiguousarray(field).reshape(c, -1)
            keys = bare.view(np.dtype((np.void, bare.dtype.itemsize * bare.shape[1]))).ravel()
            _, first, index = np.unique(keys, return_index=True, return_inverse=True)
            order = np.argsort(first)  # in order of first use: cores in sequence read rows in sequence
            unique, index = field[first[order]], np.argsort(order)[index]
        rows[:, column] = index
        table = np.full((*unique.shape[:-1], width), fill, dtype)
        table[..., :n] = unique
        return table

    floor = cores.floor.astype(bool)
    beta, alpha = cores.beta.astype(np.int64), cores.alpha.astype(np.int64)
    # A hard reset to exactly -beta is a floor; a crossing that changes nothing need not be visited.
    is_floor = floor | ((cores.mode == RESET_TO_VALUE) & (cores.reset == beta) & (cores.mask == 0) & (alpha >= -beta))
    visited = (
        ~is_floor & (cores.mode != RESET_NONE) & ~((cores.mode == RESET_SUBTRACT) & (beta == 0) & (cores.mask == 0))
    )
    low = np.where(visited, -beta + int(shape.inclusive), INT32.min + (1 << 25))
    tossed = np.moveaxis(
        np.broadcast_to(cores.stochastic_weights, (*cores.stochastic_weights.shape[:1], n, shape.axon_types)), 2, 1
    )
    weights = np.moveaxis(np.broadcast_to(cores.weights, (*cores.weights.shape[:1], n, shape.axon_types)), 2, 1)
    k = kernels
    tossed_table = shared(k.TOSSED, tossed.astype(np.uint8), np.uint8, 0)
    # One more column says whether any neuron of the row tosses at all.
    tossed_table = np.concatenate([tossed_table, tossed_table.any(-1, keepdims=True).astype(np.uint8)], -1)
    tables = (
        shared(k.WEIGHTS, weights, np.int16, 0),
        shared(k.LEAKS, cores.leak, np.int16, 0),
        shared(k.ALPHA, alpha, np.int32, INT32.max - (1 << 25)),
        shared(k.FLOOR, np.where(is_floor, -beta, INT32.min), np.int32, INT32.min),
        shared(k.LOW, low, np.int32, INT32.min + (1 << 25)),
        shared(k.BETA, beta, np.int32, 0),
        shared(k.RESET, cores.reset, np.int32, 0),
        shared(k.MODE, cores.mode, np.uint8, RESET_NONE),
        shared(k.REVERSAL, cores.reversal.astype(np.uint8), np.uint8, 0),
        np.ascontiguousarray(tossed_table),
        shared(k.TOSSED_LEAK, cores.stochastic_leak.astype(np.uint8), np.uint8, 0),
        shared(k.MASK, cores.mask, np.uint32, 0),
    )

    def any_of(field: NDArray[Any]) -> NDArray[np.bool_]:
        return np.broadcast_to(field.astype(bool).reshape(field.shape[0], -1).any(1), (c,))

    restless = any_of(cores.stochastic_leak) | any_of(cores.mask)
    general = any_of(cores.stochastic_weights) | any_of(cores.reversal)
    kind = np.where(restless, k.RESTLESS, np.where(general, k.GENERAL, k.PLAIN)).astype(np.uint8)
    return tables, kind


def _packed_targets(
    shape: CoreShape,
    targets: Targets,
    c: int,
    width: int,
    at: NDArray[np.int64],
    outputs: int,
    output_position: tuple[int, int] | None,
) -> NDArray[np.int64]:
    """(C, width) int64: word << 32 | crossings << 26 | hops << 14 | delay << 6 | bit."""
    n = shape.neurons
    core, axon, delay = (
        np.broadcast_to(np.asarray(a, dtype=np.int64), (c, n)) for a in (targets.core, targets.axon, targets.delay)
    )
    inner, outer = core >= 0, core == OUTPUT
    _refuse(core >= c, core, f"target core must be below {c}")
    _refuse(core < OUTPUT, core, "target core must be an index, NO_TARGET, OFF_GRID or OUTPUT")
    _refuse(inner & ((axon < 0) | (axon >= shape.axons)), axon, f"target axon must be 0..{shape.axons - 1}")
    _refuse(outer & ((axon < 0) | (axon >= outputs)), axon, f"output line must be 0..{outputs - 1}")
    least, most = shape.delay
    _refuse(inner & ((delay < least) | (delay > most)), delay, f"delay must be {least}..{most} ticks")
    _refuse(outer & ((delay < 0) | (delay > most)), delay, f"delay of an output must be 0..{most} ticks")
    here = np.broadcast_to(at[:, None], (c, n, 2))
    exit_at = here if output_position is None else np.broadcast_to(np.asarray(output_position), (c, n, 2))
    there = np.where(inner[..., None], at[np.where(inner, core, 0)], exit_at)
    hop, cross = np.minimum(mesh.hops(here, there), 4095), np.minimum(mesh.crossings(here, there, shape.chip), 63)
    words = -(-shape.axons // 64)
    word = np.where(inner, core * words, c * words) + axon // 64
    packed = (
        word << kernels.WORD_AT
        | cross << kernels.CROSSINGS_AT
        | hop << kernels.HOPS_AT
        | delay << kernels.DELAY_AT
        | axon % 64
    )
    full = np.full((c, width), kernels.NOWHERE, np.int64)
    full[:, :n] = np.where(inner | outer, packed, np.where(core == OFF_GRID, kernels.OFF_GRID, kernels.NOWHERE))
    return full


def _refuse(wrong: NDArray[np.bool_], value: NDArray[np.int64], rule: str) -> None:
    if wrong.any():
        core, neuron = np.argwhere(wrong)[0]
        raise ParameterError(f"network: core {core}, neuron {neuron}: {rule}, got {value[core, neuron]}")
