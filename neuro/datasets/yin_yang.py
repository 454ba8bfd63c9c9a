"""Yin-Yang (Kriener, Goeltz, Petrovici, NICE 2022, arXiv 2102.08211): three classes in the plane."""

from __future__ import annotations

import math

import numpy as np

from neuro.datasets.split import Arrays
from neuro.errors import ParameterError

CLASSES = ("yin", "yang", "dot")
#: Part: (samples, seed), as the authors published it.
PUBLISHED = {"train": (5000, 42), "validation": (1000, 41), "test": (1000, 40)}


def yin_yang(size: int, seed: int, r_small: float = 0.1, r_big: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Samples (size, 4) float64, each (x, y, 1 - x, 1 - y) in [0, 1], and classes (size,) int64.

    A class is drawn first, then points of the square until one falls in it, so classes are balanced. The draws follow
    the authors' order on numpy's RandomState: sizes and seeds of `PUBLISHED` give their published arrays bit for bit.
    `r_small` is the radius of the dots, `r_big` of the disc. ParameterError outside 0 < r_small < r_big / 2 <= 0.25.
    """
    if size < 0 or not 0 < r_small < r_big / 2 or not 0 < r_big <= 0.5:
        raise ParameterError(
            f"yin_yang needs size >= 0 and 0 < r_small < r_big / 2 <= 0.25, got {size}, {r_small}, {r_big}"
        )
    rng = np.random.RandomState(seed)
    points = np.empty((size, 2))
    labels = np.empty(size, dtype=np.int64)
    for sample in range(size):
        labels[sample] = wanted = rng.randint(len(CLASSES))
        region = None
        while region != wanted:
            points[sample] = rng.rand(2) * 2.0 * r_big
            region = region_of(float(points[sample, 0]), float(points[sample, 1]), r_small, r_big)
    return np.concatenate([points, 1.0 - points], axis=1), labels


def region_of(x: float, y: float, r_small: float, r_big: float) -> int | None:
    """Class of a point: 2 in either dot, 0 in the yin and 1 in the yang half of the disc, None outside of it."""

    def distance(centre: float) -> float:
        return math.sqrt((x - centre) ** 2 + (y - r_big) ** 2)

    if distance(r_big) > r_big:
        return None
    left, right = distance(0.5 * r_big), distance(1.5 * r_big)
    if min(left, right) < r_small:
        return 2
    in_left_lobe = r_small < left <= 0.5 * r_big
    above_right_lobe = y > r_big and right > 0.5 * r_big
    return int(in_left_lobe or above_right_lobe or right <= r_small)


def published_yin_yang() -> Arrays:
    train, validation, test = (yin_yang(size, seed) for size, seed in PUBLISHED.values())
    provenance = "Yin-Yang (Kriener et al. 2022, arXiv 2102.08211), generated with the authors' seeds 42, 41, 40"
    return Arrays(train, test, provenance, CLASSES, validation)
