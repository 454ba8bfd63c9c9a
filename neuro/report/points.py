"""Rows as points of a plot: a name, an energy, an accuracy, and what a reader who points at one wants to know."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from neuro.report.row import Row
from neuro.report.sheet import family_of

_STEPS = re.compile(r",?\s*\bT\s?=\s?(\d+)")


class Point(NamedTuple):
    """`energy` in joules per inference with its `range` (low, high); `accuracy` and `deviation` are fractions."""

    name: str
    energy: float
    accuracy: float
    family: str | None = None
    range: tuple[float, float] | None = None
    deviation: float | None = None
    seeds: int | None = None
    known: str = ""


def points(rows: Sequence[Row], column: str) -> list[Point]:
    """The rows that have an accuracy and the energy `column`."""
    families = any(row.family for row in rows)
    return [
        Point(
            row.model,
            getattr(row, column),
            row.accuracy,
            family_of(row) if families else None,
            row.range_of(column),
            row.accuracy_sd,
            row.seeds,
            str(row.provenance.get(column, "")),
        )
        for row in rows
        if row.accuracy is not None and getattr(row, column) is not None
    ]


def series(name: str) -> tuple[str, int | None]:
    """What `name` is called without its time steps, and these.

    >>> series("spiking loihi2, T=16"), series("dense")
    (('spiking loihi2', 16), ('dense', None))
    """
    found = _STEPS.search(name)
    return (name, None) if found is None else (_STEPS.sub("", name, count=1).strip() or name, int(found[1]))
