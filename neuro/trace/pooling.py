"""Rules for averages and maxima over windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from neuro.graph import Shape
from neuro.nodes import Affine, AvgPool, ConvTranspose, MaxPool, Permute, Reshape, Scale
from neuro.trace.rules import Result, Rule, entering, feature_dim, sizes
from neuro.trace.site import Refusal, Site, Value

Ints = int | Sequence[int]

RULES: dict[str, Rule] = {}
rule = entering(RULES)


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d")
def avg_pool(
    site: Site,
    x: Value,
    kernel: Ints,
    stride: Ints = (),
    padding: Ints = 0,
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Result:
    count = int(site.operation[-2])
    window = sizes(kernel, count)
    step = sizes(stride, count) if stride != () and stride != [] else window
    pooled = site.add(AvgPool(window, step, sizes(padding, count), count_padding, ceil), x)
    if divisor is None:
        return pooled
    if ceil or (not count_padding and any(sizes(padding, count))):
        raise Refusal("divisor_override with windows of different sizes has no node; leave it out")
    return site.add(Scale(torch.tensor(math.prod(window) / divisor)), pooled, part="scale")


@rule(
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "max_pool1d_with_indices",
)
def max_pool(
    site: Site, x: Value, kernel: Ints, stride: Ints = (), padding: Ints = 0, dilation: Ints = 1, ceil: bool = False
) -> Result:
    count = int(site.operation.removesuffix("_with_indices")[-2])
    if any(size != 1 for size in sizes(dilation, count)):
        raise Refusal("dilated max pooling has no node; use dilation=1")
    window = sizes(kernel, count)
    step = sizes(stride, count) if stride != () and stride != [] else window
    pooled = site.add(MaxPool(window, step, sizes(padding, count), ceil), x)
    return (pooled, None) if site.operation.endswith("indices") else pooled


def _goal(x: Value, wanted: Sequence[int | None], count: int) -> Shape:
    if len(x.shape) != count + 1:
        raise Refusal(f"pooling over {count} dimensions needs (batch, channels and {count} sizes)")
    return tuple(size if want is None else want for size, want in zip(x.shape[-count:], wanted, strict=True))


def _even_windows(x: Value, wanted: Sequence[int | None], count: int) -> Shape:
    space, goal = x.shape[-count:], _goal(x, wanted, count)
    if any(size % want for size, want in zip(space, goal, strict=True)):
        raise Refusal(f"adaptive pooling of {space} to {goal} takes maxima over unequal windows; choose divisors")
    return tuple(size // want for size, want in zip(space, goal, strict=True))


@rule(
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"
)
def adaptive_avg_pool(site: Site, x: Value, wanted: Ints) -> Result:
    count = int(site.operation[-2])
    goal = _goal(x, sizes(wanted, count), count)
    if any(size % want for size, want in zip(x.shape[-count:], goal, strict=True)):
        return _uneven_averages(site, x, goal)
    window = _even_windows(x, goal, count)
    return site.add(AvgPool(window, window, (0,) * count), x)


def _uneven_averages(site: Site, x: Value, goal: Shape) -> Value:
    """Windows of unequal size, dimension by dimension, as the matrix that averages them."""
    for dim, want in enumerate(goal, len(x.shape) - len(goal)):
        size = x.shape[dim]
        weight = torch.zeros(want, size)
        for number in range(want):
            first, end = number * size // want, -(-(number + 1) * size // want)
            weight[number, first:end] = 1 / (end - first)
        swap = list(range(len(x.shape)))
        swap[dim], swap[-1] = swap[-1], swap[dim]
        last = dim == len(x.shape) - 1
        turned = x if last else site.add(Permute(tuple(swap)), x, part="permute")
        averaged = site.add(Affine(weight), turned, part="average")
        x = averaged if last else site.add(Permute(tuple(swap)), averaged, part="permute")
    return x


@rule(
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d",
)
def upsample_nearest(site: Site, x: Value, *_: object) -> Result:
    """Every element repeated: a transposed convolution of each channel with a kernel of ones."""
    channels, *space = x.shape
    pairs = list(zip(site.shape[1:], space, strict=True))
    if any(want % size for want, size in pairs):
        raise Refusal(f"resizing {tuple(space)} to {site.shape[1:]} repeats unequally; use a whole scale_factor")
    times = tuple(want // size for want, size in pairs)
    none, one = (0,) * len(times), (1,) * len(times)
    return site.add(ConvTranspose(torch.ones(channels, 1, *times), None, times, none, none, one, channels), x)


@rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(site: Site, x: Value, wanted: Ints) -> Result:
    count = int(site.operation[-2])
    window = _even_windows(x, sizes(wanted, count), count)
    return (site.add(MaxPool(window, window, (0,) * count), x), None)


def _over(site: Site, x: Value, dims: Ints | None, keepdim: bool, pool: type[AvgPool] | type[MaxPool]) -> Value:
    """One window over all of the feature dimensions `dims`; everything else stays."""
    if dims is None or dims == [] or dims == ():
        raise Refusal("works along the batch; samples must stay apart")
    over = sorted({feature_dim(x, dim) for dim in sizes(dims, 1)})
    kept = [dim for dim in range(len(x.shape)) if dim not in over]
    shape = tuple(1 if dim in over else size for dim, size in enumerate(x.shape) if keepdim or dim in kept)
    if 2 <= len(x.shape) <= 4 and over[0] > 0:
        window = tuple(size if dim in over else 1 for dim, size in enumerate(x.shape) if dim > 0)
    else:
        if (*kept, *over) != tuple(range(len(x.shape))):
            x = site.add(Permute((*kept, *over)), x, part="permute")
        window = (math.prod(x.shape[len(kept) :]),)
        x = site.add(Reshape((math.prod(x.shape[: len(kept)]), *window)), x, part="windows")
    pooled = site.add(pool(window, window, (0,) * len(window)), x)
    return pooled if pooled.shape == shape else site.add(Reshape(shape), pooled, part="reshape")


@rule("mean.dim")
def mean(site: Site, x: Value, dims: Ints | None, keepdim: bool = False, *, dtype: object = None) -> Result:
    return _over(site, x, dims, keepdim, AvgPool)


@rule("sum.dim_IntList")
def total(site: Site, x: Value, dims: Ints | None, keepdim: bool = False, *, dtype: object = None) -> Result:
    averaged = _over(site, x, dims, keepdim, AvgPool)
    terms = math.prod(x.shape) / math.prod(averaged.shape)
    return site.add(Scale(torch.tensor(terms)), averaged, part="scale")


@rule("amax")
def amax(site: Site, x: Value, dims: Ints = (), keepdim: bool = False) -> Result:
    return _over(site, x, dims, keepdim, MaxPool)


@rule("max.dim")
def max_dim(site: Site, x: Value, dim: int, keepdim: bool = False) -> Result:
    return (_over(site, x, dim, keepdim, MaxPool), None)
