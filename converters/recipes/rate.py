"""Rate coding: the mean firing rate of a neuron times its threshold approximates its ReLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from converters.calibrate import activations, by_channel, check_calibration, percentile
from converters.convert import apply
from converters.spiking import channel_shape, spiking_graph
from neuro.errors import ParameterError
from neuro.graph import Graph
from neuro.nodes import IF, Clamp, Neuron, Readout


@dataclass(frozen=True)
class RateCode:
    """Integrate-and-fire neurons with soft reset; thresholds from the activations on calibration data.

    percentile: the share (in %) of a channel's activations that the threshold covers; 100 is the maximum
    (Diehl et al. 2015). 99.9 is from Rueckauer et al. 2017, sec. 2.2.2. per_channel: one threshold per channel
    (Kim et al. 2020, Spiking-YOLO, sec. 3.1) or one per layer. v0: initial potential in thresholds; 0.5 turns floor
    into round (Deng and Gu 2021, sec. 4). reset: "subtract" keeps what lies above the threshold (Rueckauer et al. 2017,
    eq. 4). readout_start: steps after which the read-out begins to integrate.
    """

    percentile: float = 99.9
    per_channel: bool = True
    v0: float = 0.5
    reset: Literal["subtract", "zero"] = "subtract"
    readout_start: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise ParameterError(f"RateCode: percentile must lie in (0, 100], got {self.percentile}")
        if not 0 <= self.v0 < 1:
            raise ParameterError(f"RateCode: v0 must lie in [0, 1) thresholds, got {self.v0}")
        if self.reset not in ("subtract", "zero"):
            raise ParameterError(f"RateCode: reset must be 'subtract' or 'zero', got {self.reset!r}")
        if self.readout_start < 0:
            raise ParameterError(f"RateCode: readout_start must be >= 0, got {self.readout_start}")


def rate_neurons(plain: Graph, thresholds: dict[str, Tensor], recipe: RateCode) -> dict[str, tuple[Neuron, Tensor]]:
    """IF populations for all activations. A channel that was never active gets the layer's largest threshold.

    Clamp(0, c) needs no more than a threshold of at most c: a rate cannot exceed one spike per step.
    """
    neurons: dict[str, tuple[Neuron, Tensor]] = {}
    for name, theta in thresholds.items():
        node = plain.nodes[name]
        largest = theta.max()
        theta = torch.where(theta > 0, theta, largest if largest > 0 else torch.tensor(1.0))
        if isinstance(node, Clamp):
            theta = theta.clamp(max=node.high)
        theta = channel_shape(theta, plain.shapes[name])
        neurons[name] = (IF(theta, recipe.v0 * theta, recipe.reset), theta)
    return neurons


@apply.register
def _(recipe: RateCode, plain: Graph, calibration: Tensor | None) -> Graph:
    x = check_calibration(plain, calibration)
    kept = activations(plain, x, lambda name, value: value)
    thresholds = {
        name: percentile(by_channel(value, recipe.per_channel), recipe.percentile) for name, value in kept.items()
    }
    return spiking_graph(plain, rate_neurons(plain, thresholds, recipe), Readout(recipe.readout_start))
