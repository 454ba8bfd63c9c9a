"""AEDAT, the files of iniVation's cameras (jAER, cAER, DV): versions 2.0 and 3.1 here, 4.0 through tonic.

Source: iniVation, "AEDAT file formats" (docs.inivation.com); for version 2.0, whose addresses mean what jAER's class of
the chip says, jAER's DVS128 and DavisBaseCamera: both mirror x and count y from below, and a set polarity bit is OFF in
DVS128 but ON in DAVIS.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from neuro.datasets.events import Events, from_tonic, in_order
from neuro.datasets.guard import named, read_bounded
from neuro.errors import BackendMissing, DataError, ParameterError


@dataclass(frozen=True)
class Layout:
    """Bits of a version 2.0 address: shift and width of x and y, and the bits that mark polarity and other events."""

    x: tuple[int, int]
    y: tuple[int, int]
    polarity: int
    set_is_on: bool
    other: int


DVS128 = Layout(x=(1, 7), y=(8, 7), polarity=1 << 0, set_is_on=False, other=1 << 15)
DAVIS = Layout(x=(12, 10), y=(22, 9), polarity=1 << 11, set_is_on=True, other=1 << 31 | 1 << 10)


@dataclass(frozen=True)
class Sensor:
    """size: (height, width). layout: of version 2.0, None for cameras that never wrote it."""

    size: tuple[int, int]
    layout: Layout | None = None


SENSORS = MappingProxyType(
    {
        "dvs128": Sensor((128, 128), DVS128),
        "davis128": Sensor((128, 128), DAVIS),
        "davis240": Sensor((180, 240), DAVIS),
        "davis346": Sensor((260, 346), DAVIS),
        "davis640": Sensor((480, 640), DAVIS),
        "dvxplorer-lite": Sensor((240, 320)),
        "dvxplorer": Sensor((480, 640)),
    }
)

PACKET = struct.Struct("<hhiiiiii")
POLARITY_TYPE, POLARITY_BYTES = 1, 8


def read_aedat(path: str | Path, sensor: str | None = None) -> Events:
    """The polarity events of an .aedat file; frames, triggers and motion samples are passed over.

    sensor: one of `SENSORS`; None: the one that the header names. Times are those of the file, in microseconds, made
    continuous where the clock wraps. (0, 0) is the upper left corner, as in version 3.1.
    DataError for a file that is no AEDAT, is truncated, exceeds 1 GiB, names no known sensor or leaves it;
    BackendMissing for version 4.0 without tonic and aedat.
    """
    path = Path(path)
    if sensor is not None and sensor not in SENSORS:
        raise ParameterError(f"sensor must be one of {', '.join(SENSORS)}, got {sensor!r}")
    data = read_bounded(path)
    with named(path):
        version, header, body = _header(data)
        if version == "2.0":
            return _version_2(data[body:], _sensor(header, sensor))
        if version == "3.1":
            return _version_3(data, body, _sensor(header, sensor))
        return _version_4(path, _sensor(header, sensor))


def _header(data: bytes) -> tuple[str, str, int]:
    """(version, text, where it ends). A line begins with # and is plain text: an address may begin with # as well."""
    end = 0
    while data[end : end + 1] == b"#":
        stop = data.find(b"\n", end)
        line = data[end:stop] if stop >= 0 else b""
        if not line.rstrip(b"\r").replace(b"\t", b" ").decode("latin-1").isprintable() or not line:
            break
        end = stop + 1
        if line.startswith((b"#!END-HEADER", b"#End Of ASCII Header")):
            break
    text = data[:end].decode("latin-1")
    version = text.split("\n")[0].strip().removeprefix("#!AER-DAT")
    if version not in ("2.0", "3.1", "4.0"):
        raise DataError(
            f"not AEDAT 2.0, 3.1 or 4.0, it begins with {data[:16]!r}; convert it with DV or get an intact copy"
        )
    if version == "3.1" and "#!END-HEADER" not in text:
        raise DataError("its header has no #!END-HEADER line; get an intact copy")
    return version, text, end


def _sensor(header: str, wanted: str | None) -> Sensor:
    """The sensor asked for, or the one named after "AEChip:" (version 2.0) or "#Source N:" (3.1)."""
    if wanted is not None:
        return SENSORS[wanted]
    found = re.search(r"^# ?AEChip: *(?:\w+\.)*(\w+)|^#Source \d+: *(\w+)", header, re.MULTILINE)
    title = (found[1] or found[2]).lower() if found else ""
    fitting = [name for name in sorted(SENSORS, key=len, reverse=True) if title.startswith(name)]
    if not fitting:
        raise DataError(
            f"its header names {repr(title) if title else 'no sensor'}; say sensor=, one of {', '.join(SENSORS)}"
        )
    return SENSORS[fitting[0]]


def _version_2(body: bytes, sensor: Sensor) -> Events:
    """Pairs of big-endian 32-bit numbers, address and time."""
    layout = sensor.layout
    if layout is None:
        raise DataError("is of version 2.0, which this sensor never wrote; say another sensor=")
    if len(body) % 8:
        raise DataError(f"{len(body):,} bytes of events are no whole number of 8-byte records; get an intact copy")
    pairs = np.frombuffer(body, ">u4").reshape(-1, 2).astype(np.int64)
    address = pairs[:, 0]
    if layout is DVS128 and np.any(address >> 16):
        raise DataError("has addresses of more than 16 bits, which no DVS128 writes; say another sensor=")
    wraps = np.cumsum(np.diff(pairs[:, 1], prepend=pairs[:1, 1]) < -(2**31))
    t = pairs[:, 1] + wraps * 2**32
    real = address & layout.other == 0
    address, t = address[real], t[real]
    height, width = sensor.size
    column, row = (address >> shift & (1 << bits) - 1 for shift, bits in (layout.x, layout.y))
    on = (address & layout.polarity != 0) == layout.set_is_on
    return in_order(t, width - 1 - column, height - 1 - row, on, sensor.size)


def _version_3(data: bytes, start: int, sensor: Sensor) -> Events:
    """Packets: a header of 28 bytes, then events of one type; little-endian."""
    at, records, late = start, [], []
    while at < len(data):
        if len(data) - at < PACKET.size:
            raise DataError(f"ends inside the header of the packet at byte {at:,}; get an intact copy")
        kind, _, size, _, overflow, capacity, number, _ = PACKET.unpack_from(data, at)
        at += PACKET.size
        if size < 1 or overflow < 0 or not 0 <= number <= capacity or capacity * size > len(data) - at:
            raise DataError(
                f"the packet at byte {at - PACKET.size:,} claims {number:,} of {capacity:,} events of {size:,} bytes, "
                f"{len(data) - at:,} bytes are left; get an intact copy"
            )
        if kind == POLARITY_TYPE:
            if size != POLARITY_BYTES:
                raise DataError(f"the packet at byte {at - PACKET.size:,} has polarity events of {size} bytes, not 8")
            records.append(np.frombuffer(data, "<u4", 2 * number, at).reshape(-1, 2))
            late.append(np.full(number, overflow, np.int64))
        at += capacity * size
    pairs = np.concatenate([np.empty((0, 2), np.uint32), *records]).astype(np.int64)
    t = (np.concatenate([np.empty(0, np.int64), *late]) << 31) + pairs[:, 1]
    valid = pairs[:, 0] & 1 == 1
    word, t = pairs[valid, 0], t[valid]
    return in_order(t, word >> 17, word >> 2 & 0x7FFF, word >> 1 & 1, sensor.size)


def _version_4(path: Path, sensor: Sensor) -> Events:
    try:
        from tonic.io import read_aedat4
    except ImportError as error:
        raise BackendMissing(f"{path}: is AEDAT 4.0, which tonic reads; pip install tonic aedat") from error
    try:
        recording = read_aedat4(str(path))
    except ImportError as error:
        raise BackendMissing(f"{path}: is AEDAT 4.0, for which tonic needs aedat; pip install aedat") from error
    except Exception as error:  # a foreign parser may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"cannot be read as AEDAT 4.0 ({reason}); get an intact copy") from error
    return from_tonic(recording, sensor.size)
