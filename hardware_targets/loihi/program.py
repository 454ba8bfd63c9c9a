"""An integer program for Loihi: inputs, populations of neurons and connections between them, in the chip's own numbers.

A `Program` knows nothing of the network it came from. It is checked once, at birth; the reference, the kernels and Lava
all run the same value. Ticks are counted from 0 (Lava's step 1). A spike at tick t reaches its targets at tick t + 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hardware_targets.loihi.connections import Connection, Conv2d, Dense, IntArray, Sparse
from neuro.errors import ParameterError, ShapeError

Reset = Literal["zero", "subtract", "none"]

VOLTAGE_LIMIT = 2**23 - 1  # u and v are 24-bit words
DECAY_UNITY = 2**12
STATE_SHIFT = 6  # activations and thresholds enter 24-bit state shifted left by six

__all__ = ["Connection", "Conv2d", "Dense", "Input", "Population", "Program", "Sparse", "leaves_common_subset"]


@dataclass(frozen=True)
class Input:
    """`size` channels of spikes from outside; binary, or graded integers where a connection reads messages."""

    name: str
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ParameterError(f"Input '{self.name}': size must be at least 1, got {self.size}")


@dataclass(frozen=True, eq=False)
class Population:
    """`size` current-based LIF neurons in fixed point, as lava-nc's PyLifModelBitAcc updates them:

        u <- wrap24( u (4096 - du - 1) / 4096 + 64 a )          division rounds toward zero, wrap24 subtracts 2**24 once
        v <- clip( v (4096 - dv) / 4096 + u + bias_mant 2**bias_exp, -(2**23 - 1), 2**23 - 1 )
        spike if v > 64 vth, strictly; then reset 'zero': v <- 0; 'subtract': v <- v - 64 vth

    `reset='none'` never fires: an integrator whose v is read out. Lava has no fixed-point LIF that subtracts or never
    fires, nor one that waits: 'subtract', 'none' and `start > 0` need Loihi 2 microcode. Before tick `start` the
    neurons are not updated and what arrives is lost, so that a bias does not act while the pipeline fills.

    du, dv: 12-bit decays, 0..4095. vth: 0..131071. bias_mant: int16 in Lava, 13 bits on the chip. u0, v0: 24 bits.
    vth, biases, u0 and v0 are one integer or one per neuron; they are kept as int32 arrays (size,).
    """

    name: str
    size: int
    vth: IntArray | int = 10
    du: int = 4095
    dv: int = 0
    bias_mant: IntArray | int = 0
    bias_exp: IntArray | int = 0
    reset: Reset = "zero"
    v0: IntArray | int = 0
    u0: IntArray | int = 0
    start: int = 0

    def __post_init__(self) -> None:
        place = f"Population '{self.name}'"
        if self.size < 1:
            raise ParameterError(f"{place}: size must be at least 1, got {self.size}")
        if self.reset not in get_args(Reset):
            raise ParameterError(f"{place}: reset must be one of {', '.join(get_args(Reset))}, got {self.reset!r}")
        ranges = {
            "du": (0, 4095),
            "dv": (0, 4095),
            "start": (0, 2**31 - 1),
            "vth": (0, 2**17 - 1),
            "bias_mant": (-(2**15), 2**15 - 1),
            "bias_exp": (-15, 15),
            "v0": (-VOLTAGE_LIMIT, VOLTAGE_LIMIT),
            "u0": (-VOLTAGE_LIMIT, VOLTAGE_LIMIT),
        }
        for field, (low, high) in ranges.items():
            values = _integers(getattr(self, field), f"{place}: {field}")
            if values.size and (values.min() < low or values.max() > high):
                worst = values.min() if values.min() < low else values.max()
                raise ParameterError(f"{place}: {field} must lie in {low}..{high}, got {worst}")
            if field in ("du", "dv", "start"):
                object.__setattr__(self, field, int(values))
            elif values.shape not in ((), (1,), (self.size,)):
                raise ShapeError(f"{place}: {field} must be one integer or {self.size}, got shape {values.shape}")
            else:
                per_neuron = np.broadcast_to(values.astype(np.int32), (self.size,)).copy()
                per_neuron.setflags(write=False)
                object.__setattr__(self, field, per_neuron)

    @cached_property
    def bias(self) -> IntArray:
        """bias_mant 2**bias_exp, (size,), floor where the exponent is negative."""
        mantissa, exponent = np.asarray(self.bias_mant, np.int32), np.asarray(self.bias_exp, np.int32)
        raised = np.left_shift(mantissa, np.maximum(exponent, 0))
        return np.right_shift(raised, np.maximum(-exponent, 0))

    @cached_property
    def threshold(self) -> IntArray:
        """vth in the units of v, (size,); the largest int32, which v never exceeds, where the neuron does not fire."""
        if self.reset == "none":
            return np.full(self.size, np.iinfo(np.int32).max, np.int32)
        return np.left_shift(np.asarray(self.vth, np.int32), STATE_SHIFT)


@dataclass(frozen=True, eq=False)
class Program:
    """Inputs, populations and connections, checked to fit each other: unique names, known ends, equal sizes."""

    inputs: tuple[Input, ...]
    populations: tuple[Population, ...]
    connections: tuple[Connection, ...]

    def __post_init__(self) -> None:
        for field in ("inputs", "populations", "connections"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        names = [*(part.name for part in self.sources), *(part.name for part in self.connections)]
        for name in names:
            if names.count(name) > 1:
                raise ParameterError(f"Program: the name '{name}' is used {names.count(name)} times; give each its own")
        sources = {part.name: part.size for part in self.sources}
        targets = {population.name: population.size for population in self.populations}
        for connection in self.connections:
            for end, known, size in (
                (connection.source, sources, connection.source_size),
                (connection.target, targets, connection.target_size),
            ):
                if end not in known:
                    raise ParameterError(
                        f"Connection '{connection.name}': '{end}' is not among {', '.join(known) or 'nothing'}"
                    )
                if known[end] != size:
                    raise ShapeError(
                        f"Connection '{connection.name}': weights are for {size} neurons but '{end}' has {known[end]}"
                    )

    @property
    def sources(self) -> tuple[Input | Population, ...]:
        """All that can spike: inputs, then populations."""
        return (*self.inputs, *self.populations)

    def population(self, name: str) -> Population:
        """The population called `name`; ParameterError if there is none."""
        for population in self.populations:
            if population.name == name:
                return population
        raise ParameterError(
            f"Program has no population '{name}'; it has {', '.join(p.name for p in self.populations)}"
        )

    def into(self, name: str) -> tuple[Connection, ...]:
        """Connections that end at population `name`."""
        return tuple(connection for connection in self.connections if connection.target == name)

    def order(self) -> tuple[tuple[Population, ...], bool]:
        """Populations so that sources come before targets, and whether that is possible (no loop in the program)."""
        waiting = {population.name: population for population in self.populations}
        ordered: list[Population] = []
        while waiting:
            ready = [p for p in waiting.values() if not any(c.source in waiting for c in self.into(p.name))]
            if not ready:
                return self.populations, False
            for population in ready:
                ordered.append(waiting.pop(population.name))
        return tuple(ordered), True


def leaves_common_subset(program: Program) -> tuple[str, ...]:
    """Where the program uses arithmetic on which Lava, nengo-loihi and brian2-loihi disagree, one line each.

    Empty: even weights in mixed mode, non-negative weight exponents, mantissas the chip holds, hard reset, nothing
    that has to overflow. Overflow that depends on the input is not foreseen here.
    """
    return tuple(_disagreements(program))


def _disagreements(program: Program) -> Iterator[str]:
    for connection in program.connections:
        place = f"connection '{connection.name}'"
        if connection.sign_mode_used == "mixed" and np.any(connection.weights % 2):
            yield f"{place}: odd weights in mixed mode (Lava rounds down, brian2-loihi toward zero)"
        if connection.weight_exp < 0:
            yield f"{place}: weight_exp {connection.weight_exp} < 0 (Lava shifts the sum, the others each weight)"
        if connection.num_weight_bits == 7:
            yield f"{place}: num_weight_bits 7 is no format of the chip"
        if not np.array_equal(connection.effective_weights, connection.weights):
            yield f"{place}: weights do not fit the format and are clipped or cut"
    for population in program.populations:
        place = f"population '{population.name}'"
        if population.reset != "zero" or population.start:
            yield f"{place}: reset '{population.reset}', start {population.start}: Loihi 2 microcode, no LIF of Lava"
        if np.any(np.abs(np.asarray(population.bias_mant) + 0.5) > 4096):
            yield f"{place}: bias_mant beyond 13 bits (Lava's CPU model keeps 16)"
        if np.any((np.asarray(population.bias_exp) < 0) | (np.asarray(population.bias_exp) > 7)):
            yield f"{place}: bias_exp outside 0..7"


def _integers(value: ArrayLike, place: str) -> NDArray[np.int64]:
    array = np.asarray(value)
    if array.dtype == bool or not np.issubdtype(array.dtype, np.integer):
        raise ParameterError(f"{place} must be integer, got {array.dtype}; quantise first")
    return array.astype(np.int64)
