"""How networks learn."""

from neuro.training.augment import Augment, ShiftFlip, random_affine
from neuro.training.devices import fabric_for
from neuro.training.fit_classifier import fit
from neuro.training.history import Epoch, History
from neuro.training.logs import JsonLines, Log, TensorBoard
from neuro.training.losses import (
    Criterion,
    CrossEntropy,
    Loss,
    LowerRate,
    MaxOverTime,
    MembraneCrossEntropy,
    MSECount,
    RateCrossEntropy,
    Regularised,
    UpperRate,
    cross_entropy,
)
from neuro.training.present import Encode, Encoded, TimeFirst
from neuro.training.schedules import Constant, Cosine, OneCycle, Schedule
from neuro.training.scores import Samples, accuracy, outputs

__all__ = [
    "Augment", "Constant", "Cosine", "Criterion", "CrossEntropy", "Encode", "Encoded", "Epoch", "History", "JsonLines",
    "Log", "Loss", "LowerRate", "MSECount", "MaxOverTime", "MembraneCrossEntropy", "OneCycle", "RateCrossEntropy",
    "Regularised", "Samples", "Schedule", "ShiftFlip", "TensorBoard", "TimeFirst", "UpperRate", "accuracy",
    "cross_entropy", "fabric_for", "fit", "outputs", "random_affine",
]  # fmt: skip
