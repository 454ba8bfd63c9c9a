"""Graphs as HDF5 files: one text that describes the network, one data set for each of its tensors.

Layout, version 1. Bytes 0..511 hold `neuro-graph 1 sha256:<digest of the rest>`; the rest is HDF5. The data set
`description` is JSON: the graph's name, its nodes (name, kind, numbers of the nodes it reads, fields) and its history.
A tensor field `weight` of node 3 is the data set `3.weight`; a graph field is a group of the same form.
Names are never used as paths, so they may hold any character. Equal graphs give equal bytes.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import astuple, fields
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from neuro import nodes as families
from neuro.atomic import replacing
from neuro.errors import FileError, NeuroError, ParameterError
from neuro.graph import Change, Graph, Node
from neuro.hdf5_guard import Limits, open_guarded, regular_file_size

VERSION = 1
SEAL = 512
"""Bytes before the HDF5 part: a user block, which HDF5 skips."""

LIMITS = Limits(total=1 << 44, ratio=1.0)
"""Graph files are not compressed: they store what they declare."""

_LONGEST_TEXT = 1 << 24
_STORED = {
    torch.float64: "<f8", torch.float32: "<f4", torch.float16: "<f2", torch.bfloat16: "<i2", torch.bool: "|u1",
    torch.int64: "<i8", torch.int32: "<i4", torch.int16: "<i2", torch.int8: "|i1", torch.uint8: "|u1",
}  # fmt: skip
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in _STORED}
_BITS = {torch.bfloat16: torch.int16, torch.bool: torch.uint8}
"""Element types that HDF5 does not know, by the integers that carry their bits."""

_KINDS: dict[str, type[Node]] = {}


def register_kind(kind: type[Node]) -> type[Node]:
    """Let `save` and `load` handle a node class of your own; its name must be free. Usable as a decorator."""
    if inspect.isabstract(kind) or "__dataclass_fields__" not in vars(kind):
        raise ParameterError(
            f"{kind.__name__}: only concrete dataclasses can be registered; decorate it with @dataclass"
        )
    if _KINDS.setdefault(kind.__name__, kind) is not kind:
        raise ParameterError(f"{kind.__name__}: another node kind has this name; choose a different class name")
    return kind


for _name in families.__all__:
    _kind = getattr(families, _name)
    if not inspect.isabstract(_kind) and "__dataclass_fields__" in vars(_kind):
        register_kind(_kind)


def save(graph: Graph, path: str | Path) -> None:
    """Write `graph` to `path`, whole or not at all; equal graphs give equal bytes.

    Devices, gradients and strides of the tensors are not kept, their values and element types are. Raises FileError
    where the file cannot be written and ParameterError for node kinds or field types that `load` could not read back.
    """
    with replacing(path) as temporary:
        with h5py.File(temporary, "w", libver="earliest", userblock_size=SEAL, locking=False) as file:
            _write_graph(file["/"], graph)
        seal(temporary)


def load(path: str | Path) -> Graph:
    """The graph in `path`, with shapes and element types worked out anew.

    Raises FileError for a file that is missing, damaged, of another version or hostile, and ParameterError or
    ShapeError (with the place in a note) for a whole file that describes an impossible network.
    """
    _check_seal(path)
    with open_guarded(path, limits=LIMITS) as file:
        try:
            return _read_graph(file["/"], str(path))
        except NeuroError as error:
            error.add_note(f"in {path}")
            raise
        except Exception as error:  # the checks of a node meet numbers here that no caller would give them
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise FileError(f"{path}: describes an impossible network ({text}); save it again") from error


def seal(path: str | Path) -> None:
    """Write version and checksum into the first bytes of a graph file, as after an edit by another HDF5 program."""
    with open(path, "r+b") as file:
        right = _right_seal(file)
        file.seek(0)
        file.write(right)


def _right_seal(file: typing.BinaryIO) -> bytes:
    file.seek(SEAL)
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return f"neuro-graph {VERSION} sha256:{digest.hexdigest()}\n".encode().ljust(SEAL, b"\0")


def _check_seal(path: str | Path) -> None:
    """Accidents are found here, before the HDF5 library sees the file; on purpose anyone can write a right checksum."""
    regular_file_size(path)
    try:
        with open(path, "rb") as file:
            given = file.read(SEAL)
            begin, _, rest = given.partition(b" ")
            if begin != b"neuro-graph":
                raise FileError(f"{path}: does not begin as a graph file; only files from neuro.save can be loaded")
            if (version := rest.partition(b" ")[0]) != str(VERSION).encode():
                shown = repr(version[:20].decode("ascii", "replace"))
                raise FileError(f"{path}: is of version {shown}, this program reads {VERSION}; update it or save again")
            if given != _right_seal(file):
                raise FileError(f"{path}: checksum does not match: truncated, damaged or edited; get another copy")
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}); check its rights") from error


def _write_graph(group: h5py.Group, graph: Graph) -> None:
    number = {name: index for index, name in enumerate(graph.nodes)}
    described = []
    for name, node in graph.nodes.items():
        if _KINDS.get(node.kind) is not type(node):
            raise ParameterError(
                f"{node.kind} {name!r}: is no registered kind; call neuro.files.register_kind({node.kind})"
            )
        values = {}
        for item in fields(node):
            try:
                values[item.name] = _write_field(group, f"{number[name]}.{item.name}", getattr(node, item.name))
            except (TypeError, ValueError) as error:
                raise ParameterError(f"{node.kind} {name!r}: field {item.name} cannot be saved: {error}") from error
        sources = [number[source] for source in graph.sources[name]]
        described.append({"name": name, "kind": node.kind, "sources": sources, "fields": values})
    history = [astuple(change) for change in graph.history]
    text = json.dumps({"name": graph.name, "nodes": described, "history": history}, indent=1).encode("ascii")
    if len(text) > _LONGEST_TEXT:
        raise ParameterError(
            f"{graph.name!r}: its description has {len(text)} bytes, more than {_LONGEST_TEXT} allowed"
        )
    group.create_dataset("description", data=np.array(text), dtype=h5py.string_dtype("ascii", len(text)))


def _write_field(group: h5py.Group, place: str, value: object) -> object:
    """What stands in the description for `value`: itself where it is plain, else what to look for at `place`."""
    if isinstance(value, Tensor):
        if value.dtype not in _STORED or value.layout != torch.strided:
            raise TypeError(f"tensors of {value.dtype}, {value.layout} have no place in a graph file")
        plain = value.detach().cpu().contiguous()
        array = plain.view(_BITS.get(value.dtype, value.dtype)).numpy()
        group.create_dataset(place, data=array, dtype=_STORED[value.dtype])
        return {"tensor": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Graph):
        _write_graph(group.create_group(place), value)
        return {"graph": 1}
    if isinstance(value, tuple) and value and all(isinstance(item, Graph) for item in value):
        for index, item in enumerate(value):
            _write_graph(group.create_group(f"{place}.{index}"), item)
        return {"graphs": len(value)}
    if isinstance(value, dict):
        raise TypeError("mappings have no place in a graph file")
    return json.loads(json.dumps(value))


def _read_graph(group: h5py.Group, place: str) -> Graph:
    text = group["description"]
    if text.shape != () or text.dtype.kind != "S" or text.dtype.itemsize > _LONGEST_TEXT:
        raise FileError(f"{place}: description is no text of at most {_LONGEST_TEXT} bytes; save the graph again")
    try:
        described = json.loads(text[()])
        listed = [(item["name"], item["kind"], item["sources"], item["fields"]) for item in described["nodes"]]
        named, history = described["name"], tuple(Change(*change) for change in described["history"])
        names = [name for name, *_ in listed]
        sources = {name: tuple(names[_natural(index)] for index in given) for name, _, given, _ in listed}
        strings = [named, *names, *(part for change in history for part in astuple(change))]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise FileError(
            f"{place}: description is not as in version {VERSION} ({error!r}); save the graph again"
        ) from error
    if not all(isinstance(item, str) for item in strings) or len(set(names)) != len(names):
        raise FileError(f"{place}: names must be texts, each used once; save the graph again")
    nodes = {
        name: _read_node(group, f"{place}: node {name!r}", index, kind, values)
        for index, (name, kind, _, values) in enumerate(listed)
    }
    return Graph(nodes, sources, named, history)


def _natural(index: object) -> int:
    if type(index) is not int or index < 0:
        raise ValueError(f"{index!r} is no node number")
    return index


def _read_node(group: h5py.Group, place: str, index: int, kind: object, values: object) -> Node:
    if not isinstance(kind, str) or kind not in _KINDS:
        raise FileError(f"{place}: unknown kind {kind!r}; update neuro-snn or register it (neuro.files.register_kind)")
    expected = _hints(_KINDS[kind])
    if not isinstance(values, dict) or values.keys() != expected.keys():
        given = ", ".join(values) if isinstance(values, dict) else repr(values)
        wanted = ", ".join(expected)
        raise FileError(
            f"{place}: {kind} has fields {given}, this program knows {wanted}; use the program that wrote it"
        )
    found = {name: _read_field(group, f"{place}, {name}", f"{index}.{name}", value) for name, value in values.items()}
    for name, value in found.items():
        if not _fits(value, expected[name]):
            raise FileError(f"{place}: {kind}.{name} cannot be {type(value).__name__} {str(value)[:60]}; save it again")
    try:
        return _KINDS[kind](**found)
    except NeuroError as error:
        error.add_note(place)
        raise


@cache
def _hints(kind: type[Node]) -> Mapping[str, object]:
    hints = typing.get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(kind)}


def _read_field(group: h5py.Group, shown: str, place: str, value: object) -> object:
    match value:
        case {"tensor": str(name)} if name in _DTYPES:
            return _read_tensor(group, shown, place, _DTYPES[name])
        case {"graph": 1}:
            return _read_graph(group[place], shown)
        case {"graphs": int(count)} if 0 < count <= len(group):
            return tuple(_read_graph(group[f"{place}.{index}"], f"{shown}[{index}]") for index in range(count))
        case dict():
            raise FileError(f"{shown}: {str(value)[:60]} is nothing this program knows; use the program that wrote it")
    return _tuples(value)


def _read_tensor(group: h5py.Group, shown: str, place: str, dtype: torch.dtype) -> Tensor:
    dataset = group[place]
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or dataset.dtype != np.dtype(_STORED[dtype]):
        raise FileError(f"{shown}: {place!r} does not hold {dtype}; save the graph again")
    array = np.empty(dataset.shape, dataset.dtype)
    if array.size:
        dataset.read_direct(array)
    if dtype == torch.bool and array.size and array.max() > 1:
        raise FileError(f"{shown}: {place!r} holds truth values other than 0 and 1; save the graph again")
    return torch.from_numpy(array).view(dtype)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _fits(value: object, hint: Any) -> bool:
    """Whether a value from a file is what the type annotation of its field asks for."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in options
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in options)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(options) == 2 and options[1] is Ellipsis:
            return all(_fits(item, options[0]) for item in value)
        return len(value) == len(options) and all(map(_fits, value, options))
    if hint is float:
        return type(value) in (int, float)
    if hint is int or hint is bool:
        return type(value) is hint
    return isinstance(value, hint)
