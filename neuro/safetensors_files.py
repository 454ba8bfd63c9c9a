"""Weights in safetensors: one file, or a folder as Hugging Face and timm lay it out. Only numbers and names are read.

Such a folder holds config.json and either model.safetensors or model.safetensors.index.json, which names the file of
every tensor. Whatever else lies there, Python files and pickles among it, is not opened.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from neuro.errors import FileError
from neuro.hdf5_guard import regular_file_size

LONGEST_HEADER = 25_000_000
"""Bytes of a safetensors header; the format itself allows 100 MB."""
INDEX = ".safetensors.index.json"
_LONGEST_TEXT = 1 << 25
_MOST_FILES = 10_000


def load_file_of_tensors(path: Path) -> dict[str, Tensor]:
    """Names and tensors of one file; FileError where it is damaged or hostile."""
    size = regular_file_size(path)
    with open(path, "rb") as file:
        start = file.read(8)
        header = int.from_bytes(start, "little")
        if len(start) < 8 or header > min(size - 8, LONGEST_HEADER):
            raise FileError(f"{path}: header of {header} bytes in a file of {size}: truncated or no safetensors file")
    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise FileError(f"{path}: no valid safetensors file ({error}); get another copy") from error


def load_folder(path: Path) -> dict[str, Tensor]:
    """The tensors of a folder, or of an index of several files; FileError where they are not those of the index."""
    if not path.is_dir():
        return _indexed(path)
    found = [path / name for name in ("model.safetensors", f"model{INDEX}") if (path / name).is_file()]
    found = found or sorted(item for item in path.iterdir() if item.name.endswith((".safetensors", INDEX)))
    if len(found) == 1:
        return _indexed(found[0]) if found[0].name.endswith(INDEX) else load_file_of_tensors(found[0])
    if found:
        shown = ", ".join(item.name for item in found[:5])
        raise FileError(f"{path}: holds {len(found)} files of weights ({shown}); name the one that is meant")
    pickles = sorted(item.name for item in path.iterdir() if item.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    hint = f"; {pickles[0]} is a pickle: save it as safetensors where you trust it" if pickles else ""
    raise FileError(f"{path}: a folder without model.safetensors or model{INDEX}{hint}")


def _indexed(path: Path) -> dict[str, Tensor]:
    places = json_object(path).get("weight_map")
    plain = isinstance(places, dict) and all(isinstance(place, str) for place in places.values())
    if not isinstance(places, dict) or not plain or not places:
        raise FileError(f"{path}: has no weight_map from tensors to files; get another copy")
    files = sorted(set(places.values()))
    if len(files) > _MOST_FILES:
        raise FileError(f"{path}: names {len(files)} files, more than {_MOST_FILES}; do not use it")
    for name in files:
        if not name.endswith(".safetensors") or Path(name).name != name or "\\" in name or ":" in name:
            raise FileError(f"{path}: names the file {name[:80]!r}; only .safetensors files beside it are read")
    found: dict[str, Tensor] = {}
    for name in files:
        held = load_file_of_tensors(path.parent / name)
        if wrong := [key for key in held if places.get(key) != name]:
            raise FileError(
                f"{path.parent / name}: holds {wrong[0][:80]!r}, which the index does not say; get new copies"
            )
        found |= held
    if missing := [key for key in places if key not in found]:
        raise FileError(f"{path}: {missing[0][:80]!r} is not in {places[missing[0]]!r}; get another copy of that file")
    return found


def config_beside(weights: str | Path) -> dict[str, Any]:
    """What the config.json in the folder of these weights says."""
    folder = Path(weights) if Path(weights).is_dir() else Path(weights).parent
    return json_object(folder / "config.json")


def json_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file of reasonable size holds; FileError otherwise."""
    if (size := regular_file_size(path)) > _LONGEST_TEXT:
        raise FileError(f"{path}: {size} bytes are too many for a description; do not use it")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        text = " ".join(str(error).split())[:100]
        raise FileError(f"{path}: is no JSON ({text}); get another copy") from error
    if not isinstance(found, dict):
        raise FileError(f"{path}: holds a {type(found).__name__}, not an object; get another copy")
    return found
