"""Graded spikes: a neuron sends in one step as many spikes as its membrane holds, up to `levels`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from converters.calibrate import check_calibration, mmse, percentiles, sampled
from converters.convert import apply
from converters.recipes.rate import usable
from converters.scales import channel_shape
from converters.spiking import spiking_graph
from neuro.errors import ParameterError
from neuro.graph import Graph
from neuro.nodes import IF, GradedIF, Neuron, Readout


@dataclass(frozen=True)
class Graded:
    """Multi-level integrate-and-fire neurons with soft reset: n = clip(floor(v / theta), 0, levels) spikes a step.

    One event carries ceil(log2(levels + 1)) bits (one more if signed) and multiplies the weights it meets. A threshold
    is the range of its channel over `levels`, so one step can carry the whole range: with T = 1 the network is the
    quantised network of `levels` levels, and T steps refine it. levels = 1 is rate coding.

    percentile: the range is that percentile (in %) of a channel's activations; if None, the range with the least
    squared error of the quantised activations after `steps` steps (MMSE). signed: neurons may take back what they sent
    too early (negative spikes; ST-BIF, SpikeZIP-TF [recalled]). Then T steps equal the quantised network of T * levels
    levels, except where a step would need more than `levels`. per_channel: one threshold per channel or one per layer.
    """

    levels: int = 15
    percentile: float | None = None
    steps: int = 1
    signed: bool = False
    per_channel: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.levels, bool) or not isinstance(self.levels, int) or not 1 <= self.levels <= 2**16:
            raise ParameterError(f"Graded: levels must be an integer in 1..65536, got {self.levels!r}")
        if self.percentile is not None and not 0 < self.percentile <= 100:
            raise ParameterError(f"Graded: percentile must lie in (0, 100] or be None, got {self.percentile}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or not 1 <= self.steps <= 2**16:
            raise ParameterError(f"Graded: steps must be an integer in 1..65536, got {self.steps!r}")


@apply.register
def _(recipe: Graded, plain: Graph, calibration: Tensor | None) -> Graph:
    x = check_calibration(plain, calibration)
    if recipe.percentile is None:
        kept = sampled(plain, x, recipe.per_channel)
        ranges = {name: mmse(values, recipe.steps * recipe.levels) for name, values in kept.items()}
    else:
        ranges = percentiles(plain, x, recipe.percentile, recipe.per_channel)
    neurons: dict[str, tuple[Neuron, Tensor]] = {}
    for name, widest in ranges.items():
        theta = channel_shape(usable(widest, plain.nodes[name]) / recipe.levels, plain.shapes[name])
        neurons[name] = (_population(recipe, theta), theta)
    return spiking_graph(plain, neurons, Readout())


def _population(recipe: Graded, theta: Tensor) -> Neuron:
    if recipe.levels == 1 and not recipe.signed:
        return IF(theta, theta / 2)
    return GradedIF(theta, theta / 2, recipe.levels, recipe.signed)
