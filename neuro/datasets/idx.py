"""IDX files (Y. LeCun's MNIST format), plain or gzipped: two zero bytes, type, rank, big-endian sizes, values."""

from __future__ import annotations

import gzip
import hashlib
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from neuro.datasets.guard import reading, refuse_bomb
from neuro.datasets.split import Arrays, Pair
from neuro.errors import DataError

NOT_CHECKED: Mapping[tuple[str, str], str] = MappingProxyType({})
TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
NAME = re.compile(r"(?P<stem>.*?(?P<part>train|t10k|test)-(?P<what>images|labels)[-.]idx[1-4]-u?byte)(?P<gz>\.gz)?")


def read_idx(path: Path, sha256: str | None = None) -> np.ndarray:
    """The array in an IDX file. `sha256`, of the unpacked file, is checked if given. DataError if anything is amiss."""
    with reading(path):
        stored = path.stat().st_size
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4)
            if len(header) < 4 or header[:2] != b"\0\0" or header[2] not in TYPES or not 1 <= header[3] <= 8:
                raise DataError(f"{path}: not an IDX file, it begins with {header.hex(' ') or 'nothing'}")
            sizes = file.read(4 * header[3])
            shape = struct.unpack(f">{header[3]}I", sizes)
            dtype = np.dtype(TYPES[header[2]])
            declared = math.prod(shape) * dtype.itemsize
            refuse_bomb(path, declared, stored)
            values = file.read(declared)
            if len(values) < declared or file.read(1):
                relation = "ends early" if len(values) < declared else "goes on after that"
                raise DataError(f"{path}: its header promises {shape} {dtype.name} but the file {relation}")
        if sha256 is not None and hashlib.sha256(header + sizes + values).hexdigest() != sha256:
            raise DataError(
                f"{path}: its content is not the published one (SHA-256); replace it, or load the folder by path"
            )
        return np.frombuffer(values, dtype).reshape(shape)


def find_idx(folder: Path) -> dict[tuple[str, str], Path]:
    """IDX files of a folder by (part, what): ("train" or "test", "images" or "labels"). Plain files go before .gz."""
    found: dict[tuple[str, str], tuple[str, Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = NAME.fullmatch(path.name)
        if match is None or not path.is_file():
            continue
        key = ("train" if match["part"] == "train" else "test", match["what"])
        if key in found and found[key][0] != match["stem"]:
            raise DataError(f"{folder}: {found[key][1].name} and {path.name} both are {' '.join(key)}; keep one")
        found.setdefault(key, (match["stem"], path))
    return {key: path for key, (_, path) in found.items()}


def idx_folder(folder: Path, sha256: Mapping[tuple[str, str], str] = NOT_CHECKED) -> Arrays:
    """A folder of IDX files named as MNIST's are. `sha256` by (part, what): what each unpacked file must have."""
    files = find_idx(folder)

    def pair(part: str) -> Pair | None:
        present = [what for what in ("images", "labels") if (part, what) in files]
        if not present:
            return None
        if len(present) == 1:
            raise DataError(f"{folder}: has {part} {present[0]} only; put the other {part} file beside it")
        images, labels = (read_idx(files[part, what], sha256.get((part, what))) for what in ("images", "labels"))
        return images, labels

    return Arrays(pair("train"), pair("test"), f"IDX files in {folder}")
