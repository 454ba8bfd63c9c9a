"""NumPy archives: x_train, y_train, x_test, y_test, or x, y with a fixed split; class names in `class_names`."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from neuro.datasets.guard import reading, refuse_bomb
from neuro.datasets.split import Arrays, Pair
from neuro.errors import DataError

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def npz_keys(path: Path) -> list[str]:
    with reading(path), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def read_npz(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of an .npz file, without pickles; sizes are checked against what is stored before reading."""
    with reading(path), zipfile.ZipFile(path) as archive:
        members = {name: archive.getinfo(f"{name}.npy") for name in keys if f"{name}.npy" in archive.namelist()}
        absent = [name for name in keys if name not in members]
        if absent:
            raise DataError(f"{path}: has no array {', '.join(absent)}")
        refuse_bomb(path, sum(member.file_size for member in members.values()), path.stat().st_size)
        arrays = {}
        for name, member in members.items():
            with archive.open(member) as file:
                _refuse_false_header(path, name, file, member.file_size)
            with archive.open(member) as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
        return arrays


def npz_file(path: Path) -> Arrays:
    """A data set in one .npz file. DataError unless it holds x_train, y_train and/or x_test, y_test, or x, y."""
    present = npz_keys(path)
    pairs = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
    parts = {part: names for part, names in pairs.items() if any(name in present for name in names)}
    if not parts and {"x", "y"} <= set(present):
        parts = {"train": ("x", "y")}
    if not parts:
        raise DataError(
            f"{path}: needs arrays x_train, y_train, x_test, y_test, or x, y; "
            f"it has {', '.join(present[:12]) or 'none'}"
        )
    names = ["class_names"] if "class_names" in present else []
    arrays = read_npz(path, [key for pair in parts.values() for key in pair] + names)

    def pair(part: str) -> Pair | None:
        return (arrays[parts[part][0]], arrays[parts[part][1]]) if part in parts else None

    classes = tuple(str(label) for label in arrays["class_names"].ravel()) if names else None
    return Arrays(pair("train"), pair("test"), f"NumPy archive {path}", classes)


def _refuse_false_header(path: Path, name: str, file: IO[bytes], size: int) -> None:
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise DataError(f"{path}: array {name} has the unknown .npy version {version}; save it again with numpy.savez")
    shape, _, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise DataError(f"{path}: array {name} holds pickled objects, which may run code; save it as plain numbers")
    declared, stored = math.prod(shape) * dtype.itemsize, size - file.tell()
    if any(length < 0 for length in shape) or declared != stored:
        raise DataError(f"{path}: array {name} claims {shape} {dtype} ({declared:,} bytes) but stores {stored:,}")
