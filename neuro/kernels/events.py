"""Event-driven synapses fused with IF and LIF populations over time: work follows the spikes.

Spikes are words of bits, channels of a position side by side. For every sample and step, the kernel lists the spikes of
each source position, adds their runs of weights (`neuro.kernels.synapses`) to the membranes, and lets 16 neurons at a
time fire into one word. Sums are those of the dense path in another order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.graph import Shape, Stateless
from neuro.kernels.spikes import Spikes
from neuro.kernels.synapses import LANES, Runs, padded, table
from neuro.kernels.vectors import (
    PLACES,
    add1,
    add2,
    add3,
    add3_to_three,
    add4,
    add6,
    add6_to_three,
    add12,
    add_own,
    fire,
    list_spikes,
)
from neuro.nodes import IF, LIF, Node, Scale


@numba.njit(inline="always")
def _add_runs(v, target, weights, start, vectors, low, high, rows, count):
    if high - low == 3 and vectors[low] == vectors[low + 1] == vectors[low + 2]:
        if vectors[low] == 3:
            add3_to_three(v, target, weights, start, low, 0, rows, count)
            return
        if vectors[low] == 6:
            add6_to_three(v, target, weights, start, low, 0, rows, count)
            return
    for r in range(low, high):
        done, left = 0, vectors[r]
        while left >= 12:
            add12(v, target, weights, start, r, done, rows, count)
            done, left = done + 12 * LANES, left - 12
        if left >= 6:
            add6(v, target, weights, start, r, done, rows, count)
            done, left = done + 6 * LANES, left - 6
        if left >= 4:
            add4(v, target, weights, start, r, done, rows, count)
            done, left = done + 4 * LANES, left - 4
        if left == 3:
            add3(v, target, weights, start, r, done, rows, count)
        elif left == 2:
            add2(v, target, weights, start, r, done, rows, count)
        elif left == 1:
            add1(v, target, weights, start, r, done, rows, count)


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _population(words, place, first, target, start, vectors, weights, v0, beta, leaky, theta, subtract, drive, spikes):
    steps, batch, wide = spikes.shape
    most = 0
    for p in range(place.shape[0]):
        most = max(most, place[p, 1])
    for sample in numba.prange(batch):
        b = np.int64(sample)
        v = np.zeros(LANES * (wide + 1), dtype=np.float32)
        for n in range(LANES * wide):
            v[n] = v0[n % len(v0)]
        rows = np.empty(LANES * (most + 1), dtype=np.int32)
        for t in range(steps):
            if leaky:
                for n in range(LANES * wide):
                    v[n] = beta[n % len(beta)] * v[n]
            for p in range(place.shape[0]):
                block = place[p, 2]
                if block == 0:
                    for r in range(first[p], first[p + 1]):
                        for k in range(place[p, 1]):
                            word = words[t, b, place[p, 0] + k]
                            add_own(v, target[r] + LANES * k, weights, place[p, 3] + LANES * k, word)
                    continue
                count = 0
                for k in range(place[p, 1]):
                    word = words[t, b, place[p, 0] + k]
                    if word != 0:
                        count = list_spikes(word, place[p, 3] + LANES * k * block, block, PLACES, rows, count)
                if count > 0:
                    _add_runs(v, target, weights, start, vectors, first[p], first[p + 1], rows, count)
            current = drive[t * (drive.shape[0] > 1), b * (drive.shape[1] > 1)]
            at_drive = at_theta = 0
            for k in range(wide):
                spikes[t, b, k] = fire(v, LANES * k, current, at_drive, theta, at_theta, subtract)
                at_drive = at_drive + LANES if at_drive + LANES < len(current) else 0
                at_theta = at_theta + LANES if at_theta + LANES < len(theta) else 0


@dataclass(frozen=True, eq=False)
class Currents:
    """A sum that membranes have yet to take: linear nodes of spikes, and `held`, currents already known.

    held (time or 1, batch or 1, *features).
    """

    paths: tuple[tuple[Spikes, Stateless], ...]
    held: tuple[Tensor, ...] = ()

    @cached_property
    def dense(self) -> Tensor:
        """(time, batch, *features)."""
        parts = [node.forward(s.dense.flatten(0, 1)).unflatten(0, (s.steps, s.batch)) for s, node in self.paths]
        return sum((*parts[1:], *self.held), parts[0])


Value = Tensor | Spikes | Currents


def dense(value: Value) -> Tensor:
    """The value as a tensor (time, batch, *features)."""
    return value if isinstance(value, Tensor) else value.dense


def fires(node: Node) -> bool:
    """Whether this kernel runs the population: IF and LIF themselves with a reset, in float32 on the CPU."""
    fits = all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for _, tensor in node.tensors())
    return type(node) in (IF, LIF) and node.reset != "none" and fits  # type: ignore[attr-defined]


AS_IS = Scale(torch.ones(()))
"""The map of spikes that a membrane takes without a weight."""


def together(values: Sequence[Value]) -> Currents:
    """The sum of currents and spikes."""
    paths: list[tuple[Spikes, Stateless]] = []
    held: list[Tensor] = []
    for value in values:
        if isinstance(value, Currents):
            paths.extend(value.paths)
            held.extend(value.held)
        elif isinstance(value, Spikes):
            paths.append((value, AS_IS))
        else:
            held.append(value)
    return Currents(tuple(paths), tuple(held))


def _side_by_side(value: Tensor, lead: int, shape: Shape, fill: float = 0.0) -> np.ndarray:
    """(*lead, ...) as (*lead, positions * padded channels): the channels of a position side by side.

    A value that is the same at all positions of `shape` is laid out once.
    """
    value = value.reshape(*value.shape[:lead], *(1,) * (len(shape) + lead - value.ndim), *value.shape[lead:])
    spread = shape if any(size > 1 for size in value.shape[lead + 1 :]) else shape[:1]
    value = value.expand(*value.shape[:lead], *spread, *(1,) * (len(shape) - len(spread)))
    rows = value.reshape(*value.shape[: lead + 1], -1).transpose(-1, -2)
    rows = F.pad(rows, (0, padded(rows.shape[-1]) - rows.shape[-1]), value=fill)
    return rows.flatten(-2).contiguous().numpy()


def _offset(node: Stateless, shape: Shape) -> Tensor | None:
    """What a node adds to neurons of `shape` at every step; broadcasts against it."""
    given = node.offset if isinstance(node, Scale) else getattr(node, "bias", None)
    if given is None:
        return None
    if isinstance(node, Scale):
        return given.detach().reshape(*(1,) * (len(shape) - given.ndim), *given.shape)
    return given.detach().reshape(-1, *(1,) * (len(shape) - 1))


def _joined(tables: Sequence[tuple[Spikes, Runs]]) -> tuple[np.ndarray, ...]:
    """All paths as one: words, (first word, words, block, weight base) of each position, and the runs of all."""
    places, firsts = [], []
    word = base = count = 0
    for spikes, runs in tables:
        wide = padded(spikes.shape[0]) // LANES
        positions = len(runs.first) - 1
        begin = word + wide * np.arange(positions)
        places.append(np.stack([begin, *(np.full(positions, k) for k in (wide, runs.block, base))], 1))
        firsts.append(runs.first[:-1] + count)
        word, base, count = word + wide * positions, base + len(runs.weights), count + len(runs.target)
    firsts.append(np.array([count]))

    def one(parts: list[np.ndarray], axis: int = 0) -> np.ndarray:
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)

    return (
        one([spikes.words for spikes, _ in tables], 2), one(places), one(firsts), one([r.target for _, r in tables]),
        one([r.start for _, r in tables]), one([r.vectors for _, r in tables]), one([r.weights for _, r in tables]),
    )  # fmt: skip


_NOTHING = (
    np.zeros((1, 1, 1), np.uint16), np.zeros((0, 4), np.int64), *(np.zeros(1, np.int64) for _ in range(4)),
    np.zeros(LANES, np.float32),
)  # fmt: skip


def population(node: IF | LIF, currents: Currents, shape: Shape, steps: int) -> Spikes:
    """The spikes of a population of feature shape `shape` over `steps` steps, from rest.

    Every path must have a `table`. Equal to `neuro.kernels.reference.run_steps` on the dense sum of the currents, up to
    the rounding of sums.
    """
    batch = max([s.batch for s, _ in currents.paths] + [value.shape[1] for value in currents.held])
    tables = [(s, table(linear, s.shape, s.moves)) for s, linear in currents.paths]
    offsets = [_offset(linear, shape) for _, linear in currents.paths]
    held = [*currents.held, *(offset[None, None] for offset in offsets if offset is not None)]
    drive = sum(held[1:], held[0]) if held else torch.zeros((1,) * (2 + len(shape)))
    found = _joined([(s, runs) for s, runs in tables if runs is not None]) if tables else _NOTHING
    beta = node.beta if isinstance(node, LIF) else torch.ones(())
    v0, decay, theta = (
        _side_by_side(parameter.detach(), 0, shape, fill)
        for parameter, fill in ((node.v0, 0.0), (beta, 0.0), (node.theta, math.inf))
    )
    words = math.prod(shape[1:]) * padded(shape[0]) // LANES
    spikes = np.empty((steps, batch, words), dtype=np.uint16)
    threads = torch.get_num_threads()
    current = _side_by_side(drive, 2, shape)
    parameters = (v0, decay, isinstance(node, LIF), theta, node.reset == "subtract")
    _population(*found, *parameters, current, spikes)  # type: ignore[call-arg]
    # The first parallel launch of numba may change how many threads torch uses.
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return Spikes(spikes, shape)
