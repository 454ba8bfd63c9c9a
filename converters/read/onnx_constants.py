"""What operators make of constants, in numpy: shape arithmetic above all, as exporters write it for a free batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from converters.read import onnx_site as shapes
from converters.read.onnx_guard import array_of, onnx_package
from converters.read.onnx_moves import bounds
from converters.read.onnx_rules import no_zero
from converters.read.onnx_site import OnnxSite, Operand, Sized
from neuro.errors import NeuroError
from neuro.trace.site import Refusal

Array = np.ndarray
FUNCTIONS: dict[str, Callable[..., Any]] = {}


def evaluated(site: OnnxSite, inputs: list[Operand]) -> Array | Sized:
    """The operator on constants, once for each batch size where that matters."""
    function = FUNCTIONS.get(site.node.op_type)
    if function is None:
        raise Refusal("has no rule for constants; fold constants before export")
    times = len(site.batches) if any(isinstance(item, Sized) for item in inputs) else 1

    def at(number: int) -> Array:
        given = [item.values[number] if isinstance(item, Sized) else item for item in inputs]
        found = np.asarray(function(site, *given))
        site.budget.spend(found.shape)
        return found

    try:
        with np.errstate(all="ignore"):
            return site.same([at(number) for number in range(times)])
    except (Refusal, NeuroError):
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, ArithmeticError, AttributeError) as error:
        raise Refusal(f"cannot be run on these constants ({' '.join(str(error).split())[:100]})") from error


def function(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def enter(made: Callable[..., Any]) -> Callable[..., Any]:
        FUNCTIONS.update(dict.fromkeys(names, made))
        return made

    return enter


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind not in "iu":
        return a / b
    if not b.all():
        raise ZeroDivisionError("division by zero")
    return (np.abs(a) // np.abs(b) * np.sign(a) * np.sign(b)).astype(a.dtype)


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divide, "Pow": np.power, "Min": np.minimum,
    "Max": np.maximum, "Equal": np.equal, "Less": np.less, "Greater": np.greater, "And": np.logical_and,
    "Or": np.logical_or, "Where": np.where, "Neg": np.negative, "Abs": np.abs, "Floor": np.floor, "Ceil": np.ceil,
    "Sqrt": np.sqrt, "Not": np.logical_not, "LessOrEqual": np.less_equal, "GreaterOrEqual": np.greater_equal,
}  # fmt: skip


@function(*_ELEMENTWISE)
def elementwise(site: OnnxSite, *parts: Array) -> Array:
    site.budget.spend(np.broadcast_shapes(*(part.shape for part in parts)))
    kept = parts[-1].dtype if site.node.op_type in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sqrt") else None
    found = np.asarray(_ELEMENTWISE[site.node.op_type](*parts))
    return found if kept is None else found.astype(kept)


@function("Constant")
def given(site: OnnxSite) -> Array:
    (name,) = (name for name in site.attributes if name.startswith("value"))
    value = site.attributes[name]
    if name == "value":
        return array_of(value, "the model")
    if name not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise Refusal(f"{name} has no reader; export numbers as plain tensors")
    return np.array(value, dtype=np.float32 if "float" in name else np.int64)


@function("Identity")
def identity(site: OnnxSite, x: Array) -> Array:
    return x


@function("Shape")
def shape(site: OnnxSite, x: Array) -> Array:
    return np.array(x.shape[slice(site.attributes.get("start", 0), site.attributes.get("end"))], dtype=np.int64)


@function("Size")
def size(site: OnnxSite, x: Array) -> Array:
    return np.array(x.size, dtype=np.int64)


@function("Cast")
def cast(site: OnnxSite, x: Array) -> Array:
    return x.astype(onnx_package().helper.tensor_dtype_to_np_dtype(site.attributes["to"]))


def _extents(x: Array) -> tuple[int, ...]:
    return tuple(int(extent) for extent in np.atleast_1d(x))


@function("ConstantOfShape")
def filled(site: OnnxSite, wanted: Array) -> Array:
    value = array_of(site.attributes["value"], "the model") if "value" in site.attributes else np.zeros(1, np.float32)
    site.budget.spend(_extents(wanted))
    return np.full(_extents(wanted), value.item(), value.dtype)


@function("Expand")
def expand(site: OnnxSite, x: Array, wanted: Array) -> Array:
    goal = np.broadcast_shapes(x.shape, _extents(wanted))
    site.budget.spend(goal)
    return np.broadcast_to(x, goal).copy()


@function("Range")
def count(site: OnnxSite, start: Array, limit: Array, delta: Array) -> Array:
    site.budget.spend((max(0, int(np.ceil((limit.item() - start.item()) / delta.item()))),))
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


@function("Gather")
def gather(site: OnnxSite, x: Array, index: Array) -> Array:
    axis = site.axis(site.attributes["axis"], x.ndim)
    site.budget.spend((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))
    return np.take(x, index, axis)


@function("Concat")
def concat(site: OnnxSite, *parts: Array) -> Array:
    site.budget.spend((sum(part.size for part in parts),))
    return np.concatenate(parts, site.axis(site.attributes["axis"], parts[0].ndim))


@function("Transpose")
def transpose(site: OnnxSite, x: Array) -> Array:
    return np.transpose(x, site.attributes.get("perm"))


@function("Reshape")
def reshape(site: OnnxSite, x: Array, wanted: Array) -> Array:
    return x.reshape(shapes.reshape(x.shape, _extents(wanted), bool(site.attributes.get("allowzero", 0))))


@function("Flatten")
def flatten(site: OnnxSite, x: Array) -> Array:
    return x.reshape(shapes.flatten(site, x.shape))


@function("Squeeze")
def squeeze(site: OnnxSite, x: Array, axes: Operand = None) -> Array:
    return x.reshape(shapes.squeeze(site, x.shape, site.either("axes", axes)))


@function("Unsqueeze")
def unsqueeze(site: OnnxSite, x: Array, axes: Operand = None) -> Array:
    return x.reshape(shapes.unsqueeze(site, x.shape, site.either("axes", axes)))


@function("Slice")
def cut(site: OnnxSite, x: Array, *where: Operand) -> Array:
    for axis, start, stop, step in bounds(site, *where, *(None,) * (4 - len(where))):
        place = site.axis(axis, x.ndim)
        x = np.take(x, range(*slice(start, stop, step).indices(x.shape[place])), place)
    return x


@function("ReduceProd", "ReduceSum", "ReduceMin", "ReduceMax", "ReduceMean")
def reduction(site: OnnxSite, x: Array, axes: Operand = None) -> Array:
    over = site.either("axes", axes)
    if not over and site.attributes.get("noop_with_empty_axes", 0):
        return x
    fold = getattr(np, site.node.op_type.removeprefix("Reduce").lower())
    return fold(x, axis=tuple(over) if over else None, keepdims=bool(site.attributes["keepdims"])).astype(x.dtype)


def _per_axis(site: OnnxSite, x: Array, scale: Array, zero: Array | None) -> tuple[Array, Array]:
    """Scale and zero point in a form that broadcasts against x."""
    if site.attributes.get("block_size", 0) or scale.dtype != np.float32:
        raise Refusal("scales must be 32-bit floating-point numbers for whole channels, without blocks")
    form = [1] * x.ndim
    if scale.size > 1:
        form[site.axis(site.attributes["axis"], x.ndim)] = scale.size
    zero = np.broadcast_to(no_zero(site), scale.shape) if zero is None else zero
    if zero.dtype.kind not in "iu":
        raise Refusal("only integers are read as quantised numbers")
    return scale.reshape(form), zero.reshape(form)


@function("QuantizeLinear")
def quantise(site: OnnxSite, x: Array, scale: Array, zero: Array | None = None) -> Array:
    steps, zeros = _per_axis(site, x, scale, zero)
    limits = np.iinfo(zeros.dtype)
    return np.clip(np.rint(x / steps).astype(np.float64) + zeros, limits.min, limits.max).astype(zeros.dtype)


@function("DequantizeLinear")
def dequantise(site: OnnxSite, x: Array, scale: Array, zero: Array | None = None) -> Array:
    steps, zeros = _per_axis(site, x, scale, zero)
    return ((x.astype(np.int64) - zeros).astype(np.float32) * steps).astype(np.float32)
