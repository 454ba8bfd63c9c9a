"""Weighted sums. With integer weights the arithmetic is that of integers, exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Shape, Stateless, broadcast_onto


class Weighted(Stateless):
    """A node `y = W x + b`: a connection between populations, counted by its true fan-out."""

    weight: Tensor
    bias: Tensor | None

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        if self.weight.is_floating_point():
            return self.weight.dtype
        if dtypes[0].is_floating_point:
            raise ShapeError(f"{self.kind}: integer weights need integer input; put a Quantise node before it")
        return torch.int32

    def by_output(self) -> Tensor:
        """The weights that reach each output channel, (out, anything)."""
        return self.weight.flatten(1)

    def per_output(self, vector: Tensor) -> Tensor:
        """One number per output channel (or one for all), in a form that broadcasts against the weight."""
        return vector.reshape(-1, *(1,) * (self.weight.ndim - 1))

    def per_input(self, vector: Tensor) -> Tensor:
        """One number per input channel, in a form that broadcasts against the weight."""
        return vector.reshape(1, -1, *(1,) * (self.weight.ndim - 2))


def _check_bias(node: Weighted, outputs: int) -> None:
    if node.bias is None:
        return
    if node.bias.shape != (outputs,):
        raise ParameterError(f"{node.kind}: bias must have shape ({outputs},), got {tuple(node.bias.shape)}")
    if node.bias.is_floating_point() != node.weight.is_floating_point():
        raise ParameterError(f"{node.kind}: weight is {node.weight.dtype} but bias is {node.bias.dtype}")


def _check_sizes(node: Conv | ConvTranspose, **lowest: int) -> None:
    count = node.weight.ndim - 2
    for name, low in lowest.items():
        value = getattr(node, name)
        if len(value) != count or any(size < low for size in value):
            raise ParameterError(f"{node.kind}: {name} must be {count} integers >= {low}, got {value}")


def _grouped(vector: Tensor, groups: int, rows: int, dimensions: int) -> Tensor:
    """One number per channel of the second dimension of a weight (rows, channels/groups, *kernel), as (rows, that)."""
    parts = vector.reshape(groups, 1, -1).expand(-1, rows // groups, -1)
    return parts.reshape(rows, -1, *(1,) * (dimensions - 2))


def _weighted_sum(operation: Callable[..., Tensor], x: Tensor, node: Weighted) -> Tensor:
    """`operation(x, weight, bias)`; integers pass through floating point wide enough to be exact (2^24 or 2^53)."""
    if node.weight.is_floating_point():
        return operation(x.to(node.weight.dtype), node.weight, node.bias)
    rows = node.by_output().double().abs().sum(1).max().item() if node.weight.numel() else 0
    largest = float(x.abs().max()) if x.numel() else 0.0
    offset = float(node.bias.abs().max()) if node.bias is not None else 0.0
    wide = torch.float32 if rows * largest + offset < 2**24 else torch.float64
    bias = None if node.bias is None else node.bias.to(wide)
    result = operation(x.to(wide), node.weight.to(wide), bias)
    if rows * largest + offset >= 2**31 and float(result.abs().max()) >= 2**31:
        raise ParameterError(
            f"{node.kind}: a sum leaves 32-bit integers ({float(result.abs().max()):.3g}); use fewer bits"
        )
    return result.to(torch.int32)


@dataclass(frozen=True, eq=False)
class Affine(Weighted):
    """y = W x + b on the last dimension.   weight (out, in), bias (out,) or None."""

    weight: Tensor
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight.ndim != 2 or 0 in self.weight.shape:
            raise ParameterError(f"Affine: weight must be (out, in), got {tuple(self.weight.shape)}")
        _check_bias(self, self.weight.shape[0])

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not shape or shape[-1] != self.weight.shape[1]:
            raise ShapeError(f"Affine: weight {tuple(self.weight.shape)} cannot take features of shape {shape}")
        return (*shape[:-1], self.weight.shape[0])

    def forward(self, *inputs: Tensor) -> Tensor:
        return _weighted_sum(F.linear, inputs[0], self)


@dataclass(frozen=True, eq=False)
class Conv(Weighted):
    """Cross-correlation in one, two or three dimensions, as torch defines it.

    weight (out, in/groups, *kernel), bias (out,) or None; stride, padding (zeros, both sides) and dilation per
    dimension.
    """

    weight: Tensor
    bias: Tensor | None = None
    stride: Shape = (1, 1)
    padding: Shape = (0, 0)
    dilation: Shape = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight.ndim not in (3, 4, 5) or 0 in self.weight.shape:
            raise ParameterError(f"Conv: weight must be (out, in/groups, *kernel), got {tuple(self.weight.shape)}")
        _check_bias(self, self.weight.shape[0])
        _check_sizes(self, stride=1, padding=0, dilation=1)
        if self.groups < 1 or self.weight.shape[0] % self.groups:
            raise ParameterError(f"Conv: {self.weight.shape[0]} output channels do not split in {self.groups} groups")

    def per_input(self, vector: Tensor) -> Tensor:
        return _grouped(vector, self.groups, self.weight.shape[0], self.weight.ndim)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        kernel = tuple(self.weight.shape[2:])
        if len(shape) != len(kernel) + 1 or shape[0] != self.weight.shape[1] * self.groups:
            raise ShapeError(
                f"Conv: weight {tuple(self.weight.shape)} with groups={self.groups} "
                f"cannot take features of shape {shape}"
            )
        space = tuple(
            (size + 2 * pad - dil * (k - 1) - 1) // step + 1
            for size, k, step, pad, dil in zip(shape[1:], kernel, self.stride, self.padding, self.dilation, strict=True)
        )
        if any(size < 1 for size in space):
            raise ShapeError(f"Conv: kernel {kernel} is larger than its padded input {shape[1:]}")
        return (self.weight.shape[0], *space)

    def forward(self, *inputs: Tensor) -> Tensor:
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self.weight.ndim - 3]

        def operation(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

        return _weighted_sum(operation, inputs[0], self)


@dataclass(frozen=True, eq=False)
class ConvTranspose(Weighted):
    """Every input element lays its kernel, weighted, over the output: the transposed map of a `Conv`.

    weight (in, out/groups, *kernel), bias (out,) or None; per dimension stride (distance of two kernels), padding
    (taken off both sides of the output), dilation and output_padding (put on behind). As torch.nn.ConvTranspose2d.
    """

    weight: Tensor
    bias: Tensor | None = None
    stride: Shape = (1, 1)
    padding: Shape = (0, 0)
    output_padding: Shape = (0, 0)
    dilation: Shape = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight.ndim not in (3, 4, 5) or 0 in self.weight.shape:
            raise ParameterError(
                f"ConvTranspose: weight must be (in, out/groups, *kernel), got {tuple(self.weight.shape)}"
            )
        _check_sizes(self, stride=1, padding=0, output_padding=0, dilation=1)
        if self.groups < 1 or self.weight.shape[0] % self.groups:
            raise ParameterError(
                f"ConvTranspose: {self.weight.shape[0]} input channels do not split in {self.groups} groups"
            )
        room = zip(self.output_padding, self.stride, self.dilation, strict=True)
        if any(more >= max(step, dil) for more, step, dil in room):
            raise ParameterError(
                f"ConvTranspose: output_padding {self.output_padding} must be smaller than stride or dilation"
            )
        _check_bias(self, self.weight.shape[1] * self.groups)

    def by_output(self) -> Tensor:
        parts = self.weight.unflatten(0, (self.groups, -1)).transpose(1, 2)
        return parts.flatten(0, 1).flatten(1)

    def per_output(self, vector: Tensor) -> Tensor:
        whole = vector.expand(self.weight.shape[1] * self.groups)
        return _grouped(whole, self.groups, self.weight.shape[0], self.weight.ndim)

    def per_input(self, vector: Tensor) -> Tensor:
        return vector.reshape(-1, *(1,) * (self.weight.ndim - 1))

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        kernel = tuple(self.weight.shape[2:])
        if len(shape) != len(kernel) + 1 or shape[0] != self.weight.shape[0]:
            raise ShapeError(f"ConvTranspose: weight {tuple(self.weight.shape)} cannot take features of shape {shape}")
        sizes = zip(shape[1:], kernel, self.stride, self.padding, self.output_padding, self.dilation, strict=True)
        space = tuple((size - 1) * step - 2 * pad + dil * (k - 1) + more + 1 for size, k, step, pad, more, dil in sizes)
        if any(size < 1 for size in space):
            raise ShapeError(f"ConvTranspose: padding {self.padding} leaves nothing of features of shape {shape}")
        return (self.weight.shape[1] * self.groups, *space)

    def forward(self, *inputs: Tensor) -> Tensor:
        convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.weight.ndim - 3]

        def operation(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return convolve(x, weight, bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation)

        return _weighted_sum(operation, inputs[0], self)


@dataclass(frozen=True, eq=False)
class Scale(Stateless):
    """y = factor * x + offset, element by element; both broadcast against the features (channels first)."""

    factor: Tensor
    offset: Tensor | None = None

    def output_shape(self, *shapes: Shape) -> Shape:
        return broadcast_onto(shapes[0], self)

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return self.factor.dtype

    def forward(self, *inputs: Tensor) -> Tensor:
        scaled = inputs[0] * self.factor
        return scaled if self.offset is None else scaled + self.offset


@dataclass(frozen=True, eq=False)
class BatchNorm(Stateless):
    """y = (x - mean) / sqrt(var + eps) * weight + bias per channel, with stored statistics.

    Ioffe and Szegedy 2015, alg. 2.
    """

    mean: Tensor
    var: Tensor
    weight: Tensor
    bias: Tensor
    eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.eps >= 0 or bool((self.var.detach() + self.eps <= 0).any()):
            raise ParameterError(f"BatchNorm: var + eps must be > 0 everywhere, eps is {self.eps}")
        if len({tuple(tensor.shape) for _, tensor in self.tensors()}) != 1 or self.mean.ndim != 1:
            raise ParameterError("BatchNorm: mean, var, weight and bias must be vectors of one length")

    @property
    def parameters(self) -> int:
        return self.weight.numel() + self.bias.numel()

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not shape or shape[0] != self.mean.numel():
            raise ShapeError(f"BatchNorm: {self.mean.numel()} channels cannot normalise features of shape {shape}")
        return shape

    def as_scale(self, dimensions: int) -> Scale:
        """The same map as one factor and one offset per channel, for features of that many dimensions."""
        factor = self.weight / torch.sqrt(self.var + self.eps)
        form = (-1, *(1,) * (dimensions - 1))
        return Scale(factor.reshape(form), (self.bias - self.mean * factor).reshape(form))

    def forward(self, *inputs: Tensor) -> Tensor:
        return F.batch_norm(inputs[0], self.mean, self.var, self.weight, self.bias, training=False, eps=self.eps)
