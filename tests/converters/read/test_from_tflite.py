"""TensorFlow Lite files written by hand, against the layers of Keras in NumPy; damaged and hostile ones."""

from __future__ import annotations

import os
import struct
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_fixtures import Array, Spec, activation, conv, expected, named, windows

from converters.read.from_keras import from_keras
from converters.read.from_tflite import from_tflite
from converters.read.tflite_buffer import Table
from neuro.errors import FileError, NeuroError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph

MUTANTS = int(os.environ.get("NEURO_MUTANTS", "500"))
SCALARS = {"i1": "<bxxx", "i4": "<i", "u4": "<I", "f4": "<f"}


class Flat:
    """A FlatBuffer, parents before children: {field number: scalar, array, text, table or list of tables}."""

    def __init__(self, root: dict[int, Any]) -> None:
        self.data = bytearray(b"\0\0\0\0TFL3")
        self.patch(0, self.table(root))

    def patch(self, at: int, target: int) -> None:
        struct.pack_into("<I", self.data, at, target - at)

    def table(self, fields: dict[int, Any]) -> int:
        keys = sorted(fields)
        slots = [4 + 4 * keys.index(key) if key in fields else 0 for key in range(max(keys, default=-1) + 1)]
        vtable = len(self.data)
        self.data += struct.pack(f"<{2 + len(slots)}H", 4 + 2 * len(slots), 4 + 4 * len(keys), *slots)
        self.data += bytes(-len(self.data) % 4)
        place = len(self.data)
        self.data += struct.pack("<i", place - vtable) + bytes(4 * len(keys))
        for number, key in enumerate(keys):
            at, value = place + 4 + 4 * number, fields[key]
            if isinstance(value, tuple):
                struct.pack_into(SCALARS[value[0]], self.data, at, value[1])
            else:
                self.patch(at, self.child(value))
        return place

    def child(self, value: Any) -> int:
        if isinstance(value, dict):
            return self.table(value)
        self.data += bytes(-len(self.data) % 4)
        start = len(self.data)
        if isinstance(value, str | np.ndarray):
            content = value.encode() if isinstance(value, str) else value.tobytes()
            self.data += struct.pack("<I", len(value)) + content
            return start
        self.data += struct.pack("<I", len(value)) + bytes(4 * len(value))
        for number, item in enumerate(value):
            self.patch(start + 4 + 4 * number, self.table(item))
        return start


def ints(*values: int) -> Array:
    return np.array(values, dtype="<i4")


class Net:
    """A .tflite model in the making: tensors, buffers and operators by number."""

    def __init__(self, *shape: int) -> None:
        self.buffers: list[dict[int, Any]] = [{}]
        self.tensors: list[dict[int, Any]] = []
        self.codes: list[int] = []
        self.operators: list[dict[int, Any]] = []
        self.last = self.signal(*shape)

    def signal(self, *shape: int) -> int:
        self.tensors.append({0: ints(1, *shape), 3: f"signal_{len(self.tensors)}"})
        return len(self.tensors) - 1

    def constant(self, array: Array, kind: int = 0, **more: Any) -> int:
        self.buffers.append({0: np.frombuffer(array.tobytes(), np.uint8)})
        tensor = {
            0: ints(*array.shape),
            1: ("i1", kind),
            2: ("u4", len(self.buffers) - 1),
            3: f"weight_{len(self.tensors)}",
        }
        self.tensors.append({**tensor, **more.get("fields", {})})
        return len(self.tensors) - 1

    def run(self, code: int, inputs: list[int], shape: tuple[int, ...], **options: Any) -> int:
        if code not in self.codes:
            self.codes.append(code)
        self.last = self.signal(*shape)
        numbered = {int(key[1:]): value for key, value in options.items()}
        operator = {0: ("u4", self.codes.index(code)), 1: ints(*inputs), 2: ints(self.last), 4: numbered}
        self.operators.append(operator)
        return self.last

    def write(self, path: Path, outputs: tuple[int, ...] = ()) -> Path:
        graph = {0: self.tensors, 1: ints(0), 2: ints(*(outputs or (self.last,))), 3: self.operators}
        codes = [{0: ("i1", min(code, 127)), 3: ("i4", code)} for code in self.codes]
        path.write_bytes(Flat({0: ("u4", 3), 1: codes, 2: [graph], 4: self.buffers}).data)
        return path


def drawn(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(0, 0.5, shape).astype("<f4")


def example() -> tuple[Net, list[Spec]]:
    """Every kind of operator once, and the Keras layers that it means."""
    net = Net(9, 8, 2)
    first, deep, wide = drawn(3, 3, 2, 4), drawn(3, 3, 4, 2), drawn(5, 8)
    one, two, three = drawn(4), drawn(8), drawn(5)
    same = {"padding": "same", "strides": [2, 2]}

    stem = net.run(3, [0, net.constant(first.transpose(3, 0, 1, 2).copy()), net.constant(one)], (5, 4, 4),
                   _0=("i1", 0), _1=("i4", 2), _2=("i4", 2), _3=("i1", 1))  # fmt: skip
    doubled = net.run(0, [stem, stem], (5, 4, 4), _0=("i1", 3))
    scaled = net.run(18, [doubled, net.constant(one)], (5, 4, 4))
    joined = net.run(2, [scaled, doubled], (5, 4, 8), _0=("i4", 3))
    padded = net.run(34, [joined, net.constant(ints(0, 0, 1, 0, 0, 1, 0, 0).reshape(4, 2), 2)], (6, 5, 8))
    pooled = net.run(17, [padded], (3, 3, 8), _0=("i1", 0), _1=("i4", 2), _2=("i4", 2), _3=("i4", 2), _4=("i4", 3))
    kernel = np.concatenate([deep, deep], 2).reshape(1, 3, 3, 16)
    spread = net.run(4, [pooled, net.constant(kernel), net.constant(np.concatenate([two, two]))], (3, 3, 16),
                     _0=("i1", 0), _1=("i4", 1), _2=("i4", 1), _3=("i4", 2), _4=("i1", 1))  # fmt: skip
    mean = net.run(1, [spread], (3, 3, 16), _0=("i1", 0), _1=("i4", 1), _2=("i4", 1), _3=("i4", 3), _4=("i4", 3))
    leaky = net.run(98, [mean], (3, 3, 16), _0=("f4", 0.25))
    flat = net.run(22, [leaky, net.constant(ints(1, 18, 8), 2)], (18, 8))
    flat = net.run(22, [flat, net.constant(ints(1, 144), 2)], (144,))
    out = net.run(9, [flat, net.constant(np.tile(wide, (1, 18))), net.constant(three)], (5,), _0=("i1", 0))
    net.run(25, [out], (5,), _0=("f4", 1.0))

    specs = [
        Spec("Conv2D", {**same, "activation": "relu"}, [first, one], "stem", ("input_1",)),
        Spec("Add", {}, [], "add", ("stem", "stem")),
        Spec("Activation", {"activation": "relu6"}, [], "doubled", ("add",)),
        Spec("Rescaling", {"scale": one, "offset": 0.0}, [], "scaled", ("doubled",)),
        Spec("Concatenate", {"axis": 3}, [], "joined", ("scaled", "doubled")),
        Spec("ZeroPadding2D", {"padding": [[1, 0], [0, 1]]}),
        Spec("MaxPooling2D", {**same, "pool_size": [3, 2]}),
        Spec("DepthwiseConv2D", {**same, "strides": [1, 1], "activation": "relu"},
             [kernel.reshape(3, 3, 8, 2), np.concatenate([two, two])]),
        Spec("AveragePooling2D", {"pool_size": [3, 3], "strides": [1, 1], "padding": "same"}),
        Spec("LeakyReLU", {"negative_slope": 0.25}),
        Spec("Flatten"),
        Spec("Dense", {"activation": "softmax"}, [np.tile(wide, (1, 18)).T, three]),
    ]  # fmt: skip
    named(specs)
    for before, spec in pairwise(specs[4:]):
        spec.reads = (before.name,)
    return net, specs


def test_operators_compute_what_their_layers_do(tmp_path: Path) -> None:
    net, specs = example()
    graph = from_tflite(net.write(tmp_path / "a.tflite"))
    x = np.random.default_rng(1).normal(0, 1, (3, 9, 8, 2))
    found = evaluate(graph, torch.from_numpy(x).float().movedim(-1, 1).contiguous()).double().numpy()
    np.testing.assert_allclose(found, expected(specs, x), rtol=1e-4, atol=1e-5)
    assert graph.shapes["signal_0"] == (2, 9, 8)
    assert graph.history[0].became == "(2, 9, 8)"


def test_weights_of_8_bits_are_the_numbers_they_stand_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    levels, scale = rng.integers(-127, 128, (4, 6)).astype(np.int8), rng.uniform(0.01, 0.1, 4).astype("<f4")
    zeros = np.arange(4, dtype="<i8")
    net = Net(6)
    weight = net.constant(levels, 9, fields={4: {2: scale, 3: zeros, 6: ("i4", 0)}})
    net.run(9, [0, weight, net.constant(drawn(4))], (4,), _0=("i1", 1))
    graph = from_tflite(net.write(tmp_path / "a.tflite"))
    x = rng.normal(0, 1, (5, 6)).astype("<f4")
    wanted = activation(x @ ((levels - zeros[:, None]) * scale[:, None].astype(float)).T + drawn(4), "relu")
    np.testing.assert_allclose(evaluate(graph, torch.from_numpy(x)).numpy(), wanted, rtol=1e-4, atol=1e-4)
    assert any(change.was == "int8 weights" for change in graph.history)


def refused(path: Path, rule: str, kind: type[NeuroError]) -> None:
    start = time.process_time()
    with pytest.raises(kind, match=rule) as caught:
        from_tflite(path)
    assert path.name in str(caught.value)
    assert time.process_time() - start < 2


def test_what_cannot_be_read_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.tflite"
    net = Net(4, 4, 2)
    net.run(117, [0], (4, 4, 2))
    net.run(25, [net.last], (4, 4, 2), _0=("f4", 2.0))
    net.run(0, [net.last, net.constant(drawn(4, 4, 2))], (4, 4, 2))
    refused(
        net.write(path),
        r"3 layer\(s\) cannot be read(.|\n)*HARD_SWISH(.|\n)*beta(.|\n)*one for each channel",
        UnsupportedNode,
    )
    whole = Net(3)
    whole.tensors[0][1] = ("i1", 9)
    whole.run(19, [0], (3,))
    refused(whole.write(path), "network of integers", UnsupportedNode)
    several = Net(3)
    several.run(19, [0], (3,))
    refused(several.write(path, (0, 1)), "2 outputs", UnsupportedNode)


def test_hostile_files(tmp_path: Path) -> None:
    path = tmp_path / "a.tflite"
    for content in (b"\0" * 100, b"\x08\0\0\0TFL3", b"\xff\xff\xff\xffTFL3" + b"\xff" * 64):
        path.write_bytes(content)
        refused(path, "tflite", FileError)
    net = Net(64)
    weight = net.constant(drawn(64, 64))
    for _ in range(200):
        net.run(9, [net.last, weight], (64,))
    refused(net.write(path), "again and again", FileError)
    bad = Net(4)
    bad.run(9, [0, bad.constant(np.full((4, 4), np.nan, "<f4"))], (4,))
    refused(bad.write(path), "NaN", FileError)
    short = Net(4)
    index = short.constant(drawn(4, 4))
    short.tensors[index][0] = ints(4096, 4)
    short.run(9, [0, index], (4096,))
    refused(short.write(path), "reshape", FileError)
    loose = Net(4)
    loose.run(19, [7], (4,))
    refused(loose.write(path), "a.tflite", NeuroError)


def test_mutants_are_read_or_refused(tmp_path: Path) -> None:
    content = example()[0].write(tmp_path / "good.tflite").read_bytes()
    rng, path, read = np.random.default_rng(3), tmp_path / "mutant.tflite", 0
    for number in range(MUTANTS):
        mutant = bytearray(content)
        if number % 5 == 0:
            del mutant[int(rng.integers(len(mutant))) :]
        else:
            for place in rng.integers(len(mutant), size=int(rng.integers(1, 8))):
                mutant[place] = int(rng.integers(256))
        path.write_bytes(mutant)
        start, said = time.process_time(), str(path)
        try:
            assert isinstance(from_tflite(path), Graph)
            read += 1
        except NeuroError as error:
            said = str(error)
        assert str(path) in said
        assert time.process_time() - start < 2
    assert 0 < read < MUTANTS


def test_twins_of_mlperf_tiny(shared: Path) -> None:
    folder = shared / "weights" / "mlperf_tiny"
    keras, lite = from_keras(folder / "pretrainedResnet.h5"), from_tflite(folder / "pretrainedResnet.tflite")
    x = torch.from_numpy(np.load(shared / "data" / "cifar10-1000" / "cifar10_test_1000.npz")["images"][:50]).float()
    torch.testing.assert_close(evaluate(keras, x), evaluate(lite, x), rtol=1e-4, atol=1e-4)
    spotter = from_tflite(folder / "kws_ref_model_float32.tflite")
    assert spotter.shapes[spotter.inputs[0]] == (1, 49, 10)
    assert spotter.shapes[spotter.output] == (12,)
    with pytest.raises(UnsupportedNode, match="network of integers"):
        from_tflite(folder / "pretrainedResnet_quant.tflite")


def by_hand(path: Path, x: Array) -> Array:
    """A network of convolutions, mean pools, reshapes and one softmax, operator by operator in NumPy, channels last.

    Numbers of fields and operators from schema.fbs of TensorFlow Lite.
    """
    model = Table.root(path.read_bytes())
    kinds = [max(code.integer(0, "i1"), code.integer(3)) for code in model.tables(1)]
    graph, buffers = model.tables(2)[0], model.tables(4)
    tensors = graph.tables(0)
    values: dict[int, Array] = {int(graph.vector(1, "<i4")[0]): x.astype(np.float64)}

    def read(index: int) -> Array:
        if index not in values:
            tensor = tensors[index]
            code = {0: "<f4", 2: "<i4", 9: "i1"}[tensor.integer(1, "i1")]
            held = np.frombuffer(buffers[tensor.integer(2, "u4")].vector(0, "u1").tobytes(), code)
            real = held.reshape(tensor.vector(0, "<i4")).astype(np.float64)
            if code == "i1":  # q stands for scale (q - zero), per channel of one dimension
                told = tensor.table(4)
                assert told is not None
                form = [1] * real.ndim
                form[told.integer(6)] = -1
                scale, zero = (told.vector(2, "<f4").astype(float), told.vector(3, "<i8").astype(float))
                one = [1] * real.ndim if scale.size == 1 else form
                real = scale.reshape(one) * (real - zero.reshape(one))
            values[index] = real
        return values[index]

    for operator in graph.tables(3):
        kind, options = kinds[operator.integer(0, "u4")], operator.table(4)
        first, *others = (read(int(index)) for index in operator.vector(1, "<i4") if index >= 0)
        place = {"padding": ("same", "valid")[options.integer(0, "i1")] if options and kind in (1, 3, 4) else ""}
        if kind in (1, 3, 4):
            assert options is not None
            place["strides"] = [options.integer(2), options.integer(1)]  # type: ignore[assignment]
        relu = ("linear", "relu", None, "relu6")
        match kind:
            case 3:
                found = conv(first, Spec("Conv2D", place), others[0].transpose(1, 2, 3, 0)) + others[1]
                found = activation(found, relu[options.integer(3, "i1")])  # type: ignore[union-attr]
            case 4:
                found = conv(first, Spec("DepthwiseConv2D", place), others[0].transpose(1, 2, 3, 0), True) + others[1]
                found = activation(found, relu[options.integer(4, "i1")])  # type: ignore[union-attr]
            case 1:
                size = [options.integer(4), options.integer(3)]  # type: ignore[union-attr]
                seen = windows(first, size, place["strides"], place["padding"], np.nan)
                found = np.nanmean(seen, (3, 4))
            case 9:
                found = first.reshape(len(first), -1) @ others[0].T + others[1]
                found = activation(found, relu[options.integer(0, "i1")] if options else None)
            case 22:
                shape = tensors[int(operator.vector(2, "<i4")[0])].vector(0, "<i4")
                found = first.reshape(len(first), *shape[1:])
            case 6:
                found = first
            case 25:
                found = activation(first, "softmax")
            case _:
                raise NotImplementedError(kind)
        values[int(operator.vector(2, "<i4")[0])] = found
    return values[int(graph.vector(2, "<i4")[0])]


def test_the_keyword_spotter_of_mlperf_tiny_by_hand(shared: Path) -> None:
    path = shared / "weights" / "mlperf_tiny" / "kws_ref_model_float32.tflite"
    graph = from_tflite(path)
    shape = graph.shapes[graph.inputs[0]]
    x = np.random.default_rng(0).normal(0, 20, (3, *shape))
    found = evaluate(graph, torch.from_numpy(x).float()).double().numpy()
    wanted = by_hand(path, np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert wanted.max() > 0.5
