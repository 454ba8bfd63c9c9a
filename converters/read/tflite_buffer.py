"""The FlatBuffers layout of .tflite files: tables of optional fields, each found by offsets that are not believed.

FlatBuffers internals, "Encoding"; field numbers from tensorflow/lite/schema/schema.fbs (version 3) [recalled].
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_ELEMENTS = 10_000
"""Of a vector of tables; a network has fewer tensors and operators."""

_CODES = {"i1": "<b", "u1": "<B", "i4": "<i", "u4": "<I", "f4": "<f", "u2": "<H"}


@dataclass(frozen=True)
class Table:
    """One table of the file `data`, at byte `place`. Reading beyond the file raises struct.error or ValueError."""

    data: bytes
    place: int

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, _number(data, 0, "u4"))

    def _field(self, index: int) -> int:
        """Where a field lies; 0 if it was left out."""
        vtable = self.place - _number(self.data, self.place, "i4")
        slot = 4 + 2 * index
        if vtable < 0 or slot + 2 > _number(self.data, vtable, "u2"):
            return 0
        offset = _number(self.data, vtable + slot, "u2")
        return self.place + offset if offset else 0

    def number(self, index: int, code: str, default: float = 0) -> float:
        at = self._field(index)
        return _number(self.data, at, code) if at else default

    def integer(self, index: int, code: str = "i4", default: int = 0) -> int:
        return int(self.number(index, code, default))

    def table(self, index: int) -> Table | None:
        at = self._field(index)
        return Table(self.data, at + _number(self.data, at, "u4")) if at else None

    def vector(self, index: int, dtype: str) -> NDArray[np.generic]:
        """A view of numbers; empty if the field was left out."""
        at = self._field(index)
        if not at:
            return np.empty(0, dtype)
        start = at + _number(self.data, at, "u4")
        return np.frombuffer(self.data, dtype, _number(self.data, start, "u4"), start + 4)

    def tables(self, index: int) -> list[Table]:
        at = self._field(index)
        if not at:
            return []
        start = at + _number(self.data, at, "u4")
        count = _number(self.data, start, "u4")
        if count > MOST_ELEMENTS:
            raise ValueError(f"a vector of {count} tables")
        places = [start + 4 + 4 * item for item in range(count)]
        return [Table(self.data, place + _number(self.data, place, "u4")) for place in places]

    def text(self, index: int) -> str:
        return self.vector(index, "u1").tobytes()[:500].decode("utf-8", "replace")


def _number(data: bytes, place: int, code: str) -> int:
    if place < 0:
        raise ValueError("an offset before the file")
    return struct.unpack_from(_CODES[code], data, place)[0]


NOTHING = Table(struct.pack("<HHi", 4, 4, 4), 4)
"""A table without fields."""
