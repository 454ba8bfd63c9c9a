"""ONNX files from strangers, made harmless before anything is built from them.

A protobuf message of a few megabytes can ask for gigabytes (empty messages, packed numbers of one byte each) and
an external tensor can name any file. So the bytes are walked by the schema before protobuf sees them, and external
data are read here, from plain files in the model's own folder only.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from neuro.errors import BackendMissing, FileError, NeuroError
from neuro.hdf5_guard import regular_file_size

MOST_FIELDS = 200_000
MOST_NODES = 100_000
_DEEPEST = 32
_MOST_PACKED = 1 << 24
_LARGEST = (1 << 31) - 1
_MESSAGE, _GROUP, _TEXTS, _FIXED = 11, 10, (9, 12), (1, 2, 6, 7, 15, 16)
_WIDTHS = {1: 8, 5: 4}
_PLAIN = {
    "FLOAT": "float_data", "DOUBLE": "double_data", "INT64": "int64_data", "UINT64": "uint64_data",
    "UINT32": "uint64_data", "INT32": "int32_data", "INT16": "int32_data", "INT8": "int32_data",
    "UINT16": "int32_data", "UINT8": "int32_data", "BOOL": "int32_data", "FLOAT16": "int32_data",
}  # fmt: skip
"""Element types that are read, and the field that holds them where raw_data does not."""


def onnx_package() -> Any:
    """The `onnx` package; BackendMissing where it is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise BackendMissing("reading ONNX needs the onnx package: pip install onnx onnxruntime") from error
    return onnx


def checked_model(path: str | Path) -> Any:
    """The ModelProto of a file, external data included. Raises FileError naming the place and the rule it breaks."""
    onnx = onnx_package()
    size = regular_file_size(path)
    if size > _LARGEST:
        raise FileError(
            f"{path}: {size} bytes are more than a protobuf message can have; save weights as external data"
        )
    try:
        data = Path(path).read_bytes()
        _walk(data, onnx.ModelProto.DESCRIPTOR, path)
        model = onnx.ModelProto.FromString(data)
        del data
        _check_outline(onnx, model, path)
        _embed_external(onnx, model, Path(path))
    except NeuroError:
        raise
    except Exception as error:  # protobuf, text decoding and the file system each have errors of their own
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise FileError(f"{path}: no ONNX model, or damaged ({text}); export it again") from error
    return model


def _walk(data: bytes, kind: Any, path: str | Path) -> None:
    """Follow the fields of the message `kind`, which costs nothing, and refuse what would cost much."""
    fields_left, packed_left = MOST_FIELDS, _MOST_PACKED
    known: dict[Any, dict[int, tuple[int, Any]]] = {}
    waiting = [(0, len(data), kind, 0)]
    while waiting:
        place, end, kind, depth = waiting.pop()
        if kind.full_name not in known:
            known[kind.full_name] = {field.number: (field.type, field.message_type) for field in kind.fields}
        types = known[kind.full_name]
        while place < end:
            fields_left -= 1
            tag, place = _varint(data, place, end)
            wire, (type_, message) = tag & 7, types.get(tag >> 3, (_TEXTS[1], None))
            if wire == 0:
                _, place = _varint(data, place, end)
                continue
            if wire in _WIDTHS:
                place += _WIDTHS[wire]
            elif wire == 2:
                length, place = _varint(data, place, end)
                if type_ == _MESSAGE and place + length <= end:
                    waiting.append((place, place + length, message, depth + 1))
                elif type_ not in (*_TEXTS, *_FIXED):
                    packed_left -= length
                place += length
            if wire not in (1, 2, 5) or type_ == _GROUP or place > end:
                raise FileError(
                    f"{path}: byte {place} of {len(data)}: not a field of ONNX; truncated, or no ONNX model"
                )
            if fields_left < 0 or packed_left < 0 or depth > _DEEPEST:
                raise FileError(
                    f"{path}: has more than {MOST_FIELDS} fields, {_MOST_PACKED} packed integers or {_DEEPEST} levels; "
                    "keep tensors in raw_data"
                )
    if fields_left < 0:
        raise FileError(f"{path}: has more than {MOST_FIELDS} fields; keep tensors in raw_data")


def _varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while place < end and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError("a number is cut off")


def _check_outline(onnx: Any, model: Any, path: str | Path) -> None:
    graph = model.graph
    if not graph.node or not graph.output:
        raise FileError(f"{path}: holds no network (no nodes or no outputs); truncated, or no ONNX model")
    if not 3 <= model.ir_version <= onnx.IR_VERSION:
        raise FileError(f"{path}: IR version {model.ir_version}, and 3 to {onnx.IR_VERSION} are known; export it again")
    if len(graph.node) > MOST_NODES:
        raise FileError(f"{path}: {len(graph.node)} nodes, more than {MOST_NODES}; no network needs so many")
    if graph.sparse_initializer:
        raise FileError(f"{path}: {graph.name!r}: sparse initializers have no reader; save the tensors dense")


def _tensors(model: Any) -> list[Any]:
    values = [attribute.t for node in model.graph.node for attribute in node.attribute if attribute.HasField("t")]
    return [*model.graph.initializer, *values]


def _embed_external(onnx: Any, model: Any, path: Path) -> None:
    """Put external data into the model itself."""
    total = 0
    for tensor in _tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            if tensor.external_data:
                raise FileError(f"{path}: tensor {tensor.name!r} names external data but says that it has none")
            continue
        needed = _bytes_of(onnx, tensor, path)
        total += needed
        if total > _LARGEST:
            raise FileError(f"{path}: external data of more than {_LARGEST} bytes; such networks cannot be read")
        tensor.raw_data = _external(tensor, needed, path)
        del tensor.external_data[:]
        tensor.ClearField("data_location")


def _external(tensor: Any, needed: int, path: Path) -> bytes:
    where = f"{path}: tensor {tensor.name!r}: external data"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    unknown = set(entries) - {"location", "offset", "length", "checksum"}
    if len(entries) != len(tensor.external_data) or unknown or not entries.get("location"):
        raise FileError(f"{where}: needs one location, and at most one offset and length; export it again")
    numbers = {key: entries[key] for key in ("offset", "length") if key in entries}
    if any(not text.isascii() or not text.isdigit() or len(text) > 15 for text in numbers.values()):
        raise FileError(f"{where}: offset and length must be whole numbers; export it again")
    offset, length = int(numbers.get("offset", 0)), int(numbers.get("length", needed))
    file = _inside(entries["location"], path, where)
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise FileError(f"{where}: {file.name!r} is a link or no regular file; put a plain copy beside the model")
        if length != needed or offset + length > found.st_size:
            raise FileError(
                f"{where}: shape {tuple(tensor.dims)} takes {needed} bytes, but {length} at {offset} are named "
                f"in a file of {found.st_size}; truncated, or do not use it"
            )
        stream.seek(offset)
        return stream.read(length)


def _inside(location: str, path: Path, where: str) -> Path:
    """The file of an external tensor, in the model's own folder or below, by plain names only."""
    parts = PurePosixPath(location).parts
    if "\\" in location or ":" in location or not parts or location.startswith("/") or ".." in parts:
        raise FileError(f"{where}: location {location[:80]!r} leaves the folder of the model; put the file beside it")
    file = path.parent
    for part in parts:
        file = file / part
        try:
            mode = file.lstat().st_mode
        except (OSError, ValueError) as error:
            raise FileError(f"{where}: {location[:80]!r} is missing; put the file beside the model") from error
        if stat.S_ISLNK(mode):
            raise FileError(f"{where}: {location[:80]!r} is a link; put a plain copy beside the model")
    return file


def _bytes_of(onnx: Any, tensor: Any, path: str | Path) -> int:
    names = onnx.TensorProto.DataType
    kind = names.Name(tensor.data_type) if tensor.data_type in names.values() else str(tensor.data_type)
    if kind not in _PLAIN:
        raise FileError(f"{path}: tensor {tensor.name!r} holds {kind}, which is not read; use FLOAT or integers")
    if any(size < 0 for size in tensor.dims) or len(tensor.dims) > 16:
        raise FileError(f"{path}: tensor {tensor.name!r} has the shape {tuple(tensor.dims)[:16]}; do not use this file")
    return math.prod(tensor.dims) * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize


def array_of(tensor: Any, path: str | Path) -> np.ndarray:
    """The numbers of a TensorProto; FileError where its shape claims more or less than it stores."""
    onnx = onnx_package()
    needed, count = _bytes_of(onnx, tensor, path), math.prod(tensor.dims)
    kind = onnx.TensorProto.DataType.Name(tensor.data_type)
    raw = tensor.HasField("raw_data")
    stored = len(tensor.raw_data) if raw else len(getattr(tensor, _PLAIN[kind]))
    if stored != (needed if raw else count) or tensor.HasField("segment"):
        raise FileError(
            f"{path}: tensor {tensor.name!r} of shape {tuple(tensor.dims)} ({kind}) stores {stored} "
            f"{'bytes' if raw else 'numbers'}, not {needed if raw else count}; truncated, or do not use it"
        )
    return np.array(onnx.numpy_helper.to_array(tensor))


def inlined(model: Any, path: str | Path) -> Any:
    """The model with its local functions written out; FileError where they recurse or grow beyond reason."""
    if not model.functions:
        return model
    from onnx import inliner

    bodies = {(body.domain, body.name, body.overload): body for body in model.functions}
    nodes = [*model.graph.node, *(node for body in model.functions for node in body.node)]
    if any(attribute.HasField("g") or attribute.graphs for node in nodes for attribute in node.attribute):
        raise FileError(f"{path}: holds local functions beside control flow (If, Loop, Scan); export without either")
    sizes: dict[tuple[str, str, str], int] = {}
    # Every pass settles the functions that call settled ones only; what is left over at the end calls itself.
    for _ in range(_DEEPEST):
        for key, body in bodies.items():
            calls = [call for call in map(_called, body.node) if call in bodies]
            if key not in sizes and all(call in sizes for call in calls):
                sizes[key] = len(body.node) + sum(sizes[call] for call in calls)
    total = sum(sizes.get(_called(node), 1) for node in model.graph.node)
    if len(sizes) < len(bodies) or len(bodies) < len(model.functions) or total > MOST_NODES:
        raise FileError(f"{path}: its local functions repeat, recurse or grow beyond {MOST_NODES} nodes; inline them")
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    for body in model.functions:
        if any(entry.version != opsets.get(entry.domain, entry.version) for entry in body.opset_import):
            raise FileError(f"{path}: function {body.name[:80]!r} is of another opset than the model; inline it")
    return inliner.inline_local_functions(model)


def _called(node: Any) -> tuple[str, str, str]:
    return node.domain, node.op_type, node.overload
