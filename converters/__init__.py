"""Networks in, spikes out."""

from converters.convert import convert
from converters.diagnose import diagnose
from converters.diagnosis import Diagnosis
from converters.prove import prove
from converters.read import read
from converters.recipes import (
    QCFS,
    Calibrated,
    Exact,
    FirstSpike,
    Graded,
    LocalThreshold,
    OffsetSpikes,
    RateCode,
    ResidualPotential,
    SigmaDelta,
)
from converters.spiking import activations_replaced
from converters.tune import tune
from converters.tuning import Candidate, Goal, Trial, Tuning

__all__ = [
    "QCFS", "Calibrated", "Candidate", "Diagnosis", "Exact", "FirstSpike", "Goal", "Graded", "LocalThreshold",
    "OffsetSpikes", "RateCode", "ResidualPotential", "SigmaDelta", "Trial", "Tuning", "activations_replaced", "convert",
    "diagnose", "prove", "read", "tune",
]  # fmt: skip
