"""Known spiking networks, written as one step in torch: trace them, then train them with `neuro.Network`.

`neuron()` makes the populations, `readout()` the last one. Weights as torch draws them, from its global generator;
convolutions and their batch norms have no bias of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from neuro.errors import ParameterError
from neuro.graph import Shape
from neuro.modules import LI, LIF, AdaptiveLIF, Population, Recurrent

Make = Callable[[], Population]


def _leaky() -> Population:
    return LIF(beta=0.95)


def _short() -> Population:
    """A decay for the few steps that convolutional networks are run for."""
    return LIF(beta=0.5)


def _adaptive() -> Population:
    """Time constants of 20 and 200 steps."""
    return AdaptiveLIF.exact(20.0, 200.0, dt=1.0)


def _integrator() -> Population:
    return LI(beta=0.95)


def mlp(sizes: Sequence[int] = (784, 1000, 10), *, neuron: Make = _leaky, readout: Make = _leaky) -> nn.Sequential:
    """Fully connected layers, (batch, *features) flattened to sizes[0] in, sizes[-1] populations' outputs out."""
    layers: list[nn.Module] = [nn.Flatten()]
    for number, (entering, leaving) in enumerate(pairwise(sizes), start=2):
        layers += [nn.Linear(entering, leaving), readout() if number == len(sizes) else neuron()]
    return nn.Sequential(*layers)


def lenet(
    shape: Shape = (1, 28, 28),
    classes: int = 10,
    *,
    channels: Sequence[int] = (6, 16),
    hidden: Sequence[int] = (120, 84),
    kernel: int = 5,
    neuron: Make = _short,
    readout: Make = _short,
) -> nn.Sequential:
    """Convolutions, each with spikes averaged over 2x2, then fully connected layers, after LeCun et al. 1998.

    lenet(channels=(32, 64), hidden=(), kernel=3) is 32C3-P2-64C3-P2-10.
    """
    layers: list[nn.Module] = []
    for entering, leaving in pairwise((shape[0], *channels)):
        layers += [nn.Conv2d(entering, leaving, kernel), neuron(), nn.AvgPool2d(2)]
    _, height, width = shape
    for _ in channels:
        height, width = ((size - kernel + 1) // 2 for size in (height, width))
    if min(height, width) < 1:
        raise ParameterError(
            f"lenet: {len(channels)} convolutions of {kernel}x{kernel} need a larger image than {shape}"
        )
    head = mlp((channels[-1] * height * width, *hidden, classes), neuron=neuron, readout=readout)
    return nn.Sequential(*layers, *head)


def vgg9(
    shape: Shape = (3, 32, 32), classes: int = 10, *, width: int = 64, neuron: Make = _short, readout: Make = _short
) -> nn.Sequential:
    """Convolutions 3x3: 2 of w = `width` channels, 2 of 2w, 3 of 4w, each group averaged over 2x2; then 16w units.

    After Simonyan and Zisserman 2015, as the deep spiking networks of Sengupta et al. 2019 cut it [recalled].
    """
    layers: list[nn.Module] = []
    entering = shape[0]
    for times, count in ((1, 2), (2, 2), (4, 3)):
        for _ in range(count):
            layers += [*_normalised(entering, times * width, 1), neuron()]
            entering = times * width
        layers.append(nn.AvgPool2d(2))
    features = entering * (shape[1] // 8) * (shape[2] // 8)
    return nn.Sequential(*layers, *mlp((features, 16 * width, classes), neuron=neuron, readout=readout))


def _normalised(entering: int, leaving: int, stride: int, kernel: int = 3) -> tuple[nn.Module, nn.Module]:
    """A convolution that keeps the size but for its stride, and its batch norm."""
    return (
        nn.Conv2d(entering, leaving, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(leaving),
    )


class SpikeElementWise(nn.Module):
    """Two convolutions with spikes, added to the spikes that entered: the element-wise function ADD."""

    def __init__(self, entering: int, leaving: int, stride: int, neuron: Make) -> None:
        super().__init__()
        self.path = nn.Sequential(
            *_normalised(entering, leaving, stride), neuron(), *_normalised(leaving, leaving, 1), neuron()
        )
        same = stride == 1 and entering == leaving
        self.shortcut = nn.Identity() if same else nn.Sequential(*_normalised(entering, leaving, stride, 1), neuron())

    def forward(self, x: Tensor) -> Tensor:
        return self.path(x) + self.shortcut(x)


STAGES = {18: ((1, 2, 4, 8), 2, 64), 20: ((1, 2, 4), 3, 16)}
"""By depth: the channels of each stage in widths, its blocks, and the usual width."""


def resnet(
    depth: int = 18,
    shape: Shape = (3, 32, 32),
    classes: int = 10,
    *,
    width: int | None = None,
    neuron: Make = _short,
    readout: Make = _short,
) -> nn.Sequential:
    """ResNet-18, or ResNet-20 of small images (He et al. 2016), with spike-element-wise residuals and a 3x3 stem.

    Fang et al. 2021, Deep residual learning in spiking neural networks (SEW ResNet, g = ADD) [recalled].
    """
    if depth not in STAGES:
        raise ParameterError(f"resnet: depth must be one of {', '.join(map(str, STAGES))}, got {depth!r}")
    stages, blocks, usual = STAGES[depth]
    width = usual if width is None else width
    layers: list[nn.Module] = [*_normalised(shape[0], width, 1), neuron()]
    entering = width
    for times in stages:
        for number in range(blocks):
            stride = 2 if number == 0 and times > 1 else 1
            layers.append(SpikeElementWise(entering, times * width, stride, neuron))
            entering = times * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), *mlp((entering, classes), neuron=neuron, readout=readout))


def recurrent(
    inputs: int = 64,
    hidden: Sequence[int] = (256,),
    classes: int = 10,
    *,
    neuron: Make = _adaptive,
    readout: Make = _integrator,
) -> nn.Sequential:
    """Populations that hear their own spikes one step later, and a leaky read-out: for speech and other sequences.

    Bellec et al. 2018, Long short-term memory and learning-to-learn in networks of spiking neurons [recalled]. The
    connections back start orthogonal at half their size, so that activity neither dies out nor runs away.
    """
    layers: list[nn.Module] = []
    for entering, leaving in pairwise((inputs, *hidden)):
        back = nn.Linear(leaving, leaving, bias=False)
        nn.init.orthogonal_(back.weight, gain=0.5)
        layers += [nn.Linear(entering, leaving), Recurrent(back, neuron())]
    return nn.Sequential(*layers, nn.Linear((inputs, *hidden)[-1], classes), readout())
