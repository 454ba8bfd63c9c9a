"""Small dense networks: what every other row of the comparison is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from neuro.errors import ParameterError


def mlp(sizes: Sequence[int], *, bias: bool = True) -> nn.Sequential:
    """Fully connected layers of `sizes` with ReLU between them; takes (batch, *features) and flattens it.

    mlp((784, 300, 100, 10)) is LeNet-300-100 (LeCun et al. 1998) with ReLU: 266,200 MACs, 266,610 parameters.
    """
    sizes = tuple(sizes)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ParameterError(f"mlp: sizes must be two or more numbers >= 1, got {sizes}")
    layers: list[nn.Module] = [nn.Flatten()]
    for number, (width, following) in enumerate(pairwise(sizes)):
        layers += [nn.ReLU()] if number else []
        layers.append(nn.Linear(width, following, bias=bias))
    return nn.Sequential(*layers)


def lenet5_caffe() -> nn.Sequential:
    """20C5-P2-50C5-P2-500-10 for (batch, 1, 28, 28): 2,293,000 MACs, 431,080 parameters, max pooling.

    The LeNet of Caffe's examples, the usual subject of pruning papers. Caffe itself has one ReLU, behind the 500 units;
    here, as in those papers' code, one follows each convolution too, which changes neither count.
    """
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


Pooling = Literal["average", "stride"]


def trunk(shape: tuple[int, int, int], channels: Sequence[int], pooling: Pooling = "average") -> nn.Sequential:
    """The convolutional part of `small_cnn`: (batch, *shape) in, (batch, features) out.

    One block per number in `channels`: convolution 5x5 without padding, batch norm, ReLU, and an average over 2x2; with
    pooling="stride" the convolution has stride 2 and nothing is averaged, so that all it gives can be spikes. Raises
    ParameterError where the image is too small.
    """
    if pooling not in ("average", "stride"):
        raise ParameterError(f"trunk: pooling must be 'average' or 'stride', got {pooling!r}")
    layers: list[nn.Module] = []
    incoming, height, width = shape
    stride = 2 if pooling == "stride" else 1
    for outgoing in channels:
        if min(height, width) < 6:
            raise ParameterError(f"trunk: {len(channels)} blocks need a larger image than {shape[1]}x{shape[2]}")
        # batch norm has its own offset, so the convolution needs no bias
        layers += [nn.Conv2d(incoming, outgoing, 5, stride, bias=False), nn.BatchNorm2d(outgoing), nn.ReLU()]
        layers += [nn.AvgPool2d(2)] if pooling == "average" else []
        incoming = outgoing
        height, width = ((size - 4) // 2 if pooling == "average" else (size - 3) // 2 for size in (height, width))
    return nn.Sequential(*layers, nn.Flatten())


class SmallCNN(nn.Module):
    """A convolutional `trunk` under a classifier `head`: (batch, channels, height, width) -> (batch, classes)."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


def small_cnn(
    shape: tuple[int, int, int] = (1, 28, 28),
    classes: int = 10,
    *,
    channels: Sequence[int] = (12, 32),
    hidden: int = 128,
    pooling: Pooling = "average",
) -> SmallCNN:
    """12C5-P2-32C5-P2-128-10 with batch norm and average pooling: 854,016 MACs and 77,070 parameters on (1, 28, 28).

    Chosen on validation data because it converts well: it has a hidden layer where others have one global average,
    whose small differences between classes a short rate code cannot carry.
    """
    part = trunk(shape, channels, pooling).eval()
    with torch.no_grad():
        features = part(torch.zeros(1, *shape)).shape[1]
    head = nn.Sequential(
        nn.Linear(features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )
    return SmallCNN(part.train(), head)
