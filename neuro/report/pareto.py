"""Which of several (cost, gain) points no other point beats."""

from __future__ import annotations

import math
from collections.abc import Sequence

from neuro.errors import ParameterError


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, gain) that none dominates, by rising cost.

    A point dominates another if it costs no more, gains no less, and differs. Equal points stand or fall together.

    >>> pareto([(1.0, 0.90), (2.0, 0.95), (3.0, 0.94)])
    [0, 1]
    """
    if any(math.isnan(value) for point in points for value in point):
        raise ParameterError("pareto: points must not hold NaN; leave out what is not known")
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1], index))
    front: list[int] = []
    for index in order:
        if not front or points[index][1] > points[front[-1]][1] or points[index] == points[front[-1]]:
            front.append(index)
    return front
