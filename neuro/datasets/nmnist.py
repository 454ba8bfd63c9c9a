"""N-MNIST (Orchard, Jayawant, Cohen, Thakor 2015, Front. Neurosci. 9:437): digits seen by a moving camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuro.datasets.events import Events, in_order
from neuro.datasets.guard import named, read_bounded
from neuro.errors import DataError

SIZE = (34, 34)
#: A record of this row is no event: the clock of the camera has wrapped, later times are this many microseconds more.
OVERFLOW_ROW, OVERFLOW_US = 240, 2**13


def read_nmnist(path: str | Path, size: tuple[int, int] = SIZE) -> Events:
    """One recording, a .bin file: records of 5 bytes, x, y, then polarity (1 bit, 1 is ON) and time (23 bits, us).

    Big-endian, as the authors' Read_Ndataset.m and tonic read it; N-Caltech101 files are the same with a larger `size`
    (height, width). DataError for a file that is no whole number of records, exceeds 1 GiB or leaves the sensor.
    """
    path = Path(path)
    data = read_bounded(path)
    if len(data) % 5:
        raise DataError(f"{path}: {len(data):,} bytes are no whole number of 5-byte records; get an intact copy")
    record = np.frombuffer(data, np.uint8).reshape(-1, 5).astype(np.int32)
    x, y = record[:, 0], record[:, 1]
    wraps = y == OVERFLOW_ROW
    low = (record[:, 2] & 0x7F) << 16 | record[:, 3] << 8 | record[:, 4]
    t = low + OVERFLOW_US * np.cumsum(wraps, dtype=np.int64)
    real = ~wraps
    with named(path):
        return in_order(t[real], x[real], y[real], record[real, 2] >= 0x80, size)
