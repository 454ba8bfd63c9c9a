"""What each NIR primitive becomes: a chain of our nodes, the last of which carries its name. Equations: `nir_units`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from converters.read.nir_fields import Fields
from converters.read.nir_units import above, whole_input
from neuro.graph import Node
from neuro.nodes import (
    IAF,
    IF,
    LI,
    LIF,
    Affine,
    AvgPool,
    BoxLIF,
    Conv,
    CurrentLI,
    Delay,
    Pad,
    Reshape,
    Scale,
)

Chain = list[tuple[str, Node]]
"""Nodes in a row, each with what is put behind the name."""

RULES: dict[str, Callable[[Fields], Chain]] = {}
TIMED = ("Delay", "I", "IF", "LI", "LIF", "CubaLI", "CubaLIF", "Threshold")


def _rule(*kinds: str) -> Callable[[Callable[[Fields], Chain]], Callable[[Fields], Chain]]:
    def register(rule: Callable[[Fields], Chain]) -> Callable[[Fields], Chain]:
        RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return register


@_rule("Pass")
def _(at: Fields) -> Chain:
    return []


@_rule("Affine", "Linear")
def _(at: Fields) -> Chain:
    weight = at.number("weight")
    if weight.ndim != 2:
        raise at.refuse("weight", f"must be (out, in), got shape {weight.shape}")
    bias = None
    if at.raw.kind == "Affine":
        bias = at.number("bias")
        if bias.size not in (1, weight.shape[0]):
            raise at.refuse("bias", f"has shape {bias.shape} for {weight.shape[0]} outputs")
        bias = np.broadcast_to(bias.reshape(-1), weight.shape[:1])
    return [("", Affine(at.tensor("weight", weight), None if bias is None else at.tensor("bias", bias)))]


@_rule("Scale")
def _(at: Fields) -> Chain:
    return [("", Scale(at.tensor("factor", at.parameter("scale"))))]


def _scaled(at: Fields, item: str, default: float | None = None) -> Chain:
    factor = at.parameter(item, default)
    return [] if (factor == 1).all() else [(f".{item}", Scale(at.tensor("", factor)))]


@_rule("Conv1d", "Conv2d")
def _(at: Fields) -> Chain:
    weight, count = at.number("weight"), 1 if at.raw.kind == "Conv1d" else 2
    if weight.ndim != count + 2 or 0 in weight.shape:
        raise at.refuse("weight", f"must have {count + 2} dimensions (out, in / groups, *kernel), got {weight.shape}")
    (groups,) = at.whole("groups", 1, 1)
    stride, dilation = at.whole("stride", count, 1), at.whole("dilation", count, 1)
    if "input_shape" in at.raw.fields and at.whole("input_shape", count, 1) != at.shape[1:]:
        raise at.refuse("input_shape", f"says {at.whole('input_shape', count, 1)}, but {at.shape[1:]} arrives")
    before, padding = _padding(at, weight.shape[2:], stride, dilation)
    bias = at.number("bias")
    if bias.size not in (1, weight.shape[0]):
        raise at.refuse("bias", f"has shape {bias.shape} for {weight.shape[0]} outputs")
    absent = "bias" in at.form and at.form["bias"] is None and not bias.any()
    given = None if absent else at.tensor("bias", np.broadcast_to(bias.reshape(-1), weight.shape[:1]))
    return [*before, ("", Conv(at.tensor("weight", weight), given, stride, padding, dilation, groups))]


def _padding(
    at: Fields, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[Chain, tuple[int, ...]]:
    """Zeros around the input: by number, 'valid' (none), or 'same', which may need one more behind than before."""
    value = at.raw.fields["padding"]
    if isinstance(value, np.ndarray):
        return [], at.whole("padding", len(kernel), 0)
    if value == "valid":
        return [], (0,) * len(kernel)
    if value != "same" or max(stride) > 1:
        raise at.refuse("padding", f"must be numbers, 'valid', or 'same' with stride 1, got {value!r:.40}")
    totals = [step * (size - 1) for size, step in zip(kernel, dilation, strict=True)]
    if all(total % 2 == 0 for total in totals):
        return [], tuple(total // 2 for total in totals)
    amounts = ((0, 0), *((total // 2, total - total // 2) for total in totals))
    return [(".pad", Pad(amounts))], (0,) * len(kernel)


@_rule("AvgPool2d", "SumPool2d")
def _(at: Fields) -> Chain:
    kernel = at.whole("kernel_size", 2, 1)
    mean = AvgPool(kernel, at.whole("stride", 2, 1), at.whole("padding", 2, 0))
    if at.raw.kind == "AvgPool2d":
        return [("", mean)]
    return [(".mean", mean), ("", Scale(torch.tensor(float(math.prod(kernel)))))]


@_rule("Flatten")
def _(at: Fields) -> Chain:
    ends = []
    for item in ("start_dim", "end_dim"):
        (low, size), value = (-len(at.shape), len(at.shape)), at.number(item)
        if value.size != 1 or int(value.item()) != value.item() or not low <= value.item() < size:
            raise at.refuse(item, f"{value.tolist()!r:.40} is no dimension of features of shape {at.shape}")
        ends.append(int(value.item()) % len(at.shape))
    start, end = ends
    if end < start:
        raise at.refuse("end_dim", f"lies before start_dim: {end} < {start}")
    return [("", Reshape((*at.shape[:start], math.prod(at.shape[start : end + 1]), *at.shape[end + 1 :])))]


@_rule("Delay")
def _(at: Fields) -> Chain:
    delay = at.parameter("delay")
    if (delay < 0).any():
        raise at.refuse("delay", f"must be >= 0 s, got {delay.min():g}")
    if not delay.any():
        return [("", Delay(at.tensor("steps", delay)))]
    at.time_step("delay")
    steps = delay / at.units.dt
    if (np.abs(steps - np.round(steps)) > 1e-4 * np.maximum(steps, 1)).any():
        raise at.refuse("delay", f"{delay.max():g} s is no whole number of steps of {at.units.dt:g} s; change dt")
    return [("", Delay(at.tensor("steps", np.round(steps))))]


@_rule("Threshold")
def _(at: Fields) -> Chain:
    theta = _threshold(at, "threshold", np.zeros(()))
    nothing = torch.zeros(())
    return [("", LIF(nothing, at.tensor("theta", above(theta)), nothing, "zero"))]


def _threshold(at: Fields, item: str, floor: np.ndarray) -> np.ndarray:
    theta = at.parameter(item)
    if (theta.astype(np.float32) <= floor.astype(np.float32)).any():
        what = "v_reset, or the population fires for ever" if floor.any() else "0"
        raise at.refuse(item, f"must be > {what}; got {theta.min():g}")
    return theta


def _reset(at: Fields) -> np.ndarray:
    return at.parameter("v_reset", 0.0)


def _fires(at: Fields) -> np.ndarray:
    """The threshold, which must lie above the potential after a reset."""
    to_zero = at.units.reset == "zero"
    return _threshold(at, "v_threshold", _reset(at) if to_zero else np.zeros(()))


@_rule("IF")
def _(at: Fields) -> Chain:
    theta, v_reset, r = _fires(at), _reset(at), _scaled(at, "r")
    if at.units.reset == "zero" and (v_reset.any() or at.form.get("kind") == "IAF"):
        return [*r, ("", IAF(at.tensor("theta", theta), at.tensor("v_reset", v_reset)))]
    zero = np.zeros_like(theta)
    return [*r, ("", IF(at.tensor("theta", above(theta)), at.tensor("v0", zero), at.units.reset))]


@_rule("I")
def _(at: Fields) -> Chain:
    return [*_scaled(at, "r"), ("", LI(at.tensor("beta", np.ones_like(at.parameter("r")))))]


def _leaky(at: Fields, rate: np.ndarray, gain: str, v_leak: np.ndarray, suffix: str) -> Chain:
    """A membrane that never fires: tau dv/dt = (v_leak - v) + gain I."""
    if whole_input(rate, at.parameter(gain, 1.0)) and not v_leak.any():
        return [(suffix, LI(at.tensor("synapse" if suffix else "beta", 1 - rate)))]
    one = np.ones_like(rate)
    fields = [("rate_syn", one), ("rate_mem", rate), ("v_leak", v_leak)]
    node = CurrentLI(*(at.tensor(name if not suffix else "", value) for name, value in fields))
    return [*_scaled(at, gain, 1.0), (suffix, node)]


def _firing(at: Fields, rate: np.ndarray) -> Chain:
    """tau dv/dt = (v_leak - v) + R I with threshold and reset."""
    theta, v_leak, v_reset, soft = _fires(at), at.parameter("v_leak"), _reset(at), at.units.reset == "subtract"
    if whole_input(rate, at.parameter("r")) and not v_leak.any() and (soft or not v_reset.any()):
        beta, v0 = at.tensor("beta", 1 - rate), at.tensor("v0", np.zeros_like(theta))
        return [("", LIF(beta, at.tensor("theta", above(theta)), v0, at.units.reset))]
    node = BoxLIF(
        at.tensor("rate_mem", rate), at.tensor("theta", theta), at.tensor("v_leak", v_leak),
        at.tensor("v_reset", v_reset), "subtract" if soft else "value",
    )  # fmt: skip
    return [*_scaled(at, "r"), ("", node)]


@_rule("LI")
def _(at: Fields) -> Chain:
    return _leaky(at, at.rate("tau"), "r", at.parameter("v_leak"), "")


@_rule("LIF")
def _(at: Fields) -> Chain:
    return _firing(at, at.rate("tau"))


@_rule("CubaLI", "CubaLIF")
def _(at: Fields) -> Chain:
    synapse = _leaky(at, at.rate("tau_syn"), "w_in", np.zeros(()), ".synapse")
    rate = at.rate("tau_mem")
    membrane = _firing(at, rate) if at.raw.kind == "CubaLIF" else _leaky(at, rate, "r", at.parameter("v_leak"), "")
    return [*synapse, *membrane]
