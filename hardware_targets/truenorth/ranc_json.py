"""The JSON files of RANC's own simulator: input (packets, cores, output bus), configuration, and its text output.

Source: simulator/src/decode.hpp of github UA-RCL/RANC (08ae4bd). A core may list fewer axons, neurons or connections
than the
configuration allows; the rest are the simulator's default neurons (threshold 1, weights 0). Output: one line of 0 and
1 per tick.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.atomic import replacing
from neuro.errors import FileError

from .network import Network
from .ranc import Format, Packets, RancCore
from .ranc_network import core_order, events_from, network_from, ranc_shape
from .simulate import Events

MOST_BYTES = 1 << 30

SCALARS = {
    "v": "current_potential",
    "reset": "reset_potential",
    "leak": "leak",
    "positive": "positive_threshold",
    "negative": "negative_threshold",
    "mode": "reset_mode",
    "axon": "destination_axon",
    "tick": "destination_tick",
}


@dataclass(frozen=True, eq=False)
class RancProject:
    """A simulator input. form: sizes; grid, bus: positions; outputs: lines of the bus; cores by x + nx y; packets by
    tick;
    inclusive: the configuration's neuron_reset_type 1, which crosses the negative threshold at equality."""

    form: Format
    grid: tuple[int, int]
    bus: tuple[int, int]
    outputs: int
    cores: dict[int, RancCore]
    packets: Packets
    inclusive: bool = False

    def network(self) -> tuple[Network, Events]:
        """The project as a network and its input events; potentials are C++ ints."""
        shape = ranc_shape(self.form, unlimited=True, inclusive=self.inclusive)
        cores = {index: core for index, core in self.cores.items() if index != self.bus[0] + self.grid[0] * self.bus[1]}
        network = network_from(cores, shape, self.grid, self.bus, self.outputs)
        return network, events_from(self.packets, core_order(cores), self.grid)[0]


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise FileError(f"{path}: larger than {MOST_BYTES} bytes")
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise FileError(f"{path}: must be a JSON object")
    return data


class _Reader:
    """Takes typed values out of JSON, naming the place of whatever is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def integer(self, table: Any, name: str, where: str, low: int, high: int, default: int | None = None) -> int:
        value = table.get(name, default) if isinstance(table, dict) else None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise FileError(f"{self.path}: {where}: {name} must be an integer {low}..{high}, got {value!r}")
        return value

    def array(self, value: Any, where: str, most: int, low: int, high: int) -> list[int]:
        good = isinstance(value, list) and len(value) <= most
        if not good or any(not isinstance(x, int) or isinstance(x, bool) or not low <= x <= high for x in value):
            raise FileError(f"{self.path}: {where} must be a list of at most {most} integers {low}..{high}")
        return list(value)

    def pair(self, table: Any, names: tuple[str, ...], where: str, low: int = 0) -> tuple[int, int]:
        value = next((table[name] for name in names if name in table), None) if isinstance(table, dict) else None
        pair = self.array(value, f"{where}: {names[0]}", 2, low, 511)
        if len(pair) != 2:
            raise FileError(f"{self.path}: {where}: {names[0]} must be two integers")
        return pair[0], pair[1]

    def objects(self, value: Any, where: str, most: int) -> list[Any]:
        if not isinstance(value, list) or len(value) > most:
            raise FileError(f"{self.path}: {where} must be a list of at most {most} entries")
        return value


def read_project(path: str | Path, config: str | Path | None = None) -> RancProject:
    """Read a simulator input and its configuration. Without one, sizes are the largest found in the input.

    `destination_core` of a neuron (older files) is an absolute position, `destination_core_offset` a relative one.
    Raises FileError.
    """
    source = Path(path)
    data, at = _load(source), _Reader(source)
    bus_table = data.get("output_bus")
    bus = at.pair(bus_table, ("coordinates",), "output_bus")
    outputs = at.integer(bus_table, "num_outputs", "output_bus", 1, 65536)
    cores = at.objects(data.get("cores"), "cores", 1 << 18)
    places = [at.pair(core, ("coordinates",), f"core {k}") for k, core in enumerate(cores)]
    if config is not None:
        read, table = _Reader(Path(config)), _load(Path(config))
        axons = read.integer(table, "num_axons", "configuration", 1, 4096)
        neurons = read.integer(table, "num_neurons", "configuration", 1, 4096)
        weights = read.integer(table, "num_weights", "configuration", 1, 16)
        nx = read.integer(table, "num_cores_x", "configuration", 1, 512)
        ny = read.integer(table, "num_cores_y", "configuration", 1, 512)
        ticks = read.integer(table, "max_tick_offset", "configuration", 2, 128, 16)
        inclusive = read.integer(table, "neuron_reset_type", "configuration", 0, 1, 1) == 1
    else:
        axons = max((len(core.get("axons", ())) for core in cores), default=1) or 1
        neurons = max((len(core.get("neurons", ())) for core in cores), default=1) or 1
        weights, ticks, inclusive = 4, 16, False
        nx, ny = (max(p[i] for p in [*places, bus]) + 1 for i in (0, 1))
    form = Format(axons=axons, neurons=neurons, weights=weights, tick_bits=(ticks - 1).bit_length())
    made = {}
    for k, (core, (x, y)) in enumerate(zip(cores, places, strict=True)):
        if x >= nx or y >= ny or x + nx * y in made:
            raise FileError(f"{source}: core {k} at {x},{y} is outside the grid {nx} x {ny} or there twice")
        made[x + nx * y] = _core(at, core, f"core {k}", form, (x, y))
    return RancProject(form, (nx, ny), bus, outputs, made, _packets(at, data.get("packets", []), form), inclusive)


def _core(at: _Reader, core: Any, where: str, form: Format, place: tuple[int, int]) -> RancCore:
    large, n = (1 << 29) - 1, form.neurons
    types = np.zeros(form.axons, np.int64)
    listed = at.array(core.get("axons"), f"{where}: axons", form.axons, 0, form.weights - 1)
    types[: len(listed)] = listed
    connections = np.zeros((n, form.axons), np.int64)
    for j, row in enumerate(at.objects(core.get("connections"), f"{where}: connections", n)):
        bits = at.array(row, f"{where}: connections {j}", form.axons, 0, 1)
        connections[j, : len(bits)] = bits
    values = {name: np.zeros(n, np.int64) for name in (*SCALARS, "dx", "dy")}
    values["positive"][:] = 1
    weights = np.zeros((n, form.weights), np.int64)
    for j, neuron in enumerate(at.objects(core.get("neurons"), f"{where}: neurons", n)):
        spot = f"{where}: neuron {j}"
        for name, key in SCALARS.items():
            low, high = {"mode": (0, 1), "tick": (0, (1 << form.tick_bits) - 1), "axon": (0, 65535)}.get(
                name, (-large, large)
            )
            values[name][j] = at.integer(
                neuron,
                key,
                spot,
                max(low, -32768) if name == "leak" else low,
                min(high, 32767) if name == "leak" else high,
            )
        listed = at.array(neuron.get("weights"), f"{spot}: weights", form.weights, -32768, 32767)
        weights[j, : len(listed)] = listed
        dx, dy = at.pair(neuron, ("destination_core_offset", "destination_core"), spot, -511)
        relative = "destination_core_offset" in neuron
        values["dx"][j], values["dy"][j] = (dx, dy) if relative else (dx - place[0], dy - place[1])
    return RancCore(connections=connections.T, types=types, weights=weights, **values)


def _packets(at: _Reader, ticks: Any, form: Format) -> Packets:
    found: list[tuple[int, int, int, int]] = []
    ends = []
    for t, packets in enumerate(at.objects(ticks, "packets", 1 << 24)):
        for k, packet in enumerate(at.objects(packets, f"packets of tick {t}", 1 << 24)):
            where = f"tick {t}, packet {k}"
            x, y = at.pair(packet, ("destination_core",), where)
            axon = at.integer(packet, "destination_axon", where, 0, form.axons - 1)
            found.append((x, y, axon, at.integer(packet, "destination_tick", where, 0, (1 << form.tick_bits) - 1)))
        ends.append(len(found))
    table = np.array(found, np.int64).reshape(-1, 4)
    return Packets(np.array(ends, np.int64), dict(zip(("x", "y", "axon", "tick"), table.T, strict=True)))


def write_project(path: str | Path, project: RancProject, config: str | Path | None = None) -> None:
    """Write the input (and, if asked, the configuration) that RANC's simulator reads; each file atomically."""
    nx = project.grid[0]
    p, when = project.packets.fields, project.packets.ticks()
    ticks: list[list[dict[str, Any]]] = [[] for _ in range(project.packets.ends.size)]
    for t, x, y, axon, tick in zip(when, p["x"], p["y"], p["axon"], p["tick"], strict=True):
        ticks[t].append(
            {"destination_core": [int(x), int(y)], "destination_axon": int(axon), "destination_tick": int(tick)}
        )
    data = {
        "packets": ticks,
        "output_bus": {"coordinates": list(project.bus), "num_outputs": project.outputs},
        "cores": [_core_table(core, [index % nx, index // nx]) for index, core in sorted(project.cores.items())],
    }
    _write(Path(path), data)
    if config is not None:
        names = {
            "num_neurons": project.form.neurons,
            "num_axons": project.form.axons,
            "num_cores_x": nx,
            "num_cores_y": project.grid[1],
        }
        names |= {"num_weights": project.form.weights, "max_tick_offset": 1 << project.form.tick_bits}
        names |= {f"{part}_trace_verbosity": 0 for part in ("neuron_block", "core_controller", "scheduler")}
        _write(Path(config), names | {"neuron_reset_type": int(project.inclusive)})


def _core_table(core: RancCore, place: list[int]) -> dict[str, Any]:
    columns = {field.name: np.asarray(getattr(core, field.name)).tolist() for field in fields(core)}
    neurons = [
        {key: columns[name][j] for name, key in SCALARS.items()}
        | {"weights": columns["weights"][j], "destination_core_offset": [columns["dx"][j], columns["dy"][j]]}
        for j in range(core.v.size)
    ]
    connections = np.asarray(core.connections).T.astype(int).tolist()
    return {"axons": columns["types"], "neurons": neurons, "connections": connections, "coordinates": place}


def _write(path: Path, data: dict[str, Any]) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(data), encoding="utf-8")


def output_text(tick: NDArray[Any], line: NDArray[Any], ticks: int, outputs: int) -> str:
    """Output events as the simulator prints them: a line of `outputs` 0s and 1s per tick, a blank behind each."""
    table = np.zeros((ticks, outputs), np.uint8)
    table[np.asarray(tick), np.asarray(line)] = 1
    return "".join("".join(f"{bit} " for bit in row) + "\n" for row in table)
