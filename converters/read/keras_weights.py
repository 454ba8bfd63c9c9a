"""Where the weights of each layer lie in the HDF5 files of Keras."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import h5py
import numpy as np
import torch
from torch import Tensor

from neuro.errors import FileError
from neuro.hdf5_text import attribute_text

_ROLES = {
    "W": "kernel", "b": "bias", "depthwise_kernel": "depthwise_kernel", "pointwise_kernel": "pointwise_kernel",
    "running_mean": "moving_mean", "running_std": "moving_variance", "moving_mean": "moving_mean",
    "moving_variance": "moving_variance", "kernel": "kernel", "bias": "bias", "gamma": "gamma", "beta": "beta",
    "alpha": "alpha", "alphas": "alpha", "mean": "mean", "variance": "variance", "count": "count",
}  # fmt: skip
"""Names of weights in Keras 1 to 3; a layer's name, numbers and `:0` may stand around them."""
_ROLE = re.compile(rf"(?:.*?_)??({'|'.join(sorted(_ROLES, key=len, reverse=True))})(?:_\d+)?(?::\d+)?")


class Weights(Protocol):
    """The weights of one layer, wherever they come from."""

    def take(self, *roles: str) -> tuple[Tensor, ...]:
        """The weights in these roles, as float32; FileError unless they are there, and no others."""
        ...


@dataclass(frozen=True)
class Tensors:
    """The weights of one layer: by name from .h5, by number from .keras."""

    found: Mapping[str, h5py.Dataset]
    numbered: bool

    def take(self, *roles: str) -> tuple[Tensor, ...]:
        keys = [str(index) for index in range(len(roles))] if self.numbered else [self._known(role) for role in roles]
        if set(self.found) != set(keys):
            shown = ", ".join(sorted(self.found)) or "none"
            raise FileError(f"needs the weights {', '.join(roles)} but the file holds {shown}; save the model again")
        return tuple(_tensor(self.found[key], role) for key, role in zip(keys, roles, strict=True))

    def _known(self, role: str) -> str:
        """A depthwise kernel was `depthwise_kernel` before Keras 3."""
        return f"depthwise_{role}" if role not in self.found and f"depthwise_{role}" in self.found else role


def _tensor(dataset: h5py.Dataset, role: str) -> Tensor:
    if dataset.shape is None or (dataset.dtype.kind != "f" and role != "count"):
        raise FileError(f"{role} holds {dataset.dtype}, not real numbers; save the model as float32")
    array = np.empty(dataset.shape, dataset.dtype)
    if array.size:
        dataset.read_direct(array)
    with np.errstate(over="ignore"):  # what overflows becomes infinite, which no node takes
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape))


def groups(group: h5py.Group) -> Iterator[tuple[str, h5py.Group]]:
    """Groups by path: a layer may be called `conv1/bn`, which then is a group inside a group."""
    waiting = [("", group)]
    while waiting:
        path, group = waiting.pop()
        yield path, group
        waiting.extend((f"{path}/{name}".lstrip("/"), item) for name, item in group.items()
                       if isinstance(item, h5py.Group))  # fmt: skip


class Named:
    """Weights of .h5: datasets below the layer's group, recognised by their names."""

    def __init__(self, groups: Mapping[str, h5py.Group]) -> None:
        self.groups = groups

    def enter(self, layer: str, kind: str) -> Nested:
        return Nested(self._below(layer))

    def of(self, layer: str, kind: str) -> Tensors:
        found = self._below(layer)
        own = _named(found, layer)
        return _by_role(own or found)

    def _below(self, layer: str) -> dict[str, h5py.Dataset]:
        found: dict[str, h5py.Dataset] = {}
        for path, group in groups(self.groups[layer]) if layer in self.groups else ():
            found |= {f"{path}/{name}": item for name, item in group.items() if isinstance(item, h5py.Dataset)}
        return found


class Nested:
    """Weights of a model inside a model in .h5: they all lie in one group, below the names of their layers."""

    def __init__(self, datasets: Mapping[str, h5py.Dataset]) -> None:
        self.below: dict[str, dict[str, h5py.Dataset]] = {}
        for path, item in datasets.items():
            self.below.setdefault(_parent(path).rpartition("/")[2], {})[path] = item

    def enter(self, layer: str, kind: str) -> Nested:
        return self

    def of(self, layer: str, kind: str) -> Tensors:
        return _by_role(_named(self.below.get(layer.rpartition("/")[2], {}), layer))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _named(datasets: Mapping[str, h5py.Dataset], layer: str) -> dict[str, h5py.Dataset]:
    return {path: item for path, item in datasets.items() if f"/{_parent(path)}".endswith(f"/{layer}")}


def _by_role(datasets: Mapping[str, h5py.Dataset]) -> Tensors:
    """What cannot be recognised, or comes twice, keeps its path: no layer that can be read asks for it."""
    found: dict[str, h5py.Dataset] = {}
    for path, item in datasets.items():
        match = _ROLE.fullmatch(path.rpartition("/")[2])
        role = _ROLES[match[1]] if match else path
        found[path if role in found else role] = item
    return Tensors(found, numbered=False)


class Numbered:
    """Weights of .keras: by the layer's name where it was written down, else the k-th weighted layer of a class."""

    def __init__(self, group: h5py.Group | None, content: bytes) -> None:
        """`content` is that of the HDF5 file in which the group lies."""
        self.content = content
        containers = ("layers", "_layer_checkpoint_dependencies")
        held = [group[name] for name in containers if name in group] if group is not None else []
        layers: Mapping[str, h5py.Group] = held[0] if held else {}
        self.taken: Counter[str] = Counter()
        self.named: dict[str, h5py.Group] = {}
        self.of_class: dict[str, list[tuple[int, h5py.Group]]] = {}
        for key, item in layers.items():
            if name := attribute_text(item.get("vars", item), "name", content):
                self.named[name] = item
            stem, _, number = key.rpartition("_")
            place = (stem, int(number)) if number.isdecimal() and len(number) < 9 else (key, 0)
            self.of_class.setdefault(place[0], []).append((place[1], item))
        self.by_name = len(self.named) == len(layers)

    def enter(self, layer: str, kind: str) -> Numbered:
        return Numbered(self._group(layer, kind, "layers"), self.content)

    def of(self, layer: str, kind: str) -> Tensors:
        group = self._group(layer, kind, "vars")
        return Tensors(dict(group["vars"]) if group is not None and "vars" in group else {}, numbered=True)

    def _group(self, layer: str, kind: str, inside: str) -> h5py.Group | None:
        if self.by_name:
            return self.named.get(layer)
        alike = sorted(self.of_class.get(_snake(kind), ()), key=lambda pair: pair[0])
        full = [item for _, item in alike if inside in item and len(item[inside])]
        place = self.taken[kind]
        self.taken[kind] += 1
        return full[place] if place < len(full) else None


def _snake(name: str) -> str:
    """As keras.src.utils.naming.to_snake_case."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
