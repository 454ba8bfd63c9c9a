"""Trained weights and modules from a user's files. Files of weights cannot run code: unsafe pickles are refused."""

from __future__ import annotations

import importlib.util
import math
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.export import ExportedProgram

from neuro.errors import FileError, NeuroError
from neuro.hdf5_guard import regular_file_size
from neuro.pt2_guard import checked_program
from neuro.zip_guard import checked_members

LONGEST_HEADER = 25_000_000
"""Bytes of a safetensors header; the format itself allows 100 MB."""

_WRAPPERS = ("state_dict", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Names and tensors (on the CPU) of a .safetensors, .pt, .pth or .npz file.

    A state dict inside {"state_dict": ...} or {"model_state_dict": ...} is taken out. Raises FileError for files that
    are missing, damaged, hostile, or hold anything but tensors; nothing in the file is executed.
    """
    path = Path(path)
    readers = {".safetensors": _from_safetensors, ".pt": _from_torch, ".pth": _from_torch, ".npz": _from_npz}
    if path.suffix not in readers:
        raise FileError(f"{path}: weights come as {', '.join(readers)}; convert the file to .safetensors")
    regular_file_size(path)
    try:
        found = readers[path.suffix](path)
    except NeuroError:
        raise
    except Exception as error:  # five parsers of foreign bytes: each has its own exceptions, and none of them is ours
        text = " ".join(str(error).split())[:200]
        raise FileError(f"{path}: cannot be read ({type(error).__name__}: {text}); get another copy") from error
    weights = _unwrap(found, path)
    for name, tensor in weights.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise FileError(f"{path}: {name!r} is no plain tensor; save it dense, on the CPU and not quantised")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise FileError(f"{path}: {name!r} claims more numbers than the file holds; do not use this file")
    return weights


def _unwrap(found: object, path: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping):
        raise FileError(f"{path}: holds a {type(found).__name__}, not a dict of tensors; save model.state_dict()")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise FileError(f"{path}: {name!r} is a {type(value).__name__}, not a tensor; save only model.state_dict()")
    if not found:
        raise FileError(f"{path}: holds no tensors; save model.state_dict()")
    return {name: value.detach() for name, value in found.items()}


def _from_safetensors(path: Path) -> dict[str, Tensor]:
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        header = int.from_bytes(start, "little")
        if len(start) < 8 or header > min(size - 8, LONGEST_HEADER):
            raise FileError(f"{path}: header of {header} bytes in a file of {size}: truncated or no safetensors file")
    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise FileError(f"{path}: no valid safetensors file ({error}); get another copy") from error


def _from_torch(path: Path) -> object:
    zipped = zipfile.is_zipfile(path)
    if zipped:
        with zipfile.ZipFile(path) as archive:
            checked_members(archive, path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise FileError(
                f"{path}: is a pickle that holds more than tensors, which could run code; "
                "save the weights with safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
            ) from error
        raise


def _from_npz(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        members = checked_members(archive, path)
        for member in members:
            with archive.open(member) as stream:
                _check_npy_header(stream, member, path)
    with np.load(path, allow_pickle=False) as arrays:
        return {
            name: torch.from_numpy(np.ascontiguousarray(arrays[name])).reshape(arrays[name].shape) for name in arrays
        }


def _check_npy_header(stream: IO[bytes], member: zipfile.ZipInfo, path: Path) -> None:
    """numpy reserves memory for the shape in the header before it looks how much data follows."""
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(npy.read_magic(stream))
    if read is None:
        raise FileError(f"{path}: {member.filename!r} is in an unknown .npy version; save it again with numpy.savez")
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise FileError(
            f"{path}: {member.filename!r} holds pickled objects; save plain numbers, better with safetensors"
        )
    if math.prod(shape) * dtype.itemsize > member.file_size or any(side < 0 for side in shape):
        raise FileError(f"{path}: {member.filename!r} claims shape {shape} in {member.file_size} bytes; do not use it")


def load_module(spec: str, weights: str | Path | None = None) -> nn.Module:
    """The module that `file.py:function` returns when called without arguments, in eval mode, with `weights` loaded.

    The user's own Python file is imported and run: that is what `spec` asks for. Raises FileError where the file or the
    function fails, and where the weights do not fit the module exactly (all names and shapes in one line).
    """
    file, _, function = spec.rpartition(":")
    if not file or not function.isidentifier():
        raise FileError(f"{spec!r}: give a module as file.py:function, for example model.py:build")
    regular_file_size(file)
    module = _call(Path(file), function)
    if weights is not None:
        _fill(module, load_weights(weights), f"{weights}", spec)
    return module.eval()


def _call(file: Path, function: str) -> nn.Module:
    name = f"_neuro_user_{file.stem}"
    found = importlib.util.spec_from_file_location(name, file)
    if found is None or found.loader is None:
        raise FileError(f"{file}: is no Python file; give file.py:function")
    code = importlib.util.module_from_spec(found)
    sys.modules[name] = code  # dataclasses and torch look up the defining module by its name
    sys.path.insert(0, str(file.resolve().parent))  # as `python file.py` does, for imports of neighbouring files
    try:
        found.loader.exec_module(code)
        if not callable(build := getattr(code, function, None)):
            raise FileError(f"{file}: has no function {function!r}; define it, or name the right one after the colon")
        module = build()
    except NeuroError:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise FileError(f"{file}:{function}: your code stopped with {text}; it must run without arguments") from error
    finally:
        sys.path.remove(str(file.resolve().parent))
    if not isinstance(module, nn.Module):
        raise FileError(f"{file}:{function}: returned a {type(module).__name__}; return a torch.nn.Module")
    return module


def _fill(module: nn.Module, weights: dict[str, Tensor], source: str, spec: str) -> None:
    wanted = module.state_dict()
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights) and not all(name.startswith(prefix) for name in wanted):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    problems = [
        ("missing", [name for name in wanted if name not in weights]),
        ("unexpected", [name for name in weights if name not in wanted]),
        (
            "of another shape",
            [
                f"{name} {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
                for name, tensor in weights.items()
                if name in wanted and tensor.shape != wanted[name].shape
            ],
        ),
    ]
    if text := "; ".join(f"{what}: {', '.join(names)}" for what, names in problems if names):
        raise FileError(f"{source}: does not fit {spec}: {text}; give the weights of this very module")
    module.load_state_dict(weights, strict=True)


def load_program(path: str | Path) -> ExportedProgram:
    """The program that torch.export.save wrote to a .pt2 file; it must consist of plain ATen operations and tensors.

    torch.export.load itself evaluates expressions and unpickles objects found in the file, so only a copy of the file
    goes there in which every text has been checked (see `neuro.pt2_guard`). Raises FileError.
    """
    clean = checked_program(path)
    try:
        return torch.export.load(clean)
    except Exception as error:  # a deserialiser of a whole language: anything can go wrong in a damaged file
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise FileError(
            f"{path}: torch {torch.__version__} cannot read this program ({text}); export it again"
        ) from error
