"""Which of two energies is less while prices are known by their ranges: the one rule of every table and sentence.

Energy is linear in prices. With n_c events of constant c at p_c joules each, E = sum over c of n_c p_c, so that

    E1 - E2 = sum over c of (n1_c - n2_c) p_c

has its extremes where every price lies at an end of its range. A constant has one price, the same in both energies;
constants of different names vary on their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Shares = Mapping[str, tuple[float, float]]
"""Joules of one inference by constant, n_c p_c with the price at its low end and at its high end."""

Order = Literal["less", "more", "equal", "undecided"]

ROUNDING = 1e-9
"""Energies that differ by no more than this share of themselves are the same."""


def difference(one: Shares, other: Shares) -> tuple[float, float]:
    """The least and the greatest E1 - E2 in joules, over all prices in their ranges.

    >>> difference({"add": (1.0, 2.0)}, {"add": (3.0, 6.0)})
    (-4.0, -2.0)
    """
    least = most = 0.0
    for name in dict.fromkeys((*one, *other)):
        (low, high), (its_low, its_high) = one.get(name, (0.0, 0.0)), other.get(name, (0.0, 0.0))
        ends = low - its_low, high - its_high
        least, most = least + min(ends), most + max(ends)
    return least, most


def order(one: Shares, other: Shares) -> Order:
    """Whether E1 is less or more than E2 or equal to it wherever the prices lie in their ranges; else undecided."""
    least, most = difference(one, other)
    if max(-least, most) <= ROUNDING * sum(high for _, high in (*one.values(), *other.values())):
        return "equal"
    return "less" if most < 0 else "more" if least > 0 else "undecided"
