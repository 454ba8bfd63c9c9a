"""The two file formats of Keras, taken apart: what the layers are, how they are joined, where their weights lie.

`.h5` (Keras 2 and later): the description is JSON in the attribute `model_config`; the weights of layer `x` lie below
the group `model_weights/x`, named `x/kernel:0` and so on. `.keras` (Keras 3): a zip archive of `config.json`,
`metadata.json` and `model.weights.h5`, where the k-th layer of a class has the group `layers/<class>_<k>/vars` with
weights numbered in the order of their making. Nothing in a file is executed, whatever it names.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from converters.read.keras_model import Model, model_of
from converters.read.keras_weights import Named, Numbered, groups
from neuro.errors import FileError, NeuroError
from neuro.hdf5_guard import Limits, open_guarded, regular_file_size
from neuro.hdf5_text import TextError, attribute_text
from neuro.zip_guard import checked_members

WEIGHTS = "model.weights.h5"

_LONGEST_TEXT = 1 << 24
_EXPANSION = 20
"""Bytes of a zip member for each byte stored, beyond `_SLACK`: Keras stores without compression."""
_SLACK = 1 << 23


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[Model, int]]:
    """The model in a file, with the major version of Keras that wrote it. Weights can be read inside the block.

    Raises FileError for files that are damaged, hostile, of another kind, or hold weights only.
    """
    size = regular_file_size(path)
    try:
        with open(path, "rb") as file:
            start = file.read(4)
        reader = _from_zip if start[:2] == b"PK" else _from_hdf5
        with reader(path, size) as found:
            yield found
    except NeuroError as error:
        if str(path) in str(error):
            raise
        raise FileError(f"{path}: {error}") from error
    except TextError as error:
        raise FileError(f"{path}: its description {error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RecursionError, ValueError,
            KeyError, TypeError, AttributeError, IndexError) as error:  # fmt: skip
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise FileError(f"{path}: damaged or no Keras model ({text}); save it again with model.save") from error


def _limits(size: int) -> Limits:
    return Limits(total=max(1 << 26, 16 * size), ratio=16, strings=200_000, lists_of_text=True)


@contextmanager
def _from_hdf5(path: str | Path, size: int) -> Iterator[tuple[Model, int]]:
    with open_guarded(path, limits=_limits(size)) as file:
        if "model_config" not in file.attrs:
            raise FileError(
                f"{path}: has no attribute model_config, so it holds at most weights; save it whole, with model.save"
            )
        versions = (attribute_text(item, "keras_version", path) for item in (file, file["model_weights"]))
        version = next(filter(None, versions), "2")
        described = _parsed(attribute_text(file, "model_config", path))
        yield model_of(described, Named(dict(groups(file["model_weights"]))), 0), _major(version)


@contextmanager
def _from_zip(path: str | Path, size: int) -> Iterator[tuple[Model, int]]:
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in checked_members(archive, path)}
        for member in members.values():
            if member.file_size > _EXPANSION * member.compress_size + _SLACK:
                raise FileError(
                    f"{path}: member {member.filename!r} expands {member.compress_size} bytes to {member.file_size}; "
                    "Keras stores without compression, so do not use this file unless its author can explain it"
                )
        if "config.json" not in members or WEIGHTS not in members:
            raise FileError(
                f"{path}: a zip archive without config.json and {WEIGHTS}; give a file that Keras 3 saved as .keras"
            )
        described = _parsed(_text(archive, members["config.json"]))
        metadata = _parsed(_text(archive, members["metadata.json"])) if "metadata.json" in members else {}
        content = archive.read(members[WEIGHTS])
    with open_guarded(f"{path}:{WEIGHTS}", limits=_limits(len(content)), content=content) as file:
        yield model_of(described, Numbered(file["/"], content), 0), _major(str(metadata.get("keras_version", "3")))


def _text(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str:
    if member.file_size > _LONGEST_TEXT:
        raise ValueError(f"{member.filename} has {member.file_size} bytes")
    return archive.read(member).decode("utf-8")


def _parsed(text: str) -> dict[str, Any]:
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"a description of {len(text)} characters")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("the description is no JSON object")
    return found


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number in ("1", "2", "3") else 3
