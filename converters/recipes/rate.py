"""Rate coding: the mean firing rate of a neuron times its threshold approximates its ReLU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from converters.calibrate import check_calibration, mmse, percentiles, sampled
from converters.convert import apply
from converters.scales import channel_shape
from converters.spiking import spiking_graph
from neuro.errors import ParameterError
from neuro.graph import Graph
from neuro.nodes import IF, Clamp, Neuron, Readout


@dataclass(frozen=True)
class RateCode:
    """Integrate-and-fire neurons with soft reset; thresholds from the activations on calibration data.

    thresholds: "percentile", or "mmse" for the least squared error of the rate after `steps` steps of constant input
    (Li et al. 2021). percentile: the share (in %) of a channel's activations that the threshold covers; 100 is the
    maximum (Diehl et al. 2015). 99.9 is from Rueckauer et al. 2017, sec. 2.2.2. per_channel: one threshold per channel
    (Kim et al. 2020, Spiking-YOLO, sec. 3.1) or one per layer. v0: initial potential in thresholds; 0.5 turns floor
    into round (Deng and Gu 2021, sec. 4). reset: "subtract" keeps what lies above the threshold (Rueckauer et al. 2017,
    eq. 4). readout_start: steps after which the read-out begins to integrate. layers: the percentile of single
    activations, by name, where it is another than `percentile`; `converters.tune` searches them.
    """

    percentile: float = 99.9
    per_channel: bool = True
    v0: float = 0.5
    reset: Literal["subtract", "zero"] = "subtract"
    readout_start: int = 0
    thresholds: Literal["percentile", "mmse"] = "percentile"
    steps: int = 32
    layers: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        named = {f" of {name!r}": percent for name, percent in self.layers.items()}
        for where, percent in {"": self.percentile, **named}.items():
            if not 0 < percent <= 100:
                raise ParameterError(f"RateCode: percentile{where} must lie in (0, 100], got {percent}")
        if self.layers and self.thresholds != "percentile":
            raise ParameterError("RateCode: layers gives percentiles; leave it out or set thresholds='percentile'")
        if not 0 <= self.v0 < 1:
            raise ParameterError(f"RateCode: v0 must lie in [0, 1) thresholds, got {self.v0}")
        if self.reset not in ("subtract", "zero"):
            raise ParameterError(f"RateCode: reset must be 'subtract' or 'zero', got {self.reset!r}")
        if self.readout_start < 0:
            raise ParameterError(f"RateCode: readout_start must be >= 0, got {self.readout_start}")
        if self.thresholds not in ("percentile", "mmse"):
            raise ParameterError(f"RateCode: thresholds must be 'percentile' or 'mmse', got {self.thresholds!r}")
        if self.steps < 1:
            raise ParameterError(f"RateCode: steps must be >= 1, got {self.steps}")


def usable(theta: Tensor, node: object) -> Tensor:
    """Thresholds per channel that neurons can have.

    A channel that was never active (0) gets the layer's largest. Clamp(0, c) needs no more than a threshold of at most
    c: a rate cannot exceed one spike per step.
    """
    largest = theta.max()
    theta = torch.where(theta > 0, theta, largest if largest > 0 else torch.tensor(1.0))
    return theta.clamp(max=node.high) if isinstance(node, Clamp) else theta


def rate_neurons(
    plain: Graph, thresholds: Mapping[str, Tensor], v0: float = 0.5, reset: Literal["subtract", "zero"] = "subtract"
) -> dict[str, tuple[Neuron, Tensor]]:
    """IF populations, started at v0 thresholds, for activations with thresholds[name] (channels or 1)."""
    neurons: dict[str, tuple[Neuron, Tensor]] = {}
    for name, each in thresholds.items():
        theta = channel_shape(usable(each, plain.nodes[name]), plain.shapes[name])
        neurons[name] = (IF(theta, v0 * theta, reset), theta)
    return neurons


@apply.register
def _(recipe: RateCode, plain: Graph, calibration: Tensor | None) -> Graph:
    x = check_calibration(plain, calibration)
    if recipe.thresholds == "percentile":
        thresholds = percentiles(plain, x, recipe.percentile, recipe.per_channel, recipe.layers)
    else:
        kept = sampled(plain, x, recipe.per_channel)
        thresholds = {name: mmse(values, recipe.steps, recipe.v0) for name, values in kept.items()}
    neurons = rate_neurons(plain, thresholds, recipe.v0, recipe.reset)
    return spiking_graph(plain, neurons, Readout(recipe.readout_start))
