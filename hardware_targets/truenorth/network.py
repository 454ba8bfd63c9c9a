"""A network of cores, checked and packed once for the kernels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import ParameterError, ShapeError

from . import kernels, mesh, pages, passes
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
    positions: (C, 2) x and y of each core;  output_position: where packets to the outputs leave the mesh
    """

    shape: CoreShape
    count: int
    outputs: int
    seeds: NDArray[np.uint64]
    net: tuple[Any, ...]
    tables: tuple[Any, ...]
    v: NDArray[np.int32]
    kind: NDArray[np.uint8]
    positions: NDArray[np.int64]
    output_position: tuple[int, int] | None

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
    rows = np.zeros((c, passes.MASK + 1), np.int32)
    tables, kind = _tables(shape, cores, c, width, rows)
    net = (
        pages.settled(_packed(cores.crossbar, width).ravel()),
        pages.settled(np.broadcast_to(cores.axon_types, (c, shape.axons)).astype(np.uint8).ravel()),
        rows,
        _packed_targets(shape, targets, c, width, at, outputs, output_position).ravel(),
        _bounds(shape),
        np.array([width // 64, shape.axon_types, shape.axons, n, _burst(tables[0]), _wild(shape, cores)], np.int64),
    )
    v = pages.zeros((c, width), np.int32)
    v[:, :n] = np.broadcast_to(cores.v, (c, n))
    seeds = np.random.SeedSequence(seed).generate_state(c, np.uint64).astype(np.uint64)
    return Network(shape, c, outputs, seeds, net, tables, v, kind, at, output_position)


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


def _wild(shape: CoreShape, cores: Cores) -> bool:
    """Whether a reset can leave the register, so that it has to be bounded again."""
    if shape.overflow == "none":
        return False
    least, most = shape.potential
    inside = least <= -abs(cores.reset).max() and abs(cores.reset).max() <= most
    return not (inside and cores.alpha.min() >= 0 and cores.beta.min() >= 0)


def _fits(field: NDArray[Any], dtype: Any) -> bool:
    info = np.iinfo(dtype)
    return bool(info.min <= field.min(initial=0) and field.max(initial=0) <= info.max)


def _packed(bars: NDArray[Any], width: int) -> NDArray[np.uint64]:
    """(..., N) booleans -> (..., width / 64) words, bit j of word w for neuron 64 w + j."""
    if bars.dtype == np.uint64:
        return np.ascontiguousarray(bars)
    padded = np.zeros((*bars.shape[:-1], width // 8), np.uint8)
    packed = np.packbits(bars.astype(bool), axis=-1, bitorder="little")
    padded[..., : packed.shape[-1]] = packed
    return padded.view("<u8").astype(np.uint64, copy=False)


def _tables(
    shape: CoreShape, cores: Cores, c: int, width: int, rows: NDArray[np.int32]
) -> tuple[tuple[NDArray[Any], ...], NDArray[np.uint8]]:
    """Parameter tables in kernel order with equal rows shared, flat; fills `rows`. Also the kind of each core."""
    n, p = shape.neurons, passes

    def shared(column: int, field: NDArray[Any]) -> NDArray[Any]:
        if field.shape[0] == 1 or (field == field[:1]).all():
            return field[:1]
        bare = np.ascontiguousarray(field).reshape(c, -1)
        keys = bare.view(np.dtype((np.void, bare.dtype.itemsize * bare.shape[1]))).ravel()
        _, first, index = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(first)  # in order of first use: cores in sequence read rows in sequence
        rows[:, column] = np.argsort(order)[index]
        return field[first[order]]

    def values(column: int, field: NDArray[Any], dtype: Any, fill: int) -> NDArray[Any]:
        unique = shared(column, field)
        table = pages.zeros((*unique.shape[:-1], width), dtype)
        table[..., :n], table[..., n:] = unique, fill
        return table.ravel()

    def bits(column: int, field: NDArray[Any]) -> NDArray[np.uint64]:
        unique = shared(column, field)
        return pages.settled(_packed(np.broadcast_to(unique, (*unique.shape[:-1], n)), width).ravel())

    def by_type(field: NDArray[Any]) -> NDArray[Any]:
        return np.moveaxis(np.broadcast_to(field, (field.shape[0], n, shape.axon_types)), 2, 1)

    floor, beta, alpha = cores.floor.astype(bool), cores.beta.astype(np.int64), cores.alpha.astype(np.int64)
    hard, linear = cores.mode == RESET_TO_VALUE, cores.mode == RESET_SUBTRACT
    # A hard reset to exactly -beta is a floor; a crossing that changes nothing need not be noticed.
    is_floor = floor | (hard & (cores.reset == beta) & (cores.mask == 0) & (alpha >= -beta))
    unchanged = (cores.mode == RESET_NONE) | (linear & (beta == 0) & (cores.mask == 0))
    never = INT32.min + (1 << 25)  # threshold noise can be taken from it
    weights, floors = by_type(cores.weights), np.where(is_floor, -beta, INT32.min)
    jump = np.where(hard, cores.reset, np.where(linear, -alpha, 0))
    # Most networks have small numbers, and half the bytes to read; one decision for all, as each makes its own kernel.
    narrow = _fits(weights, np.int8) and all(_fits(field, np.int16) for field in (alpha, floors, jump))
    small, large = (np.int8, np.int16) if narrow else (np.int16, np.int32)
    tables = (
        values(p.WEIGHTS, weights, small, 0),
        values(p.LEAKS, cores.leak, np.int16, 0),
        values(p.ALPHA, alpha, large, np.iinfo(large).max),
        values(p.FLOOR, floors, large, np.iinfo(large).min),
        values(p.LOW, np.where(is_floor | unchanged, never, -beta + int(shape.inclusive)), np.int32, never),
        values(p.JUMP, jump, large, 0),
        values(p.FALL, np.where(hard, -cores.reset, np.where(linear, beta, 0)), np.int32, 0),
        bits(p.KEPT, ~hard),
        bits(p.LINEAR, linear),
        bits(p.REVERSAL, cores.reversal),
        bits(p.TOSSED, by_type(cores.stochastic_weights)),
        bits(p.TOSSED_LEAK, cores.stochastic_leak),
        values(p.MASK, cores.mask, np.int32, 0),
    )

    def any_of(field: NDArray[Any]) -> NDArray[np.bool_]:
        return np.broadcast_to(field.astype(bool).reshape(field.shape[0], -1).any(1), (c,))

    restless = any_of(cores.stochastic_leak) | any_of(cores.mask)
    general = any_of(cores.stochastic_weights) | any_of(cores.reversal)
    kind = np.where(restless, kernels.RESTLESS, np.where(general, kernels.GENERAL, kernels.PLAIN)).astype(np.uint8)
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
    full = pages.zeros((c, width), np.int64)
    full[:, n:] = kernels.NOWHERE
    full[:, :n] = np.where(inner | outer, packed, np.where(core == OFF_GRID, kernels.OFF_GRID, kernels.NOWHERE))
    return full


def _refuse(wrong: NDArray[np.bool_], value: NDArray[np.int64], rule: str) -> None:
    if wrong.any():
        core, neuron = np.argwhere(wrong)[0]
        raise ParameterError(f"network: core {core}, neuron {neuron}: {rule}, got {value[core, neuron]}")
