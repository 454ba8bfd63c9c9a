"""Networks drawn at random from the operators that are read, and the test cases of the onnx package itself.

Whatever is read computes what onnxruntime, or the case, says; whatever is not read is refused by a typed line. Readers
run with check=False, so that nothing but the rules can make the numbers right.
"""

from __future__ import annotations

import importlib
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.read.from_onnx import from_onnx
from neuro.errors import NeuroError
from neuro.evaluate import evaluate
from neuro.graph import Graph

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

FLOAT = onnx.TensorProto.FLOAT
BATCH = 3
TOLERANCE = 1e-3
OPSETS = (7, 9, 10, 11, 12, 13, 14, 17, 18, 19, 21, 23, 25, 28)
FEATURES = ((4, 7, 6), (2, 5, 5), (6,), (4, 3), (3, 9), (2, 4, 3, 4), (6, 4, 4))


class Network:
    """A model in the making; constants come in all the forms in which a file can hold them."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.opset = self.draw.choice(OPSETS)
        self.nodes: list[Any] = []
        self.held: dict[str, np.ndarray] = {}
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [self.name() for _ in range(outputs)]
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(kind, inputs, names, **given))
        return names[0] if outputs == 1 else names

    def constant(self, value: Any) -> str:
        array, name = np.asarray(value), self.name()
        way = self.draw.randrange(8)
        if way == 0:
            self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))
        elif way == 1 and array.dtype == np.int64 and array.ndim == 1 and self.opset >= 12:
            self.nodes.append(helper.make_node("Constant", [], [name], value_ints=[int(entry) for entry in array]))
        elif way in (2, 3) and array.dtype == np.float32:
            self.held[name + "_"] = array.astype(np.float16 if way == 2 else np.float64)
            self.nodes.append(helper.make_node("Cast", [name + "_"], [name], to=FLOAT))
        else:
            self.held[name] = array
        return name

    def drawn(self, *shape: int) -> str:
        return self.constant(self.numbers.standard_normal(shape).astype(np.float32))

    def whole(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def either(self, *values: Any) -> Any:
        return self.draw.choice(values)

    def axis(self, place: int, rank: int) -> int:
        """From the front, or from behind where the opset has that."""
        return place - rank if self.opset >= 11 and self.draw.random() < 0.4 else place

    def model(self, features: tuple[int, ...], output: str, batch: int | str) -> Any:
        entering = [helper.make_tensor_value_info("x", FLOAT, [batch, *features])]
        if self.draw.random() < 0.2:  # as IR versions before 4 wanted it
            entering += [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in self.held.items()
            ]
        graph = helper.make_graph(
            self.nodes,
            "drawn",
            entering,
            [helper.make_tensor_value_info(output, FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in self.held.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


Shape = list[int]


def weighted(net: Network, x: str, shape: Shape) -> str:
    rank, channels, space = len(shape), shape[1], shape[2:]
    if rank == 2:
        width, turned = net.either(1, 4), net.either(0, 1)
        offset = [net.drawn(*net.either([width], [1, width], [1], []))] if net.either(True, False) else []
        return net.add(
            "Gemm", x, net.drawn(*((width, channels) if turned else (channels, width))), *offset,
            transB=turned, transA=net.either(None, 0), alpha=net.either(None, 0.5), beta=net.either(None, 2.0),
        )  # fmt: skip
    if net.draw.random() < 0.3:
        matrix = net.either([shape[-1], 2], [shape[-1]], [1] * (rank - 2) + [shape[-1], 3])
        return net.either(
            lambda: net.add("MatMul", x, net.drawn(*matrix)), lambda: net.add("MatMul", net.drawn(3, shape[-2]), x)
        )()
    groups = net.either(*(count for count in range(1, channels + 1) if channels % count == 0))
    kernel, given = window(net, space)
    offset = net.either(True, False)
    if net.draw.random() < 0.7:
        out = groups * net.either(1, 2)
        inputs = [x, net.drawn(out, channels // groups, *kernel), *([net.drawn(out)] if offset else [])]
        return net.add("Conv", *inputs, group=groups, **given)
    inputs = [x, net.drawn(channels, 2, *kernel), *([net.drawn(2 * groups)] if offset else [])]
    return net.add("ConvTranspose", *inputs, group=groups, output_padding=[net.either(0, 1) for _ in space], **given)


def window(net: Network, space: Shape, pool: bool = False) -> tuple[Shape, dict[str, Any]]:
    kernel = [net.draw.randint(1, min(3, size)) for size in space]
    given: dict[str, Any] = {"strides": net.either(None, [net.draw.randint(1, 3) for _ in space])}
    way = net.draw.randrange(4)
    if way == 0:
        given["pads"] = [net.draw.randrange(k if pool else 3) for k in kernel * 2]
    elif way == 1:
        given["auto_pad"] = net.either("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET")
    if way != 1 and (not pool or net.opset >= 19) and net.draw.random() < 0.3:
        given["dilations"] = [net.either(1, 2) for _ in space]
    return kernel, given


def pooled(net: Network, x: str, shape: Shape) -> str:
    if len(shape) < 3:
        return net.add("Relu", x)
    kernel, given = window(net, shape[2:], pool=True)
    ceil = net.either(0, 1) if net.opset >= (19 if "pads" in given else 10) else None
    kind = net.either("MaxPool", "MaxPool", "AveragePool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
    if kind == "MaxPool":
        return net.add(kind, x, kernel_shape=kernel, ceil_mode=ceil, **given)
    if kind == "AveragePool":
        return net.add(kind, x, kernel_shape=kernel, ceil_mode=ceil, count_include_pad=net.either(None, 0, 1), **given)
    return net.add(kind, x)


def arithmetic(net: Network, x: str, shape: Shape) -> str:
    kept = shape[net.draw.randrange(len(shape)) :]
    constant = net.drawn(*[1 if place == 0 and len(kept) == len(shape) else net.either(1, size)
                           for place, size in enumerate(kept)])  # fmt: skip
    kind = net.either("Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "Add")
    if kind == "Add" and net.either(True, False):
        return net.add("Add", x, net.add("Tanh", x))
    return net.add(kind, *net.either((x, constant), (constant, x)))


def curve(net: Network, x: str, shape: Shape) -> str:
    kind = net.either("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Softmax", "LogSoftmax", "Clip", "PRelu", "Dropout",
                      "Identity", "BatchNormalization")  # fmt: skip
    rank, channels = len(shape), shape[1]
    match kind:
        case "LeakyRelu":
            return net.add(kind, x, alpha=net.either(None, 0.0, -0.2, 1.5))
        case "Softmax" | "LogSoftmax":
            return net.add(kind, x, axis=net.either(None, net.axis(net.draw.randrange(1, rank), rank)))
        case "Clip" if net.opset < 11:
            return net.add(kind, x, min=net.either(None, -0.5), max=net.either(None, 0.5))
        case "Clip":
            low, high = (net.either("", net.constant(np.float32(bound))) for bound in (-0.5, 0.5))
            return net.add(kind, x, low, high) if high else net.add(kind, *net.either((x, low), (x, low, "")))
        case "PRelu":
            return net.add(kind, x, net.drawn(*net.either([channels] + [1] * (rank - 2), [1], shape[1:])))
        case "BatchNormalization":
            spread = net.constant((np.abs(net.numbers.standard_normal(channels)) + 0.1).astype(np.float32))
            return net.add(kind, x, *(net.drawn(channels) for _ in range(3)), spread, epsilon=net.either(None, 1e-2))
        case "Dropout":
            return net.add(kind, x, net.constant(np.float32(0.3))) if net.opset >= 12 else net.add(kind, x, ratio=0.3)
    return net.add(kind, x)


def shaped(net: Network, x: str, shape: Shape) -> str:
    rank, size = len(shape), int(np.prod(shape[1:]))
    place = net.draw.randint(1, rank - 1)
    kind = net.either("Reshape", "Flatten", "Transpose", "Unsqueeze", "Concat", "Split", "Shape")
    match kind:
        case "Reshape":
            goal = net.either([0, -1], [-1, size], [-1, *shape[1:]], [0] * (rank - 1) + [-1], [BATCH, 1, -1])
            return net.add(kind, x, net.whole(*goal))
        case "Flatten":
            return net.add(kind, x, axis=net.either(None, net.axis(1, rank), net.axis(place, rank)))
        case "Transpose":
            return net.add(kind, x, perm=net.either(None, [0, *net.draw.sample(range(1, rank), rank - 1)]))
        case "Unsqueeze":
            axis = net.axis(place, rank + 1)
            if net.opset >= 13:
                wider = net.add("Unsqueeze", x, net.whole(axis))
                return net.either(wider, net.add("Squeeze", wider, net.whole(axis)))
            wider = net.add("Unsqueeze", x, axes=[axis])
            return net.either(wider, net.add("Squeeze", wider, axes=[axis]))
        case "Concat":
            block = np.broadcast_to(net.numbers.standard_normal(shape[1:]).astype(np.float32), shape)
            fixed = net.either(np.zeros(shape, np.float32), block)
            parts = net.either([x, net.constant(fixed)], [net.constant(fixed), x], [x, net.add("Neg", x)])
            return net.add(kind, *parts, axis=net.axis(place, rank))
        case "Split" if shape[place] > 1:
            cut = [1, shape[place] - 1]
            halves = (
                net.add(kind, x, net.whole(*cut), outputs=2, axis=place)
                if net.opset >= 13
                else net.add(kind, x, outputs=2, axis=place, split=cut)
            )
            return net.add("Concat", *halves[::-1], axis=place)
    batch = net.add("Gather", net.add("Shape", x), net.constant(np.int64(0)), axis=0)
    batch = net.add("Unsqueeze", batch, net.whole(0)) if net.opset >= 13 else net.add("Unsqueeze", batch, axes=[0])
    return net.add("Reshape", x, net.add("Concat", batch, net.whole(-1), axis=0))


def cut(net: Network, x: str, shape: Shape) -> str:
    rank = len(shape)
    axes = net.draw.sample(range(1, rank), net.draw.randint(1, rank - 1))
    kind = net.either("Pad", "Slice", "ReduceMean", "ReduceSum", "ReduceMax")
    match kind:
        case "Pad":
            mode = net.either("constant", "constant", "reflect", "edge", *(["wrap"] if net.opset >= 19 else []))
            sides = [[0, *(net.draw.randint(-1 if mode == "constant" else 0, 2) for _ in shape[1:])] for _ in range(2)]
            if net.opset < 11:
                return net.add(kind, x, mode=mode, pads=[*sides[0], *sides[1]], value=net.either(None, 1.5))
            fill = net.either([], [net.constant(np.float32(2.5))])
            if net.opset >= 18 and net.either(True, False):
                sides = [[side[axis] for axis in axes] for side in sides]
                fill = [*(fill or [""]), net.whole(*(net.axis(axis, rank) for axis in axes))]
            return net.add(kind, x, net.whole(*sides[0], *sides[1]), *fill, mode=net.either(mode, mode))
        case "Slice":
            starts = [net.draw.randint(-shape[axis] - 1, shape[axis] - 1) for axis in axes]
            ends = [net.either(shape[axis], 2**31 - 1, -1, shape[axis] + 2) for axis in axes]
            if net.opset < 10:
                return net.add(kind, x, starts=starts, ends=ends, axes=axes)
            places = net.whole(*(net.axis(axis, rank) for axis in axes))
            steps = net.either([], [net.whole(*(net.either(1, 2, 3, -1) for _ in axes))])
            return net.add(kind, x, net.whole(*starts), net.whole(*ends), places, *steps)
    places = [net.axis(axis, rank) for axis in axes]
    keep = net.either(None, 0, 1)
    if net.opset >= (13 if kind == "ReduceSum" else 18):
        return net.add(kind, x, net.whole(*places), keepdims=keep)
    return net.add(kind, x, axes=places, keepdims=keep)


def integers(net: Network, x: str, shape: Shape) -> str:
    """QuantizeLinear and DequantizeLinear on the signal, or on a convolution's weights."""
    if net.opset < 13:
        return net.add("Relu", x)
    kind = net.either(np.int8, np.uint8)
    if len(shape) > 2 and net.either(True, False):
        steps, zeros = np.full(2, 0.02, np.float32) * [1, 3], np.array([0, 3], kind)
        weight = net.constant(net.numbers.integers(0, 100, (2, shape[1], *[1] * (len(shape) - 2))).astype(kind))
        held = net.add("DequantizeLinear", weight, net.constant(steps.astype(np.float32)), net.constant(zeros), axis=0)
        return net.add("Conv", x, held)
    zero = net.either(0, 3)
    if net.either(True, False):
        steps = (np.abs(net.numbers.standard_normal(shape[1])) * 0.1 + 0.02).astype(np.float32)
        scale, point = net.constant(steps), net.constant(np.full(shape[1], zero, kind))
    else:
        scale, point = net.constant(np.float32(0.1)), net.constant(kind(zero))
    axis = net.axis(1, len(shape))
    return net.add("DequantizeLinear", net.add("QuantizeLinear", x, scale, point, axis=axis), scale, point, axis=axis)


STEPS: tuple[Callable[[Network, str, Shape], str], ...] = (
    weighted, weighted, pooled, pooled, arithmetic, curve, shaped, cut, integers,
)  # fmt: skip


def drawn_model(seed: int) -> tuple[Any, tuple[int, ...]] | None:
    """A model of up to four steps whose shapes onnx finds right, as far as it can tell; None where there is none."""
    net = Network(seed)
    features = net.either(*FEATURES)
    x, shape = "x", [BATCH, *features]
    for _ in range(net.draw.randint(1, 4)):
        kept = list(net.nodes), dict(net.held)
        y = net.either(*STEPS)(net, x, shape)
        try:
            told = onnx.shape_inference.infer_shapes(net.model(features, y, BATCH), strict_mode=True, data_prop=True)
        except Exception:  # its errors share no type of their own
            net.nodes, net.held = kept
            continue
        shape = [dim.dim_value for dim in told.graph.output[0].type.tensor_type.shape.dim]
        x = y
        if len(shape) < 2 or 0 in shape:
            break
    return None if x == "x" else (net.model(features, x, net.either(BATCH, "batch")), features)


def by_onnxruntime(content: bytes, x: np.ndarray) -> np.ndarray | None:
    """Its output, or None where it does not run the file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    except Exception:  # its errors share no type of their own
        return None


def read_or_refused(path: Path) -> Graph | None:
    try:
        return from_onnx(path, check=False)
    except NeuroError as error:
        said = str(error)
    assert str(path) in said
    return None


def close(found: np.ndarray, expected: np.ndarray, rounded: bool) -> bool:
    """Where numbers are rounded to integers, a sum in another order may move some of them by one step."""
    if found.shape != expected.shape:
        return False
    apart = np.abs(found - expected)
    return bool((apart.mean() if rounded else apart.max(initial=0)) <= TOLERANCE * max(np.abs(expected).max(), 1e-30))


def test_random_networks_equal_onnxruntime_or_are_refused(tmp_path: Path) -> None:
    path, read, refused = tmp_path / "drawn.onnx", 0, 0
    for seed in range(500):
        found = drawn_model(seed)
        if found is None:
            continue
        model, features = found
        path.write_bytes(model.SerializeToString())
        x = np.random.default_rng(seed).standard_normal((BATCH, *features), np.float32)
        expected = by_onnxruntime(path.read_bytes(), x)
        if (graph := read_or_refused(path)) is None:
            refused += 1
            continue
        if expected is None or not np.isfinite(expected).all():
            continue
        got = evaluate(graph, torch.from_numpy(x)).numpy()
        rounded = any(node.kind == "Quantise" for node in graph.nodes.values())
        assert close(got, expected, rounded), (seed, [node.op_type for node in model.graph.node])
        read += 1
    assert read > 300
    assert refused > 10


OPERATORS = {
    "add": "Add", "averagepool": "AveragePool", "batch_normalization": "BatchNormalization", "clip": "Clip",
    "concat": "Concat",
    "constant": "Constant", "conv": "Conv", "convtranspose": "ConvTranspose", "dequantizelinear": "DequantizeLinear",
    "div": "Div", "dropout": "Dropout", "flatten": "Flatten", "gemm": "Gemm", "globalaveragepool": "GlobalAveragePool",
    "globalmaxpool": "GlobalMaxPool", "identity": "Identity", "leakyrelu": "LeakyRelu", "logsoftmax": "LogSoftmax",
    "matmul": "MatMul", "maxpool": "MaxPool", "mul": "Mul", "pad": "Pad", "prelu": "PRelu",
    "quantizelinear": "QuantizeLinear", "reducemean": "ReduceMean", "relu": "Relu", "reshape": "Reshape",
    "sigmoid": "Sigmoid", "slice": "Slice", "softmax": "Softmax", "squeeze": "Squeeze", "sub": "Sub", "tanh": "Tanh",
    "transpose": "Transpose", "unsqueeze": "Unsqueeze",
}  # fmt: skip
"""Modules of the onnx package with test cases, and the operators that they are about."""


def cases() -> list[Any]:
    from onnx.backend.test.case import node

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in OPERATORS:
            importlib.import_module(f"{node.__name__}.{module}")
    collected = vars(node).get("_NodeTestCases")
    if collected is None:
        pytest.skip("this onnx keeps its test cases elsewhere")
    return [case for case in collected if {item.op_type for item in case.model.graph.node} <= set(OPERATORS.values())]


def as_network(case: Any, arrays: list[np.ndarray], place: int) -> Any:
    """The case with the input at `place` as the signal and all others as constants."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    entering = list(model.graph.input)
    del model.graph.input[:]
    model.graph.input.append(entering[place])
    for number, (entry, array) in enumerate(zip(entering, arrays, strict=True)):
        if number != place:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), entry.name))
    return model


def test_cases_of_the_onnx_package(tmp_path: Path) -> None:
    path = tmp_path / "case.onnx"
    read: set[str] = set()
    tried = 0
    for case in cases():
        for inputs, outputs in case.data_sets:
            arrays = [value for value in inputs if isinstance(value, (np.ndarray, np.generic))]
            if len(arrays) != len(case.model.graph.input):
                continue
            for place, signal in enumerate(arrays):
                if signal.dtype != np.float32:
                    continue
                path.write_bytes(as_network(case, arrays, place).SerializeToString())
                tried += 1
                if (graph := read_or_refused(path)) is None:
                    continue
                got = evaluate(graph, torch.from_numpy(np.asarray(signal))).numpy()
                expected = np.asarray(outputs[0])
                assert got.shape == expected.shape, case.name
                assert np.allclose(got, expected, rtol=TOLERANCE, atol=1e-5), case.name
                read |= {node.op_type for node in case.model.graph.node}
    assert tried > 200
    unread = set(OPERATORS.values()) - read
    # A constant is no network, cases of integers begin or end with integers, and all constants that are concatenated
    # in these cases differ from sample to sample.
    assert unread <= {"Concat", "Constant", "QuantizeLinear", "DequantizeLinear"}, unread
