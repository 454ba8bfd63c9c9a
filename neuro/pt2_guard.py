"""Exported programs (.pt2) from strangers, made harmless before torch.export.load sees them.

Read in torch 2.13: loading evaluates symbolic sizes (`expr_str`) with sympy's eval, unpickles sample inputs, constants
and custom objects without restriction when the restricted way fails, imports modules named in tree specs, looks up
operations by attribute path, writes names and guards into Python source that is executed, and loads shared libraries.
So the archive is taken apart, every text in it is held against a list of what may stand there, and a new archive is
made from what passed.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from neuro.errors import FileError, NeuroError
from neuro.hdf5_guard import regular_file_size
from neuro.zip_guard import checked_members

_MODEL, _SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_CONFIGS = {"data/weights/": "model_weights_config.json", "data/constants/": "model_constants_config.json"}
_PAYLOAD = re.compile(r"data/(weights/weight|constants/tensor)_[0-9]{1,9}")
_SMALL = {
    "archive_format",
    "archive_version",
    "byteorder",
    ".data/version",
    ".data/serialization_id",
    ".data/weights_id",
}
_LONGEST_TEXT = 1 << 26

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOTTED = re.compile(r"[A-Za-z0-9_.+\-]*")
_OPERATION = re.compile(
    r"torch\.ops\.aten\.(_?[A-Za-z][A-Za-z0-9_]*|__(and|or|xor|lshift|rshift)__)\.[A-Za-z][A-Za-z0-9_]*"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pos|eq|ne|lt|le|gt|ge|getitem|and_|or_|not_)"
    r"|math\.(floor|ceil|trunc)|torch\.sym_(int|float|max|min|not|ite)"
)
_DOTTED_PLACES = {"parameter_name", "buffer_name", "tensor_constant_name", "fqn", "as_string", "torch_version"}
_SYMBOLIC = {
    "Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv",
    "CeilDiv", "ModularIndexing", "Where", "Identity", "Equality", "Unequality", "Eq", "Ne", "Lt", "Le", "Gt", "Ge",
    "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan", "And", "Or", "Not", "CeilToInt", "FloorToInt",
    "TruncToInt", "RoundToInt", "ToFloat", "IntTrueDiv", "FloatTrueDiv",
}  # fmt: skip
"""What can stand in a size of a network. Powers and shifts are left out: a few letters of them can fill memory."""


def checked_program(path: str | Path) -> io.BytesIO:
    """A clean copy of a .pt2 archive in memory. Raises FileError naming the place and the rule that it breaks."""
    regular_file_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.partition("/")[2]: member for member in checked_members(archive, path)}
            return _rebuild({name: archive.read(member) for name, member in members.items()}, Path(path))
    except NeuroError:
        raise
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError, OSError, RecursionError, NotImplementedError,
            AttributeError, zlib.error) as error:  # fmt: skip
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise FileError(f"{path}: no exported program, or damaged ({text}); export it again") from error


def _rebuild(contents: dict[str, bytes], path: Path) -> io.BytesIO:
    for name in contents:
        known = name in _SMALL or name in (_MODEL, _SAMPLES) or _PAYLOAD.fullmatch(name)
        if not known and name not in {folder + config for folder, config in _CONFIGS.items()}:
            raise FileError(
                f"{path}: member {name!r} has no place in an exported network; export it with torch.export.save"
            )
    clean = {name: contents[name] for name in contents if _PAYLOAD.fullmatch(name)}
    clean["archive_format"], clean["archive_version"] = b"pt2", contents["archive_version"]
    clean["byteorder"], clean[".data/version"] = contents.get("byteorder", b"little"), b"6\n"
    clean[_MODEL] = json.dumps(_Texts(path).checked(_parsed(contents[_MODEL]))).encode()
    for folder, config in _CONFIGS.items():
        clean[folder + config] = json.dumps(
            _checked_payloads(_parsed(contents[folder + config]), folder, contents, path)
        ).encode()
    clean[_SAMPLES] = _samples(contents.get(_SAMPLES, b""), path)
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_STORED) as archive:
        for name, content in clean.items():
            archive.writestr(f"program/{name}", content)
    result.seek(0)
    return result


def _parsed(text: bytes) -> Any:
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"a description of {len(text)} bytes")
    return json.loads(text)


def _samples(content: bytes, path: Path) -> bytes:
    """The sample inputs, unpickled as tensors only and written anew; torch would fall back to unpickling anything."""
    if not content:
        return b""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        checked_members(archive, path)
    try:
        samples = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise FileError(
            f"{path}: its sample inputs are a pickle that could run code; export with plain tensors"
        ) from error
    result = io.BytesIO()
    torch.save(samples, result)
    return result.getvalue()


def _checked_payloads(config: dict, folder: str, contents: dict[str, bytes], path: Path) -> dict:
    for name, payload in config["config"].items():
        place = f"{path}: tensor {name!r}"
        member = folder + payload["path_name"]
        if payload["use_pickle"] or not _PAYLOAD.fullmatch(member) or not _DOTTED.fullmatch(name):
            raise FileError(
                f"{place}: is stored as a pickle or object, which could run code; export plain tensors only"
            )
        meta = payload["tensor_meta"]
        if meta["device"]["type"] != "cpu":
            raise FileError(f"{place}: lies on {meta['device']['type']!r}; call model.cpu() before torch.export.export")
        sizes = [size["as_int"] for size in meta["sizes"]]
        if any(type(size) is not int or size < 0 for size in sizes) or math.prod(sizes) > len(contents[member]):
            raise FileError(f"{place}: claims sizes {sizes} in {len(contents[member])} bytes; do not use this file")
    return {"config": config["config"]}


class _Texts:
    """A walk over the description of a program that lets pass only texts which are data."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def refuse(self, key: str, text: object) -> FileError:
        shown = repr(text)[:80]
        return FileError(f"{self.path}: {key} {shown} is not allowed in an exported network; do not use this file")

    def checked(self, model: dict) -> dict:
        """The description without what is not needed: guards are Python source, other metadata is free text."""
        model["guards_code"] = []
        module = model["graph_module"]
        module["metadata"], module["treespec_namedtuple_fields"] = {}, {}
        self.walk("", model)
        return model

    def walk(self, key: str, value: Any) -> None:
        if isinstance(value, dict):
            if key == "metadata":
                for name in set(value) - {"stack_trace", "nn_module_stack", "torch_fn"}:
                    del value[name]
            for name, item in value.items():
                if not _DOTTED.fullmatch(name):
                    raise self.refuse("name", name)
                self.walk(name, item)
        elif isinstance(value, list):
            for item in value:
                self.walk(key, item)
        elif isinstance(value, str):
            self.text(key, value)

    def text(self, key: str, text: str) -> None:
        if key == "target":
            allowed = bool(_OPERATION.fullmatch(text)) and "from_file" not in text
        elif key == "expr_str":
            allowed = len(text) <= 2000 and _is_symbolic(ast.parse(text, mode="eval").body)
        elif key in ("in_spec", "out_spec"):
            allowed = text == "" or _is_tree(json.loads(text))
        elif key in ("stack_trace", "nn_module_stack", "torch_fn"):
            allowed = all(line.isprintable() for line in text.split("\n"))
        elif key == "type":
            if text != "cpu":
                raise FileError(
                    f"{self.path}: was exported on {text[:20]!r}; call model.cpu() before torch.export.export"
                )
            allowed = True
        elif key in _DOTTED_PLACES:
            allowed = bool(_DOTTED.fullmatch(text))
        else:
            allowed = text == "" or bool(_IDENTIFIER.fullmatch(text))
        if not allowed:
            raise self.refuse(key, text)


def _is_symbolic(tree: ast.expr) -> bool:
    """Calls of known functions on names and numbers, as `Add(Symbol('s0', integer=True), Integer(1))`."""
    match tree:
        case ast.Call(func=ast.Name(id=function), args=args, keywords=keywords):
            if function == "Symbol" and args:
                plain = isinstance(args[0], ast.Constant) and bool(_IDENTIFIER.fullmatch(str(args[0].value)))
                return plain and len(args) == 1 and all(isinstance(item.value, ast.Constant) for item in keywords)
            return function in _SYMBOLIC and not keywords and all(map(_is_symbolic, args))
        case ast.Constant(value=bool() | int() | float()):
            return True
        case ast.Name(id=name):
            return bool(re.fullmatch(r"[su][0-9]+|u[0-9]+|true|false|int_oo|oo", name))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_symbolic(operand)
    return False


def _is_tree(spec: Any) -> bool:
    """Tuples, lists and dicts only: other kinds of tree import what the file names."""

    def known(node: Any) -> bool:
        context = json.loads(node["context"]) if isinstance(node["context"], str) else node["context"]
        keys = context is None or (isinstance(context, list) and all(isinstance(key, str) for key in context))
        kind = node["type"] in (None, "builtins.tuple", "builtins.list", "builtins.dict")
        names = keys and all(_DOTTED.fullmatch(key) for key in context or ())
        return kind and names and all(known(child) for child in node["children_spec"])

    return spec[0] == 1 and known(spec[1])
