"""Every ONNX operator that is read, in its variants and over the opsets, computes what onnxruntime computes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from converters.read.from_onnx import from_onnx
from neuro.errors import BackendMissing, FileError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

IMAGE, VECTOR, SIGNAL = (4, 7, 6), (5,), (3, 9)
OPSETS = (7, 9, 11, 13, 17, 18, 20, 22)
FLOAT = onnx.TensorProto.FLOAT


def drawn(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def network(
    nodes: Sequence[Any],
    features: Sequence[int],
    constants: Mapping[str, np.ndarray],
    opset: int = 17,
    batch: str | int = "batch",
    **more: Any,
) -> Any:
    """A model from x to y."""
    graph = helper.make_graph(
        list(nodes),
        "tested",
        [helper.make_tensor_value_info("x", FLOAT, [batch, *features])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **more)


def run(path: Path, x: np.ndarray) -> np.ndarray:
    """onnxruntime on the file as it lies there."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def agrees(model: Any, folder: Path, features: Sequence[int], samples: int = 3, tolerance: float = 1e-5) -> Graph:
    """The imported graph, after a comparison of our own with onnxruntime."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    graph = from_onnx(path)
    assert "differs from onnxruntime by at most" in graph.history[-1].why
    x = drawn(samples, *features, seed=2)
    expected = run(path, x)
    found = evaluate(graph, torch.from_numpy(x)).numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * max(1.0, np.abs(expected).max())
    return graph


def operator(
    kind: str,
    *constants: np.ndarray | None,
    features: Sequence[int] = IMAGE,
    first: int = 0,
    opsets: Sequence[int] = OPSETS,
    id: str = "",
    **attributes: Any,
) -> list[Any]:
    """One test for every opset: the operator with x at place `first` among its constants."""
    return [
        pytest.param(kind, constants, tuple(features), first, opset, attributes, id=f"{id or kind}-{opset}")
        for opset in opsets
    ]


NEW = (13, 18, 22)
OPERATORS = [
    *operator("Conv", drawn(6, 4, 3, 3), drawn(6), pads=[1, 2, 1, 2], strides=[2, 1], opsets=(7, 11, 22)),
    *operator("Conv", drawn(4, 1, 3, 2), group=4, dilations=[2, 1], id="depthwise", opsets=(7, 22)),
    *operator("Conv", drawn(6, 2, 3, 3), group=2, pads=[0, 1, 2, 0], id="uneven pads", opsets=(7, 22)),
    *operator("Conv", drawn(6, 4, 2, 3), auto_pad="SAME_UPPER", strides=[2, 2], id="same upper", opsets=(7, 22)),
    *operator("Conv", drawn(6, 4, 4, 3), auto_pad="SAME_LOWER", id="same lower", opsets=(11,)),
    *operator("Conv", drawn(6, 4, 4, 3), auto_pad="VALID", kernel_shape=[4, 3], id="valid", opsets=(11,)),
    *operator("Conv", drawn(2, 3, 4), features=SIGNAL, strides=[2], id="conv1d", opsets=(11,)),
    *operator("Conv", drawn(2, 1, 2, 2, 2), features=(1, 3, 4, 5), id="conv3d", opsets=(11,)),
    *operator(
        "ConvTranspose",
        drawn(4, 3, 3, 3),
        drawn(3),
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        output_padding=[1, 0],
        opsets=(7, 11, 22),
    ),
    *operator("ConvTranspose", drawn(4, 3, 3, 3), strides=[2, 2], pads=[0, 1, 2, 0], id="uneven crop", opsets=(11,)),
    *operator("ConvTranspose", drawn(4, 2, 2, 2), group=2, dilations=[2, 2], id="transposed groups", opsets=(11,)),
    *operator("ConvTranspose", drawn(4, 3, 3, 3), strides=[2, 2], output_shape=[14, 12], id="goal", opsets=(11,)),
    *operator(
        "ConvTranspose", drawn(4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER", id="goal upper", opsets=(11, 22)
    ),
    *operator(
        "ConvTranspose", drawn(4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_LOWER", id="goal lower", opsets=(11, 22)
    ),
    *operator("Gemm", drawn(5, 3), drawn(3), features=VECTOR, alpha=0.5, beta=2.0, opsets=(7, 9, 11, 13)),
    *operator("Gemm", drawn(3, 5), drawn(1, 3), features=VECTOR, transB=1, id="turned"),
    *operator("Gemm", drawn(3, 5), drawn(), features=VECTOR, transB=1, id="one offset", opsets=NEW),
    *operator("Gemm", drawn(5, 3), features=VECTOR, id="no offset", opsets=(11, 13)),
    *operator("MatMul", drawn(6, 3), opsets=(7, 9, 13)),
    *operator("MatMul", drawn(6), opsets=(9, 13), id="times a vector"),
    *operator("MatMul", drawn(1, 1, 6, 3), opsets=(9, 13), id="one matrix of many"),
    *operator("MatMul", drawn(2, 7), first=1, opsets=(9, 13), id="from the left"),
    *operator(
        "MaxPool", kernel_shape=[3, 3], strides=[3, 2], pads=[2, 0, 1, 1], ceil_mode=1, opsets=(11, 28), id="max ceil"
    ),
    *operator(
        "AveragePool",
        kernel_shape=[3, 3],
        strides=[3, 2],
        pads=[2, 0, 0, 1],
        ceil_mode=1,
        opsets=(19, 28),
        id="avg ceil",
    ),
    *operator("Relu", opsets=(26, 27, 28), id="newest"),
    *operator("Add", drawn(4, 1, 1), opsets=(7, 13, 14)),
    *operator("Add", drawn(1, 4, 1, 6), first=1, id="add behind", opsets=(7, 14)),
    *operator("Sub", drawn(6), opsets=(7, 14)),
    *operator("Sub", drawn(7, 1), first=1, id="from constant", opsets=(7, 14)),
    *operator("Mul", drawn(4, 7, 6), opsets=(7, 14)),
    *operator("Div", np.array(3.7, np.float32), opsets=(7, 14)),
    *operator("Sum", drawn(4, 1, 1), drawn(6), opsets=(8, 13)),
    *operator("Max", drawn(4, 1, 1), np.array(0.1, np.float32), opsets=(8, 13)),
    *operator("Min", drawn(4, 1, 1), opsets=(8, 13)),
    *operator(
        "BatchNormalization", drawn(4), drawn(4), drawn(4), np.abs(drawn(4)), epsilon=1e-2, opsets=(7, 9, 14, 15, 22)
    ),
    *[test for kind in ("Relu", "Sigmoid", "Tanh", "Neg", "Abs") for test in operator(kind, opsets=(7, 13, 14))],
    *operator("LeakyRelu", alpha=0.2, opsets=(7, 16)),
    *operator("PRelu", drawn(4, 1, 1), opsets=(7, 9, 16)),
    *operator("PRelu", drawn(1), id="one slope", opsets=(7, 16)),
    *operator("PRelu", drawn(4, 7, 6), id="every slope", opsets=(9,)),
    *operator("HardSigmoid", alpha=0.3, beta=0.6, opsets=(7, 22)),
    *operator("Clip", min=-0.5, max=0.75, opsets=(7, 9)),
    *operator("Clip", min=0.0, id="clip below", opsets=(7, 9)),
    *operator("Clip", opsets=(7, 9, 11, 13), id="clip nothing"),
    *operator("Clip", np.array(-0.5, np.float32), np.array(0.75, np.float32), opsets=(11, 12, 13), id="clip inputs"),
    *operator("Clip", None, np.array(0.75, np.float32), opsets=(11, 13), id="clip above"),
    *operator("Softmax", features=VECTOR),
    *operator("Softmax", axis=2, id="softmax inside"),
    *operator("Softmax", axis=-1, opsets=(11, 13), id="softmax last"),
    *operator("LogSoftmax", axis=1, opsets=(7, 11, 13)),
    *operator("Dropout", ratio=0.3, opsets=(7, 10)),
    *operator("Dropout", np.array(0.3, np.float32), np.array(False), opsets=(12, 13), id="dropout inputs"),
    *operator("MaxPool", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 1, 1, 1], opsets=(7, 8, 10, 11, 12, 22)),
    *operator(
        "MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[1, 0, 1, 0], id="max ceil", opsets=NEW
    ),
    *operator("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER", id="max same", opsets=(7, 22)),
    *operator("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER", id="max lower", opsets=(7, 22)),
    *operator("MaxPool", kernel_shape=[2, 3], pads=[1, 2, 1, 0], id="max uneven", opsets=(7, 22)),
    *operator("MaxPool", kernel_shape=[2], features=SIGNAL, strides=[2], id="max 1d", opsets=(7,)),
    *operator("AveragePool", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 1, 1, 1], opsets=(7, 10, 11, 19, 22)),
    *operator(
        "AveragePool",
        kernel_shape=[3, 2],
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        count_include_pad=1,
        id="average counts pads",
        opsets=(7, 19, 22),
    ),
    *operator("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, id="average ceil", opsets=(10, 19, 22)),
    *operator(
        "AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER", id="average same", opsets=(7, 22)
    ),
    *operator("AveragePool", kernel_shape=[2, 3], pads=[0, 2, 1, 1], id="average uneven", opsets=(7, 22)),
    *operator(
        "AveragePool",
        kernel_shape=[2, 3],
        pads=[0, 2, 1, 1],
        count_include_pad=1,
        id="average uneven pads",
        opsets=(7, 22),
    ),
    *operator("GlobalAveragePool", opsets=(7, 22)),
    *operator("GlobalMaxPool", opsets=(7, 22)),
    *operator("GlobalAveragePool", features=SIGNAL, id="global 1d", opsets=(7,)),
    *operator("ReduceMean", axes=[2, 3], opsets=(7, 11, 13)),
    *operator("ReduceMean", axes=[-1], keepdims=0, opsets=(11, 13), id="mean without dims"),
    *operator("ReduceMean", ints(2, 3), opsets=(18, 20), id="mean input"),
    *operator("ReduceMean", ints(1), keepdims=0, opsets=(18,), id="mean of channels"),
    *operator("ReduceSum", ints(-1), keepdims=0, opsets=(13, 18), id="sum"),
    *operator("ReduceMax", axes=[2], opsets=(11, 13)),
    *operator("Flatten"),
    *operator("Flatten", axis=-3, opsets=(11, 13), id="flatten from behind"),
    *operator("Reshape", ints(0, -1), opsets=(7, 13, 14, 19, 21)),
    *operator("Reshape", ints(-1, 4, 42), opsets=(7, 19), id="batch left over"),
    *operator("Reshape", ints(-1, 6, 7, 4), opsets=(14,), allowzero=1, id="allow zero"),
    *operator("Transpose", perm=[0, 2, 3, 1], opsets=(7, 13, 21)),
    *operator("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 0], value=1.5, opsets=(7,)),
    *operator("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 1], mode="reflect", opsets=(7,), id="reflect"),
    *operator("Pad", ints(0, 1, 1, 2, 0, 0, 3, 0), np.array(-2, np.float32), opsets=(11, 13, 18, 21), id="pad inputs"),
    *operator("Pad", ints(0, 0, -1, 2, 0, 0, -2, 0), opsets=(11, 13), id="crop"),
    *operator("Pad", ints(0, 0, 1, 2, 0, 0, 3, 1), mode="reflect", opsets=(11, 18), id="reflect inputs"),
    *operator("Pad", ints(0, 0, 1, 2, 0, 0, 3, 1), mode="edge", opsets=(11, 18), id="edge"),
    *operator("Pad", ints(1, 2, 3, 1), np.array(0, np.float32), ints(-2, 3), opsets=(18, 21), id="pad axes"),
    *operator("Pad", ints(0, 0, 1, 2, 0, 0, 3, 1), mode="wrap", opsets=(19, 21), id="wrap"),
    *operator("Slice", starts=[1, -3], ends=[3, 2**40], axes=[1, 3], opsets=(7, 9)),
    *operator("Slice", ints(0, 1), ints(2**62, 6), ints(0, 2), ints(1, 2), opsets=(10, 11, 13), id="slice inputs"),
    *operator("Squeeze", features=(4, 1, 6, 1), axes=[2, -1], opsets=(11,)),
    *operator("Squeeze", features=(4, 1, 6, 1), opsets=(7, 13), id="squeeze all"),
    *operator("Squeeze", ints(2), features=(4, 1, 6), opsets=(13, 21), id="squeeze input"),
    *operator("Unsqueeze", axes=[1, 5], opsets=(7, 11)),
    *operator("Unsqueeze", ints(1, -1), opsets=(13, 21), id="unsqueeze input"),
    *operator("Concat", np.zeros((1, 2, 7, 6), np.float32), axis=1, opsets=()),
    *operator("Gather", np.array(-2), axis=2, opsets=(11, 13)),
    *operator("Identity", opsets=(7, 21)),
    *operator("Cast", to=FLOAT, opsets=(9, 19)),
    *operator("Expand", ints(1, 4, 1, 6), opsets=(8, 13)),
]


@pytest.mark.parametrize(("kind", "constants", "features", "first", "opset", "attributes"), OPERATORS)
def test_operator(
    kind: str,
    constants: tuple[np.ndarray | None, ...],
    features: tuple[int, ...],
    first: int,
    opset: int,
    attributes: dict[str, Any],
    tmp_path: Path,
) -> None:
    names = ["" if value is None else f"c{number}" for number, value in enumerate(constants)]
    names.insert(first, "x")
    held = {f"c{number}": value for number, value in enumerate(constants) if value is not None}
    agrees(network([helper.make_node(kind, names, ["y"], **attributes)], features, held, opset), tmp_path, features)


node = helper.make_node


def test_several_outputs_and_inputs(tmp_path: Path) -> None:
    parts = [
        node("Split", ["x"], ["a", "b"], axis=1),
        node("Concat", ["b", "a", "zeros"], ["c"], axis=1),
        node("Mul", ["c", "half"], ["d"]),
        node("Add", ["d", "c"], ["e"]),
        node("Sub", ["e", "c"], ["f"]),
        node("Min", ["f", "c"], ["y"]),
    ]
    held = {"zeros": np.zeros((1, 2, 7, 6), np.float32), "half": np.array(0.5, np.float32)}
    # A block of zeros of one sample joins only one sample in onnxruntime.
    agrees(network(parts, IMAGE, held, batch=1), tmp_path, IMAGE, samples=1)
    split = [node("Split", ["x"], ["a", "y"], axis=1, split=[1, 3]), node("Relu", ["a"], ["unused"])]
    agrees(network(split, IMAGE, {}, 11), tmp_path, IMAGE)
    split = [node("Split", ["x", "parts"], ["y", "a"], axis=-1)]
    agrees(network(split, IMAGE, {"parts": ints(4, 2)}), tmp_path, IMAGE)
    split = [node("Split", ["x"], ["a", "y"], axis=2, num_outputs=2)]
    agrees(network(split, IMAGE, {}, 18), tmp_path, IMAGE)


def test_constants_join_a_signal(tmp_path: Path) -> None:
    """They are written for the batch size of the file, and stay for every other."""
    sides = {"a": np.repeat(drawn(1, 2, 7, 6), 3, 0), "b": np.zeros((3, 1, 7, 6), np.float32)}
    model = network([node("Concat", ["a", "x", "b"], ["y"], axis=1)], IMAGE, sides, batch=3)
    graph = agrees(model, tmp_path, IMAGE)
    assert evaluate(graph, torch.zeros(5, *IMAGE)).shape == (5, 7, 7, 6)
    sides["a"] = drawn(3, 2, 7, 6)
    (tmp_path / "odd.onnx").write_bytes(
        network([node("Concat", ["a", "x"], ["y"], axis=1)], IMAGE, sides, batch=3).SerializeToString()
    )
    with pytest.raises(UnsupportedNode, match="a concatenated constant differs from sample to sample"):
        from_onnx(tmp_path / "odd.onnx")


def test_two_inputs(tmp_path: Path) -> None:
    model = network([node("Add", ["x", "z"], ["y"])], VECTOR, {})
    model.graph.input.append(helper.make_tensor_value_info("z", FLOAT, ["batch", *VECTOR]))
    path = tmp_path / "two.onnx"
    path.write_bytes(model.SerializeToString())
    graph = from_onnx(path)
    assert graph.inputs == ("x", "z")
    one, other = torch.rand(2, 5), torch.rand(2, 5)
    assert torch.equal(evaluate(graph, one, other), one + other)


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 20, 23, 25])
def test_shape_arithmetic_keeps_the_batch_free(opset: int, tmp_path: Path) -> None:
    """x.view(x.size(0), -1) and a border of computed size, as the exporters write them."""
    attribute = opset < 13
    unsqueeze = (
        node("Unsqueeze", ["size"], ["row"], axes=[0]) if attribute else node("Unsqueeze", ["size", "first"], ["row"])
    )
    parts = [
        node("Constant", [], ["place"], value=numpy_helper.from_array(np.array(0))),
        node("Shape", ["x"], ["whole"]),
        node("Gather", ["whole", "place"], ["size"]),
        unsqueeze,
        node("Concat", ["row", "rest"], ["wanted"], axis=0),
        node("Cast", ["wanted"], ["real"], to=FLOAT),
        node("Cast", ["real"], ["goal"], to=onnx.TensorProto.INT64),
        node("Reshape", ["x", "goal"], ["flat"]),
        node("Shape", ["flat"], ["size of flat"]),
        node("Gather", ["size of flat", "one"], ["features"]),
        node("Div", ["features", "six"], ["columns"]),
        node("Concat", ["minus", "columns", "sixes"], ["matrix"], axis=0),
        node("Reshape", ["flat", "matrix"], ["back"]),
        node("ConstantOfShape", ["three"], ["threes"], value=numpy_helper.from_array(np.array([0.5], np.float32))),
        node("Transpose", ["row weights"], ["weights"], perm=[1, 0]),
        node("MatMul", ["back", "weights"], ["product"]),
        node("Add", ["product", "threes"], ["y"]),
    ]
    held = {
        "first": ints(0),
        "rest": ints(-1),
        "one": ints(1),
        "six": ints(6),
        "minus": ints(-1),
        "sixes": ints(6),
        "three": ints(3),
        "row weights": drawn(3, 6),
    }
    for batch, samples in (("batch", 4), (2, 2)):
        graph = agrees(network(parts, IMAGE, held, opset, batch), tmp_path, IMAGE, samples)
        assert graph.shapes[graph.output] == (28, 3)
        assert evaluate(graph, torch.rand(7, *IMAGE)).shape == (7, 28, 3)


def test_a_batch_that_is_mixed_is_refused(tmp_path: Path) -> None:
    for parts, said in (
        ([node("Reshape", ["x", "goal"], ["y"])], "batch must stay"),
        ([node("Transpose", ["x"], ["y"])], "moves the batch"),
        ([node("ReduceMean", ["x"], ["y"], axes=[0])], "along the batch"),
        ([node("Unsqueeze", ["x", "first"], ["y"])], "batch must stay"),
        ([node("Slice", ["x", "first", "one"], ["y"])], "out of the batch"),
        ([node("Shape", ["x"], ["s"]), node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])], "batch"),
    ):
        path = tmp_path / "mixed.onnx"
        held = {"goal": ints(-1), "first": ints(0), "one": ints(1)}
        path.write_bytes(network(parts, VECTOR, held).SerializeToString())
        with pytest.raises(UnsupportedNode, match=said):
            from_onnx(path)


QUANTISED = {
    "unsigned": (np.uint8(128), 13, np.array(0.05, np.float32)),
    "signed": (np.int8(0), 10, np.array(0.05, np.float32)),
    "shifted": (np.int8(-30), 19, np.array(0.0437, np.float32)),
    "wide": (np.int16(5), 21, np.array(1e-3, np.float32)),
    "plain": (None, 13, np.array(0.03, np.float32)),
    "channels": (np.zeros(4, np.int8), 13, np.array([0.25, 0.5, 0.03125, 1], np.float32)),
}


@pytest.mark.parametrize("case", list(QUANTISED))
def test_quantised_activations_are_those_of_onnxruntime_bit_for_bit(case: str, tmp_path: Path) -> None:
    zero, opset, scale = QUANTISED[case]
    names = ["scale"] if zero is None else ["scale", "zero"]
    held = {"scale": scale} | ({} if zero is None else {"zero": np.array(zero)})
    parts = [node("QuantizeLinear", ["x", *names], ["q"]), node("DequantizeLinear", ["q", *names], ["y"])]
    path = tmp_path / "quantised.onnx"
    path.write_bytes(network(parts, (4, 600), held, opset).SerializeToString())
    graph = from_onnx(path)
    assert [item.kind for item in graph.nodes.values()][-2:] == ["Quantise", "Dequantise"]
    step = scale.reshape(-1, 1)
    x = np.stack([10 * drawn(4, 600), (np.arange(-300, 300) + np.float32(0.5)) * step * np.ones((4, 1), np.float32)])
    assert np.array_equal(
        evaluate(graph, torch.from_numpy(x.astype(np.float32))).numpy(), run(path, x.astype(np.float32))
    )


@pytest.mark.parametrize("axis", [0, 1])
def test_quantised_weights(axis: int, tmp_path: Path) -> None:
    """Weights stored as int8 with a scale per channel, and biases as int32."""
    weight = np.random.default_rng(0).integers(-128, 127, (4, 4, 3, 3)).astype(np.int8)
    held = {
        "w": weight,
        "s": np.array([0.1, 0.02, 0.3, 0.05], np.float32),
        "z": np.array([0, 3, -7, 1], np.int8),
        "b": np.array([100, -2000, 30, 4], np.int32),
        "bs": np.array(1e-3, np.float32),
        "float": drawn(4, 4, 1, 1),
    }
    parts = [
        node("DequantizeLinear", ["w", "s", "z"], ["weight"], axis=axis),
        node("DequantizeLinear", ["b", "bs"], ["bias"]),
        node("Conv", ["x", "weight", "bias"], ["c"]),
        node("QuantizeLinear", ["float", "s", "z"], ["q"], axis=axis),
        node("DequantizeLinear", ["q", "s", "z"], ["fake"], axis=axis),
        node("Conv", ["c", "fake"], ["y"]),
    ]
    agrees(network(parts, IMAGE, held, 13), tmp_path, IMAGE)


class Residual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.side = nn.Conv2d(channels, out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.main(x) + self.side(x))


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            [nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 2, (1, 5), padding=(0, 2))]
        )
        self.head = nn.Linear(14, 10)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([*(torch.relu(part(x)) for part in self.parts), x], 1)
        return self.head(joined.mean((2, 3)))


class Viewed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), -1)


NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "mlp": (
        lambda: nn.Sequential(
            nn.Flatten(),
            nn.Linear(48, 32),
            nn.Tanh(),
            nn.Linear(32, 16),
            nn.LeakyReLU(0.1),
            nn.Linear(16, 10),
            nn.LogSoftmax(1),
        ),
        (3, 4, 4),
    ),
    "vgg": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU6(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3),
            nn.PReLU(12),
            nn.AvgPool2d(3, 2, 1),
            Viewed(),
            nn.Linear(108, 20),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(20, 10),
        ),
        (3, 16, 16),
    ),
    "resnet": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            Residual(8, 8, 1),
            Residual(8, 12, 2),
            Residual(12, 12, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 10),
        ),
        (3, 12, 12),
    ),
    "depthwise": (
        lambda: nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)),
            nn.Conv2d(3, 8, 3, 2),
            nn.Hardtanh(0, 6),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 12, 1),
            nn.ConvTranspose2d(12, 6, 2, 2),
            nn.AvgPool2d(8),
            nn.Flatten(),
            nn.Linear(24, 10),
            nn.Softmax(-1),
        ),
        (3, 16, 16),
    ),
    "joined": (Joined, (3, 9, 7)),
}


def trained(build: Any) -> nn.Module:
    """With statistics of some batch in its norms."""
    module = build()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
    return module.eval()


def exported(module: nn.Module, features: tuple[int, ...], path: Path, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own exporter
        torch.onnx.export(module, (torch.randn(2, *features),), str(path), input_names=["x"], **options)


@pytest.mark.parametrize("opset", [9, 13, 17])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_networks_of_the_torchscript_exporter(name: str, opset: int, tmp_path: Path) -> None:
    build, features = NETWORKS[name]
    module = trained(build)
    exported(
        module, features, tmp_path / "net.onnx", dynamo=False, opset_version=opset, dynamic_axes={"x": {0: "batch"}}
    )
    x = torch.from_numpy(drawn(5, *features))
    found = evaluate(from_onnx(tmp_path / "net.onnx"), x)
    assert np.abs(found.numpy() - run(tmp_path / "net.onnx", x.numpy())).max() < 1e-5
    with torch.no_grad():
        assert torch.allclose(found, module(x), atol=1e-5)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_networks_of_the_default_exporter(name: str, tmp_path: Path) -> None:
    build, features = NETWORKS[name]
    module = trained(build)
    exported(module, features, tmp_path / "net.onnx", dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    x = torch.from_numpy(drawn(5, *features))
    found = evaluate(from_onnx(tmp_path / "net.onnx"), x)
    assert np.abs(found.numpy() - run(tmp_path / "net.onnx", x.numpy())).max() < 1e-5
    with torch.no_grad():
        assert torch.allclose(found, module(x), atol=1e-5)


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_a_network_as_the_default_exporter_writes_it(opset: int, tmp_path: Path) -> None:
    """Its operators and attributes: axes as inputs, allowzero, count_include_pad, shapes of a free batch."""
    parts = [
        node(
            "Conv",
            ["x", "w1", "b1"],
            ["conv2d"],
            name="node_conv2d",
            group=1,
            pads=[1, 1, 1, 1],
            auto_pad="NOTSET",
            strides=[1, 1],
            dilations=[1, 1],
        ),
        node("Relu", ["conv2d"], ["relu"], name="node_relu"),
        node(
            "Conv",
            ["relu", "w2", "b2"],
            ["conv2d_1"],
            name="node_conv2d_1",
            group=8,
            pads=[1, 1, 1, 1],
            auto_pad="NOTSET",
            strides=[1, 1],
            dilations=[1, 1],
        ),
        node(
            "BatchNormalization",
            ["conv2d_1", "g", "b2", "m", "v"],
            ["norm"],
            name="node_norm",
            epsilon=1e-5,
            momentum=0.9,
            training_mode=0,
        ),
        node("Add", ["norm", "relu"], ["add"], name="node_add"),
        node("Clip", ["add", "low", "high"], ["hardtanh"], name="node_hardtanh"),
        node(
            "MaxPool",
            ["hardtanh"],
            ["max_pool2d"],
            name="node_max_pool2d",
            storage_order=0,
            dilations=[1, 1],
            ceil_mode=1,
            pads=[0, 0, 0, 0],
            auto_pad="NOTSET",
            strides=[2, 2],
            kernel_shape=[3, 3],
        ),
        node(
            "AveragePool",
            ["max_pool2d"],
            ["avg_pool2d"],
            name="node_avg_pool2d",
            ceil_mode=0,
            auto_pad="NOTSET",
            count_include_pad=1,
            pads=[1, 1, 1, 1],
            strides=[1, 1],
            kernel_shape=[3, 3],
        ),
        node("ReduceMean", ["avg_pool2d", "dims"], ["mean"], name="node_mean", noop_with_empty_axes=0, keepdims=1),
        node("Shape", ["x"], ["val_0"], start=0, end=1),
        node("Concat", ["val_0", "minus"], ["val_1"], axis=0),
        node("Reshape", ["mean", "val_1"], ["view"], name="node_view", allowzero=1),
        node("Gemm", ["view", "w3", "b3"], ["linear"], name="node_linear", beta=1.0, transB=1, alpha=1.0, transA=0),
        node("LogSoftmax", ["linear"], ["y"], name="node_log_softmax", axis=1),
    ]
    held = {
        "w1": drawn(8, 3, 3, 3),
        "b1": drawn(8),
        "w2": drawn(8, 1, 3, 3),
        "b2": drawn(8),
        "g": drawn(8),
        "m": drawn(8),
        "v": np.abs(drawn(8)) + 0.5,
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
        "dims": ints(-1, -2),
        "minus": ints(-1),
        "w3": drawn(10, 8),
        "b3": drawn(10),
    }
    graph = agrees(network(parts, (3, 12, 12), held, opset), tmp_path, (3, 12, 12))
    assert [name for name in graph.nodes if "node_" not in name] == ["x"]


def test_a_batch_exported_as_one_is_free_again(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Viewed(), nn.Linear(64, 5)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.rand(1, 3, 6, 6),), str(tmp_path / "one.onnx"), dynamo=False)
    graph = from_onnx(tmp_path / "one.onnx")
    assert ("batch", "1", "any size") in [(change.node, change.was, change.became) for change in graph.history]
    x = torch.rand(6, 3, 6, 6)
    with torch.no_grad():
        assert torch.allclose(evaluate(graph, x), module(x), atol=1e-6)


def test_local_functions_are_written_out(tmp_path: Path) -> None:
    opset = helper.make_opsetid("", 17)
    body = [node("Relu", ["a"], ["r"]), node("Mul", ["r", "c"], ["o"])]
    gated = helper.make_function("mine", "Gated", ["a", "c"], ["o"], body, [opset])
    twice = [node("Gated", ["a", "c"], ["b"], domain="mine"), node("Gated", ["b", "c"], ["o"], domain="mine")]
    outer = helper.make_function("mine", "Twice", ["a", "c"], ["o"], twice, [opset, helper.make_opsetid("mine", 1)])
    calls = [node("Twice", ["x", "two"], ["h"], domain="mine"), node("Add", ["h", "x"], ["y"])]
    model = network(calls, VECTOR, {"two": np.array(2, np.float32)}, functions=[gated, outer])
    model.opset_import.append(helper.make_opsetid("mine", 1))
    graph = agrees(model, tmp_path, VECTOR)
    assert [item.kind for item in graph.nodes.values()] == ["Input", "ReLU", "Scale", "ReLU", "Scale", "Add"]


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    model = network([node("MatMul", ["x", "w"], ["y"])], (300,), {"w": drawn(300, 50)})
    (tmp_path / "data").mkdir()
    onnx.save_model(model, tmp_path / "net.onnx", save_as_external_data=True, location="data/weights.bin")
    assert (tmp_path / "data" / "weights.bin").stat().st_size >= 60000
    x = drawn(2, 300)
    assert np.allclose(evaluate(from_onnx(tmp_path / "net.onnx"), torch.from_numpy(x)), x @ drawn(300, 50), atol=1e-4)


def test_open_feature_sizes_need_a_shape(tmp_path: Path) -> None:
    model = network([node("GlobalAveragePool", ["x"], ["y"])], (3, "height", "width"), {})
    path = tmp_path / "open.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FileError, match=r"input 'x': features \[3, None, None\] are open; give their shape"):
        from_onnx(path)
    assert from_onnx(path, shape=(3, 8, 6)).shapes["x"] == (3, 8, 6)
    with pytest.raises(FileError, match="not of the given shape"):
        from_onnx(path, shape=(4, 8, 6))


def test_all_refusals_in_one_message(tmp_path: Path) -> None:
    parts = [
        node("LSTM", ["x", "w", "w"], ["a"], name="memory", hidden_size=2),
        node("Relu", ["a"], ["b"]),
        node("Erf", ["b"], ["c"], name="curve"),
        node("Mul", ["x", "x"], ["d"], name="square"),
        node("Attention", ["d"], ["e"], name="foreign", domain="com.microsoft"),
        node("MaxPool", ["x"], ["f", "places"], name="places", kernel_shape=[1]),
        node("Add", ["c", "e"], ["y"]),
    ]
    path = tmp_path / "many.onnx"
    path.write_bytes(network(parts, (4, 4), {"w": drawn(1, 8, 4)}).SerializeToString())
    with pytest.raises(UnsupportedNode) as caught:
        from_onnx(path)
    head, *lines = str(caught.value).splitlines()
    assert head.endswith("many.onnx': 5 operator(s) have no node")
    for line, words in zip(
        lines,
        (
            "'memory' (LSTM, opset 17): recurrent layers",
            "'curve' (Erf, opset 17): no rule",
            "'square' (Mul, opset 17): the factor must be a constant",
            "'foreign' (Attention, opset 17): the domain",
            "'places' (MaxPool, opset 17): only the values have a node",
        ),
        strict=True,
    ):
        assert line.strip().startswith(words)


def test_what_is_translated_wrongly_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from converters.read import onnx_rules

    path = tmp_path / "net.onnx"
    path.write_bytes(network([node("Relu", ["x"], ["y"])], VECTOR, {}).SerializeToString())
    monkeypatch.setitem(onnx_rules.RULES, "Relu", lambda site, x: site.aten("leaky_relu", x, 0.01))
    with pytest.raises(UnsupportedNode, match="differs from onnxruntime by at most"):
        from_onnx(path)
    assert len(from_onnx(path, check=False).nodes) == 2


def test_without_the_optional_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(network([node("Relu", ["x"], ["y"])], VECTOR, {}).SerializeToString())
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert from_onnx(path).history[-1].why == "not checked: onnxruntime is not installed"
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(BackendMissing, match="pip install onnx"):
        from_onnx(path)


def test_curves_are_counted_and_refused_by_conversion(tmp_path: Path) -> None:
    from converters.legalise import legalise
    from neuro.simulate import plain_counts

    path = tmp_path / "net.onnx"
    parts = [node("Sigmoid", ["x"], ["a"], name="gate"), node("Tanh", ["a"], ["y"], name="curve")]
    path.write_bytes(network(parts, VECTOR, {}).SerializeToString())
    graph = from_onnx(path)
    assert plain_counts(graph, torch.rand(3, 5)).total.exponentials == 2 * 3 * 5
    with pytest.raises(UnsupportedNode, match=r"'gate': Sigmoid .*spikes carry no such curve[^\n]*\n.*'curve': Tanh"):
        legalise(graph)
