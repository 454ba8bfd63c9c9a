"""Files from strangers: whatever goes wrong while reading one is a `DataError`, and no file may claim to be huge."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuro.errors import DataError, NeuroError

#: A file that claims more than this must also store a fair part of it: pixels seldom compress beyond 50 to 1.
HARMLESS_BYTES = 64 * 2**20
LARGEST_RATIO = 200
#: A single recording is read whole, up to this size.
LARGEST_RECORDING = 2**30


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every failure of a parser into one line that names the file."""
    try:
        yield
    except NeuroError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        SyntaxError,
        RuntimeError,
        MemoryError,
        OverflowError,
        struct.error,
        tokenize.TokenError,  # numpy, on a malformed .npy header
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
    ) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: cannot be read as data ({reason}); get an intact copy") from error


def refuse_bomb(path: Path, declared: int, stored: int) -> None:
    """Refuse before reading: `declared` bytes after unpacking against `stored` bytes on disk."""
    if declared > HARMLESS_BYTES and declared > LARGEST_RATIO * stored:
        raise DataError(
            f"{path}: claims {declared:,} bytes but stores {stored:,}; refused as a decompression bomb, "
            "store it uncompressed if it is real"
        )


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Begin every DataError of what was read from `path` with it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_bounded(path: Path) -> bytes:
    """All bytes of one recording; DataError where it cannot be read or is larger than `LARGEST_RECORDING`."""
    with reading(path), path.open("rb") as file:
        data = file.read(LARGEST_RECORDING + 1)
    if len(data) > LARGEST_RECORDING:
        raise DataError(f"{path}: holds more than {LARGEST_RECORDING:,} bytes, too much for one recording; cut it up")
    return data
