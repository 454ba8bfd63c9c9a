"""TensorFlow Lite networks (.tflite) of real numbers as Graphs, read without TensorFlow.

Every operator becomes the Keras layer that it came from, and is read by the rule of that layer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from converters.read.from_keras import refuse_all, use
from converters.read.keras_activations import activate
from converters.read.keras_model import Layer
from converters.read.keras_site import LARGEST_SIZE, Reading, Signal, Site
from converters.read.tflite_buffer import NOTHING, Table
from neuro.errors import FileError, NeuroError, UnsupportedNode
from neuro.graph import Change, Graph
from neuro.hdf5_guard import regular_file_size
from neuro.nodes import Input
from neuro.trace.site import Refusal

LARGEST_FILE = 1 << 30
_MOST_COPIES = 4
"""How often the weights of the whole file may be used: operators can share buffers."""

_FLOAT, _INT32, _INT8 = 0, 2, 9
_ACTIVATIONS = {0: None, 1: "relu", 2: "hard_tanh", 3: "relu6", 4: "tanh"}
_PLAIN = {14: "sigmoid", 19: "relu", 20: "hard_tanh", 21: "relu6", 28: "tanh", 25: "softmax", 50: "log_softmax"}
_NAMES = {6: "DEQUANTIZE", 18: "MUL of two signals", 82: "TFLITE custom", 114: "QUANTIZE", 117: "HARD_SWISH"}


def from_tflite(path: str | Path) -> Graph:
    """The network in a .tflite file of real numbers: one input, one output, a batch of one.

    The Graph takes images channels first, as `from_keras` does. Weights of 8 bits with a scale ("dynamic range"
    quantisation) are read as the real numbers that they stand for, which `history` says; TensorFlow Lite also rounds
    the activations in such layers. Networks of integers throughout are refused. Raises FileError and UnsupportedNode.
    """
    size = regular_file_size(path)
    if size > LARGEST_FILE:
        raise FileError(f"{path}: has {size} bytes, more than {LARGEST_FILE}; .tflite files are for small devices")
    try:
        data = Path(path).read_bytes()
        if data[4:8] != b"TFL3":
            raise FileError(f"{path}: is no .tflite file of version 3; give a file from tf.lite.TFLiteConverter")
        reading = Reading(major=3)
        return _Drawing(path, Table.root(data), reading).graph()
    except NeuroError as error:
        if str(path) in str(error):
            raise
        raise FileError(f"{path}: {error}") from error
    except (struct.error, ValueError, KeyError, TypeError, IndexError, OverflowError, OSError, RuntimeError) as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise FileError(f"{path}: damaged .tflite file ({text}); get another copy") from error


@dataclass(frozen=True)
class _Loaded:
    """Weights taken out of the file, in the order of their roles."""

    tensors: tuple[Tensor, ...]

    def take(self, *roles: str) -> tuple[Tensor, ...]:
        if len(roles) != len(self.tensors):
            raise FileError(f"needs the weights {', '.join(roles)} but has {len(self.tensors)}; the file is damaged")
        return self.tensors


@dataclass
class _Drawing:
    path: str | Path
    model: Table
    reading: Reading
    signals: dict[int, Signal] = field(default_factory=dict)
    used: int = 0

    def graph(self) -> Graph:
        graphs = self.model.tables(2)
        if len(graphs) != 1:
            raise UnsupportedNode(f"{self.path}: {len(graphs)} subgraphs; control flow cannot be read")
        (main,) = graphs
        self.buffers, self.tensors = self.model.tables(4), main.tables(0)
        codes = [max(code.integer(0, "i1"), code.integer(3, "i4")) for code in self.model.tables(1)]
        inputs, outputs = main.vector(1, "<i4").tolist(), main.vector(2, "<i4").tolist()
        if len(inputs) != 1 or len(outputs) != 1:
            raise UnsupportedNode(f"{self.path}: {len(inputs)} inputs and {len(outputs)} outputs; one of each is read")
        self.enter(inputs[0])
        last = self.signals[inputs[0]]
        for operator in main.tables(3):
            result = self.operator(operator, codes[operator.integer(0, "u4")], last)
            if result is not None:
                last = self.signals[operator.vector(2, "<i4").tolist()[0]] = result
        refuse_all(self.reading, self.path)
        return self.reading.sketch.graph(self.signals[outputs[0]].value, "network", tuple(self.reading.changes))

    def tensor(self, index: int) -> Table:
        if index < 0:
            raise ValueError("a tensor that is left out")
        return self.tensors[index]

    def shape(self, index: int) -> list[int]:
        """Without the batch."""
        sizes = self.tensor(index).vector(0, "<i4").tolist()
        if len(sizes) < 2 or sizes[0] != 1 or any(not 0 < size < LARGEST_SIZE for size in sizes):
            raise FileError(f"tensor {self.name(index)!r}: shape {sizes} is not a batch of one and its features")
        return sizes[1:]

    def name(self, index: int) -> str:
        return self.tensor(index).text(3).partition(";")[0][:80] or f"tensor_{index}"

    def enter(self, index: int) -> None:
        if (kind := self.tensor(index).integer(1, "i1")) != _FLOAT:
            raise UnsupportedNode(
                f"{self.path}: the input is of type {kind}, not float32: a network of integers; convert it without "
                "quantisation"
            )
        sizes = self.shape(index)
        order = (len(sizes) - 1, *range(len(sizes) - 1)) if len(sizes) > 2 else tuple(range(len(sizes)))
        inner = tuple(sizes[dim] for dim in order)
        if len(sizes) > 2:
            was, why = f"{tuple(sizes)}, channels last", "samples are given with their channels first"
            self.reading.changes.append(Change(self.name(index), was, f"{inner}", why))
        self.signals[index] = Signal(self.reading.sketch.add(self.name(index), Input(inner)), order)

    def constant(self, index: int) -> NDArray[Any]:
        """The numbers of a tensor that the file holds; 8-bit weights as the real numbers that they stand for."""
        tensor = self.tensor(index)
        kind, shape = tensor.integer(1, "i1"), tensor.vector(0, "<i4").tolist()
        if kind not in (_FLOAT, _INT32, _INT8):
            raise Refusal(f"weights {self.name(index)!r} are of type {kind}, not float32, int32 or int8")
        content = self.buffers[tensor.integer(2, "u4")].vector(0, "u1")
        self.used += len(content)
        if self.used > _MOST_COPIES * len(self.model.data):
            raise FileError("its operators use the same weights again and again; do not use this file")
        values = content.view({_FLOAT: "<f4", _INT32: "<i4", _INT8: "i1"}[kind]).reshape(shape)
        return self.dequantised(index, values) if kind == _INT8 else values

    def dequantised(self, index: int, values: NDArray[Any]) -> NDArray[Any]:
        table = self.tensor(index).table(4)
        scale = table.vector(2, "<f4") if table else np.empty(0)
        if table is None or not len(scale):
            raise Refusal(f"weights {self.name(index)!r} are integers without a scale")
        zero = table.vector(3, "<i8")
        form = [1] * values.ndim
        if len(scale) > 1:
            form[table.integer(6)] = len(scale)
        self.reading.changes.append(
            Change(self.name(index), "int8 weights", "float32", "the real numbers that scale and zero point say")
        )
        offset = zero.reshape(form) if len(zero) == len(scale) else zero[:1]
        return ((values - offset) * scale.reshape(form)).astype("<f4") if len(zero) else values * scale.reshape(form)

    def operator(self, operator: Table, code: int, last: Signal) -> Signal | None:
        inputs, outputs = operator.vector(1, "<i4").tolist(), operator.vector(2, "<i4").tolist()
        name = self.name(outputs[0])
        options = operator.table(4) or NOTHING
        site = Site(self.reading, Layer(name, f"operator {code}", "", {}, (), _Loaded(())), name)
        try:
            layer, given, word = self.layer(code, options, name, inputs, outputs)
        except Refusal as refusal:
            site.refuse(str(refusal))
            return last
        signals = use(self.reading, layer, 0, given)
        return activate(site, signals[0], word)

    def layer(
        self, code: int, options: Table, name: str, inputs: list[int], outputs: list[int]
    ) -> tuple[Layer, list[Signal], str | None]:
        """The Keras layer of an operator, what it reads, and the activation fused into it."""

        def made(kind: str, config: dict[str, Any], *weights: NDArray[Any]) -> Layer:
            tensors = tuple(torch.tensor(np.ascontiguousarray(array, dtype=np.float32)) for array in weights)
            return Layer(name, kind, "", config, (), _Loaded(tensors))

        def fused(index: int) -> str | None:
            if (word := options.integer(index, "i1")) not in _ACTIVATIONS:
                raise Refusal(f"fused activation {word} cannot be read")
            return _ACTIVATIONS[word]

        def signals(*places: int) -> list[Signal]:
            absent = [self.name(index) for index in places if index not in self.signals]
            if absent:
                raise Refusal(f"reads the constant {absent[0]!r} as a signal")
            return [self.signals[index] for index in places]

        def placed(**more: int) -> dict[str, Any]:
            """Padding and strides, which the convolutions and pools keep in the same fields."""
            strides = [options.integer(2), options.integer(1)]
            dilation = (
                [options.integer(more["down"], default=1), options.integer(more["right"], default=1)] if more else 1
            )
            return {
                "padding": ("same", "valid")[options.integer(0, "i1")],
                "strides": strides,
                "dilation_rate": dilation,
            }

        data = inputs[0]
        bias = [self.constant(inputs[2])] if len(inputs) > 2 and inputs[2] >= 0 else []
        if code in (3, 4):
            kernel = self.constant(inputs[1])
            config = {"use_bias": bool(bias)}
            if code == 3:
                config |= placed(down=5, right=4)
                kernel = kernel.transpose(1, 2, 3, 0)
                return (
                    made("Conv2D", {**config, "groups": self._groups(data, kernel)}, kernel, *bias),
                    signals(data),
                    fused(3),
                )
            config |= placed(down=6, right=5)
            kernel = kernel.reshape(*kernel.shape[1:3], self.shape(data)[-1], -1)
            return made("DepthwiseConv2D", config, kernel, *bias), signals(data), fused(4)
        if code == 9:
            (x,) = signals(data)
            kernel = self.constant(inputs[1]).T
            if len(x.order) > 1 and not options.integer(2, "i1"):
                (x,) = use(self.reading, made("Flatten", {}), 0, [x])
            return made("Dense", {"use_bias": bool(bias)}, kernel, *bias), [x], fused(0)
        if code in (1, 17):
            kind = "AveragePooling2D" if code == 1 else "MaxPooling2D"
            return (
                made(kind, {**placed(), "pool_size": [options.integer(4), options.integer(3)]}),
                signals(data),
                fused(5),
            )
        if code == 0 and all(index in self.signals for index in inputs):
            return made("Add", {}), signals(*inputs), fused(0)
        if code in (0, 18, 41):
            return self._with_constant(code, made, inputs), signals(data), fused(0)
        if code == 2:
            return made("Concatenate", {"axis": options.integer(0)}), signals(*inputs), fused(1)
        if code in (22, 43):
            return made("Reshape", {"target_shape": self.shape(outputs[0])}), signals(data), None
        if code in _PLAIN:
            if code == 25 and options.number(0, "f4", 1.0) != 1:
                raise Refusal("softmax with a temperature (beta other than 1) cannot be read")
            return made("Activation", {"activation": _PLAIN[code]}), signals(data), None
        if code == 98:
            return made("LeakyReLU", {"negative_slope": float(options.number(0, "f4"))}), signals(data), None
        if code == 34:
            amounts = self.constant(inputs[1]).tolist()
            if len(amounts) != 4 or any(amounts[0]) or any(amounts[3]):
                raise Refusal(f"padding {amounts} of other dimensions than height and width cannot be read")
            return made("ZeroPadding2D", {"padding": amounts[1:3]}), signals(data), None
        if code == 40:
            if sorted(self.constant(inputs[1]).flatten().tolist()) != [1, 2] or len(self.shape(data)) != 3:
                raise Refusal("means along other dimensions than height and width cannot be read")
            return made("GlobalAveragePooling2D", {"keepdims": bool(options.integer(0, "i1"))}), signals(data), None
        raise Refusal(
            f"TensorFlow Lite operator {_NAMES.get(code, code)} cannot be read; convert a network of real numbers"
        )

    def _groups(self, data: int, kernel: NDArray[Any]) -> int:
        return max(self.shape(data)[-1] // max(kernel.shape[2], 1), 1)

    def _with_constant(self, code: int, made: Any, inputs: list[int]) -> Layer:
        """x + c, x * c and x - c with a constant for all elements or for each channel."""
        if len(inputs) != 2 or inputs[1] in self.signals:
            raise Refusal("only constants may be multiplied or subtracted; no node combines two signals so")
        values = self.constant(inputs[1])
        if values.size not in (1, values.shape[-1] if values.ndim else 1):
            raise Refusal("a constant must be one number, or one for each channel")
        listed = values.astype(float).flatten().tolist()
        if code == 18:
            return made("Rescaling", {"scale": listed, "offset": 0.0})
        return made("Rescaling", {"scale": 1.0, "offset": [-value for value in listed] if code == 41 else listed})
