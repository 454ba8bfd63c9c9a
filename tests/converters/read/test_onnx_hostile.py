"""No ONNX file can do more than be refused: in one typed line that names it, soon, and without much memory."""

from __future__ import annotations

import math
import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.read import onnx_guard
from converters.read.from_onnx import from_onnx
from neuro.errors import FileError, NeuroError, UnsupportedNode
from neuro.graph import Graph

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, numpy_helper, node = onnx.helper, onnx.numpy_helper, onnx.helper.make_node
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
MUTANTS = int(os.environ.get("NEURO_MUTANTS", "500"))


def model_of(
    *nodes: Any, features: tuple[Any, ...] = (4, 6, 6), opset: int = 17, batch: Any = "batch", ir: int = 8, **held: Any
) -> Any:
    constants = [
        value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        for name, value in held.items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "hostile",
        [helper.make_tensor_value_info("x", FLOAT, [batch, *features])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def claiming(*shape: int, kind: int = FLOAT, name: str = "w", **stored: Any) -> Any:
    """A tensor whose shape and content need not agree."""
    return onnx.TensorProto(dims=shape, data_type=kind, name=name, **stored)


def refused(path: Path, kind: type[NeuroError] = NeuroError, said: str = ".", seconds: float = 2.0) -> str:
    """The message of the refusal, after a look at its form and cost."""
    peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(kind, match=said) as caught:
        from_onnx(path)
    assert time.process_time() - start < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000, "kB of memory"
    head, *lines = str(caught.value).splitlines()
    assert str(path) in head
    assert all(line.startswith("  ") for line in lines)
    assert len(str(caught.value)) < 3000
    return str(caught.value)


def refused_model(tmp_path: Path, model: Any, kind: type[NeuroError] = NeuroError, said: str = ".") -> str:
    path = tmp_path / "net.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return refused(path, kind, said)


def relu(*_: object, **more: Any) -> Any:
    return model_of(node("Relu", ["x"], ["y"]), **more)


def affine(weight: Any, **more: Any) -> Any:
    return model_of(node("MatMul", ["x", "w"], ["y"]), w=weight, **more)


def length(size: int) -> bytes:
    found = b""
    while size > 127:
        found, size = found + bytes([size & 127 | 128]), size >> 7
    return found + bytes([size])


def inside(*numbers: int, content: bytes) -> bytes:
    """A message nested under those field numbers, outermost first."""
    for number in reversed(numbers):
        content = length(number << 3 | 2) + length(len(content)) + content
    return content


GRAPH, NODE, INITIALIZER, ATTRIBUTE, SUBGRAPH, INTEGERS, STRINGS = 7, 1, 5, 5, 6, 7, 6


def deep(levels: int) -> bytes:
    content = b""
    for _ in range(levels):
        content = inside(NODE, ATTRIBUTE, SUBGRAPH, content=content)
    return inside(GRAPH, content=content)


BYTES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty"),
    "text": (lambda: b"GIF89a, certainly no network at all", "no field|not a field|no ONNX|damaged"),
    "zeros": (lambda: bytes(4096), "not a field|no ONNX"),
    "no graph": (lambda: b"\x08\x08", "holds no network"),
    "cut number": (lambda: b"\x08\xff", "cut off"),
    "endless number": (lambda: b"\x08" + b"\xff" * 100, "cut off"),
    "longer than the file": (lambda: b"\x3a\xff\xff\xff\xff\x7f", "truncated"),
    "empty nodes": (lambda: inside(GRAPH, content=b"\x0a\x00" * 1_000_000), "more than 200000 fields"),
    "empty tensors": (lambda: inside(GRAPH, content=b"\x2a\x00" * 1_000_000), "more than 200000 fields"),
    "unpacked": (lambda: inside(GRAPH, INITIALIZER, content=b"\x38\x00" * 1_000_000), "more than 200000 fields"),
    "strings": (lambda: inside(GRAPH, INITIALIZER, content=b"\x32\x00" * 1_000_000), "more than 200000 fields"),
    "packed": (lambda: inside(GRAPH, INITIALIZER, INTEGERS, content=bytes(20_000_000)), "packed integers"),
    "deep": (lambda: deep(2000), "levels"),
    "group": (lambda: inside(GRAPH, content=b"\x0b\x0c"), "not a field"),
}


@pytest.mark.parametrize("name", list(BYTES))
def test_bytes_that_are_no_network(name: str, tmp_path: Path) -> None:
    make, said = BYTES[name]
    refused_model(tmp_path, make(), FileError, said)


def test_truncated_files(tmp_path: Path) -> None:
    whole = affine(np.ones((6, 3), np.float32)).SerializeToString()
    for end in range(1, len(whole), 7):
        refused_model(tmp_path, whole[:end], FileError)


def test_what_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path, FileError, "not a regular file")
    refused(tmp_path / "absent.onnx", FileError, "cannot be opened")
    os.mkfifo(tmp_path / "pipe.onnx")
    refused(tmp_path / "pipe.onnx", FileError, "not a regular file")


def with_function(*bodies: tuple[str, list[str]]) -> Any:
    """Local functions that call those named, around a model that calls the first."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    functions = []
    for name, calls in bodies:
        steps = ["a", *(f"s{number}" for number in range(len(calls)))]
        body = [
            node(call, [source], [target], domain="" if call == "Relu" else "mine")
            for call, source, target in zip(calls, steps, steps[1:], strict=False)
        ]
        functions.append(helper.make_function("mine", name, ["a"], [steps[-1]], body, opsets))
    model = model_of(node(bodies[0][0], ["x"], ["y"], domain="mine"))
    model.opset_import.append(opsets[1])
    model.functions.extend(functions)
    return model


def branch(*more: Any) -> Any:
    inner = helper.make_graph(
        [node("Relu", ["x"], ["r"])], "inner", [], [helper.make_tensor_value_info("r", FLOAT, None)]
    )
    return model_of(node("If", ["c"], ["y"], then_branch=inner, else_branch=inner), *more, c=np.array(True))


def edited(model: Any, change: Callable[[Any], object]) -> Any:
    change(model)
    return model


def raw(shape: tuple[int, ...], size: int, kind: int = FLOAT) -> Any:
    return affine(claiming(*shape, kind=kind, raw_data=bytes(size)))


HUGE = np.array([1 << 20, 1 << 20], np.int64)
MODELS: dict[str, tuple[Callable[[], Any], type[NeuroError], str]] = {
    "shape larger than data": (lambda: raw((1 << 20, 1 << 20), 64), FileError, "stores 64 bytes, not 4398046511104"),
    "shape smaller than data": (lambda: raw((2, 2), 64), FileError, "stores 64 bytes, not 16"),
    "overflowing shape": (lambda: raw((1 << 32, 1 << 32, 4), 64), FileError, "stores 64"),
    "negative shape": (lambda: raw((-1, 6), 24), FileError, "do not use"),
    "many dimensions": (lambda: raw((1,) * 40, 4), FileError, "do not use"),
    "no data": (lambda: affine(claiming(6, 3)), FileError, "stores 0 numbers, not 18"),
    "too many numbers": (lambda: affine(claiming(2, float_data=[1, 2, 3])), FileError, "stores 3 numbers, not 2"),
    "wrong field": (lambda: affine(claiming(2, int64_data=[1, 2])), FileError, "stores 0 numbers, not 2"),
    "no numbers in weight": (lambda: affine(claiming(6, 0, raw_data=b"")), FileError, "weight must be"),
    "nan": (lambda: affine(np.full((6, 3), np.nan, np.float32)), FileError, "NaN or infinite.*repair"),
    "infinite": (lambda: affine(np.full((6, 3), np.inf, np.float32)), FileError, "NaN or infinite"),
    "complex": (lambda: raw((6, 3), 144, onnx.TensorProto.COMPLEX64), FileError, "COMPLEX64, which is not read"),
    "strings": (lambda: affine(claiming(1, kind=8, string_data=[b"a"])), FileError, "STRING, which is not read"),
    "float8": (lambda: raw((6, 3), 18, onnx.TensorProto.FLOAT8E4M3FN), FileError, "not read"),
    "unknown type": (lambda: raw((6, 3), 72, 999), FileError, "999, which is not read"),
    "integers as weights": (lambda: affine(np.full((6, 3), 2)), NeuroError, "."),
    "cycle": (
        lambda: model_of(node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])),
        FileError,
        r"\(Add, opset 17\) reads 'b' before anything gives it",
    ),
    "unsorted": (
        lambda: model_of(node("Relu", ["a"], ["y"]), node("Relu", ["x"], ["a"])),
        FileError,
        "reads 'a' before",
    ),
    "given twice": (lambda: model_of(node("Relu", ["x"], ["y"]), node("Tanh", ["x"], ["y"])), FileError, "given twice"),
    "input overwritten": (lambda: model_of(node("Relu", ["x"], ["x"])), FileError, "given twice"),
    "tensor twice": (
        lambda: edited(relu(), lambda m: m.graph.initializer.extend([claiming(0)] * 2)),
        FileError,
        "given twice",
    ),
    "control flow": (branch, UnsupportedNode, r"\(If, opset 17\): control flow"),
    "control flow in functions": (
        lambda: edited(with_function(("F", ["Relu"])), lambda m: m.graph.node.extend(branch().graph.node)),
        FileError,
        "control flow",
    ),
    "recursion": (lambda: with_function(("F", ["G"]), ("G", ["F"])), FileError, "recurse"),
    "self call": (lambda: with_function(("F", ["F"])), FileError, "recurse"),
    "billion laughs": (
        lambda: with_function(*((f"F{n}", [f"F{n + 1}"] * 10) for n in range(12)), ("F12", ["Relu"])),
        FileError,
        "grow beyond",
    ),
    "unknown function": (lambda: with_function(("F", ["G"])), UnsupportedNode, "'mine' is unknown"),
    "unknown domain": (
        lambda: model_of(node("Relu", ["x"], ["y"], domain="evil")),
        UnsupportedNode,
        "'evil' is unknown",
    ),
    "unknown operator": (lambda: model_of(node("Rely", ["x"], ["y"])), UnsupportedNode, r"\(Rely, opset 17\): no rule"),
    "old opset": (lambda: relu(opset=6), FileError, "opset 6, and 7 to 28"),
    "future opset": (lambda: relu(opset=999), FileError, "opset 999"),
    "no opset": (lambda: edited(relu(), lambda m: m.ClearField("opset_import")), FileError, "opset 0"),
    "future ir": (lambda: relu(ir=99), FileError, "IR version 99"),
    "no output": (lambda: edited(relu(), lambda m: m.graph.ClearField("output")), FileError, "no outputs"),
    "no input": (
        lambda: (
            model_of(node("Relu", ["c"], ["y"]), c=np.ones(3))
            and edited(model_of(node("Relu", ["c"], ["y"]), c=np.ones(3)), lambda m: m.graph.ClearField("input"))
        ),
        FileError,
        "has 0 inputs",
    ),
    "two outputs": (lambda: edited(relu(), lambda m: m.graph.output.add(name="x")), UnsupportedNode, "2 outputs"),
    "unknown output": (lambda: model_of(node("Relu", ["x"], ["z"])), UnsupportedNode, "is nothing"),
    "constant output": (
        lambda: edited(affine(np.ones((6, 3), np.float32)), lambda m: m.graph.output[0].__setattr__("name", "w")),
        UnsupportedNode,
        "is a constant",
    ),
    "no batch": (lambda: relu(features=()), FileError, r"no \(batch"),
    "no shape": (
        lambda: edited(relu(), lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")),
        FileError,
        "with a shape",
    ),
    "integer input": (
        lambda: edited(relu(), lambda m: m.graph.input[0].type.tensor_type.__setattr__("elem_type", 7)),
        FileError,
        "FLOAT",
    ),
    "huge input": (lambda: relu(features=(1 << 30, 1 << 30)), FileError, "too many"),
    "empty input": (lambda: relu(features=(0, 3)), FileError, "no .batch"),
    "negative batch": (lambda: relu(batch=-3), FileError, "no .batch"),
    "filled bomb": (
        lambda: model_of(node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"]), s=HUGE),
        UnsupportedNode,
        "outgrow",
    ),
    "expanded bomb": (
        lambda: model_of(
            node("Expand", ["o", "s"], ["c"]), node("Add", ["x", "c"], ["y"]), s=HUGE, o=np.ones(1, np.float32)
        ),
        UnsupportedNode,
        "outgrow",
    ),
    "counting bomb": (
        lambda: model_of(
            node("Range", ["a", "b", "a1"], ["c"]),
            node("Add", ["x", "c"], ["y"]),
            a=np.array(0),
            b=np.array(1 << 60),
            a1=np.array(1),
        ),
        UnsupportedNode,
        "outgrow",
    ),
    "outer product bomb": (
        lambda: model_of(
            node("Add", ["a", "b"], ["c"]),
            node("Add", ["x", "c"], ["y"]),
            a=np.ones((1 << 16, 1), np.float32),
            b=np.ones((1, 1 << 16), np.float32),
        ),
        UnsupportedNode,
        "outgrow",
    ),
    "doubling bomb": (
        lambda: model_of(
            *(node("Concat", [f"c{n}"] * 2, [f"c{n + 1}"], axis=0) for n in range(60)),
            node("Add", ["x", "c60"], ["y"]),
            c0=np.ones(1, np.float32),
        ),
        UnsupportedNode,
        "outgrow",
    ),
    "doubling signal": (
        lambda: model_of(
            *(node("Concat", [f"c{n}" if n else "x"] * 2, [f"c{n + 1}"], axis=1) for n in range(60)),
            node("Relu", ["c60"], ["y"]),
        ),
        UnsupportedNode,
        "elements per sample",
    ),
    "padding bomb": (
        lambda: model_of(node("Pad", ["x", "p"], ["y"]), p=np.array([0, 0, 1 << 19, 1 << 19] * 2)),
        UnsupportedNode,
        "elements per sample",
    ),
    "padding beyond all": (
        lambda: model_of(node("Pad", ["x", "p"], ["y"]), p=np.array([0, 0, 1 << 60, 0] * 2)),
        UnsupportedNode,
        "do not fit",
    ),
    "wide border": (
        lambda: model_of(node("Pad", ["x", "p"], ["y"], mode="edge"), p=np.array([0, 0, 1 << 19, 0] * 2)),
        UnsupportedNode,
        "wider than 256",
    ),
    "one name for all": (
        lambda: model_of(
            *(node("Relu", [f"c{n}" if n else "x"], [f"c{n + 1}"], name="same") for n in range(9000)),
            node("Rely", ["c9000"], ["y"]),
        ),
        UnsupportedNode,
        "Rely",
    ),
    "mirrored too far": (
        lambda: model_of(node("Pad", ["x", "p"], ["y"], mode="reflect"), p=np.array([0, 0, 6, 0] * 2)),
        UnsupportedNode,
        "do not fit",
    ),
    "huge shape": (
        lambda: model_of(node("Reshape", ["x", "s"], ["y"]), s=np.array([1 << 62, -1])),
        UnsupportedNode,
        "no shape",
    ),
    "division by zero": (
        lambda: model_of(node("Div", ["x", "z"], ["y"]), z=np.zeros(1, np.float32)),
        UnsupportedNode,
        "by zero",
    ),
    "constant by zero": (
        lambda: model_of(
            node("Div", ["a", "z"], ["b"]), node("Reshape", ["x", "b"], ["y"]), a=np.ones(2, int), z=np.zeros(1, int)
        ),
        UnsupportedNode,
        "division by zero",
    ),
    "variance below zero": (
        lambda: model_of(
            node("BatchNormalization", ["x", "a", "a", "a", "v"], ["y"]),
            a=np.ones(4, np.float32),
            v=-np.ones(4, np.float32),
        ),
        FileError,
        r"var \+ eps",
    ),
    "stepless": (
        lambda: model_of(node("Conv", ["x", "w"], ["y"], strides=[0, 0]), w=np.ones((1, 4, 2, 2), np.float32)),
        NeuroError,
        "stride",
    ),
    "no groups": (
        lambda: model_of(node("Conv", ["x", "w"], ["y"], group=0), w=np.ones((1, 4, 2, 2), np.float32)),
        FileError,
        "groups",
    ),
    "same without steps": (
        lambda: model_of(node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[0, 1], auto_pad="SAME_UPPER")),
        UnsupportedNode,
        "no padding",
    ),
    "huge window": (
        lambda: model_of(node("MaxPool", ["x"], ["y"], kernel_shape=[1 << 40, 1])),
        UnsupportedNode,
        "kernel_shape",
    ),
    "window beyond": (lambda: model_of(node("AveragePool", ["x"], ["y"], kernel_shape=[9, 9])), FileError, "larger"),
    "empty window": (lambda: model_of(node("AveragePool", ["x"], ["y"], kernel_shape=[0, 0])), NeuroError, "."),
    "wrong attribute type": (
        lambda: model_of(node("LeakyRelu", ["x"], ["y"], alpha="big")),
        UnsupportedNode,
        "wrong type",
    ),
    "nan attribute": (lambda: model_of(node("LeakyRelu", ["x"], ["y"], alpha=math.nan)), UnsupportedNode, "NaN"),
    "unknown attribute": (lambda: model_of(node("Relu", ["x"], ["y"], beta=1.0)), UnsupportedNode, "'beta' is unknown"),
    "missing attribute": (lambda: model_of(node("Concat", ["x", "x"], ["y"])), UnsupportedNode, "'axis' is missing"),
    "missing input": (lambda: model_of(node("Add", ["x"], ["y"])), UnsupportedNode, "2 inputs, not 1"),
    "unnamed input": (lambda: model_of(node("Add", ["x", ""], ["y"])), UnsupportedNode, "missing"),
    "axis beyond": (lambda: model_of(node("Softmax", ["x"], ["y"], axis=9)), UnsupportedNode, "axis 9"),
    "no order": (lambda: model_of(node("Transpose", ["x"], ["y"], perm=[0, 1, 1, 2])), UnsupportedNode, "no order"),
    "two shapes": (
        lambda: model_of(node("Flatten", ["x"], ["f"]), node("Add", ["x", "f"], ["y"])),
        UnsupportedNode,
        "do not add",
    ),
    "no neighbours": (
        lambda: model_of(node("MatMul", ["x", "w"], ["y"]), w=np.ones((7, 2), np.float32)),
        FileError,
        "cannot take",
    ),
    "sparse": (lambda: edited(relu(), lambda m: m.graph.sparse_initializer.add()), FileError, "sparse"),
    "name with line ends": (
        lambda: model_of(node("Rely", ["x"], ["y"], name="a\nb\x1b[31m" + "c" * 10000)),
        UnsupportedNode,
        r"a\\nb",
    ),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_models_that_are_wrong(name: str, tmp_path: Path) -> None:
    make, kind, said = MODELS[name]
    refused_model(tmp_path, make(), kind, said)


def test_a_reason_to_trust_onnxruntime_less_than_the_guard(tmp_path: Path) -> None:
    """A model that passes here but not there is refused by name, and can be imported on request."""
    path = tmp_path / "net.onnx"
    model = relu()
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    path.write_bytes(model.SerializeToString())
    refused(path, FileError, "onnxruntime does not run it")
    assert from_onnx(path, check=False).nodes["y"].kind == "ReLU"


def external(tmp_path: Path, location: str, **entries: str) -> Path:
    """A model with a 6 x 3 weight kept elsewhere."""
    weight = claiming(6, 3, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=value)
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    (folder / "net.onnx").write_bytes(affine(weight).SerializeToString())
    return folder / "net.onnx"


def test_external_data_stay_in_the_folder_of_the_model(tmp_path: Path) -> None:
    numbers = np.arange(18, dtype=np.float32).reshape(6, 3)
    secret = tmp_path / "secret.bin"
    secret.write_bytes(numbers.tobytes())
    path = external(tmp_path, "weights.bin")
    weights = path.parent / "weights.bin"
    for location in (
        "../secret.bin",
        "a/../../secret.bin",
        str(secret),
        "..",
        ".",
        ".",
        "\\\\host\\share",
        "C:secret.bin",
        "/dev/zero",
        "//etc/passwd",
        "a\x00b",
        "file:///etc/passwd",
        "weights.bin/../../secret.bin",
    ):
        refused(external(tmp_path, location), FileError, "external data")
    refused(external(tmp_path, "weights.bin"), FileError, "is missing")
    weights.symlink_to(secret)
    refused(path, FileError, "is a link")
    weights.unlink()
    os.link(secret, weights)
    refused(path, FileError, "is a link")
    weights.unlink()
    (path.parent / "sub").symlink_to(tmp_path)
    refused(external(tmp_path, "sub/secret.bin"), FileError, "is a link")
    os.mkfifo(weights)
    refused(external(tmp_path, "weights.bin"), FileError, "no regular file")
    weights.unlink()
    weights.mkdir()
    refused(path, FileError)
    weights.rmdir()
    weights.write_bytes(b"head" + numbers.tobytes())
    graph = from_onnx(external(tmp_path, "./weights.bin", offset="4", length="72"))
    assert torch.equal(graph.nodes["y"].weight, torch.from_numpy(numbers).T)  # type: ignore[attr-defined]
    for entries in (
        {"offset": "8"},
        {"offset": "-1"},
        {"offset": "9" * 30},
        {"length": "4"},
        {"length": "1000"},
        {"offset": "4", "length": "7_2"},
        {"offset": "٤"},
        {"basepath": "/etc"},
    ):
        refused(external(tmp_path, "weights.bin", **entries), FileError, "external data")


def test_external_data_of_a_lying_shape(tmp_path: Path) -> None:
    weight = claiming(1 << 15, 1 << 14, data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="weights.bin")
    (tmp_path / "weights.bin").write_bytes(bytes(64))
    refused_model(tmp_path, affine(weight), FileError, "takes 2147483648 bytes|more than")
    loose = affine(np.ones((6, 3), np.float32))
    loose.graph.initializer[0].external_data.add(key="location", value="weights.bin")
    refused_model(tmp_path, loose, FileError, "says that it has none")


def test_a_message_larger_than_protobuf_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "sparse.onnx", "wb") as file:
        file.truncate(1 << 31)
    refused(tmp_path / "sparse.onnx", FileError, "save weights as external data")
    monkeypatch.setattr(onnx_guard, "MOST_NODES", 3)
    refused_model(
        tmp_path, model_of(*(node("Relu", ["x"], [f"{n}"]) for n in range(4))), FileError, "4 nodes, more than 3"
    )


def samples() -> list[Any]:
    """Models that together use most of the reader."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((5, 4, 3, 3)).astype(np.float32)
    network = model_of(
        node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 1], name="conv"),
        node("BatchNormalization", ["c", "b", "b", "b", "v"], ["n"]),
        node("Clip", ["n", "zero", "six"], ["r"]),
        node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
        node("Pad", ["m", "p"], ["e"], mode="edge"),
        node("AveragePool", ["e"], ["a"], kernel_shape=[2, 2], pads=[0, 1, 1, 0]),
        node("Shape", ["a"], ["s"]),
        node("Slice", ["s", "i0", "i1"], ["size"]),
        node("Concat", ["size", "minus"], ["goal"], axis=0),
        node("Reshape", ["a", "goal"], ["f"]),
        node("Softmax", ["f"], ["y"], axis=1),
        w=weight,
        b=np.ones(5, np.float32),
        v=np.ones(5, np.float32),
        zero=np.array(0, np.float32),
        six=np.array(6, np.float32),
        p=np.array([0, 0, 1, 0, 0, 0, 0, 2]),
        i0=np.array([0]),
        i1=np.array([1]),
        minus=np.array([-1]),
    )
    quantised = model_of(
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "ws"], ["weight"], axis=0),
        node("ConvTranspose", ["d", "weight"], ["t"], strides=[2, 2]),
        node("PRelu", ["t", "slope"], ["l"]),
        node("Slice", ["l", "one", "end", "two"], ["c"]),
        node("Concat", ["c", "c"], ["cc"], axis=-1),
        node("ReduceMean", ["cc"], ["m"], axes=[2, 3], keepdims=0),
        node("Gemm", ["m", "g"], ["y"], transB=1),
        s=np.array(0.1, np.float32),
        z=np.array(3, np.int8),
        w=rng.integers(-9, 9, (4, 3, 2, 2)).astype(np.int8),
        ws=np.ones(4, np.float32) / 8,
        slope=np.ones((3, 1, 1), np.float32) / 4,
        one=np.array([1]),
        end=np.array([5]),
        two=np.array([2]),
        g=np.ones((2, 3), np.float32),
        opset=13,
        batch=1,
    )
    return [network, quantised, with_function(("F", ["G", "Relu"]), ("G", ["Relu"]))]


def mutant(whole: bytes, draw: random.Random) -> bytes:
    """Flipped, cut out, doubled or truncated bytes."""
    found = bytearray(whole)
    for _ in range(draw.choice((1, 1, 2, 5))):
        place = draw.randrange(len(found))
        way = draw.randrange(8)
        if way == 0:
            del found[place:]
        elif way == 1:
            del found[place : place + draw.randrange(1, 9)]
        elif way == 2:
            found[place:place] = found[place : place + draw.randrange(1, 40)]
        else:
            found[place] = found[place] ^ draw.choice((1, 2, 128, 255)) if way < 6 else draw.randrange(256)
        if not found:
            return b"\x00"
    return bytes(found)


def test_mutants_are_imported_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "mutant.onnx"
    wholes = [model.SerializeToString() for model in samples()]
    for whole in wholes:
        path.write_bytes(whole)
        assert isinstance(from_onnx(path), Graph)
    draw, imported, slowest = random.Random(1), 0, 0.0
    for number in range(MUTANTS):
        path.write_bytes(mutant(wholes[number % len(wholes)], draw))
        start = time.process_time()
        message = str(path)
        try:
            imported += isinstance(from_onnx(path), Graph)
        except NeuroError as error:
            message = str(error)
        assert str(path) in message.splitlines()[0]
        slowest = max(slowest, time.process_time() - start)
    assert slowest < 2
    assert 0 < imported < MUTANTS
