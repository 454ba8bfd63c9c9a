"""Residual membrane potentials: after a warm-up, neurons that only fired because of uneven arrival are silent (SRP)."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from converters.convert import apply
from converters.corrected import with_corrections
from converters.recipes.rate import RateCode
from neuro.graph import Graph
from neuro.nodes import ResidualIF
from neuro.nodes.corrected import check_warmup


@dataclass(frozen=True)
class ResidualPotential:
    """SRP: the network runs `warmup` steps; what has (almost) nothing left in its membrane then is silent in the run.

    Hao et al. 2023 (arXiv 2302.02091 [recalled]), equations in `neuro.nodes.ResidualIF`. base: the recipe that gives
    thresholds and initial potentials, any that makes IF neurons with reset "subtract". The warm-up comes once for the
    whole network, and `simulate(...).counts` has its ticks, updates and spikes. Published step counts leave it out. The
    silence is final: what was silenced by mistake stays so, which bounds the accuracy of long runs.
    """

    warmup: int = 4
    base: object = field(default_factory=RateCode)

    def __post_init__(self) -> None:
        check_warmup("ResidualPotential", self.warmup)


@apply.register
def _(recipe: ResidualPotential, plain: Graph, calibration: Tensor | None) -> Graph:
    return with_corrections(
        recipe.base,
        plain,
        calibration,
        lambda neurons: ResidualIF(neurons.theta, neurons.v0, recipe.warmup),
        f"silent where nothing is left after {recipe.warmup} steps",
    )
