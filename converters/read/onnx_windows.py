"""Rules for ONNX operators that slide a window: convolutions and pools, with pads that differ from side to side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from converters.read.onnx_rules import rule, signal
from converters.read.onnx_site import WIDEST_BORDER, OnnxSite, Operand
from neuro.nodes import AvgPool, ConvTranspose, MaxPool, Pad, Scale
from neuro.trace.site import Refusal, Value


def _around(site: OnnxSite, x: Value, kernel: Sequence[int], steps: Sequence[int], apart: Sequence[int]) -> list:
    """(before, after) for every spatial dimension."""
    count = len(kernel)
    if len(x.shape) != count + 1:
        raise Refusal(f"a window of {count} dimensions needs (batch, channels and {count} sizes)")
    auto = site.attributes["auto_pad"]
    if auto == "NOTSET":
        flat = site.sizes("pads", 2 * count, 0)
        return list(zip(flat[:count], flat[count:], strict=True))
    totals = [
        max((-(-size // step) - 1) * step + d * (k - 1) + 1 - size, 0) if auto != "VALID" else 0
        for size, step, k, d in zip(x.shape[1:], steps, kernel, apart, strict=True)
        if step > 0
    ]
    if auto not in ("VALID", "SAME_UPPER", "SAME_LOWER") or len(totals) != count:
        raise Refusal(f"auto_pad {auto!r} with strides {tuple(steps)} is no padding")
    less = [(total // 2, total - total // 2) for total in totals]
    return less if auto == "SAME_UPPER" else [(after, before) for before, after in less]


def _padded(site: OnnxSite, x: Value, around: Sequence[tuple[int, int]]) -> Value:
    return site.add(Pad(((0, 0), *around)), x, part="pad")


@rule("Conv")
def conv(site: OnnxSite, x: Operand, weight: Operand, bias: Operand = None) -> Any:
    x, kernel = signal(x), site.tensor(weight, "the weight")
    count = kernel.ndim - 2
    space = list(kernel.shape[2:])
    if count not in (1, 2, 3) or site.attributes.get("kernel_shape", space) != space:
        raise Refusal(f"a weight of shape {tuple(kernel.shape)} does not fit the operator")
    steps, apart = site.sizes("strides", count, 1), site.sizes("dilations", count, 1)
    around = _around(site, x, kernel.shape[2:], steps, apart)
    even = [before for before, after in around if before == after]
    if len(even) < count:
        x, even = _padded(site, x, around), [0] * count
    return site.aten(f"conv{count}d", x, kernel, bias, steps, tuple(even), apart, site.attributes["group"])


@rule("ConvTranspose")
def conv_transpose(site: OnnxSite, x: Operand, weight: Operand, bias: Operand = None) -> Any:
    """Laid out in full, and cropped behind where the pads of both sides differ."""
    x, kernel = signal(x), site.tensor(weight, "the weight")
    count = kernel.ndim - 2
    if count not in (1, 2, 3) or len(x.shape) != count + 1:
        raise Refusal(f"a weight of shape {tuple(kernel.shape)} does not fit features of {x.shape}")
    steps, apart = site.sizes("strides", count, 1), site.sizes("dilations", count, 1)
    more = site.sizes("output_padding", count, 0)
    auto, goal = site.attributes["auto_pad"], site.attributes.get("output_shape")
    if auto == "NOTSET" and not goal:
        flat = site.sizes("pads", 2 * count, 0)
        around = list(zip(flat[:count], flat[count:], strict=True))
    else:
        same = [size * step for size, step in zip(x.shape[1:], steps, strict=True)]
        wanted = site.sizes("output_shape", count) if goal else same if auto != "VALID" else [0] * count
        full = [
            (size - 1) * step + d * (k - 1) + 1 + extra
            for size, step, d, k, extra in zip(x.shape[1:], steps, apart, kernel.shape[2:], more, strict=True)
        ]
        totals = [size - want if want else 0 for size, want in zip(full, wanted, strict=True)]
        if min(totals) < 0:
            raise Refusal(f"output_shape {tuple(wanted)} is larger than what the kernels reach ({tuple(full)})")
        around = [(total - total // 2, total // 2) for total in totals]
        around = [(after, before) for before, after in around] if auto == "SAME_UPPER" else around
    even = [before for before, after in around if before == after]
    symmetric = len(even) == count
    offset = None if bias is None else site.tensor(bias, "the bias")
    padding = tuple(even) if symmetric else (0,) * count
    node = ConvTranspose(kernel, offset, steps, padding, more, apart, site.attributes["group"])
    if symmetric:
        return site.add(node, x)
    whole = site.add(node, x, part="whole")
    return site.add(Pad(((0, 0), *((-before, -after) for before, after in around))), whole)


def _reached(
    site: OnnxSite, x: Value, around: Sequence[tuple[int, int]], window: Sequence[int], steps: Sequence[int]
) -> list[tuple[int, int]]:
    """The (before, after) along each dimension that the windows reach.

    With ceil_mode the last window may reach beyond the pads but must not begin in those behind.
    """
    reached = []
    for size, (before, after), k, step in zip(x.shape[1:], around, window, steps, strict=True):
        room = size + before + after - k
        if step < 1 or room < 0:
            raise Refusal(
                f"a window of {k} in steps of {step} does not slide over {size} elements with pads {before}, {after}"
            )
        last = room // step
        if site.attributes.get("ceil_mode", 0):
            last = -(-room // step)
            last -= last * step >= size + before
        reached.append((before, max(last * step + k - size - before, 0)))
    return reached


@rule("MaxPool")
def max_pool(site: OnnxSite, x: Operand) -> Any:
    """Where the pads differ from side to side the border is repeated, which changes no maximum."""
    x = signal(x)
    count = len(x.shape) - 1
    window, steps = site.sizes("kernel_shape", count), site.sizes("strides", count, 1)
    apart, ceil = site.sizes("dilations", count, 1), bool(site.attributes.get("ceil_mode", 0))
    around = _around(site, x, window, steps, apart)
    if all(before == after and 2 * before <= k for (before, after), k in zip(around, window, strict=True)):
        even = tuple(before for before, _ in around)
        return site.aten(f"max_pool{count}d", x, window, steps, even, apart, ceil)
    if any(max(pair) >= min(k, WIDEST_BORDER) for pair, k in zip(around, window, strict=True)) or max(apart) > 1:
        raise Refusal("maxima over borders of this kind have no node; use pads smaller than the window, undilated")
    reached = _reached(site, x, around, window, steps)
    pool, beyond = (MaxPool(window, steps, (0,) * count, ceil=more) for more in (False, True))
    goal = pool.output_shape((1, *(size + sum(pair) for size, pair in zip(x.shape[1:], reached, strict=True))))
    if not any(before for before, _ in around) and beyond.output_shape(x.shape)[1:] == goal[1:]:
        return site.add(beyond, x)
    flat = [amount for pair in reversed(reached) for amount in pair]
    return site.add(pool, site.aten("pad", x, flat, "replicate"))


@rule("AveragePool")
def avg_pool(site: OnnxSite, x: Operand) -> Any:
    x = signal(x)
    count = len(x.shape) - 1
    window, steps = site.sizes("kernel_shape", count), site.sizes("strides", count, 1)
    ceil, borders = bool(site.attributes.get("ceil_mode", 0)), bool(site.attributes["count_include_pad"])
    apart = site.sizes("dilations", count, 1)
    if max(apart) > 1:
        raise Refusal("dilated average pooling has no node; use a convolution of constants")
    around = _around(site, x, window, steps, apart)
    inside = count < 3 or all(size >= k for size, k in zip(x.shape[1:], window, strict=True))  # as torch wants it
    if inside and all(before == after and 2 * before <= k for (before, after), k in zip(around, window, strict=True)):
        even = tuple(before for before, _ in around)
        return site.aten(f"avg_pool{count}d", x, window, steps, even, ceil, borders)
    reached = _reached(site, x, around, window, steps)
    pool, space = AvgPool(window, steps, (0,) * count), x.shape[1:]
    counted = Pad(((0, 0), *around), float(borders)).forward(torch.ones(1, 1, *space))
    beyond = tuple((0, end - after) for (_, end), (_, after) in zip(reached, around, strict=True))
    share = pool.forward(Pad(((0, 0), *beyond)).forward(counted))[0]
    if not bool((share > 0).all()):
        raise Refusal("a window lies in the padding alone")
    whole = bool((share == 1).all())
    averaged = site.add(pool, _padded(site, x, reached), part="" if whole else "average")
    return averaged if whole else site.add(Scale(1 / share), averaged)


@rule("GlobalAveragePool", "GlobalMaxPool")
def global_pool(site: OnnxSite, x: Operand) -> Any:
    key = "mean.dim" if site.node.op_type == "GlobalAveragePool" else "amax"
    return site.aten(key, signal(x), list(range(2, len(signal(x).shape) + 1)), True)


@rule("ReduceMean", "ReduceSum", "ReduceMax")
def reduction(site: OnnxSite, x: Operand, axes: Operand = None) -> Any:
    x, given = signal(x), site.either("axes", axes)
    if not given and site.attributes.get("noop_with_empty_axes", 0):
        return x
    key = {"ReduceMean": "mean.dim", "ReduceSum": "sum.dim_IntList", "ReduceMax": "amax"}[site.node.op_type]
    dims = sorted({site.axis(axis, len(x.shape) + 1) for axis in given or []})
    return site.aten(key, x, dims, bool(site.attributes["keepdims"]))
