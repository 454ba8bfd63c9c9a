"""Which of two rows is better, and whether the numbers can tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from neuro.report.points import series
from neuro.report.row import Row

CLOSE = 1e-9
Energy = Literal["less", "more", "equal", "undecided"]


@dataclass(frozen=True)
class Gap:
    """How far one accuracy is above another in points of per cent, and two standard errors of that, where known."""

    points: float
    noise: float | None

    @property
    def level(self) -> bool:
        return abs(self.points) <= (self.noise or 0.0) + CLOSE

    @property
    def ahead(self) -> bool:
        return self.points > 0 and not self.level

    @property
    def behind(self) -> bool:
        return self.points < 0 and not self.level

    def __str__(self) -> str:
        return f"{abs(self.points):.2f} points"


def standard_error(row: Row) -> float | None:
    """Of the mean accuracy over seeds; None with one seed, or where the deviation or the number is not known."""
    if row.accuracy_sd is None or row.seeds is None or row.seeds < 2:
        return None
    return row.accuracy_sd / math.sqrt(row.seeds)


def gap(one: Row, other: Row) -> Gap | None:
    """Of two accuracies whose seeds are independent; None where one is not known."""
    if one.accuracy is None or other.accuracy is None:
        return None
    errors = standard_error(one), standard_error(other)
    noise = None if errors[0] is None or errors[1] is None else 2 * math.hypot(errors[0], errors[1])
    return Gap(100 * (one.accuracy - other.accuracy), None if noise is None else 100 * noise)


def energy(one: Row, other: Row, column: str) -> Energy | None:
    """Whether `one` needs less than `other`; undecided where a range of one touches that of the other."""
    here, there = one.range_of(column), other.range_of(column)
    if here is None or there is None:
        return None
    a, b = getattr(one, column), getattr(other, column)
    if here == there or (here[0] == here[1] and there[0] == there[1] and math.isclose(a, b, rel_tol=CLOSE)):
        return "equal" if a == b or here[0] == here[1] else "undecided"
    if here[1] < there[0]:
        return "less"
    return "more" if there[1] < here[0] else "undecided"


def priced(rows: Iterable[Row], column: str) -> list[Row]:
    return [row for row in rows if getattr(row, column) is not None]


def cheapest(rows: Sequence[Row], column: str) -> tuple[list[Row], list[Row]]:
    """The rows of least energy, and those whose ranges leave it open whether they need less."""
    least = min(getattr(row, column) for row in rows)
    first = [row for row in rows if getattr(row, column) <= least * (1 + CLOSE)]
    rest = [row for row in rows if row not in first]
    return first, [row for row in rest if energy(row, first[0], column) == "undecided"]


def close_in(one: float | None, other: float | None, tolerance: float = 0.1) -> bool:
    """Whether two sizes are known and differ by no more than a tenth of `other`."""
    return one is not None and other is not None and abs(one - other) <= tolerance * other


def reference(rows: Sequence[Row]) -> Row | None:
    """The network that others are measured against: the first dense row, else the first one without spikes."""
    known = [row for row in rows if not row.spiking and row.macs is not None]
    return next((row for row in known if row.family == "dense"), known[0] if known else None)


def steps(row: Row) -> int | None:
    """T, as the name of a row says it."""
    return series(row.model)[1]


def names(rows: Iterable[Row], most: int | None = None) -> str:
    """Names in quotes, each once; beyond `most` only how many more there are."""
    distinct = list(dict.fromkeys(repr(row.model) for row in rows))
    if most is not None and len(distinct) > most + 1:
        return f"{', '.join(distinct[:most])} and {len(distinct) - most} others"
    return listed(distinct)


def listed(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
