"""Layers of Keras with weights. Kernels are (*space, in, out) there and (out, in, *space) in the Graph."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from converters.read.keras_activations import activate
from converters.read.keras_site import Rule, Signal, Site, contiguous, entering
from neuro.errors import FileError
from neuro.graph import Shape
from neuro.nodes import Affine, BatchNorm, Conv, ConvTranspose, Pad, Scale, Slice
from neuro.trace.site import Refusal

RULES: dict[str, Rule] = {}
rule = entering(RULES)


def _bias(site: Site) -> tuple[str, ...]:
    return ("bias",) if site.config.get("use_bias", True) else ()


def _turned(*order: int):  # type: ignore[no-untyped-def]
    """Kernel and bias (or None) for a node, the kernel's dimensions in another order."""

    def make(kernel: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if kernel.ndim != len(order):
            raise FileError(f"kernel of shape {tuple(kernel.shape)} where {len(order)} dimensions belong")
        return contiguous(kernel, order), bias

    return make


@rule("Dense")
def dense(site: Site, x: Signal) -> Signal:
    """On the last dimension, whatever stands before it; with channels first that is a convolution of size 1."""
    weight, bias = site.weights(_turned(1, 0), "kernel", *_bias(site))
    last = len(x.order) - 1
    if x.order == tuple(range(last + 1)) or last > 3:
        return activate(site, site.add(Affine(weight, bias), site.as_keras(x)), site.config.get("activation"))
    x = site.arranged(x, (last, *range(last)))
    ones = (1,) * last
    node = Conv(weight.reshape(*weight.shape, *ones), bias, stride=ones, padding=(0,) * last, dilation=ones)
    return activate(site, site.add(node, x), site.config.get("activation"))


def _wide(kernel: Sequence[int], dilation: Shape) -> Shape:
    return tuple((k - 1) * dil + 1 for k, dil in zip(kernel, dilation, strict=True))


def same_padding(space: Sequence[int], kernel: Shape, stride: Shape) -> list[tuple[int, int]]:
    """Zeros before and after with which ceil(size / stride) windows fit; the odd one goes behind."""
    total = [
        max((math.ceil(size / step) - 1) * step + k - size, 0)
        for size, k, step in zip(space, kernel, stride, strict=True)
    ]
    return [(more // 2, more - more // 2) for more in total]


def _padded(site: Site, x: Signal, kernel: Shape, stride: Shape, dilation: Shape) -> tuple[Signal, Shape]:
    """The signal and the padding left to the convolution, which pads both sides alike."""
    space = x.value.shape[1:]
    wide = _wide(kernel, dilation)
    kind = site.choice("padding", "valid", "same", "causal")
    pairs = [[(0, 0)] * len(space), same_padding(space, wide, stride), [(size - 1, 0) for size in wide]][kind]
    if all(before == after for before, after in pairs):
        return x, tuple(before for before, _ in pairs)
    return site.add(Pad(((0, 0), *pairs)), x, part="pad"), (0,) * len(space)


def _convolved(
    site: Site, x: Signal, weight: Tensor, bias: Tensor | None, groups: int, part: str = "", plain: bool = False
) -> Signal:
    """`plain`: strides, dilation and padding belong to another convolution of the same layer."""
    count = len(x.order) - 1
    if weight.ndim != count + 2:
        raise FileError(f"kernel for {weight.ndim - 2} dimensions of space cannot slide over {count}")
    stride, dilation, padding = (1,) * count, (1,) * count, (0,) * count
    if not plain:
        stride, dilation = site.sizes("strides", count), site.sizes("dilation_rate", count)
        x, padding = _padded(site, x, tuple(weight.shape[2:]), stride, dilation)
    return site.add(Conv(weight, bias, stride, padding, dilation, groups), x, part=part)


@rule("Conv1D", "Conv2D", "Conv3D", "Convolution1D", "Convolution2D", "Convolution3D")
def conv(site: Site, x: Signal) -> Signal:
    count = len(x.order) - 1
    weight, bias = site.weights(_turned(count + 1, count, *range(count)), "kernel", *_bias(site))
    (groups,) = site.sizes("groups", 1)
    y = _convolved(site, site.channels_first(x), weight, bias, groups)
    return activate(site, y, site.config.get("activation"))


def _depthwise(kernel: Tensor) -> Tensor:
    """(*space, in, multiplier) to (in * multiplier, 1, *space): the copies of one channel stay together."""
    space = tuple(kernel.shape[:-2])
    turned = kernel.permute(kernel.ndim - 2, kernel.ndim - 1, *range(len(space)))
    return turned.reshape(-1, 1, *space).contiguous()


@rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(site: Site, x: Signal) -> Signal:
    def make(kernel: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return _depthwise(kernel), bias

    weight, bias = site.weights(make, "kernel", *_bias(site))
    x = site.channels_first(x)
    y = _convolved(site, x, weight, bias, groups=x.value.shape[0])
    return activate(site, y, site.config.get("activation"))


@rule("SeparableConv1D", "SeparableConv2D", "SeparableConvolution1D", "SeparableConvolution2D")
def separable(site: Site, x: Signal) -> Signal:
    """A depthwise convolution and one of size 1; the bias belongs to the second."""
    count = len(x.order) - 1

    def make(deep: Tensor, wide: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        return _depthwise(deep), *_turned(count + 1, count, *range(count))(wide, bias)

    deep, wide, bias = site.weights(make, "depthwise_kernel", "pointwise_kernel", *_bias(site))
    x = site.channels_first(x)
    y = _convolved(site, x, deep, None, groups=x.value.shape[0], part="depthwise")
    return activate(site, _convolved(site, y, wide, bias, 1, plain=True), site.config.get("activation"))


@rule("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def transposed(site: Site, x: Signal) -> Signal:
    """The size out is size * stride, and max(kernel - stride, 0) more when nothing is cut off ("valid")."""
    count = len(x.order) - 1
    if site.config.get("output_padding") is not None:
        raise Refusal("output_padding is computed otherwise by each backend; leave it None")
    weight, bias = site.weights(_turned(count + 1, count, *range(count)), "kernel", *_bias(site))
    if weight.ndim != count + 2:
        raise FileError(f"kernel for {weight.ndim - 2} dimensions of space cannot slide over {count}")
    x = site.channels_first(x)
    stride, dilation = site.sizes("strides", count), site.sizes("dilation_rate", count)
    beyond = [k - step for k, step in zip(_wide(weight.shape[2:], dilation), stride, strict=True)]
    cut = [max(more, 0) if site.choice("padding", "valid", "same") else 0 for more in beyond]
    before, behind = tuple(size // 2 for size in cut), tuple(max(-more, 0) for more in beyond)
    y = site.add(ConvTranspose(weight, bias, stride, before, behind, dilation), x)
    for dim, size in enumerate(cut, start=1):
        if size % 2:
            y = site.add(Slice(dim, 0, y.value.shape[dim] - 1), y, part="cut")
    return activate(site, y, site.config.get("activation"))


@rule("BatchNormalization")
def batch_norm(site: Site, x: Signal) -> Signal:
    if site.config.get("mode", 0) != 0:
        raise Refusal("mode other than 0 normalises by the running sample; train with mode=0")
    roles = [role for role, key in (("gamma", "scale"), ("beta", "center")) if site.config.get(key, True)]

    def make(*tensors: Tensor) -> BatchNorm:
        given = dict(zip((*roles, "mean", "variance"), tensors, strict=True))
        mean = given["mean"]
        gamma, beta = given.get("gamma", torch.ones_like(mean)), given.get("beta", torch.zeros_like(mean))
        return BatchNorm(mean, given["variance"], gamma, beta, site.number("epsilon", 1e-3))

    node = site.weights(make, *roles, "moving_mean", "moving_variance")
    place = x.order.index(site.axis(site.config.get("axis", -1), x))
    if x.value.shape[place] != node.mean.numel():
        raise FileError(f"{node.mean.numel()} channels cannot normalise features of shape {x.shape}")
    if place == 0:
        return site.add(node, x)
    scale = node.as_scale(len(x.order) - place)
    return site.add(Scale(scale.factor, scale.offset), x)


@rule("Normalization")
def normalization(site: Site, x: Signal) -> Signal:
    """(x - mean) / max(sqrt(variance), 1e-7) along `axis`; the way back with `invert`."""
    if site.config.get("mean") is not None:
        mean, variance = (torch.tensor(site.config[key], dtype=torch.float32) for key in ("mean", "variance"))
    else:
        mean, variance, _ = site.weights(lambda *tensors: tensors, "mean", "variance", "count")
    given = site.config.get("axis", -1)
    axes = sorted(site.axis(axis, x) for axis in (given if isinstance(given, list) else [given] if given else []))
    kept = [size if dim in axes else 1 for dim, size in enumerate(x.shape)]
    whole = math.prod(kept)
    if any(tensor.numel() not in (1, whole) for tensor in (mean, variance)):
        raise FileError(f"mean of {mean.numel()} numbers cannot normalise features of shape {x.shape} along {axes}")
    form = [1] * len(kept)
    mean, deviation = (
        tensor.reshape(kept if tensor.numel() == whole else form).permute(x.order).contiguous()
        for tensor in (mean, variance.clamp(min=0).sqrt().clamp(min=1e-7))
    )
    if site.config.get("invert"):
        return site.add(Scale(deviation, mean), x)
    return site.add(Scale(1 / deviation, -mean / deviation), x)


@rule("Rescaling")
def rescaling(site: Site, x: Signal) -> Signal:
    """x * scale + offset; lists go along the last dimension."""

    def factor(key: str, default: float) -> Tensor:
        found = site.config.get(key, default)
        if not isinstance(found, list) or len(found) == 1:
            return torch.tensor(site.number(key, default))
        tensor = torch.tensor(found, dtype=torch.float32)
        return tensor.reshape(*(1,) * (len(x.order) - 1), -1).permute(x.order).contiguous()

    return site.add(Scale(factor("scale", 1.0), factor("offset", 0.0)), x)
