"""HDF5 files from strangers: everything a file declares is weighed before anything in it is read.

HDF5 can point outside itself (external links, external storage, virtual datasets), can claim terabytes in
a hundred bytes (compression, late allocation) and can contain itself. Nothing of that is needed to hold a network, so
all of it is refused.
"""

from __future__ import annotations

import io
import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
from h5py import h5a, h5d, h5o, h5s, h5t

from neuro.errors import FileError, NeuroError
from neuro.hdf5_text import LONGEST, TextError, strings


@dataclass(frozen=True)
class Limits:
    """What a file may claim. Sizes in bytes."""

    total: int = 1 << 32
    """declared by all datasets and attributes together"""
    ratio: float = 100.0
    """declared over stored, for every dataset and for the whole file"""
    slack: int = 1 << 20
    """declared without any question, so that small well-compressed files pass"""
    objects: int = 100_000
    """groups, datasets and attributes together"""
    depth: int = 32
    """groups inside groups"""
    strings: int = 0
    """elements of variable-length strings; read those with `read_strings` or `neuro.hdf5_text`"""
    lists_of_text: bool = False
    """attributes with several variable-length strings may be there whatever they share; they must not be read then"""


GENERAL = Limits()
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32"}
"""Filters built into HDF5 itself; others load a plug-in, which is code."""

_PLAIN = {h5t.INTEGER, h5t.FLOAT, h5t.STRING, h5t.ENUM}
_BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError, NotImplementedError)
"""What h5py raises for damaged files, by experience with mutated ones."""


def guard(path: str | Path, *, limits: Limits = GENERAL) -> None:
    """Raise FileError, naming the file, the place in it and the rule, unless `path` is a harmless HDF5 file."""
    with open_guarded(path, limits=limits):
        pass


@contextmanager
def open_guarded(path: str | Path, *, limits: Limits = GENERAL, content: bytes | None = None) -> Iterator[h5py.File]:
    """The file, open for reading and already walked through; what h5py raises inside the block becomes a FileError.

    Only hard links, each object once, plain numbers and fixed-length strings, no storage outside the file, and no more
    declared than `limits` allow for what is stored (cf. CVE-2026-1669 and CVE-2026-0897 in Keras). Where the HDF5 file
    lies inside another file, `content` holds its bytes and `path` names it in messages only.
    """
    size = regular_file_size(path) if content is None else len(content)
    try:
        with h5py.File(path if content is None else io.BytesIO(content), "r", locking=False) as file:
            _Walk(str(path), size, limits).group(file["/"], "", 0)
            yield file
    except NeuroError:
        raise
    except _BROKEN as error:
        text = " ".join(str(error).split())
        raise FileError(f"{path}: damaged, truncated or not an HDF5 file ({text}); get another copy") from error


def regular_file_size(path: str | Path) -> int:
    """Bytes of a regular, non-empty file; FileError for anything else (a pipe would hang, /dev/zero never end)."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError) as error:
        raise FileError(
            f"{path}: cannot be opened ({getattr(error, 'strerror', None) or error}); check the path"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise FileError(f"{path}: is not a regular file; give the path of a file")
    if found.st_size == 0:
        raise FileError(f"{path}: is empty (0 bytes); get another copy")
    return found.st_size


def read_strings(dataset: h5py.Dataset, *, budget: int = LONGEST) -> list[str]:
    """The strings of a dataset in C order, at most `budget` bytes: many elements may share one long stored string.

    Lengths and places of variable strings are checked before anything is read (see `neuro.hdf5_text`).
    """
    try:
        return strings(dataset, budget)
    except TextError as error:
        raise FileError(f"{dataset.file.filename}: {dataset.name!r}: {error}") from error


class _Walk:
    """One pass over all objects: what was seen and what was declared so far."""

    def __init__(self, path: str, size: int, limits: Limits) -> None:
        self.path, self.size, self.limits = path, size, limits
        self.seen: set[int] = set()
        self.objects = self.declared = self.strings = 0

    def refuse(self, place: str, rule: str) -> FileError:
        shown = place if len(place) < 200 else f"{place[:200]}..."
        return FileError(f"{self.path}: {shown!r}: {rule}; do not use this file unless its author can explain it")

    def count(self, place: str, new: int) -> None:
        self.objects += new
        if self.objects > self.limits.objects:
            raise self.refuse(place, f"more than {self.limits.objects} objects")

    def group(self, group: h5py.Group, place: str, depth: int) -> None:
        if depth > self.limits.depth:
            raise self.refuse(place, f"groups nested deeper than {self.limits.depth}")
        self.attributes(group.id, place)
        self.count(place, len(group))
        for name in group:
            below = f"{place}/{name}"
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise self.refuse(below, f"is a {type(link).__name__}; only hard links are allowed")
            key = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
            info = h5o.get_info(group.id, key)
            if info.addr in self.seen:
                raise self.refuse(below, "is linked twice or contains itself; every object may appear once")
            self.seen.add(info.addr)
            if info.type == h5o.TYPE_GROUP:
                self.group(h5py.Group(h5o.open(group.id, key)), below, depth + 1)
            elif info.type == h5o.TYPE_DATASET:
                self.dataset(h5o.open(group.id, key), below)
            else:
                raise self.refuse(below, "is neither a group nor a dataset")

    def dataset(self, dataset: h5d.DatasetID, place: str) -> None:
        self.attributes(dataset, place)
        properties = dataset.get_create_plist()
        layout = properties.get_layout()
        if layout == h5d.VIRTUAL:
            raise self.refuse(place, "is a virtual dataset, made of other files")
        if layout == h5d.CONTIGUOUS and properties.get_external_count():
            raise self.refuse(place, "keeps its values in another file (external storage)")
        for index in range(properties.get_nfilters()):
            if (code := properties.get_filter(index)[0]) not in FILTERS:
                raise self.refuse(place, f"needs filter {code}; only {', '.join(FILTERS.values())} are allowed")
        declared = self.weigh(dataset.get_type(), dataset.get_space(), place)
        stored = dataset.get_storage_size()
        if declared > self.limits.ratio * stored + self.limits.slack:
            raise self.refuse(place, f"declares {declared} bytes but stores {stored}")
        if layout == h5d.CHUNKED:
            chunk = math.prod(properties.get_chunk()) * dataset.get_type().get_size()
            if chunk > declared + self.limits.slack:
                raise self.refuse(place, f"has chunks of {chunk} bytes for {declared} bytes of values")

    def attributes(self, item: h5py.h5g.GroupID | h5d.DatasetID, place: str) -> None:
        number = h5a.get_num_attrs(item)
        self.count(place, number)
        for index in range(number):
            attribute = h5a.open(item, index=index)
            name = attribute.name.decode("utf-8", "replace")
            self.weigh(attribute.get_type(), attribute.get_space(), f"{place}@{name}", whole=True)

    def weigh(self, kind: h5t.TypeID, space: h5s.SpaceID, place: str, whole: bool = False) -> int:
        """Bytes that reading this would fill, added to what the file declared before; attributes are read `whole`."""
        elements = math.prod(space.get_simple_extent_dims()) if space.get_simple_extent_type() != h5s.NULL else 0
        if kind.get_class() not in _PLAIN:
            raise self.refuse(
                place, "holds objects, references, opaque or compound values; only plain numbers and text"
            )
        if isinstance(kind, h5t.TypeStringID) and kind.is_variable_str():
            self.strings += elements
            if self.strings > self.limits.strings:
                raise self.refuse(place, f"holds variable-length strings beyond the {self.limits.strings} allowed here")
            unbounded = (elements - 1) * self.size > self.limits.total // 16
            if whole and unbounded and not self.limits.lists_of_text:
                raise self.refuse(place, f"its {elements} strings may share one long text; too many for an attribute")
        declared = elements * kind.get_size()
        self.declared += declared
        if self.declared > self.limits.total:
            raise self.refuse(place, f"the file declares more than {self.limits.total} bytes up to here")
        if self.declared > self.limits.ratio * self.size + self.limits.slack:
            raise self.refuse(place, f"the file declares {self.declared} bytes up to here but has only {self.size}")
        return declared
