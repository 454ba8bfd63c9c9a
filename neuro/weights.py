"""Trained weights and modules from a user's files. Files of weights cannot run code: unsafe pickles are refused."""

from __future__ import annotations

import importlib.util
import inspect
import math
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor, nn
from torch.export import ExportedProgram

from neuro.errors import FileError, NeuroError
from neuro.hdf5_guard import regular_file_size
from neuro.pt2_guard import checked_program
from neuro.safetensors_files import INDEX, config_beside, load_file_of_tensors, load_folder
from neuro.zip_guard import checked_members

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "network", "net", "params")
"""Where checkpoints keep the state dict, beside the optimiser's state and much else."""


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Names and tensors (on the CPU) of a .safetensors, .pt, .pth or .npz file, or of a folder as Hugging Face has it.

    A state dict inside a checkpoint ({"model": ...}, {"state_dict": ...}, ...) is taken out. A folder holds
    model.safetensors, or model.safetensors.index.json and the files that it names; so does the index itself. Raises
    FileError for files that are missing, damaged, hostile, or hold anything but tensors; nothing in them is executed.
    """
    path = Path(path)
    readers = {".safetensors": load_file_of_tensors, ".pt": _from_torch, ".pth": _from_torch, ".npz": _from_npz}
    many = path.is_dir() or path.name.endswith(INDEX)
    if path.suffix not in readers and not many:
        known = f"{', '.join(readers)} or a folder of Hugging Face"
        raise FileError(f"{path}: weights come as {known}; convert the file to .safetensors")
    if not many:
        regular_file_size(path)
    try:
        found = load_folder(path) if many else readers[path.suffix](path)
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
    while isinstance(found, Mapping) and not any(isinstance(value, Tensor) for value in found.values()):
        inner = [found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)]
        if not inner:
            break
        found = inner[0]
    if not isinstance(found, Mapping):
        raise FileError(f"{path}: holds a {type(found).__name__}, not a dict of tensors; save model.state_dict()")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise FileError(f"{path}: {name!r} is a {type(value).__name__}, not a tensor; save only model.state_dict()")
    if not found:
        raise FileError(f"{path}: holds no tensors; save model.state_dict()")
    return {name: value.detach() for name, value in found.items()}


def _from_torch(path: Path) -> object:
    zipped = zipfile.is_zipfile(path)
    if zipped:
        with zipfile.ZipFile(path) as archive:
            members = checked_members(archive, path)
        if any(member.filename.partition("/")[2] == "constants.pkl" for member in members):
            raise FileError(
                f"{path}: is a TorchScript program, whose code is not run; where you trust it, save what it holds with "
                f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pt')"
            )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            wanted = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
            held = f"holds more than tensors ({wanted[1]})" if wanted else "holds more than tensors"
            raise FileError(
                f"{path}: is a pickle that {held}, which could run code; save the weights alone, with "
                "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
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
    """The module that `file.py:function` returns, in eval mode, with `weights` loaded.

    The function is called without arguments; where it wants one and the weights lie beside a config.json, as in folders
    of Hugging Face and timm, with what that file says, a dict. The user's own Python file is imported and run: that is
    what `spec` asks for, and no other code is, whatever lies in a folder of weights. Raises FileError where the file or
    the function fails, and where the weights do not fit the module exactly (all names and shapes in one line).
    """
    file, _, function = spec.rpartition(":")
    if not file or not function.isidentifier():
        raise FileError(f"{spec!r}: give a module as file.py:function, for example model.py:build")
    regular_file_size(file)
    module = _call(Path(file), function, weights)
    if weights is not None:
        _fill(module, load_weights(weights), f"{weights}", spec)
    return module.eval()


def _call(file: Path, function: str, weights: str | Path | None) -> nn.Module:
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
        module = build(config_beside(weights)) if weights is not None and _wants_one(build) else build()
    except NeuroError:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise FileError(
            f"{file}:{function}: your code stopped with {text}; it must run without arguments, "
            "or take the config.json of a folder of weights"
        ) from error
    finally:
        sys.path.remove(str(file.resolve().parent))
    if not isinstance(module, nn.Module):
        raise FileError(f"{file}:{function}: returned a {type(module).__name__}; return a torch.nn.Module")
    return module


def _wants_one(build: Callable[..., object]) -> bool:
    """Whether a function needs exactly one argument."""
    given = inspect.signature(build).parameters.values()
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(item.kind in places and item.default is inspect.Parameter.empty for item in given) == 1


def _fill(module: nn.Module, weights: dict[str, Tensor], source: str, spec: str) -> None:
    wanted = module.state_dict()
    # What DataParallel, torch.compile, Lightning and others put before every name.
    shorter = weights
    while not any(name in wanted for name in shorter) and len({name.partition(".")[0] for name in shorter}) == 1:
        shorter = {name.partition(".")[2]: tensor for name, tensor in shorter.items()}
    if any(name in wanted for name in shorter):
        weights = shorter
    # How many batches a norm has seen matters in training only, and not every tool saves it.
    counters = {name: tensor for name, tensor in wanted.items() if name.endswith("num_batches_tracked")}
    weights = counters | weights
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
