"""Names beside the marks of a plot, where they touch neither each other nor a mark."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import cos, pi, sin
from typing import NamedTuple

_LETTER, _LINE, _MARK = 6.2, 14.0, 7.0
"""Pixels: the width of a letter and the height of a line of 11 pixels, half the width of a mark."""

_BESIDE = {
    "middle right": (0.0, 1), "top center": (1.0, 0), "middle left": (0.0, -1), "bottom center": (-1.0, 0),
    "top right": (1.0, 1), "top left": (1.0, -1), "bottom right": (-1.0, 1), "bottom left": (-1.0, -1),
}  # fmt: skip
"""Where plotly puts the text of a mark: lines above it, and on which side of it."""

_RINGS, _TURNS = (30.0, 45.0, 60.0, 80.0, 105.0, 135.0, 170.0, 210.0), 24
"""Pixels from a mark to a name that has a line to it, and how many directions are tried."""

Box = tuple[float, float, float, float]
"""(left, bottom, right, top) in pixels."""

Place = tuple[float, float]
"""From a mark to the middle of its name, in pixels to the right and up."""


class Axes(NamedTuple):
    """What is drawn on axes of `size` (width, height): (x, y) of marks from the lower left corner, and other boxes."""

    marks: Sequence[tuple[float, float]]
    obstacles: Sequence[Box]
    size: tuple[float, float]


def placed(names: Sequence[str], drawn: Sequence[Axes], needed: Collection[int] = ()) -> list[Place | None]:
    """For each name a place that touches nothing, or None where every place is taken.

    drawn: the same plot, once or at several sizes; a place is free at all of them. Earlier names choose first; a label
    keeps clear of all marks and obstacles, of earlier labels and of the edges. Names whose indices are `needed` may
    also stand further off, on a line to their mark, which goes through no other name where that can be had.
    """
    taken = [_Taken(axes, [], []) for axes in drawn]
    found: list[Place | None] = []
    for index, name in enumerate(names):
        tried = [*_beside(name).values(), *(_far(name) if index in needed else ())]
        clear = [place for place in tried if all(there.has_room(name, index, place) for there in taken)]
        uncrossed = (place for place in clear if not any(there.crosses(name, index, place) for there in taken))
        place = next(uncrossed, clear[0] if clear else None)
        found.append(place)
        if place is not None:
            for there in taken:
                there.labels.append(box_of(name, there.axes.marks[index], place))
                there.lines.extend(line_of(name, there.axes.marks[index], place))
    return found


class _Taken(NamedTuple):
    """Where names stand on axes already, and the lines to those that stand further off."""

    axes: Axes
    labels: list[Box]
    lines: list[Box]

    def has_room(self, name: str, index: int, place: Place) -> bool:
        """Whether a name covers nothing but lines."""
        own = box_of(name, self.axes.marks[index], place)
        marks = (_around(*mark, _MARK, _MARK) for number, mark in enumerate(self.axes.marks) if number != index)
        return _within(own, self.axes.size) and not any(
            touch(own, box) for box in (*marks, *self.axes.obstacles, *self.labels)
        )

    def crosses(self, name: str, index: int, place: Place) -> bool:
        """Whether a name stands on the line to another, or its line goes through another name."""
        at = self.axes.marks[index]
        own = box_of(name, at, place)
        dots = line_of(name, at, place)
        return any(touch(own, dot) for dot in self.lines) or any(touch(dot, box) for dot in dots for box in self.labels)


def line_of(name: str, at: tuple[float, float], place: Place) -> list[Box]:
    """Dots along the line from a mark to a name further off; none to one beside it."""
    if side(name, place) is not None:
        return []
    own, steps = box_of(name, at, place), 40
    dots = [_around(at[0] + place[0] * k / steps, at[1] + place[1] * k / steps, 1, 1) for k in range(steps)]
    return [dot for dot in dots if not touch(dot, own) and not touch(dot, _around(*at, _MARK, _MARK))]


def side(name: str, place: Place) -> str | None:
    """What plotly calls a place right beside a mark; None for one further off, which needs a line."""
    return next((called for called, near in _beside(name).items() if near == place), None)


def box_of(name: str, at: tuple[float, float], place: Place) -> Box:
    """What a name covers whose mark is `at`."""
    return _around(at[0] + place[0], at[1] + place[1], _LETTER * len(name) / 2, _LINE / 2)


def touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _beside(name: str) -> dict[str, Place]:
    half = _LETTER * len(name) / 2
    return {called: (way * (half + _MARK), lines * (_LINE / 2 + _MARK)) for called, (lines, way) in _BESIDE.items()}


def _far(name: str) -> list[Place]:
    half = _LETTER * len(name) / 2
    turns = [2 * pi * turn / _TURNS for turn in range(_TURNS)]
    return [((ring + half) * cos(turn), ring * sin(turn)) for ring in _RINGS for turn in turns]


def _around(x: float, y: float, half: float, tall: float) -> Box:
    return x - half, y - tall, x + half, y + tall


def _within(box: Box, size: tuple[float, float]) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]
