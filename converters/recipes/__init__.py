"""One recipe per file: how activations become spikes."""

from converters.recipes.calibrated import Calibrated
from converters.recipes.exact import Exact
from converters.recipes.first_spike import FirstSpike
from converters.recipes.graded import Graded
from converters.recipes.integer import Integer
from converters.recipes.local_threshold import LocalThreshold
from converters.recipes.offset_spikes import OffsetSpikes
from converters.recipes.qcfs import QCFS
from converters.recipes.rate import RateCode
from converters.recipes.residual_potential import ResidualPotential
from converters.recipes.sigma_delta import SigmaDelta

__all__ = [
    "QCFS", "Calibrated", "Exact", "FirstSpike", "Graded", "Integer", "LocalThreshold", "OffsetSpikes", "RateCode",
    "ResidualPotential", "SigmaDelta",
]  # fmt: skip
