"""RANC's cores, from memory files or from JSON, as a `Network`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuro.errors import FileError, ParameterError

from .core import CoreShape, Overflow, make_cores
from .network import NO_TARGET, OFF_GRID, OUTPUT, Network, Targets, make_network
from .ranc import Format, Packets, RancCore, read_cores
from .simulate import Events

INT16, INT30 = (-(1 << 15), (1 << 15) - 1), (-(1 << 29), (1 << 29) - 1)


def ranc_shape(
    form: Format, overflow: Overflow = "none", *, unlimited: bool = False, inclusive: bool = False
) -> CoreShape:
    """CoreShape of a RANC core: no floor, no leak reversal, nothing stochastic, signed thresholds, delay 1 + tick.

    overflow: the simulator keeps potentials in a C++ int ("none"), the Verilog register wraps at `bits` ("wrap").
    unlimited: values need not fit `bits` (JSON). inclusive: the simulator's symmetric reset, which crosses at equality.
    """
    low, high = -(1 << form.bits - 1), (1 << form.bits - 1) - 1
    small, large = (INT16, INT30) if unlimited else ((low, high), (low, high))
    return CoreShape(
        axons=form.axons, neurons=form.neurons, axon_types=form.weights, weight=small, leak=small, alpha=large,
        beta=(-large[1], INT30[1] if unlimited else -low), reset=large, potential=(low, high), overflow=overflow,
        delay=(1, 1 << form.tick_bits), reset_modes=2, mask_bits=0, floor=False, reversal=False, inclusive=inclusive,
    )  # fmt: skip


def network_from(
    cores: dict[int, RancCore], shape: CoreShape, grid: tuple[int, int], bus: tuple[int, int], outputs: int
) -> Network:
    """Cores by index x + nx y, the output bus standing at `bus`. Packets to the bus leave at once, whatever their tick;
    packets off the grid, to a position without a core or beyond the bus are lost and counted."""
    nx, ny = grid
    _check(grid, bus, outputs)
    used = core_order(cores)
    order = [cores[index] for index in used]

    def stack(name: str) -> Any:
        return np.stack([getattr(core, name) for core in order])

    position = np.full(nx * ny, NO_TARGET)
    position[used] = np.arange(used.size)
    x, y, axon = (used % nx)[:, None] + stack("dx"), (used // nx)[:, None] + stack("dy"), stack("axon")
    inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
    address = np.where(inside, x + nx * y, 0)
    to_bus = inside & (address == bus[0] + nx * bus[1])
    core = np.where(inside & (position[address] >= 0) & (axon < shape.axons), position[address], OFF_GRID)
    core = np.where(to_bus, np.where(axon < outputs, OUTPUT, OFF_GRID), core)
    delay = np.where(to_bus, 0, stack("tick") + 1)
    made = make_cores(
        shape, stack("connections").astype(bool), stack("types"), stack("weights"), alpha=stack("positive"),
        leak=stack("leak"), beta=-stack("negative"), reset=stack("reset"), mode=stack("mode"), v=stack("v"),
    )  # fmt: skip
    at = np.stack([used % nx, used // nx], 1)
    return make_network(shape, made, Targets(core, axon, delay), positions=at, outputs=outputs, output_position=bus)


def _check(grid: tuple[int, int], bus: tuple[int, int], outputs: int) -> None:
    nx, ny = grid
    if not (1 <= nx <= 512 and 1 <= ny <= 512):
        raise ParameterError(f"RANC grid must be 1..512 by 1..512, got {nx} x {ny}")
    if not (0 <= bus[0] < nx and 0 <= bus[1] < ny):
        raise ParameterError(f"RANC output bus {bus[0]},{bus[1]} is outside the grid {nx} x {ny}")
    if not 1 <= outputs <= 1 << 16:
        raise ParameterError(f"RANC outputs must be 1..65536, got {outputs}")


def core_order(cores: dict[int, RancCore]) -> Any:
    """Grid indices of the cores in network order, (C,) int64."""
    return np.array(sorted(cores), dtype=np.int64)


def events_from(packets: Packets, used: Any, grid: tuple[int, int]) -> tuple[Events, int]:
    """Input packets as events: a packet of input tick t acts at t + tick. Also how many go to no core and are lost."""
    p, (nx, ny) = packets.fields, grid
    position = np.full(nx * ny, NO_TARGET)
    position[used] = np.arange(len(used))
    inside = (p["x"] >= 0) & (p["y"] >= 0) & (p["x"] < nx) & (p["y"] < ny)
    core = np.where(inside, position[np.where(inside, p["x"] + nx * p["y"], 0)], NO_TARGET)
    kept = core >= 0
    return Events((packets.ticks() + p["tick"])[kept], core[kept], p["axon"][kept]), int((~kept).sum())


def read_network(
    folder: str | Path,
    grid: tuple[int, int],
    bus: tuple[int, int],
    outputs: int,
    form: Format,
    overflow: Overflow = "none",
) -> tuple[Network, Any]:
    """A folder of csram_NNN.mem and tc_NNN.mem -> network and the grid index of each of its cores. Raises FileError."""
    nx, ny = grid
    _check(grid, bus, outputs)
    cores = read_cores(folder, nx * ny, form, skip=bus[0] + nx * bus[1])
    if not cores:
        raise FileError(f"{folder}: no csram_NNN.mem of a core other than the bus; check the folder and --bus")
    return network_from(cores, ranc_shape(form, overflow), grid, bus, outputs), core_order(cores)
