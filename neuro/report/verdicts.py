"""Which of two rows is better, and whether the numbers can tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from neuro.report.points import series
from neuro.report.prices import Order, Shares, order
from neuro.report.row import Row

CLOSE = 1e-9
POINT = 0.01
"""A row that is at most so much less accurate than the dense network is about as accurate."""

LONGEST = 300
"""Characters of a sentence, as far as shortening its lists of names can keep to it."""

MOST = 6
"""Names in one list."""

VARIANTS = ("int8", "quantised", "convolutional", "zeros skipped", "small dense", "logistic", "control")
"""What the name of a dense row says that is a control or of another kind than the network all are measured by."""


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
    """Of the mean accuracy over seeds or, with one seed, of one accuracy p on n samples: sqrt(p (1 - p) / n).

    None where neither is known. Two networks see the same samples and mostly err on the same ones, so that their
    difference varies less than binomial errors say: fewer differences count than a paired test would find. What another
    training would change is not in them.
    """
    if over_seeds(row):
        return (row.accuracy_sd or 0.0) / math.sqrt(row.seeds or 1)
    if row.accuracy is not None and row.samples is not None:
        return math.sqrt(row.accuracy * (1 - row.accuracy) / row.samples)
    return None


def over_seeds(row: Row) -> bool:
    """Whether the spread over several trainings is known."""
    return row.accuracy_sd is not None and row.seeds is not None and row.seeds > 1


def gap(one: Row, other: Row) -> Gap | None:
    """Of two accuracies whose errors are independent; None where one is not known."""
    if one.accuracy is None or other.accuracy is None:
        return None
    errors = standard_error(one), standard_error(other)
    noise = None if errors[0] is None or errors[1] is None else 2 * math.hypot(errors[0], errors[1])
    return Gap(100 * (one.accuracy - other.accuracy), None if noise is None else 100 * noise)


def energy(one: Row, other: Row, column: str) -> Order | None:
    """Whether `one` needs less than `other` wherever prices lie in their ranges; None where one has no price.

    Constants of one name have one price in both; the range of a row without shares varies on its own.
    """
    here, there = _shares(one, column, "the one"), _shares(other, column, "the other")
    return order(here, there) if here and there else None


def _shares(row: Row, column: str, own: str) -> Shares:
    whole = row.range_of(column)
    return row.shares.get(column) or ({} if whole is None else {own: whole})


def priced(rows: Iterable[Row], column: str) -> list[Row]:
    return [row for row in rows if getattr(row, column) is not None]


def near(rows: Sequence[Row], dense: Row) -> list[Row]:
    """Rows at most one point less accurate than the dense network."""
    least = (dense.accuracy or 0.0) - POINT - CLOSE
    return [row for row in rows if row.accuracy is not None and row.accuracy >= least]


def cheapest(rows: Sequence[Row], column: str) -> tuple[list[Row], list[Row]]:
    """The rows of least energy, and those of which the ranges of prices leave open whether they need less."""
    least = min(getattr(row, column) for row in rows)
    first = [row for row in rows if getattr(row, column) <= least * (1 + CLOSE)]
    rest = [row for row in rows if row not in first]
    return first, [row for row in rest if energy(row, first[0], column) == "undecided"]


def close_in(one: float | None, other: float | None, tolerance: float = 0.1) -> bool:
    """Whether two sizes are known and differ by no more than a tenth of `other`."""
    return one is not None and other is not None and abs(one - other) <= tolerance * other


def reference(rows: Sequence[Row]) -> Row | None:
    """The network that others are measured against: the first plain dense row, else the first dense one, else the
    first one without spikes."""
    known = [row for row in rows if not row.spiking and row.macs is not None]
    dense = [row for row in known if row.family == "dense"]
    plain = [row for row in dense if not any(word in row.model.lower() for word in VARIANTS)]
    return next(iter([*plain, *dense, *known]), None)


def steps(row: Row) -> int | None:
    """T, as the name of a row says it."""
    return series(row.model)[1]


def names(rows: Iterable[Row], most: int = MOST) -> str:
    """Names in quotes, each once; beyond `most` only how many more there are."""
    return listed(dict.fromkeys(repr(row.model) for row in rows), most)


def listed(parts: Iterable[str], most: int = MOST) -> str:
    """Parts with commas; beyond `most` the first ones, how many others there are, and the last: both ends of an order.

    >>> listed("ab"), listed("abcdef", 3), listed("abcdef", 1)
    ('a and b', 'a, b, 3 others and f', 'a and 5 others')
    """
    known = list(parts)
    more = len(known) - most
    if more > 0:
        ends = most > 1
        known = [*known[: most - ends], f"{more} other{'s' * (more > 1)}", *known[len(known) - ends :]]
    *first, last = known
    return f"{', '.join(first)} and {last}" if first else last


def fitted(sentence: Callable[[int], str]) -> str:
    """The sentence with as many names in each list as its length allows: `sentence(most)`, six at most, one at least.

    >>> fitted(lambda most: "x" * 70 * most) == "x" * 280
    True
    """
    tried = (sentence(most) for most in range(MOST, 0, -1))
    return min(tried, key=lambda text: (max(len(text) - LONGEST, 0), -len(text)))
