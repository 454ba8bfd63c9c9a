"""Averages and maxima over windows."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Shape, Stateless


def _pooled(kind: str, shape: Shape, kernel: Shape, stride: Shape, padding: Shape, ceil: bool) -> Shape:
    if len(shape) != len(kernel) + 1:
        raise ShapeError(f"{kind}: a {len(kernel)}-dimensional window cannot slide over features of shape {shape}")
    space = []
    for size, k, step, pad in zip(shape[1:], kernel, stride, padding, strict=True):
        reach = size + 2 * pad - k
        count = (-(-reach // step) if ceil else reach // step) + 1
        if ceil and (count - 1) * step >= size + pad:
            count -= 1
        if reach < 0 or count < 1:
            raise ShapeError(f"{kind}: window {kernel} is larger than its padded input {shape[1:]}")
        space.append(count)
    return (shape[0], *space)


def _check_window(kind: str, kernel: Shape, stride: Shape, padding: Shape) -> None:
    same = len(kernel) == len(stride) == len(padding) in (1, 2, 3)
    if not same or min(kernel) < 1 or min(stride) < 1 or min(padding) < 0:
        raise ParameterError(f"{kind}: kernel {kernel}, stride {stride}, padding {padding} do not describe a window")
    if any(2 * pad > k for pad, k in zip(padding, kernel, strict=True)):
        raise ParameterError(f"{kind}: padding {padding} is more than half of the window {kernel}")


@dataclass(frozen=True, eq=False)
class AvgPool(Stateless):
    """Mean over windows of `kernel`; padded zeros count when `count_padding`. As torch.nn.AvgPool1d/2d/3d."""

    kernel: Shape
    stride: Shape
    padding: Shape
    count_padding: bool = True
    ceil: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window("AvgPool", self.kernel, self.stride, self.padding)

    def output_shape(self, *shapes: Shape) -> Shape:
        return _pooled("AvgPool", shapes[0], self.kernel, self.stride, self.padding, self.ceil)

    def forward(self, *inputs: Tensor) -> Tensor:
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(self.kernel) - 1]
        return pool(inputs[0], self.kernel, self.stride, self.padding, self.ceil, self.count_padding)


@dataclass(frozen=True, eq=False)
class MaxPool(Stateless):
    """Maximum over windows of `kernel`. As torch.nn.MaxPool1d/2d/3d without dilation."""

    kernel: Shape
    stride: Shape
    padding: Shape
    ceil: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window("MaxPool", self.kernel, self.stride, self.padding)

    def output_shape(self, *shapes: Shape) -> Shape:
        return _pooled("MaxPool", shapes[0], self.kernel, self.stride, self.padding, self.ceil)

    def forward(self, *inputs: Tensor) -> Tensor:
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(self.kernel) - 1]
        x = inputs[0]
        if x.is_floating_point():
            return pool(x, self.kernel, self.stride, self.padding, 1, self.ceil)
        return pool(x.float(), self.kernel, self.stride, self.padding, 1, self.ceil).to(x.dtype)
