"""RANC's memory files: cores as `csram_NNN.mem` and `tc_NNN.mem`, test benches as `tb_*.txt`; read and written.

Source: github UA-RCL/RANC (Core.v, emulation.py). One csram line is one neuron, most significant bit first, two's
complement:
[A connections, axon A-1 first][V0 b][R b][G weights b][leak b][positive threshold b][negative threshold b][reset mode
r][dx][dy]
[axon ceil(log2 A)][tick 4]; core NNN stands at x + nx y. The width of dx and dy follows from the length of the line.
A packet is [dx][dy][axon][tick], injected at core (0, 0), so that dx, dy are its absolute address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.atomic import replacing
from neuro.errors import FileError, ParameterError

Bits = NDArray[np.uint8]
COMMENT = re.compile(rb"/\*.*?\*/|//[^\n]*", re.DOTALL)
MOST_BYTES = 1 << 31


@dataclass(frozen=True)
class Format:
    """Field widths of RANC files.

    axons, neurons: per core;  bits: width of potential, weight, leak and threshold fields;  reset_bits: width of the
    reset mode (0: the
    field is absent and `reset_mode` holds for all);  tick_bits: width of the delivery tick;  weights: number of axon
    types
    """

    axons: int = 256
    neurons: int = 256
    bits: int = 9
    reset_bits: int = 1
    reset_mode: int = 0
    tick_bits: int = 4
    weights: int = 4
    coordinate_bits: int = 9

    def __post_init__(self) -> None:
        for name, low, high in (
            ("axons", 1, 4096), ("neurons", 1, 4096), ("bits", 2, 15), ("reset_bits", 0, 1), ("reset_mode", 0, 1),
            ("tick_bits", 1, 7), ("weights", 1, 16), ("coordinate_bits", 1, 15),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise ParameterError(f"RANC format: {name} must be {low}..{high}, got {value}")

    @property
    def axon_bits(self) -> int:
        """Width of an axon index."""
        return max(1, (self.axons - 1).bit_length())

    @property
    def line(self) -> int:
        """Bits of a csram line without dx and dy."""
        return self.axons + self.bits * (5 + self.weights) + self.reset_bits + self.axon_bits + self.tick_bits


@dataclass(frozen=True, eq=False)
class Packets:
    """Packets or outputs by tick. ends: (ticks,) how many up to and including each tick; fields: name -> (packets,)
    int64.
    """

    ends: NDArray[np.int64]
    fields: dict[str, NDArray[np.int64]]

    def ticks(self) -> NDArray[np.int64]:
        """Tick of every packet."""
        return np.repeat(np.arange(self.ends.size), np.diff(self.ends, prepend=0))


@dataclass(frozen=True, eq=False)
class RancCore:
    """One core as RANC stores it. connections: (axons, neurons) 0/1; types: (axons,); weights: (neurons, G); all else
    (neurons,).

    v, reset, leak, positive and negative (thresholds, both signed) in weight units; mode 0 hard, 1 linear reset; dx,
    dy relative
    address of the target core; axon there; tick: delivery at t + 1 + tick.
    """

    connections: NDArray[Any]
    types: NDArray[Any]
    v: NDArray[Any]
    reset: NDArray[Any]
    weights: NDArray[Any]
    leak: NDArray[Any]
    positive: NDArray[Any]
    negative: NDArray[Any]
    mode: NDArray[Any]
    dx: NDArray[Any]
    dy: NDArray[Any]
    axon: NDArray[Any]
    tick: NDArray[Any]


def read_cores(folder: str | Path, most: int, form: Format, skip: int = -1) -> dict[int, RancCore]:
    """Core index -> core, for every csram_NNN.mem of a folder except index `skip` (the bus). Raises FileError."""
    files = _core_files(Path(folder), most)
    return {index: _read_core(*files[index], form) for index in sorted(files) if index != skip}


def _core_files(place: Path, most: int) -> dict[int, tuple[Path, Path]]:
    """Core index -> its csram and tc file."""
    if not place.is_dir():
        raise FileError(f"{place}: not a folder; give one that holds csram_NNN.mem, tc_NNN.mem and tb_*.txt")
    found: dict[int, tuple[Path, Path]] = {}
    for path in sorted(place.iterdir()):
        match = re.fullmatch(r"csram_(\d{1,9})\.mem", path.name)
        if match is None:
            continue
        index = int(match[1])
        if index >= most:
            raise FileError(f"{path}: core {index} is outside the grid of {most} cores; check --grid")
        if index in found:
            raise FileError(f"{path}: core {index} has two files, also {found[index][0].name}")
        found[index] = (path, path.with_name(f"tc_{match[1]}.mem"))
    return found


def read_text(path: Path) -> bytes:
    """A text file without its // and /* */ comments."""
    try:
        if not path.is_file():
            raise FileError(f"{path}: missing; the folder is incomplete")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise FileError(f"{path}: {size} bytes; more than {MOST_BYTES} are refused")
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error
    return COMMENT.sub(b" ", data) if b"/" in data else data


def read_bits(path: Path, width: int | None = None) -> Bits:
    """Binary words of one width as a (words, width) array of 0 and 1."""
    data = read_text(path)
    first = data.find(b"\n")
    if first > 0 and (width or first) == first and len(data) % (first + 1) == 0:
        table = np.frombuffer(data, np.uint8).reshape(-1, first + 1)
        bits = table[:, :-1] - np.uint8(48)
        if (table[:, -1] == 10).all() and (bits <= 1).all():  # nothing but lines of one length: millions of packets
            return bits
    words = data.split()
    if not words:
        return np.zeros((0, width or 0), np.uint8)
    want = width or len(words[0])
    if any(len(word) != want for word in words):
        k = next(k for k, word in enumerate(words) if len(word) != want)
        raise FileError(f"{path}: word {k + 1} has {len(words[k])} bits, expected {want}; truncated, or another format")
    bits = np.frombuffer(b"".join(words), np.uint8) - np.uint8(48)
    if (bits > 1).any():
        k = int((bits > 1).argmax()) // want
        raise FileError(f"{path}: word {k + 1} is not binary: {words[k][:20]!r}")
    return bits.reshape(len(words), want)


def _integers(bits: Bits, signed: bool) -> NDArray[np.int64]:
    """(words, width) bits, most significant first -> (words,) integers."""
    weights = 1 << np.arange(bits.shape[1], dtype=np.int64)[::-1]
    if signed:
        weights[0] = -weights[0]
    return bits @ weights


def _read_core(csram: Path, tc: Path, form: Format) -> RancCore:
    bits = read_bits(csram)
    if bits.shape[0] != form.neurons:
        raise FileError(f"{csram}: {bits.shape[0]} neurons, expected {form.neurons}; truncated, or check --neurons")
    rest = bits.shape[1] - form.line
    if rest < 2 or rest % 2 or rest > 32:
        raise FileError(
            f"{csram}: lines of {bits.shape[1]} bits leave {rest} for dx and dy; "
            f"check --axons {form.axons}, --bits {form.bits} "
            "and --reset-field"
        )
    at = form.axons

    def take(width: int, signed: bool = True) -> NDArray[np.int64]:
        nonlocal at
        at += width
        return _integers(bits[:, at - width : at], signed)

    types = read_bits(tc)
    if types.shape[0] != form.axons:
        raise FileError(f"{tc}: {types.shape[0]} axon types, expected {form.axons}; truncated, or check --axons")
    kinds = _integers(types, False)
    if (kinds >= form.weights).any():
        raise FileError(f"{tc}: axon type {int(kinds.max())}, but neurons have {form.weights} weights")
    return RancCore(
        connections=bits[:, : form.axons][:, ::-1].T,
        types=kinds,
        v=take(form.bits),
        reset=take(form.bits),
        weights=np.stack([take(form.bits) for _ in range(form.weights)], 1),
        leak=take(form.bits),
        positive=take(form.bits),
        negative=take(form.bits),
        mode=take(1, False) if form.reset_bits else np.full(form.neurons, form.reset_mode, np.int64),
        dx=take(rest // 2),
        dy=take(rest // 2),
        axon=take(form.axon_bits, False),
        tick=take(form.tick_bits, False),
    )


def _read_counts(path: Path, total: int, what: str) -> NDArray[np.int64]:
    words = read_text(path).split()
    if any(not word.isdigit() or len(word) > 9 for word in words):
        k = next(k for k, word in enumerate(words) if not word.isdigit() or len(word) > 9)
        raise FileError(f"{path}: word {k + 1} is not a count: {words[k][:20]!r}")
    ends = np.cumsum(np.array([int(word) for word in words], np.int64))
    have = int(ends[-1]) if ends.size else 0
    if have != total:
        raise FileError(f"{path}: announces {have} {what}, the file beside it holds {total}; one of them is truncated")
    return ends


def read_inputs(folder: str | Path, form: Format) -> Packets:
    """tb_input.txt and tb_num_inputs.txt -> packets with fields x, y, axon, tick."""
    path = Path(folder) / "tb_input.txt"
    bits = read_bits(path)
    ends = _read_counts(Path(folder) / "tb_num_inputs.txt", bits.shape[0], "packets")
    if not bits.shape[0]:
        return Packets(ends, {name: np.zeros(0, np.int64) for name in ("x", "y", "axon", "tick")})
    rest = bits.shape[1] - form.axon_bits - form.tick_bits
    if rest < 2 or rest % 2 or rest > 32:
        raise FileError(
            f"{path}: packets of {bits.shape[1]} bits leave {rest} for dx and dy; check --axons {form.axons}"
        )
    cuts = np.cumsum([rest // 2, rest // 2, form.axon_bits])
    x, y, axon, tick = (_integers(part, False) for part in np.split(bits, cuts, axis=1))
    if (axon >= form.axons).any():
        raise FileError(f"{path}: axon {int(axon.max())}, but cores have {form.axons}; check --axons")
    return Packets(ends, {"x": x, "y": y, "axon": axon, "tick": tick})


def read_outputs(folder: str | Path, outputs: int) -> Packets:
    """tb_correct.txt and tb_num_outputs.txt -> field line: the output lines that must spike in each tick."""
    path = Path(folder) / "tb_correct.txt"
    bits = read_bits(path)
    ends = _read_counts(Path(folder) / "tb_num_outputs.txt", bits.shape[0], "outputs")
    line = _integers(bits, False) if bits.size else np.zeros(0, np.int64)
    if bits.shape[1] > 32 or (line >= outputs).any():
        raise FileError(f"{path}: an output of {bits.shape[1]} bits is not below {outputs}; check --outputs")
    return Packets(ends, {"line": line})


def write_cores(folder: str | Path, cores: dict[int, RancCore], form: Format) -> None:
    """Write csram_NNN.mem and tc_NNN.mem of every core, each file atomically. Raises ParameterError if a value does
    not fit.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    type_bits = max(1, (form.weights - 1).bit_length())
    for index, core in cores.items():
        if core.connections.shape != (form.axons, form.neurons):
            raise ParameterError(
                f"core {index}: connections must be ({form.axons}, {form.neurons}), got {core.connections.shape}"
            )
        b, signed = form.bits, True
        fields: list[tuple[str, Any, int, bool]] = [("v", core.v, b, signed), ("reset", core.reset, b, signed)]
        fields += [(f"weight {g}", core.weights[:, g], b, signed) for g in range(form.weights)]
        fields += [("leak", core.leak, b, signed), ("positive threshold", core.positive, b, signed)]
        fields += [("negative threshold", core.negative, b, signed)]
        if form.reset_bits:
            fields += [("reset mode", core.mode, form.reset_bits, False)]
        fields += [("dx", core.dx, form.coordinate_bits, signed), ("dy", core.dy, form.coordinate_bits, signed)]
        fields += [("axon", core.axon, form.axon_bits, False), ("tick", core.tick, form.tick_bits, False)]
        columns = [np.asarray(core.connections, np.uint8).T[:, ::-1]]
        columns += [_bits(value, width, sign, f"core {index}: {name}") for name, value, width, sign in fields]
        _write_lines(place / f"csram_{index:03d}.mem", np.concatenate(columns, 1))
        _write_lines(place / f"tc_{index:03d}.mem", _bits(core.types, type_bits, False, f"core {index}: axon type"))


def write_inputs(folder: str | Path, packets: Packets, form: Format) -> None:
    """Write tb_input.txt and tb_num_inputs.txt."""
    place, p = Path(folder), packets.fields
    widths = {"x": form.coordinate_bits, "y": form.coordinate_bits, "axon": form.axon_bits, "tick": form.tick_bits}
    _write_lines(
        place / "tb_input.txt", np.concatenate([_bits(p[k], w, False, f"packets: {k}") for k, w in widths.items()], 1)
    )
    _write_text(place / "tb_num_inputs.txt", b"".join(b"%d\n" % n for n in np.diff(packets.ends, prepend=0)))


def write_outputs(folder: str | Path, packets: Packets, outputs: int) -> None:
    """Write tb_correct.txt and tb_num_outputs.txt."""
    place, width = Path(folder), max(1, (outputs - 1).bit_length())
    _write_lines(place / "tb_correct.txt", _bits(packets.fields["line"], width, False, "outputs: line"))
    _write_text(place / "tb_num_outputs.txt", b"".join(b"%d\n" % n for n in np.diff(packets.ends, prepend=0)))


def _bits(values: NDArray[Any], width: int, signed: bool, name: str) -> Bits:
    """(words,) integers -> (words, width) bits, most significant first, two's complement."""
    array = np.asarray(values, np.int64)
    low, high = (-(1 << width - 1), (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)
    if array.size and (array.min() < low or array.max() > high):
        raise ParameterError(f"{name} must lie in {low}..{high} ({width} bits), got {array.min()}..{array.max()}")
    return (array[:, None] >> np.arange(width)[::-1] & 1).astype(np.uint8)


def _write_lines(path: Path, bits: Bits) -> None:
    lines = np.full((bits.shape[0], bits.shape[1] + 1), ord("\n"), np.uint8)
    lines[:, :-1] = bits + np.uint8(48)
    _write_text(path, lines.tobytes())


def _write_text(path: Path, data: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(data)
