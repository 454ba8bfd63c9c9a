"""One short function per ONNX operator on signals: most say which ATen operation it is, for `neuro.trace` knows those.

Semantics from the operator documentation of ONNX, opset 7 to 28; where versions differ, `site.version` (the opset that
introduced the operator's present form) tells them apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch

from converters.read.onnx_guard import onnx_package
from converters.read.onnx_site import OnnxSite, Operand, Quantised
from neuro.nodes import Clamp, Dequantise, Quantise, Scale
from neuro.trace.activations import two_sided
from neuro.trace.rules import beside, scaled
from neuro.trace.site import Refusal, Value

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def signal(x: Operand, what: str = "the input") -> Value:
    if not isinstance(x, Value):
        raise Refusal(f"{what} must be a real signal, neither constant nor quantised")
    return x


# Weighted sums


@rule("Gemm")
def gemm(site: OnnxSite, a: Operand, b: Operand, c: Operand = None) -> Any:
    given = site.attributes
    x, matrix = signal(a), site.tensor(b, "the second factor") * given["alpha"]
    if given["transA"] or len(x.shape) != 1 or matrix.ndim != 2:
        raise Refusal("only a matrix of samples times a matrix of constants has a node")
    matrix = matrix.T if given["transB"] else matrix
    if c is None or isinstance(c, Value):
        product = site.aten("matmul", x, matrix)
        return product if c is None else site.aten("add.Tensor", product, c, given["beta"])
    offset = beside(Value("", (matrix.shape[1],)), site.tensor(c, "the summand"), "the summand")
    return site.aten("addmm", offset, x, matrix, beta=given["beta"])


@rule("MatMul")
def matmul(site: OnnxSite, a: Operand, b: Operand) -> Any:
    if isinstance(a, Value):
        return site.aten("matmul", a, site.tensor(b, "the second factor"))
    return site.aten("matmul", site.tensor(a, "the first factor"), signal(b, "the second factor"))


@rule("BatchNormalization")
def batch_norm(site: OnnxSite, x: Operand, scale: Operand, bias: Operand, mean: Operand, var: Operand) -> Any:
    if site.attributes.get("training_mode", 0) or not site.attributes.get("spatial", 1):
        raise Refusal("normalises by the running batch; export in eval mode")
    return site.aten("batch_norm", signal(x), scale, bias, mean, var, False, 0.0, site.attributes["epsilon"])


# Arithmetic


@rule("Add", "Sub", "Mul", "Div")
def arithmetic(site: OnnxSite, a: Operand, b: Operand) -> Any:
    return site.aten(f"{site.node.op_type.lower()}.Tensor", a, b)


@rule("Sum")
def total(site: OnnxSite, *parts: Operand) -> Any:
    return reduce(lambda a, b: site.aten("add.Tensor", a, b), parts)


@rule("Max", "Min")
def extreme(site: OnnxSite, *parts: Operand) -> Any:
    return reduce(lambda a, b: site.aten(f"{site.node.op_type.lower()}imum", a, b), parts)


@rule("Neg", "Abs", "Relu", "Sigmoid", "Tanh")
def plain(site: OnnxSite, x: Operand) -> Any:
    return site.aten(site.node.op_type.lower(), signal(x))


@rule("LeakyRelu")
def leaky_relu(site: OnnxSite, x: Operand) -> Any:
    return site.aten("leaky_relu", signal(x), site.attributes["alpha"])


@rule("PRelu")
def prelu(site: OnnxSite, x: Operand, slope: Operand) -> Any:
    slopes = site.tensor(slope, "the slope")
    if slopes.numel() == 1:
        return site.aten("leaky_relu", signal(x), slopes.item())
    return two_sided(site, signal(x), beside(signal(x), slopes, "the slope"))


@rule("HardSigmoid")
def hard_sigmoid(site: OnnxSite, x: Operand) -> Any:
    steep = scaled(site, signal(x), site.attributes["alpha"], site.attributes["beta"], part="scale")
    return site.add(Clamp(0.0, 1.0), steep)


@rule("Clip")
def clip(site: OnnxSite, x: Operand, low: Operand = None, high: Operand = None) -> Any:
    """Bounds at the end of the number range, which early opsets write for none, are none."""
    given = [site.attributes.get(name) if bound is None else site.tensor(bound, f"{name}imum")
             for name, bound in (("min", low), ("max", high))]  # fmt: skip
    bounds = [None if bound is None else float(bound) for bound in given]
    lowest, highest = (None if bound is None or abs(bound) > 3.4e38 else bound for bound in bounds)
    return signal(x) if lowest is highest is None else site.aten("clamp", signal(x), lowest, highest)


@rule("Softmax", "LogSoftmax")
def softmax(site: OnnxSite, x: Operand) -> Any:
    """Before opset 13 all dimensions from `axis` on are one vector."""
    x = signal(x)
    axis = site.axis(site.attributes["axis"], len(x.shape) + 1)
    key = "softmax.int" if site.node.op_type == "Softmax" else "log_softmax.int"
    if site.version >= 13 or axis in (0, len(x.shape)):
        return site.aten(key, x, axis)
    flat = site.aten("reshape", x, result=(*x.shape[: axis - 1], math.prod(x.shape[axis - 1 :])))
    return site.aten("reshape", site.aten(key, flat, axis), result=x.shape)


@rule("Dropout")
def dropout(site: OnnxSite, x: Operand, ratio: Operand = None, training: Operand = None) -> Any:
    p = site.attributes.get("ratio", 0.5) if ratio is None else float(site.tensor(ratio, "the ratio"))
    return site.aten("dropout", signal(x), p, training is not None and bool(site.tensor(training, "training_mode")))


# Integers


@rule("QuantizeLinear")
def quantise(site: OnnxSite, x: Operand, scale: Operand, zero: Operand = None) -> Any:
    """q - zero = clip(round(x / scale), low - zero, high - zero).

    With one scale per channel x is multiplied by 1 / scale, so that a number within rounding of a tie may go the other
    way than in onnxruntime, which divides.
    """
    x, (steps, zeros, low, high) = signal(x), _quantisation(site, signal(x), scale, zero)
    if len(set(zeros)) > 1:
        raise Refusal("zero points that differ from channel to channel have no node; quantise symmetrically")
    if steps.numel() > 1:
        x, steps = site.add(Scale(1 / steps.reshape(-1, *(1,) * (len(x.shape) - 1))), x, part="scale"), torch.ones(1)
    return Quantised(site.add(Quantise(steps.item(), low - zeros[0], high - zeros[0]), x), zeros[0])


@rule("DequantizeLinear")
def dequantise(site: OnnxSite, x: Operand, scale: Operand, zero: Operand = None) -> Any:
    if not isinstance(x, Quantised):
        raise Refusal("only what QuantizeLinear gave can be a quantised signal")
    steps, zeros, *_ = _quantisation(site, x.value, scale, zero)
    if set(zeros) != {x.zero}:
        raise Refusal(f"zero point {zeros[0]} is not that of the QuantizeLinear before it, {x.zero}")
    return site.add(Dequantise(steps), x.value)


def no_zero(site: OnnxSite) -> np.ndarray:
    """The zero point where none is given; its type is that of the integers."""
    kind = site.attributes.get("output_dtype", 0) if site.node.op_type == "QuantizeLinear" else 0
    return np.zeros((), onnx_package().helper.tensor_dtype_to_np_dtype(kind) if kind else np.uint8)


def _quantisation(site: OnnxSite, x: Value, scale: Operand, zero: Operand) -> tuple:
    """Steps and zero points per channel (or one for all), and the range of the integers."""
    steps = site.tensor(scale, "the scale")
    zeros = no_zero(site) if zero is None else zero
    if not isinstance(zeros, np.ndarray) or zeros.dtype.kind not in "iu" or zeros.dtype.itemsize > 2:
        raise Refusal("only integers of 8 or 16 bits are read")
    if steps.dtype != torch.float32 or not bool((steps > 0).all()) or site.attributes.get("block_size", 0):
        raise Refusal("scales must be positive 32-bit floating-point numbers for whole channels, without blocks")
    if zeros.size != steps.numel() and zero is not None:
        raise Refusal(f"{zeros.size} zero points do not belong to {steps.numel()} scales")
    if steps.numel() > 1 and (site.axis(site.attributes["axis"], len(x.shape) + 1) != 1 or steps.ndim != 1):
        raise Refusal("scales that differ along anything but the channels have no node")
    if steps.numel() not in (1, *x.shape[:1]):
        raise Refusal(f"{steps.numel()} scales do not fit features of {x.shape}")
    limits = np.iinfo(zeros.dtype)
    return steps.reshape(-1), [int(value) for value in zeros.reshape(-1)], int(limits.min), int(limits.max)
