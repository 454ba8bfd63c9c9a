"""Rules for ONNX operators that only move elements, and for the shape of a signal."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from converters.read import onnx_site as shapes
from converters.read.onnx_rules import rule, signal
from converters.read.onnx_site import WIDEST_BORDER, OnnxSite, Operand, Quantised
from neuro.trace.hints import hint
from neuro.trace.site import Refusal, Value


@rule("Identity", "Cast")
def identity(site: OnnxSite, x: Operand, *_: Operand) -> Any:
    if site.node.op_type == "Cast" and site.attributes["to"] != 1:
        raise Refusal("signals are 32-bit floating-point numbers; cast them to nothing else")
    return x


@rule("Reshape")
def reshape(site: OnnxSite, x: Operand, wanted: Operand) -> Any:
    goals, keep = site.each(wanted, "the shape"), bool(site.attributes.get("allowzero", 0))
    return site.reshaped(signal(x), lambda shape, number: shapes.reshape(shape, goals[number], keep))


@rule("Flatten")
def flatten(site: OnnxSite, x: Operand) -> Any:
    return site.reshaped(signal(x), lambda shape, _: shapes.flatten(site, shape))


@rule("Squeeze")
def squeeze(site: OnnxSite, x: Operand, axes: Operand = None) -> Any:
    given = site.either("axes", axes)
    return site.reshaped(signal(x), lambda shape, _: shapes.squeeze(site, shape, given))


@rule("Unsqueeze")
def unsqueeze(site: OnnxSite, x: Operand, axes: Operand = None) -> Any:
    given = site.either("axes", axes)
    return site.reshaped(signal(x), lambda shape, _: shapes.unsqueeze(site, shape, given))


@rule("Expand")
def expand(site: OnnxSite, x: Operand, wanted: Operand) -> Any:
    x, rank = signal(x), len(signal(x).shape) + 1
    for goal, size in zip(site.each(wanted, "the shape"), site.batches, strict=True):
        full = (size, *x.shape)
        if len(goal) > rank or any(
            want not in (1, had) for want, had in zip(goal, full[rank - len(goal) :], strict=True)
        ):
            raise Refusal("copies of a signal have no node; concatenate it with itself instead")
    return x


@rule("Transpose")
def transpose(site: OnnxSite, x: Operand) -> Any:
    rank = len(signal(x).shape) + 1
    order = list(site.attributes.get("perm", range(rank)[::-1]))
    if sorted(order) != list(range(rank)):
        raise Refusal(f"perm {order[:9]} is no order of {rank} dimensions")
    return site.aten("permute", signal(x), order)


@rule("Concat")
def concat(site: OnnxSite, *parts: Operand) -> Any:
    given = [part if isinstance(part, Value) else site.tensor(part, "a part") for part in parts]
    rank = next(len(part.shape) + 1 for part in given if isinstance(part, Value))
    return site.aten("cat", given, site.axis(site.attributes["axis"], rank))


@rule("Pad")
def pad(site: OnnxSite, x: Operand, pads: Operand = None, value: Operand = None, axes: Operand = None) -> Any:
    x, rank = signal(x), len(signal(x).shape) + 1
    given = site.either("pads", pads) or []
    places = list(range(rank)) if axes is None else [site.axis(axis, rank) for axis in site.whole(axes, "axes")]
    if len(given) != 2 * len(places) or len(set(places)) < len(places) or any(abs(amount) > 2**20 for amount in given):
        raise Refusal(f"pads {given[:9]} do not fit {rank} dimensions")
    pairs = dict(zip(places, zip(given[: len(places)], given[len(places) :], strict=True), strict=True))
    mode = {"edge": "replicate", "wrap": "circular"}.get(site.attributes["mode"], site.attributes["mode"])
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise Refusal(f"mode {mode!r} is unknown")
    if mode != "constant" and any(amount > WIDEST_BORDER for amount in given):
        raise Refusal(f"pads {given[:9]} of mode {mode!r} are wider than {WIDEST_BORDER}")
    room = {"reflect": -1, "circular": 0}.get(mode)
    for place, pair in pairs.items():
        if mode != "constant" and (
            min(pair) < 0 or (place and room is not None and max(pair) > x.shape[place - 1] + room)
        ):
            raise Refusal(f"pads {pair} of mode {mode!r} do not fit a size of {x.shape[place - 1]}")
    flat = [amount for place in reversed(range(rank)) for amount in pairs.get(place, (0, 0))]
    fill = site.attributes.get("value", 0.0) if value is None else site.tensor(value, "the value").item()
    return site.aten("pad", x, flat, mode, fill)


def bounds(site: OnnxSite, starts: Operand, ends: Operand, axes: Operand, steps: Operand) -> list[tuple[int, ...]]:
    """(axis, start, stop, step) for every axis that a Slice names, in its own words."""
    first, last = site.either("starts", starts) or [], site.either("ends", ends) or []
    places = site.either("axes", axes) or list(range(len(first)))
    strides = [1] * len(first) if steps is None else site.whole(steps, "steps")
    if not len(first) == len(last) == len(places) == len(strides) or 0 in strides:
        raise Refusal("starts, ends, axes and steps must be equally many, and no step 0")
    return list(zip(places, first, last, strides, strict=True))


@rule("Slice")
def cut(site: OnnxSite, x: Operand, starts: Operand = None, ends: Operand = None, axes: Operand = None,
        steps: Operand = None) -> Any:  # fmt: skip
    x = signal(x)
    for axis, start, stop, step in bounds(site, starts, ends, axes, steps):
        place = site.axis(axis, len(x.shape) + 1)
        if place == 0 and any(slice(start, stop, step).indices(size) != (0, size, 1) for size in site.batches):
            raise Refusal("takes some samples out of the batch; samples must stay together")
        if step < 0:
            raise Refusal("reversed signals have no node; use positive steps")
        x = x if place == 0 else site.aten("slice.Tensor", x, place, start, stop, step)
    return x


@rule("Split")
def split(site: OnnxSite, x: Operand, lengths: Operand = None) -> Any:
    x = signal(x)
    place, count = site.axis(site.attributes["axis"], len(x.shape) + 1), len(site.node.output)
    if place == 0:
        raise Refusal("takes some samples out of the batch; samples must stay together")
    size = x.shape[place - 1]
    even = -(-size // count)
    parts = site.either("split", lengths) or [min(even, size - even * number) for number in range(count)]
    if (
        len(parts) != count
        or min(parts) < 1
        or sum(parts) != size
        or site.attributes.get("num_outputs", count) != count
    ):
        raise Refusal(f"{size} elements do not split into {parts[:9]} for {count} outputs")
    return tuple(
        site.aten("slice.Tensor", x, place, start, stop) for start, stop in pairwise(accumulate(parts, initial=0))
    )


@rule("Gather")
def gather(site: OnnxSite, x: Operand, index: Operand) -> Any:
    x = signal(x)
    place = site.axis(site.attributes["axis"], len(x.shape) + 1)
    scalar = isinstance(index, np.ndarray) and index.ndim == 0
    if not scalar or place == 0:
        raise Refusal(hint("gather") if place else "takes one sample out of the batch; samples must stay together")
    return site.aten("select.int", x, place, site.axis(site.whole(index, "the index")[0], x.shape[place - 1]))


@rule("Shape")
def shape_of(site: OnnxSite, x: Operand) -> Any:
    features = x.value.shape if isinstance(x, Quantised) else signal(x).shape
    ends = slice(site.attributes.get("start", 0), site.attributes.get("end"))
    return site.same([np.array((size, *features)[ends], dtype=np.int64) for size in site.batches])
