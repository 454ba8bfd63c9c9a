"""NIR files and objects as plain values: names, numbers and edges, whatever version wrote them.

A file is HDF5: `/version`, `/node/type`, `/node/nodes/<name>/<field>` and `/node/edges`. Read here are the layouts of
nir 0.0.1 (`/nodes`, `/edges`, numbered nodes), 0.0.6 (numbered nodes), 0.1 (no version, no input shapes), 0.2 to 1.0.
Files come from strangers: they are weighed before they are read (`neuro.hdf5_guard`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from neuro.atomic import replacing
from neuro.errors import FileError, ParameterError
from neuro.hdf5_guard import Limits, open_guarded
from neuro.hdf5_text import TextError, strings

Value = np.ndarray | str
Edge = tuple[str, str]

WRITTEN = "1.0.8"
"""The version of NIR that the files written here follow."""
DEEPEST = 32
LIMITS = Limits(total=1 << 34, ratio=20.0, slack=1 << 26, objects=20_000, depth=2 * DEEPEST + 4, strings=50_000)
"""Constant parameters of large populations compress a thousandfold, so that much is declared without question."""
FORM = "neuro"
"""The metadata that a file written here holds for each node: element types and shapes that NIR cannot tell."""

_VERSION = re.compile(r"[01]\.\d{1,4}(\.\d{1,4})?([.\-+]?[A-Za-z0-9.+\-]{0,60})?")
_ALIASES = {"theta": "v_threshold", "weights": "weight"}
_CONTAINERS = ("input_type", "output_type")


@dataclass(frozen=True, eq=False)
class RawNode:
    """One node as it is written: its type, its fields, and the metadata that `to_nir` left there."""

    kind: str
    fields: Mapping[str, Value]
    form: str | None = None


@dataclass(frozen=True, eq=False)
class RawGraph:
    """Nodes and graphs by name, and edges (source, target) in the order of the file."""

    nodes: Mapping[str, RawNode | RawGraph]
    edges: tuple[Edge, ...]
    about: Mapping[str, str] = field(default_factory=dict)
    kind: str = "NIRGraph"


def refusal(path: object, node: str, item: str, rule: str) -> FileError:
    """The one line that names file, node and field."""
    shown = [repr(part if len(part) < 100 else f"{part[:100]}...") for part in (node, item) if part]
    places = [f"node {shown.pop(0)}"] if node and shown else []
    places += [f"field {shown[0]}"] if shown else []
    return FileError(f"{path}: {', '.join(places)}{': ' if places else ''}{rule}")


def read_raw(path: str | Path) -> RawGraph:
    """What a NIR file says; FileError for anything else, before more is read than a network needs."""
    with open_guarded(path, limits=LIMITS) as file:
        _check_version(path, file)
        if isinstance(file.get("node"), h5py.Group):
            found = _read_group(path, file["node"], "", 0)
        elif isinstance(file.get("nodes"), h5py.Group):
            found = _read_graph(path, file["/"], "", 0)
        else:
            raise refusal(path, "", "node", "is missing; this is no NIR file")
        return found if isinstance(found, RawGraph) else RawGraph({found.kind.lower(): found}, ())


def _check_version(path: object, file: h5py.File) -> None:
    if "version" not in file:
        return
    version = _value(path, "", "version", file["version"])
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise refusal(path, "", "version", f"{version!r:.80} is unknown; versions 0.0.1 to 1.x are read")


def _read_group(path: object, group: h5py.Group, name: str, depth: int) -> RawNode | RawGraph:
    if not isinstance(group, h5py.Group):
        raise refusal(path, name, "", "is a number, not a node; write the file again")
    if depth > DEEPEST:
        raise refusal(path, name, "", f"lies deeper than {DEEPEST} graphs inside each other")
    kind = _value(path, name, "type", group["type"]) if "type" in group else None
    if not isinstance(kind, str):
        raise refusal(path, name, "type", "is missing or no text; write the file with the nir package")
    if kind == "NIRGraph":
        return _read_graph(path, group, name, depth)
    fields: dict[str, Value] = {}
    for key, item in group.items():
        if isinstance(item, h5py.Dataset) and key != "type":
            fields[_ALIASES.get(key, key)] = _value(path, name, key, item)
        elif isinstance(item, h5py.Group) and key not in ("metadata", *_CONTAINERS):
            raise refusal(path, name, key, "is a group; a field holds numbers or text")
    if kind == "Linear" and "bias" in fields:
        kind = "Affine"  # as nir 0.0.1 called it
    if "shape" not in fields:
        fields |= _shape_inside(path, name, group)
    return RawNode(kind, fields, _form(path, name, group))


def _shape_inside(path: object, name: str, group: h5py.Group) -> dict[str, Value]:
    """The shape of an Input or Output that keeps it in a group."""
    for key in _CONTAINERS:
        inner = group.get(key)
        if isinstance(inner, h5py.Group) and len(inner) == 1:
            (item,) = inner.values()
            if isinstance(item, h5py.Dataset):
                return {"shape": _value(path, name, key, item)}
    return {}


def _form(path: object, name: str, group: h5py.Group) -> str | None:
    metadata = group.get("metadata")
    if not isinstance(metadata, h5py.Group) or FORM not in metadata:
        return None
    found = _value(path, name, "metadata", metadata[FORM])
    return found if isinstance(found, str) else None


def _read_graph(path: object, group: h5py.Group, name: str, depth: int) -> RawGraph:
    inner = group.get("nodes")
    if not isinstance(inner, h5py.Group):
        raise refusal(path, name, "nodes", "is missing; write the file with the nir package")
    nodes = {key: _read_group(path, item, f"{name}.{key}" if name else key, depth + 1) for key, item in inner.items()}
    if "edges" not in group or not isinstance(group["edges"], h5py.Dataset):
        raise refusal(path, name, "edges", "is missing; write the file with the nir package")
    metadata = group.get("metadata")
    about: dict[str, str] = {}
    if isinstance(metadata, h5py.Group):
        for key, item in metadata.items():
            if isinstance(item, h5py.Dataset) and item.shape == () and item.dtype.kind in "OSfiu":
                about[key] = str(_value(path, name, "metadata", item))[:100]
    return RawGraph(nodes, _edges(path, name, group["edges"]), about)


def _edges(path: object, name: str, dataset: h5py.Dataset) -> tuple[Edge, ...]:
    if dataset.size == 0:
        return ()
    if dataset.ndim != 2 or dataset.shape[1] != 2 or dataset.size > LIMITS.strings:
        raise refusal(path, name, "edges", f"has shape {dataset.shape}; at most {LIMITS.strings // 2} pairs are read")
    if dataset.dtype.kind in "iu":
        ends = [str(index) for index in dataset[()].ravel()]
    elif dataset.dtype.kind in "OS":
        ends = _texts(path, name, "edges", dataset)
    else:
        raise refusal(path, name, "edges", f"holds {dataset.dtype}, not names")
    return tuple(zip(ends[::2], ends[1::2], strict=True))


def _value(path: object, name: str, key: str, dataset: h5py.Dataset) -> Value:
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise refusal(path, name, key, "holds nothing; write the file again")
    if dataset.dtype.kind in "OS":
        if dataset.shape not in ((), (1,)):
            raise refusal(path, name, key, f"holds {dataset.shape} texts where one or numbers belong")
        return _texts(path, name, key, dataset)[0]
    if dataset.dtype.kind not in "fiub":
        raise refusal(path, name, key, f"holds {dataset.dtype}; only real numbers and text are read")
    return np.asarray(dataset[()])


def _texts(path: object, name: str, key: str, dataset: h5py.Dataset) -> list[str]:
    try:
        return strings(dataset)
    except TextError as error:
        raise refusal(path, name, key, str(error)) from error


def raw_of(thing: object, path: str = "NIR graph") -> RawGraph:
    """The same from a `nir.NIRGraph`, or from the mapping that its `to_dict` gives."""
    told = thing.to_dict() if hasattr(thing, "to_dict") else thing
    if not isinstance(told, Mapping) or told.get("type") != "NIRGraph":
        raise ParameterError(f"from_nir takes a path or a nir.NIRGraph, got {type(thing).__name__}")
    found = _from_mapping(path, told, "", 0)
    assert isinstance(found, RawGraph)
    return found


def _from_mapping(path: str, told: Mapping, name: str, depth: int) -> RawNode | RawGraph:
    if depth > DEEPEST:
        raise refusal(path, name, "", f"lies deeper than {DEEPEST} graphs inside each other")
    if told.get("type") == "NIRGraph":
        nodes = {str(key): _from_mapping(path, item, f"{name}.{key}" if name else str(key), depth + 1)
                 for key, item in told["nodes"].items()}  # fmt: skip
        about = {str(key): str(value)[:100] for key, value in (told.get("metadata") or {}).items()}
        return RawGraph(nodes, tuple((str(a), str(b)) for a, b in told["edges"]), about)
    fields: dict[str, Value] = {}
    for key, item in told.items():
        if key in ("type", "metadata") or item is None or isinstance(item, Mapping):
            continue
        value = item if isinstance(item, str) else np.asarray(item)
        if isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":
            raise refusal(path, name, key, f"holds {value.dtype}; only real numbers and text are read")
        fields[_ALIASES.get(key, key)] = value
    form = (told.get("metadata") or {}).get(FORM)
    return RawNode(str(told.get("type")), fields, form if isinstance(form, str) else None)


def write_raw(path: str | Path, graph: RawGraph) -> None:
    """Write it as the nir package would, whole or not at all; equal graphs give equal bytes."""
    with replacing(path) as temporary, h5py.File(temporary, "w", libver="earliest", locking=False) as file:
        _write_value(file, "version", WRITTEN)
        _write_graph(file.create_group("node"), graph)


def _write_graph(group: h5py.Group, graph: RawGraph) -> None:
    _write_value(group, "type", graph.kind)
    names = [list(edge) for edge in graph.edges]
    group.create_dataset("edges", data=np.array(names, dtype=object).reshape(-1, 2), dtype=h5py.string_dtype())
    below = group.create_group("nodes")
    for name, node in graph.nodes.items():
        inner = below.create_group(name)
        if isinstance(node, RawGraph):
            _write_graph(inner, node)
            continue
        _write_value(inner, "type", node.kind)
        for key, value in node.fields.items():
            _write_value(inner, key, value)
        if node.form is not None:
            _write_value(inner.create_group("metadata"), FORM, node.form)
    if graph.about:
        notes = group.create_group("metadata")
        for key, text in graph.about.items():
            _write_value(notes, key, text)


def _write_value(group: h5py.Group, key: str, value: Value) -> None:
    if isinstance(value, str):
        group.create_dataset(key, data=value, dtype=h5py.string_dtype())
    else:
        options = {"compression": "gzip"} if value.size > 64 else {}
        group.create_dataset(key, data=value, **options)
