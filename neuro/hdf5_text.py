"""Texts of variable length in HDF5 files from strangers, read without the HDF5 library.

The library makes room for whatever length a text claims before it looks for it, and a damaged heap can keep it busy
for ever. A text is stored as its length (4 bytes), the address of a global heap collection (8) and a number in it (4);
a collection holds objects one behind the other. Datasets say where these 16 bytes lie; those of an attribute stand in
the header of its object (HDF5 file format specification 3.0, sections III.E, IV.A and IV.B).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO

import h5py
import numpy as np
from h5py import h5a, h5o, h5t

HEAD, OBJECT, TEXT = struct.Struct("<4sB3xQ"), struct.Struct("<HH4xQ"), struct.Struct("<IQI")
LONGEST = 1 << 24
"""Bytes of all texts of one dataset together, and of one collection."""
_ATTRIBUTE, _CONTINUED = 0x0C, 0x10
_BLOCKS = 1000
"""Pieces of one header."""


class TextError(ValueError):
    """Texts are stored in a way that is damaged or not read here; says how."""


def strings(dataset: h5py.Dataset, budget: int = LONGEST) -> list[str]:
    """The texts of a dataset in C order, of at most `budget` bytes; TextError where they are not where it says."""
    if dataset.dtype.kind != "O":
        return [value.decode("utf-8", "replace") for value in np.atleast_1d(dataset[()]).ravel()]
    place, stored, count = dataset.id.get_offset(), dataset.id.get_storage_size(), dataset.size
    if place is None or stored != TEXT.size * count:
        raise TextError("holds text in pieces; write its names in one piece, as h5py does")
    with open(dataset.file.filename, "rb") as file:
        return _texts(file, _cut(file, place, stored), dataset.file.userblock_size, budget)


def attribute_text(item: h5py.Group, name: str, source: str | Path | bytes) -> str:
    """The text of an attribute of one text, "" where there is none; `source` is the file, or its content.

    Raises TextError where a text of variable length is not where it says.
    """
    key = name.encode()
    if not h5a.exists(item.id, key):
        return ""
    attribute = h5a.open(item.id, key)
    kind = attribute.get_type()
    if not isinstance(kind, h5t.TypeStringID) or attribute.shape not in ((), (1,)):
        return ""
    if not kind.is_variable_str():
        value = item.attrs[name]
        found = value if attribute.shape == () else value[0]
        return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
    base = item.file.userblock_size
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        for content in _messages(file, base, h5o.get_info(item.id).addr):
            if (stored := _value_of(content, key)) is not None:
                return _texts(file, stored[: TEXT.size], base, LONGEST)[0]
    raise TextError(f"its attribute {name!r} is kept apart from the header; save the file again with h5py")


def _cut(file: IO[bytes], place: int, length: int) -> bytes:
    file.seek(place)
    found = file.read(length) if 0 <= length <= LONGEST * TEXT.size else b""
    if len(found) != length:
        raise TextError("lies beyond the end of the file; get another copy")
    return found


def _texts(file: IO[bytes], heads: bytes, base: int, budget: int) -> list[str]:
    end = file.seek(0, 2)
    found: list[str] = []
    collections = lru_cache(maxsize=8)(lambda address: _collection(file, base + address, end))
    for length, address, number in TEXT.iter_unpack(heads):
        if length > end:
            raise TextError("holds a text longer than the file or than any name; get another copy")
        if (budget := budget - length) < 0:
            raise TextError("holds texts that are too long together; do not use this file")
        text = collections(address).get(number, b"") if length else b""
        if len(text) < length:
            raise TextError("holds a text that is not where it says; get another copy")
        found.append(text[:length].split(b"\0")[0].decode("utf-8", "replace"))
    return found


def _collection(file: IO[bytes], address: int, end: int) -> dict[int, bytes]:
    """The objects of one global heap collection by their numbers."""
    if address + HEAD.size > end:
        raise TextError("points beyond the end of the file; get another copy")
    signature, version, size = HEAD.unpack(_cut(file, address, HEAD.size))
    if signature != b"GCOL" or version != 1 or size > min(LONGEST, end - address):
        raise TextError("points to no collection of texts; get another copy")
    held = file.read(size - HEAD.size) if size > HEAD.size else b""
    objects: dict[int, bytes] = {}
    at = 0
    while at + OBJECT.size <= len(held):
        number, _, length = OBJECT.unpack_from(held, at)
        if number == 0:
            break
        at += OBJECT.size
        objects[number] = held[at : at + length]
        at += -(-length // 8) * 8
    return objects


def _messages(file: IO[bytes], base: int, address: int) -> Iterator[bytes]:
    """The attribute messages in the header of the object at `address`."""
    start = _cut(file, base + address, 16)
    if start[:4] == b"OHDR":
        flags = start[5]
        size_at = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        place = base + address + size_at + width
        size = int.from_bytes(_cut(file, place - width, width), "little")
        message = struct.Struct("<BHB2x" if flags & 4 else "<BHB")
    elif start[0] == 1:
        place, size, message = base + address + 16, int.from_bytes(start[8:12], "little"), struct.Struct("<HHB3x")
    else:
        raise TextError("has a header of an unknown kind; get another copy")
    waiting = [(place, size)]
    for _ in range(_BLOCKS):
        if not waiting:
            return
        block = _cut(file, *waiting.pop())
        at = 0
        while at + message.size <= len(block):
            kind, length, flags = message.unpack_from(block, at)
            at += message.size
            content = block[at : at + length]
            at += length
            if kind == _CONTINUED and length >= 16:
                further, extent = struct.unpack_from("<QQ", content)
                # Later headers mark the piece with four letters before it and a checksum of four bytes behind.
                later = 4 if start[:4] == b"OHDR" else 0
                waiting.append((base + further + later, extent - 2 * later))
            elif kind == _ATTRIBUTE and not flags & 2:
                yield content
    raise TextError("has a header in too many pieces; get another copy")


def _value_of(message: bytes, name: bytes) -> bytes | None:
    """The value that an attribute message holds, where it is of that name."""
    if len(message) < 9:
        return None
    version, _, *sizes = struct.unpack_from("<BBHHH", message)
    at = 9 if version == 3 else 8
    wide = [-(-size // 8) * 8 for size in sizes] if version == 1 else sizes
    if message[at : at + sizes[0]].split(b"\0")[0] != name:
        return None
    stored = message[at + sum(wide) :]
    return stored if len(stored) >= TEXT.size else None
