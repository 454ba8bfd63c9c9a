"""Where one ONNX operator stands: what the rules of `neuro.trace` ask of a place, answered from the file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro.graph import Node, Shape
from neuro.trace.from_export import RULES as ATEN
from neuro.trace.rules import constant
from neuro.trace.site import BatchRefusal, Refusal, Site, Value

LARGEST_SIGNAL = 1 << 26
"""Elements of one sample; whatever claims more is no network but an attack on the memory."""

WIDEST_BORDER = 256
"""Elements of a border that repeats the signal: each is a node of its own."""


@dataclass(frozen=True, eq=False)
class Sized:
    """A constant that depends on the batch size: its value for each of the batch sizes that are tried."""

    values: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Quantised:
    """An integer signal q on its way to DequantizeLinear: q - zero leaves the node."""

    value: Value
    zero: int


def printable(name: str) -> str:
    """A name from a file, fit for messages and tables."""
    return "".join(letter if letter.isprintable() else "_" for letter in name)[:120]


Operand = Value | Quantised | np.ndarray | Sized | None


@dataclass
class Budget:
    """How many elements the constants of a file may still be made of."""

    left: int

    def spend(self, shape: Sequence[int]) -> None:
        self.left -= math.prod(shape)
        if self.left < 0:
            raise Refusal(
                "the constants computed here outgrow everything that the file stores; fold them before export"
            )


@dataclass(frozen=True)
class OnnxSite(Site):
    """One operator of the file.

    The batch stays free by trying several sizes of it, `batches`: what is the same for all of them does not depend on
    it, and what keeps the batch has it as its first size in each.
    """

    node: Any
    attributes: Mapping[str, Any]
    version: int
    batches: tuple[int, ...]
    budget: Budget
    aten_name: str = ""
    result: Shape = ()

    @property
    def operation(self) -> str:
        return self.aten_name or self.node.op_type

    @property
    def name(self) -> str:
        given = self.node.name.strip("/") or next((name for name in self.node.output if name), "")
        return printable(given) or self.node.op_type.lower()

    @property
    def shape(self) -> Shape:
        return self.result

    def add(self, node: Node, *inputs: Value, part: str = "") -> Value:
        value = super().add(node, *inputs, part=part)
        if math.prod(value.shape) > LARGEST_SIGNAL:
            raise Refusal(f"gives {math.prod(value.shape)} elements per sample, more than {LARGEST_SIGNAL}")
        return value

    def aten(self, key: str, *arguments: Any, result: Shape = (), **named: Any) -> Any:
        """The nodes that the ATen operation `key` becomes when torch code is traced."""
        site = replace(self, aten_name=key.partition(".")[0], result=result)
        given = [self.tensor(item) if isinstance(item, np.ndarray | Sized) else item for item in arguments]
        return ATEN[key](site, *given, **named)

    def reshaped(self, x: Value, change: Callable[[Shape, int], Shape]) -> Value:
        """x in the shape `change(shape with batch, number of the batch size)`."""
        shapes = [change((size, *x.shape), number) for number, size in enumerate(self.batches)]
        if any(not shape or shape[0] != size for shape, size in zip(shapes, self.batches, strict=True)):
            raise BatchRefusal("the batch must stay the first dimension, alone")
        if len({shape[1:] for shape in shapes}) != 1:
            raise BatchRefusal("feature sizes must not depend on the batch size")
        return self.aten("reshape", x, result=shapes[0][1:])

    def tensor(self, x: Operand, what: str = "an input") -> Tensor:
        """A constant as a tensor of its own."""
        if isinstance(x, Sized):
            raise BatchRefusal(f"{what} depends on the batch size")
        if isinstance(x, np.ndarray):
            return torch.from_numpy(np.array(x, order="C"))
        return constant(x, what)

    def each(self, x: Operand, what: str) -> list[list[int]]:
        """Whole numbers of a constant, for every batch size."""
        values = x.values if isinstance(x, Sized) else (x,) * len(self.batches)
        if any(not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or value.ndim > 1 for value in values):
            raise Refusal(f"{what} must be a constant vector of whole numbers")
        return [[int(number) for number in np.atleast_1d(value)] for value in values]  # type: ignore[arg-type]

    def whole(self, x: Operand, what: str) -> list[int]:  # type: ignore[override]
        """Whole numbers of a constant that does not depend on the batch size."""
        if isinstance(x, Sized):
            raise BatchRefusal(f"{what} must not depend on the batch size")
        return self.each(x, what)[0]

    def either(self, attribute: str, x: Operand) -> list[int] | None:
        """What early opsets say by attribute and later ones by input; None where neither does."""
        if x is not None:
            return self.whole(x, attribute)
        return list(self.attributes[attribute]) if attribute in self.attributes else None

    def sizes(self, attribute: str, count: int, default: int | None = None) -> Shape:
        """An attribute of one whole number per dimension."""
        given = self.attributes.get(attribute)
        found = tuple(given) if given else (default,) * count if default is not None else ()
        if len(found) != count or any(not 0 <= size < 2**31 for size in found):
            raise Refusal(f"{attribute} must be {count} sizes, got {list(found)[:9]}")
        return found

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from the front."""
        if not -rank <= axis < rank:
            raise Refusal(f"axis {axis} does not exist in {rank} dimensions")
        return axis % rank

    def same(self, values: Sequence[np.ndarray]) -> np.ndarray | Sized:
        """One constant where the batch size does not matter."""
        first = values[0]
        equal = all(value.shape == first.shape and bool((value == first).all()) for value in values[1:])
        return first if equal else Sized(tuple(values))


# Shapes as the operators change them, of signals and of constants


def reshape(shape: Shape, wanted: Sequence[int], keep_zero: bool) -> Shape:
    """`wanted` with 0 for a size that stays (unless `keep_zero`) and -1 for the one that is left over."""
    if list(wanted).count(-1) > 1 or any(size < -1 or size >= 2**40 for size in wanted):
        raise Refusal(f"{list(wanted)[:9]} is no shape")
    if not keep_zero and any(size == 0 and at >= len(shape) for at, size in enumerate(wanted)):
        raise Refusal(f"{list(wanted)[:9]} keeps a size that {shape} does not have")
    found = [shape[at] if size == 0 and not keep_zero else size for at, size in enumerate(wanted)]
    rest = math.prod(size for size in found if size != -1)
    found = [math.prod(shape) // max(rest, 1) if size == -1 else size for size in found]
    if math.prod(found) != math.prod(shape):
        raise Refusal(f"{shape} does not reshape to {list(wanted)[:9]}")
    return tuple(found)


def flatten(site: OnnxSite, shape: Shape) -> Shape:
    axis = site.attributes["axis"]
    place = axis if axis == len(shape) else site.axis(axis, len(shape))
    return math.prod(shape[:place]), math.prod(shape[place:])


def squeeze(site: OnnxSite, shape: Shape, axes: Sequence[int] | None) -> Shape:
    gone = {at for at, size in enumerate(shape) if size == 1} if axes is None else set()
    gone |= {site.axis(axis, len(shape)) for axis in axes or ()}
    if any(shape[axis] != 1 for axis in gone):
        raise Refusal(f"only sizes of 1 can be left out of {shape}, not {sorted(gone)}")
    return tuple(size for at, size in enumerate(shape) if at not in gone)


def unsqueeze(site: OnnxSite, shape: Shape, axes: Sequence[int] | None) -> Shape:
    rank = len(shape) + len(axes or ())
    new = {site.axis(axis, rank) for axis in axes or ()}
    if len(new) != len(axes or ()) or not new or rank > 16:
        raise Refusal(f"axes {axes} are not different new dimensions")
    rest = iter(shape)
    return tuple(1 if at in new else next(rest) for at in range(rank))
