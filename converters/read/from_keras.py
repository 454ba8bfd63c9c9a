"""Keras networks (.h5 and .keras) as Graphs, read with h5py and json: neither Keras nor TensorFlow is needed."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters.read import keras_activations, keras_linear, keras_moves
from converters.read.keras_files import opened
from converters.read.keras_model import Layer, Model
from converters.read.keras_site import LARGEST_SIZE, Reading, Rule, Signal, Site
from neuro.errors import FileError, NeuroError, ShapeError, UnsupportedNode
from neuro.graph import Change, Graph, Shape
from neuro.nodes import Input
from neuro.trace.site import Refusal

RULES: dict[str, Rule] = {**keras_activations.RULES, **keras_linear.RULES, **keras_moves.RULES}
"""A rule for every class of layer that can be read."""

_ANY_ORDER = {"BatchNormalization", "Dropout", "GaussianNoise", "GaussianDropout", "Activation", "ReLU", "LeakyReLU",
              "Rescaling", "Normalization", "ActivityRegularization", "Identity"}  # fmt: skip
_ONE_DIMENSIONAL = {kind for kind in RULES if kind.endswith(("1D", "1DTranspose"))}

_HINTS = {
    **dict.fromkeys(("Lambda", "TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"),
                    "holds code of its author, which is never executed; use a layer of Keras instead"),
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "Bidirectional", "RNN", "ConvLSTM2D", "TimeDistributed"),
                    "recurrent and time-distributed layers cannot be read; unfold them into feed-forward layers"),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization", "UnitNormalization", "RMSNormalization"),
                    "normalises by the running sample; train with BatchNormalization, whose statistics are fixed"),
    **dict.fromkeys(("Multiply", "Dot", "Attention", "MultiHeadAttention", "AdditiveAttention"),
                    "products of two signals have no node; only weights may multiply a signal"),
    **dict.fromkeys(("ELU", "SELU", "GELU"), "no node has this curve; train with ReLU or LeakyReLU"),
    **dict.fromkeys(("Embedding", "StringLookup", "IntegerLookup", "TextVectorization", "Hashing", "CategoryEncoding"),
                    "table look-ups have no node; encode the data as real numbers before the network"),
}  # fmt: skip


def from_keras(path: str | Path) -> Graph:
    """The network in a .h5 or .keras file, Sequential or functional, with models inside models and shared layers.

    Keras keeps samples as (height, width, channels). The Graph takes them channels first, as all image data here:
    (channels, height, width), or (channels, steps) where a one-dimensional convolution or pool reads them; samples of
    two dimensions that no such layer reads, and vectors, stay as they are. `history` says so for every input. Outputs
    of three or more dimensions come channels first too, and those of two where an input of two does.

    Raises FileError for files that are damaged, hostile, or no Keras model, and UnsupportedNode listing every layer
    that cannot be read. Lambda layers and classes of other authors are among them: nothing in a file is executed.
    """
    with opened(path) as (model, major):
        reading = Reading(major)
        try:
            ends = _draw(reading, model, None, "")
        except NeuroError:
            if not reading.refusals:
                raise
        refuse_all(reading, path)
        if len(ends) != 1:
            raise UnsupportedNode(
                f"{path}: the model has {len(ends)} outputs; save a model with exactly one, made of the same layers"
            )
        (end,) = ends
        turned = any(signal.order == (1, 0) for signal in reading.inputs) if len(end.order) == 2 else len(end.order) > 2
        dims = tuple(range(len(end.order)))
        order = (*dims[-1:], *dims[:-1]) if turned and not _says_channels_first(model) else dims
        end = Site(reading, model.layers[-1], "output").arranged(end, order)
        try:
            return reading.sketch.graph(end.value, model.name, tuple(reading.changes))
        except Refusal as refusal:
            raise UnsupportedNode(f"{path}: {refusal}") from refusal


def refuse_all(reading: Reading, path: str | Path) -> None:
    """UnsupportedNode with everything that was noted as unreadable, if anything was."""
    if reading.refusals:
        lines = "\n".join(f"  {line}" for line in reading.refusals)
        raise UnsupportedNode(f"{path}: {len(reading.refusals)} layer(s) cannot be read:\n{lines}")


def _draw(reading: Reading, model: Model, given: Sequence[Signal] | None, prefix: str) -> list[Signal]:
    """Nodes for all layers of a model that reads `given`, or inputs of its own; the signals that leave it."""
    if model.sequential:
        return _draw_sequence(reading, model, given, prefix)
    layers = {layer.name: layer for layer in model.layers}
    starts = {end[0]: index for index, end in enumerate(model.inputs)}
    if given is not None and len(given) != len(model.inputs):
        raise FileError(f"model {model.name!r} has {len(model.inputs)} inputs but is given {len(given)}")
    found: dict[tuple[str, int, int], Signal] = {}
    for layer, call in _calls_in_order(model):
        if layer.kind == "InputLayer":
            if layer.name not in starts:
                raise FileError(f"layer {layer.name!r} is an input that the model does not name; the file is damaged")
            outputs = [given[starts[layer.name]] if given is not None else _input(reading, model, layer)]
        else:
            sources = [found[end] for end in layer.calls[call].sources]
            outputs = use(reading, layer, call, sources, prefix)
        found |= {(layer.name, call, index): signal for index, signal in enumerate(outputs)}
    missing = [end for end in model.outputs if end not in found or end[0] not in layers]
    if missing:
        raise FileError(f"model {model.name!r}: its output {missing[0]!r:.80} is no output of a layer")
    return [found[end] for end in model.outputs]


def _calls_in_order(model: Model) -> list[tuple[Layer, int]]:
    """Every use of every layer, after those that it reads and else in the order of the file."""
    uses = [
        (layer, call) for layer in model.layers for call in range(max(len(layer.calls), layer.kind == "InputLayer"))
    ]
    rank = {(layer.name, call): index for index, (layer, call) in enumerate(uses)}
    readers: list[list[int]] = [[] for _ in uses]
    missing = [0] * len(uses)
    for index, (layer, call) in enumerate(uses):
        for name, number, _ in layer.calls[call].sources if layer.calls else ():
            if (name, number) not in rank:
                raise FileError(f"layer {layer.name!r} reads {name!r} (use {number}), which is not there")
            readers[rank[name, number]].append(index)
            missing[index] += 1
    ready = [index for index, count in enumerate(missing) if not count]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(uses[index])
        for reader in readers[index]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(uses):
        stuck = next(layer.name for (layer, _), count in zip(uses, missing, strict=True) if count)
        raise FileError(f"layer {stuck!r} reads itself, through others or directly; loops cannot be read")
    return order


def _draw_sequence(reading: Reading, model: Model, given: Sequence[Signal] | None, prefix: str) -> list[Signal]:
    if given is not None and len(given) != 1:
        raise FileError(f"model {model.name!r} takes one input but is given {len(given)}")
    layers = [layer for layer in model.layers if layer.kind != "InputLayer"]
    if given is None:
        first = next((layer for layer in model.layers if layer.kind == "InputLayer"), None)
        given = [_input(reading, model, first or _implied_input(model))]
    signals = list(given)
    for layer in layers:
        signals = use(reading, layer, 0, signals, prefix)
    return signals


def _implied_input(model: Model) -> Layer:
    """The input of a Sequential model that has none of its own: its first layer, or its building, gives the shape."""
    if not model.layers:
        raise FileError(f"model {model.name!r} has no layers")
    first = model.layers[0]
    shape = first.config.get("batch_input_shape") or model.input_shape
    inner = first.model
    while shape is None and inner is not None and inner.layers:
        entrance = inner.layers[0]
        shape = _declared_shape(entrance) or inner.input_shape
        inner = entrance.model
    return replace(first, name="input", kind="InputLayer", config={"batch_input_shape": shape}, calls=(), model=None)


def _declared_shape(layer: Layer) -> Any:
    return layer.config.get("batch_shape") or layer.config.get("batch_input_shape")


def _input(reading: Reading, model: Model, layer: Layer) -> Signal:
    shape = _declared_shape(layer)
    sizes = shape[1:] if isinstance(shape, list) else None
    if not sizes or any(type(size) is not int or not 0 < size < LARGEST_SIZE for size in sizes):
        raise FileError(
            f"layer {layer.name!r}: the shape {shape!r:.60} leaves feature sizes open or is none; "
            "build the model with a fixed input shape and save it again"
        )
    channels_last = not _says_channels_first(model)
    turned = channels_last and (len(sizes) > 2 or (len(sizes) == 2 and _read_along_steps(model, layer)))
    order: Shape = (len(sizes) - 1, *range(len(sizes) - 1)) if turned else tuple(range(len(sizes)))
    inner = tuple(sizes[dim] for dim in order)
    if turned:
        was = f"{tuple(sizes)}, channels last"
        reading.changes.append(Change(layer.name, was, f"{inner}", "samples are given with their channels first"))
    signal = Signal(reading.sketch.add(layer.name, Input(inner)), order)
    reading.inputs.append(signal)
    return signal


def _says_channels_first(model: Model) -> bool:
    return any(
        _says_channels_first(layer.model) if layer.model else layer.config.get("data_format") == "channels_first"
        for layer in model.layers
    )


def _read_along_steps(model: Model, start: Layer) -> bool:
    """Whether a one-dimensional convolution, pool or the like reads these samples before anything moves them."""
    if model.sequential:
        behind = [layer for layer in model.layers if layer.kind != "InputLayer"]
        entrance = next((layer for layer in behind if layer.kind not in _ANY_ORDER), None)
        return entrance is not None and _is_along_steps(entrance)
    readers: dict[str, list[Layer]] = {}
    for layer in model.layers:
        for source in {end[0] for call in layer.calls for end in call.sources}:
            readers.setdefault(source, []).append(layer)
    waiting, seen = [start.name], set()
    while waiting:
        for layer in readers.get(waiting.pop(), ()):
            if layer.kind in _ANY_ORDER and layer.name not in seen:
                seen.add(layer.name)
                waiting.append(layer.name)
            elif _is_along_steps(layer):
                return True
    return False


def _is_along_steps(layer: Layer) -> bool:
    if layer.model is None:
        return layer.kind in _ONE_DIMENSIONAL
    entrance = next((item for item in layer.model.layers if item.kind == "InputLayer"), None)
    return _read_along_steps(layer.model, entrance or layer)


def use(reading: Reading, layer: Layer, call: int, inputs: list[Signal], prefix: str = "") -> list[Signal]:
    """Nodes for one use of a layer. What cannot be read is noted and passed by, so that all of it is found."""
    site = Site(reading, layer, prefix + layer.name)
    try:
        if layer.model is not None and not layer.custom:
            return _draw(reading, layer.model, inputs, f"{site.name}.")
        if layer.custom:
            raise Refusal(f"is defined by {layer.custom}, not by Keras, and is never executed; use a layer of Keras")
        if layer.kind not in RULES:
            raise Refusal(_HINTS.get(layer.kind, "there is no rule for this class; replace it by a supported layer"))
        if layer.calls and layer.calls[call].others:
            raise Refusal("is given constants or named arguments, which cannot be read; use a layer for them")
        if any(word in str(layer.config.get("dtype")) for word in ("int8", "int4", "float8")):
            raise Refusal("has quantised weights; save the model before quantising it")
        return [RULES[layer.kind](site, *inputs)]
    except Refusal as refusal:
        site.refuse(str(refusal))
        return inputs[:1]
    except NeuroError as error:
        if reading.refusals and isinstance(error, ShapeError):
            return inputs[:1]
        text = " ".join([str(error), *getattr(error, "__notes__", ())]) if not isinstance(error, FileError) else error
        where = "" if str(error).startswith("layer ") else f"layer {site.name!r} ({layer.kind}): "
        raise FileError(f"{where}{text}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise FileError(
            f"layer {site.name!r} ({layer.kind}): its settings or weights are damaged ({text}); save the model again"
        ) from error
