"""An integer program for Loihi: inputs, populations of neurons and connections between them, in the chip's own numbers.

A `Program` knows nothing of the network it came from. It is checked once, at birth; the reference, the kernels and Lava
all run the same value. Ticks are counted from 0 (Lava's step 1). A spike at tick t reaches its targets at tick t + 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hardware_targets.loihi.connections import Connection, Conv2d, Dense, Sparse
from hardware_targets.loihi.populations import (
    DECAY_UNITY,
    STATE_SHIFT,
    VOLTAGE_LIMIT,
    Neurons,
    Population,
    Reset,
)
from neuro.errors import ParameterError, ShapeError

__all__ = [
    "DECAY_UNITY", "STATE_SHIFT", "VOLTAGE_LIMIT", "Connection", "Conv2d", "Dense", "Input", "Neurons", "Population",
    "Program", "Reset", "Sparse", "leaves_common_subset",
]  # fmt: skip


@dataclass(frozen=True)
class Input:
    """`size` channels of spikes from outside; binary, or graded integers where a connection reads messages."""

    name: str
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ParameterError(f"Input '{self.name}': size must be at least 1, got {self.size}")


@dataclass(frozen=True, eq=False)
class Program:
    """Inputs, populations and connections, checked to fit each other: unique names, known ends, equal sizes."""

    inputs: tuple[Input, ...]
    populations: tuple[Neurons, ...]
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
        ports = {population.name: population.ports for population in self.populations}
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
            if connection.port >= len(ports[connection.target]):
                raise ParameterError(
                    f"Connection '{connection.name}': '{connection.target}' has ports"
                    f" {', '.join(f'{n} ({what})' for n, what in enumerate(ports[connection.target]))};"
                    f" got {connection.port}"
                )

    @property
    def sources(self) -> tuple[Input | Neurons, ...]:
        """All that can spike: inputs, then populations."""
        return (*self.inputs, *self.populations)

    def population(self, name: str) -> Neurons:
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

    def order(self) -> tuple[tuple[Neurons, ...], bool]:
        """Populations so that sources come before targets, and whether that is possible (no loop in the program)."""
        waiting = {population.name: population for population in self.populations}
        ordered: list[Neurons] = []
        while waiting:
            ready = [p for p in waiting.values() if not any(c.source in waiting for c in self.into(p.name))]
            if not ready:
                return self.populations, False
            for population in ready:
                ordered.append(waiting.pop(population.name))
        return tuple(ordered), True


def leaves_common_subset(program: Program) -> tuple[str, ...]:
    """Where the program uses arithmetic on which Lava, nengo-loihi and brian2-loihi disagree, one line each.

    Empty: even weights in mixed mode, weight exponents that cut no bit, mantissas the chip holds, hard reset, nothing
    that has to overflow. Overflow that depends on the input is not foreseen here.
    """
    return tuple(_disagreements(program))


def _disagreements(program: Program) -> Iterator[str]:
    for connection in program.connections:
        place = f"connection '{connection.name}'"
        if connection.sign_mode_used == "mixed" and np.any(connection.weights % 2):
            yield f"{place}: odd weights in mixed mode (Lava rounds down, brian2-loihi toward zero)"
        if connection.weight_exp < 0 and bool(np.any(connection.effective_weights % 2**-connection.weight_exp)):
            yield f"{place}: weight_exp {connection.weight_exp} < 0 (Lava shifts the sum, the others each weight)"
        if connection.num_weight_bits == 7:
            yield f"{place}: num_weight_bits 7 is no format of the chip"
        if not np.array_equal(connection.effective_weights, connection.weights):
            yield f"{place}: weights do not fit the format and are clipped or cut"
    for population in program.populations:
        place = f"population '{population.name}'"
        if not isinstance(population, Population):
            yield f"{place}: {type(population).__name__} is Loihi 2 microcode, only Lava computes it"
            continue
        if not population.plain:
            yield f"{place}: a lower threshold, refractory period or periodic reset, which the others lack"
        if np.any((np.asarray(population.vth) < 0) | (np.asarray(population.vth) >= 2**17)):
            yield f"{place}: vth outside 17 bits (Lava's CPU model keeps 25)"
        if population.reset != "zero" or population.start:
            yield f"{place}: reset '{population.reset}', start {population.start}: Loihi 2 microcode, no LIF of Lava"
        if np.any(np.abs(np.asarray(population.bias_mant) + 0.5) > 4096):
            yield f"{place}: bias_mant beyond 13 bits (Lava's CPU model keeps 16)"
        if np.any((np.asarray(population.bias_exp) < 0) | (np.asarray(population.bias_exp) > 7)):
            yield f"{place}: bias_exp outside 0..7"
