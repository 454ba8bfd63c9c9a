"""Calibrated offset spikes: every population rehearses a sample, then starts where the rehearsal says (COS)."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from converters.convert import apply
from converters.corrected import with_corrections
from converters.recipes.rate import RateCode
from neuro.graph import Graph
from neuro.nodes import OffsetIF
from neuro.nodes.corrected import check_warmup


@dataclass(frozen=True)
class OffsetSpikes:
    """COS: a spike too many or too few within `warmup` steps moves the initial potential, sample by sample.

    Hao et al. 2023 (arXiv 2302.10685 [recalled]), equations in `neuro.nodes.OffsetIF`. base: the recipe that gives
    thresholds and initial potentials, any that makes IF neurons with reset "subtract". Each population answers `warmup`
    steps after its input, and its readers rehearse after it: the delays add up along the depth, shorter paths wait, and
    `simulate(...).counts` has all of it. Published step counts leave the delays out. A read-out of fewer steps than
    `warmup` saves ticks only: populations run that long for their readers.
    """

    warmup: int = 4
    base: object = field(default_factory=RateCode)

    def __post_init__(self) -> None:
        check_warmup("OffsetSpikes", self.warmup)


@apply.register
def _(recipe: OffsetSpikes, plain: Graph, calibration: Tensor | None) -> Graph:
    return with_corrections(
        recipe.base,
        plain,
        calibration,
        lambda neurons: OffsetIF(neurons.theta, neurons.v0, recipe.warmup),
        f"initial potential of each sample corrected after {recipe.warmup} steps",
    )
