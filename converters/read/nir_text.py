"""Texts of variable length in HDF5 files from strangers, read without the HDF5 library.

The library makes room for whatever length a text claims before it looks for it, and a damaged heap can keep it busy
for ever. A text is stored as its length (4 bytes), the address of a global heap collection (8) and a number in it (4);
a collection holds objects one behind the other (HDF5 file format specification 3.0, sections III.E and IV.B).
"""

from __future__ import annotations

import struct
from functools import lru_cache

import h5py

HEAD, OBJECT, TEXT = struct.Struct("<4sB3xQ"), struct.Struct("<HH4xQ"), struct.Struct("<IQI")
LONGEST = 1 << 24
"""Bytes of all texts of one dataset together, and of one collection."""


class TextError(ValueError):
    """Texts are stored in a way that is damaged or not read here; says how."""


def variable_texts(dataset: h5py.Dataset) -> list[str]:
    """The texts of a contiguous dataset in C order; TextError where they are not where it says."""
    place, stored, count = dataset.id.get_offset(), dataset.id.get_storage_size(), dataset.size
    if place is None or stored != TEXT.size * count:
        raise TextError("holds text in pieces; write the file with the nir package")
    name, base = dataset.file.filename, dataset.file.userblock_size
    with open(name, "rb") as file:
        file.seek(place)
        heads = file.read(stored)
        end = file.seek(0, 2)
    if len(heads) != stored:
        raise TextError("lies beyond the end of the file; get another copy")
    found: list[str] = []
    left = LONGEST
    collections = lru_cache(maxsize=8)(lambda address: _collection(name, base + address, end))
    for length, address, number in TEXT.iter_unpack(heads):
        left -= length
        if length > end or left < 0:
            raise TextError("holds a text longer than the file or than any name; get another copy")
        text = collections(address).get(number, b"") if length else b""
        if len(text) < length:
            raise TextError("holds a text that is not where it says; get another copy")
        found.append(text[:length].split(b"\0")[0].decode("utf-8", "replace"))
    return found


def _collection(name: str, address: int, end: int) -> dict[int, bytes]:
    """The objects of one global heap collection by their numbers."""
    if address + HEAD.size > end:
        raise TextError("points beyond the end of the file; get another copy")
    with open(name, "rb") as file:
        file.seek(address)
        signature, version, size = HEAD.unpack(file.read(HEAD.size))
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
