"""The fields of one NIR node, checked while they are asked for, and how they become tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from converters.read.nir_file import RawNode, refusal
from converters.read.nir_units import Units
from neuro.errors import FileError, ParameterError
from neuro.graph import Shape

SHAPES = ("input_type", "output_type")
FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Input": ((), ("shape", *SHAPES)),
    "Output": ((), ("shape", *SHAPES)),
    "Affine": (("weight", "bias"), SHAPES),
    "Linear": (("weight",), SHAPES),
    "Scale": (("scale",), SHAPES),
    "Conv1d": (("weight", "stride", "padding", "dilation", "groups", "bias"), ("input_shape", *SHAPES)),
    "Conv2d": (("weight", "stride", "padding", "dilation", "groups", "bias"), ("input_shape", *SHAPES)),
    "SumPool2d": (("kernel_size", "stride", "padding"), SHAPES),
    "AvgPool2d": (("kernel_size", "stride", "padding"), SHAPES),
    "Flatten": (("start_dim", "end_dim"), SHAPES),
    "Delay": (("delay",), SHAPES),
    "Threshold": (("threshold",), SHAPES),
    "I": (("r",), SHAPES),
    "IF": (("r", "v_threshold"), ("v_reset", *SHAPES)),
    "LI": (("tau", "r", "v_leak"), SHAPES),
    "LIF": (("tau", "r", "v_leak", "v_threshold"), ("v_reset", *SHAPES)),
    "CubaLI": (("tau_syn", "tau_mem", "r", "v_leak"), ("w_in", *SHAPES)),
    "CubaLIF": (("tau_syn", "tau_mem", "r", "v_leak", "v_threshold"), ("v_reset", "w_in", *SHAPES)),
    "Pass": ((), ()),
}
"""Every type that is read: the fields it must have, and those it may have."""

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float64, torch.float16, torch.bfloat16)}
_LONGEST_FORM = 10_000


@dataclass(frozen=True, eq=False)
class Fields:
    """What node `name` of `path` says, for an input of feature shape `shape`; FileError names file, node and field."""

    path: object
    name: str
    raw: RawNode
    shape: Shape
    units: Units
    hint: str = ""

    def refuse(self, item: str, rule: str) -> FileError:
        return refusal(self.path, self.name, item, f"{self.raw.kind}: {rule}" if self.raw.kind != "Pass" else rule)

    def check(self) -> None:
        """Refuse fields that are missing and fields whose meaning would be lost."""
        needed, allowed = FIELDS[self.raw.kind]
        for item in needed:
            if item not in self.raw.fields:
                raise self.refuse(item, "is missing; write the file with the nir package")
        for item in self.raw.fields:
            if item not in needed + allowed:
                raise self.refuse(item, "is unknown to NIR 1.0, its meaning would be lost; take it out")

    def number(self, item: str, default: float | None = None) -> np.ndarray:
        """A field of finite real numbers, as float64."""
        value = self.raw.fields.get(item)
        if value is None and default is not None:
            return np.asarray(default, dtype=np.float64)
        if not isinstance(value, np.ndarray):
            raise self.refuse(item, f"must hold numbers, got {value!r:.60}")
        found = value.astype(np.float64)
        if not np.isfinite(found).all():
            raise self.refuse(item, "holds NaN or infinite values; repair it before writing the file")
        return found

    def parameter(self, item: str, default: float | None = None) -> np.ndarray:
        """A number per feature, or one for all."""
        value = self.number(item, default)
        if value.size == 1:
            return value.reshape(()) if value.ndim > len(self.shape) else value
        fits = value.ndim == len(self.shape) and all(a in (1, b) for a, b in zip(value.shape, self.shape, strict=True))
        if not fits:
            raise self.refuse(item, f"has shape {value.shape}, its features have shape {self.shape}")
        return value

    def time(self, item: str) -> np.ndarray:
        """A time [s] above 0 per feature; needs dt."""
        value = self.parameter(item)
        if (value <= 0).any():
            raise self.refuse(item, f"must be > 0 s, got {value.min():g}")
        self.time_step(item)
        return value

    def time_step(self, item: str) -> None:
        """Refuse a time in seconds where nobody said how long a step is."""
        if self.units.dt is None:
            raise ParameterError(
                f"{self.path}: node {self.name!r}, field {item!r}: {self.raw.kind} has a time in seconds; "
                f"say how long a step is, e.g. dt=1e-4{self.hint}"
            )

    def rate(self, item: str) -> np.ndarray:
        """The rate of a time constant, see `nir_units`."""
        tau = self.time(item)
        rate = self.units.rate(tau)
        if (rate > 1 + 1e-9).any():
            raise self.refuse(
                item,
                f"{tau.min():g} s is shorter than dt = {self.units.dt:g} s; take a smaller dt or integrator='exact'",
            )
        return np.minimum(rate, 1.0)

    def whole(self, item: str, count: int, least: int) -> tuple[int, ...]:
        """`count` integers of at least `least`; one number stands for all."""
        value = self.number(item)
        if value.size not in (1, count) or (value != np.round(value)).any() or (value < least).any():
            raise self.refuse(item, f"must be {count} integers >= {least}, got {value.tolist()!r:.60}")
        if (value > 2**31).any():
            raise self.refuse(item, f"must be below 2^31, got {value.max():g}")
        return tuple(int(n) for n in np.broadcast_to(value.reshape(-1), count))

    @cached_property
    def form(self) -> dict[str, Any]:
        """What `to_nir` wrote down of the node that was there: element types and shapes, which NIR cannot tell."""
        if self.raw.form is None:
            return {}
        try:
            found = json.loads(self.raw.form[:_LONGEST_FORM])
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self.refuse("metadata/neuro", "is damaged; remove it")
        return found

    def tensor(self, item: str, array: np.ndarray) -> Tensor:
        """Field `item` of our node: float32 in the shape it has, or in the form it was written from."""
        told = self.form.get(item)
        dtype, shape = told if isinstance(told, list) and len(told) == 2 else ("float32", None)
        tensor = torch.from_numpy(np.array(array)).to(_DTYPES.get(str(dtype), torch.float32))
        if not bool(torch.isfinite(tensor).all()):
            raise self.refuse(item, "leaves the range of float32")
        if isinstance(shape, list) and all(type(size) is int for size in shape):
            return _narrowed(tensor, shape)
        return tensor


def _narrowed(tensor: Tensor, shape: list[int]) -> Tensor:
    """The tensor in `shape`, where that says the same when it is broadcast; as it is otherwise."""
    if len(shape) > tensor.ndim:
        return tensor
    part = tensor[(0,) * (tensor.ndim - len(shape))] if tensor.numel() else tensor
    for dim, size in enumerate(shape):
        if size == 1 and part.ndim == len(shape):
            part = part.narrow(dim, 0, 1)
    same = list(part.shape) == shape and torch.equal(part.expand(tensor.shape), tensor)
    return part.clone() if same else tensor
