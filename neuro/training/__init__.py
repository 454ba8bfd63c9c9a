"""How networks learn."""

from neuro.training.augment import Augment, ShiftFlip, random_affine
from neuro.training.fit_classifier import Epoch, History, Loss, Samples, accuracy, cross_entropy, fit, outputs

__all__ = [
    "Augment", "Epoch", "History", "Loss", "Samples", "ShiftFlip", "accuracy", "cross_entropy", "fit", "outputs",
    "random_affine",
]  # fmt: skip
