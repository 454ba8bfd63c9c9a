"""The networks of `neuro.baselines.spiking` by name, for samples of any shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from torch import nn

from neuro.baselines import spiking
from neuro.errors import ShapeError
from neuro.graph import Shape
from neuro.modules import LIF

BETA = 0.9


def mlp(features: Shape, classes: int, last: nn.Module) -> nn.Module:
    """A hidden layer of 1,000 leaky neurons."""
    return spiking.mlp((math.prod(features), 1000, classes), neuron=_leaky, readout=lambda: last)  # type: ignore[arg-type,return-value]


def recurrent(features: Shape, classes: int, last: nn.Module) -> nn.Module:
    """256 leaky neurons that hear each other one step later."""
    flat = [nn.Flatten()] if len(features) > 1 else []
    module = spiking.recurrent(math.prod(features), (256,), classes, neuron=_leaky, readout=lambda: last)  # type: ignore[arg-type,return-value]
    return nn.Sequential(*flat, *module)


def of_images(name: str, build: Callable[..., nn.Module]) -> Callable[[Shape, int, nn.Module], nn.Module]:
    """A network of images (channels, height, width)."""

    def network(features: Shape, classes: int, last: nn.Module) -> nn.Module:
        if len(features) != 3:
            raise ShapeError(
                f"network {name!r} takes images (channels, height, width), got samples of shape {features}"
            )
        return build(shape=features, classes=classes, neuron=_leaky, readout=lambda: last)

    return network


def _leaky() -> LIF:
    return LIF(BETA)


NETWORKS: dict[str, Callable[[Shape, int, nn.Module], nn.Module]] = {
    "mlp": mlp,
    "cnn": of_images("cnn", partial(spiking.lenet, channels=(32, 64), hidden=(), kernel=3)),
    "lenet": of_images("lenet", spiking.lenet),
    "vgg9": of_images("vgg9", spiking.vgg9),
    "resnet18": of_images("resnet18", partial(spiking.resnet, 18)),
    "resnet20": of_images("resnet20", partial(spiking.resnet, 20)),
    "recurrent": recurrent,
}
"""network(features, classes, last): the module of one step; `last` follows the last weights."""
