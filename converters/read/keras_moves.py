"""Layers of Keras without weights: pools, merges, and moves of elements."""

from __future__ import annotations

import math
from typing import Any

import torch

from converters.read.keras_linear import same_padding
from converters.read.keras_site import LARGEST_SIZE, Rule, Signal, Site, entering
from neuro.errors import FileError
from neuro.nodes import Add, AvgPool, Concat, ConvTranspose, Dropout, MaxPool, Pad, ReLU, Reshape, Scale, Slice
from neuro.trace.site import Refusal

RULES: dict[str, Rule] = {}
rule = entering(RULES)

_LARGEST_COPY = 1 << 20
"""Weights of an up-sampling, which the file does not hold but only asks for."""


@rule("MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "MaxPool1D", "MaxPool2D", "MaxPool3D",
      "AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "AvgPool1D", "AvgPool2D", "AvgPool3D")  # fmt: skip
def pool(site: Site, x: Signal) -> Signal:
    """With "same" padding an average is taken over the elements that are there, as TensorFlow does."""
    x = site.channels_first(x)
    space = x.value.shape[1:]
    kernel = site.sizes("pool_size", len(space), 2)
    stride = kernel if site.config.get("strides") is None else site.sizes("strides", len(space))
    pairs = [(0, 0)] * len(space)
    if site.choice("padding", "valid", "same"):
        pairs = same_padding(space, kernel, stride)
    # The odd element behind is a last window that is cut off; with stride 1 there is none to cut: one more before.
    odd = [after > before for before, after in pairs]
    drop = [more and step == 1 for more, step in zip(odd, stride, strict=True)]
    padding = tuple(pair[1] if more else pair[0] for pair, more in zip(pairs, drop, strict=True))
    ceil = any(more and not less for more, less in zip(odd, drop, strict=True))
    average = site.layer.kind.startswith("A")
    node = (
        AvgPool(kernel, stride, padding, not any(padding), ceil) if average else MaxPool(kernel, stride, padding, ceil)
    )
    x = site.add(node, x)
    for dim, more in enumerate(drop, start=1):
        if more:
            x = site.add(Slice(dim, 1, x.value.shape[dim]), x, part="cut")
    return x


@rule("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D", "GlobalAvgPool1D",
      "GlobalAvgPool2D", "GlobalAvgPool3D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D",
      "GlobalMaxPool1D", "GlobalMaxPool2D", "GlobalMaxPool3D")  # fmt: skip
def global_pool(site: Site, x: Signal) -> Signal:
    x = site.channels_first(x)
    kernel = x.value.shape[1:]
    none = (0,) * len(kernel)
    node = AvgPool(kernel, kernel, none) if site.layer.kind.startswith("GlobalA") else MaxPool(kernel, kernel, none)
    x = site.add(node, x)
    return x if site.config.get("keepdims") else site.add(Reshape(x.value.shape[:1]), x, part="flatten", order=(0,))


@rule("Flatten")
def flatten(site: Site, x: Signal) -> Signal:
    """In the order of Keras, channels last in either data format, so that the weights behind it fit."""
    if len(x.order) == 1:
        return x
    return site.reshaped(x, (*site.space(x), site.channel(x)), (math.prod(x.shape),))


@rule("Reshape")
def reshape(site: Site, x: Signal) -> Signal:
    wanted = site.config["target_shape"]
    if not all(type(size) is int and -2 < size < LARGEST_SIZE for size in wanted) or wanted.count(-1) > 1:
        raise FileError(f"target_shape {wanted!r:.60} is no shape; the file is damaged")
    rest = math.prod(size for size in wanted if size != -1)
    shape = tuple(math.prod(x.shape) // max(rest, 1) if size == -1 else size for size in wanted)
    return site.reshaped(x, tuple(range(len(x.order))), shape)


@rule("Permute")
def permute(site: Site, x: Signal) -> Signal:
    """Nothing moves yet: the dimensions only have other places for the layers behind."""
    dims = [dim - 1 for dim in site.config["dims"]]
    if sorted(dims) != list(range(len(x.order))):
        raise FileError(f"dims {site.config['dims']!r:.60} are no order of {len(x.order)} dimensions")
    return Signal(x.value, tuple(dims.index(dim) for dim in x.order))


@rule("RepeatVector")
def repeat(site: Site, x: Signal) -> Signal:
    (times,) = site.sizes("n", 1)
    if times * x.shape[0] > _LARGEST_COPY:
        raise Refusal(f"{times} copies are too many")
    row = site.add(Reshape((1, *x.shape)), x, part="row", order=(0, 1))
    return row if times == 1 else site.add(Concat(0), *[row] * times)


def _amounts(site: Site, key: str, count: int) -> list[tuple[int, int]]:
    """(before, after) for each dimension of space, from n, [a, b] or [[a, b], [c, d]]."""
    found: Any = site.config[key]
    if isinstance(found, int):
        found = [found] * count
    if count == 1 and len(found) == 2 and not isinstance(found[0], list):
        found = [found]
    pairs = [(item, item) if isinstance(item, int) else tuple(item) for item in found]
    flat = [size for pair in pairs for size in pair]
    good = len(pairs) == count and len(flat) == 2 * count
    if not good or any(type(size) is not int or not 0 <= size < LARGEST_SIZE for size in flat):
        raise FileError(f"{key} {found!r:.60} does not fit {count} dimensions of space; the file is damaged")
    return pairs


@rule("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
def zero_padding(site: Site, x: Signal) -> Signal:
    x = site.channels_first(x)
    return site.add(Pad(((0, 0), *_amounts(site, "padding", len(x.order) - 1))), x)


@rule("Cropping1D", "Cropping2D", "Cropping3D")
def cropping(site: Site, x: Signal) -> Signal:
    x = site.channels_first(x)
    for dim, (before, after) in enumerate(_amounts(site, "cropping", len(x.order) - 1), start=1):
        size = x.value.shape[dim]
        if before + after >= size:
            raise FileError(f"cropping {before} and {after} leaves nothing of {size} elements")
        if before or after:
            x = site.add(Slice(dim, before, size - after), x)
    return x


@rule("UpSampling1D", "UpSampling2D", "UpSampling3D")
def up_sampling(site: Site, x: Signal) -> Signal:
    """Every element is copied over a window: a transposed convolution of each channel with ones."""
    site.choice("interpolation", "nearest")
    x = site.channels_first(x)
    count = len(x.order) - 1
    window = site.sizes("size", count, 2)
    channels, none = x.value.shape[0], (0,) * count
    if channels * math.prod(window) > _LARGEST_COPY:
        raise Refusal(f"size {window} of {channels} channels is too large; use a transposed convolution")
    weight = torch.ones(channels, 1, *window)
    return site.add(ConvTranspose(weight, None, window, none, none, (1,) * count, channels), x)


@rule("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
def dropout(site: Site, x: Signal) -> Signal:
    return site.add(Dropout(site.number("rate", 0.5)), x)


@rule("GaussianDropout", "GaussianNoise", "AlphaDropout", "ActivityRegularization", "RandomFlip", "RandomRotation",
      "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness", "Identity")  # fmt: skip
def identity(site: Site, x: Signal) -> Signal:
    """What only training does."""
    return x


def _alike(site: Site, inputs: tuple[Signal, ...]) -> list[Signal]:
    """All inputs in the order of dimensions of the first."""
    if len({signal.shape for signal in inputs}) != 1:
        shapes = ", ".join(str(signal.shape) for signal in inputs)
        raise Refusal(f"merges features of different shapes {shapes}; no node broadcasts")
    return [site.arranged(signal, inputs[0].order) for signal in inputs]


def _minus(site: Site, x: Signal) -> Signal:
    return site.add(Scale(torch.tensor(-1.0)), x, part="minus")


@rule("Add")
def add(site: Site, *inputs: Signal) -> Signal:
    return site.add(Add(), *_alike(site, inputs))


@rule("Subtract")
def subtract(site: Site, *inputs: Signal) -> Signal:
    first, second = _alike(site, inputs)
    return site.add(Add(), first, _minus(site, second))


@rule("Average")
def average(site: Site, *inputs: Signal) -> Signal:
    total = site.add(Add(), *_alike(site, inputs), part="sum")
    return site.add(Scale(torch.tensor(1 / len(inputs))), total)


@rule("Maximum", "Minimum")
def extreme(site: Site, *inputs: Signal) -> Signal:
    """max(a, b) = b + relu(a - b) and min(a, b) = b - relu(b - a), one input after the other."""
    found, *rest = _alike(site, inputs)
    above = site.layer.kind == "Maximum"
    for other in rest:
        first, second = (found, other) if above else (other, found)
        excess = site.add(ReLU(), site.add(Add(), first, _minus(site, second), part="difference"), part="relu")
        found = site.add(Add(), other, excess if above else _minus(site, excess))
    return found


@rule("Concatenate")
def concatenate(site: Site, *inputs: Signal) -> Signal:
    axis = site.axis(site.config.get("axis", -1), inputs[0])
    if len({len(signal.order) for signal in inputs}) != 1:
        raise Refusal("joins features of different numbers of dimensions; reshape them first")
    order = inputs[0].order
    return site.add(Concat(order.index(axis)), *(site.arranged(signal, order) for signal in inputs))
