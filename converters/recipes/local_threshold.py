"""Local threshold balancing: every layer finds its thresholds on its own, on what the layers before it let through."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from converters.calibrate import by_channel, check_calibration, drawn, forward, last_readers
from converters.convert import apply
from converters.legalise import is_activation
from converters.recipes.rate import rate_neurons
from converters.scales import channel_shape
from converters.spiking import spiking_graph
from neuro.errors import ParameterError
from neuro.graph import Graph, Input, Stateless
from neuro.nodes import Readout

MOST_VALUES = 2**17
"""Values of each channel over which means are taken; of more, so many are drawn."""


@dataclass(frozen=True)
class LocalThreshold:
    """Training-free thresholds per channel (local threshold balancing, CVPR 2025).

    From theta = 0, theta <- theta + 2 mean(relu(x - theta)), `iterations` times over the calibration data: a descent on
    the squared error that clipping at theta makes. x are the activations of a network whose earlier layers are clipped
    already, max-pools stand behind the neurons, and v0 = theta / 2. More iterations cover more of the tail; no theta
    exceeds its channel's largest activation, where nothing is left to clip. readout_start: steps after which the
    read-out begins to integrate; None for `settling`, the estimated time until the last layer answers.
    """

    iterations: int = 1000
    readout_start: int | None = 0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ParameterError(f"LocalThreshold: iterations must be >= 1, got {self.iterations}")
        if self.readout_start is not None and self.readout_start < 0:
            raise ParameterError(f"LocalThreshold: readout_start must be >= 0 or None, got {self.readout_start}")


def balanced(values: Tensor, iterations: int) -> Tensor:
    """`iterations` of theta <- min(theta + 2 mean(relu(x - theta)), max x) from 0 for each row of values >= 0.

    The mean is taken over all values: from sums over the sorted row, relu(x - theta) sums to (sum of larger x) - (how
    many they are) theta.
    """
    rows = values.contiguous().sort(dim=1).values
    count = rows.shape[1]
    above = torch.cat([rows, rows.new_zeros(len(rows), 1)], 1).double().flip(1).cumsum(1).flip(1)
    largest, theta = rows[:, -1:], rows.new_zeros(len(rows), 1)
    for _ in range(iterations):
        place = torch.searchsorted(rows, theta, right=True)
        excess = above.gather(1, place) - (count - place) * theta.double()
        last, theta = theta, torch.minimum(theta + (2 * excess / count).to(theta.dtype), largest)
        if torch.equal(last, theta):
            break
    return theta[:, 0]


def settling(plain: Graph, thresholds: dict[str, Tensor], means: dict[str, Tensor], v0: float = 0.5) -> int:
    """Steps until the output settles: sum over the layers of (theta - v0) / (mean activation), rounded up.

    Of each layer the channel that fires first counts, and of a graph the path on which the sum is largest.
    """
    after: dict[str, float] = {}
    for name, given in plain.sources.items():
        after[name] = max((after[source] for source in given), default=0.0)
        if name in thresholds and bool((means[name] > 0).any()):
            after[name] += float(((1 - v0) * thresholds[name] / means[name]).nan_to_num(nan=torch.inf).min())
    return math.ceil(after[plain.output])


@apply.register
def _(recipe: LocalThreshold, plain: Graph, calibration: Tensor | None) -> Graph:
    x = check_calibration(plain, calibration)
    last = last_readers(plain)
    values: dict[str, Tensor] = {}
    thresholds: dict[str, Tensor] = {}
    means: dict[str, Tensor] = {}
    for name, node in plain.nodes.items():
        if isinstance(node, Input):
            values[name] = x
        elif isinstance(node, Stateless):
            values[name] = forward(node, *(values[source] for source in plain.sources[name]))
        if is_activation(node):
            rows = drawn(by_channel(values[name], True), MOST_VALUES)
            thresholds[name], means[name] = balanced(rows, recipe.iterations), rows.mean(1)
            values[name].clamp_(max=channel_shape(thresholds[name], plain.shapes[name]))
        for source in last[name]:
            del values[source]
    start = recipe.readout_start
    if start is None:
        start = settling(plain, thresholds, means)
    return spiking_graph(plain, rate_neurons(plain, thresholds), Readout(start))
