"""ResNet-20 for CIFAR-10 as people write it: functional ReLUs, in-place adds, lambda shortcuts, dynamic pooling.

`ResNet20(modules=True)` is the same network written for converters that look at modules: every ReLU, pool and shortcut
a module, and pixels that the caller has normalised; load its weights with strict=False.
He et al. 2016 (arXiv 1512.03385), sec. 4.2, shortcuts of option A. 269,722 parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = (0.4908, 0.4817, 0.4471), (0.2470, 0.2435, 0.2616)


class LambdaLayer(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def narrow_copy(inputs: int, outputs: int) -> nn.Conv2d:
    """The same shortcut as a convolution with fixed weights: every other pixel, zero channels on both sides."""
    copy = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
    with torch.no_grad():
        copy.weight.zero_()
        copy.weight[(outputs - inputs) // 2 :][:inputs, :, 0, 0] = torch.eye(inputs)
    return copy


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, modules: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or inputs != outputs:
            both = (0, 0, 0, 0, outputs // 4, outputs // 4)
            grow = LambdaLayer(lambda x: F.pad(x[:, :, ::2, ::2], both, "constant", 0))
            self.shortcut = narrow_copy(inputs, outputs) if modules else grow
        self.relu1: nn.Module | None = nn.ReLU() if modules else None
        self.relu2: nn.Module | None = nn.ReLU() if modules else None

    def forward(self, x: Tensor) -> Tensor:
        if self.relu1 is not None and self.relu2 is not None:
            out = self.relu1(self.bn1(self.conv1(x)))
            return self.relu2(self.bn2(self.conv2(out)) + self.shortcut(x))
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet20(nn.Module):
    """(batch, 3, 32, 32), pixels in [0, 1], to ten logits; the pixels are normalised inside, unless `modules`."""

    mean: Tensor
    std: Tensor

    def __init__(self, modules: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu: nn.Module | None = nn.ReLU() if modules else None
        self.pool: nn.Module | None = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()) if modules else None
        self.layer1 = nn.Sequential(*(Block(16, 16, 1, modules) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2, modules), *(Block(32, 32, 1, modules) for _ in range(2)))
        self.layer3 = nn.Sequential(Block(32, 64, 2, modules), *(Block(64, 64, 1, modules) for _ in range(2)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        if self.relu is not None and self.pool is not None:
            out = self.relu(self.bn1(self.conv1(x)))
            return self.linear(self.pool(self.layer3(self.layer2(self.layer1(out)))))
        out = F.relu(self.bn1(self.conv1((x - self.mean) / self.std)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


def build() -> ResNet20:
    """For the command line: `neuro convert tests/benchmarks/resnet20.py:build --weights ...`."""
    return ResNet20()
