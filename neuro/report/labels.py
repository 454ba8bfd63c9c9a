"""Names beside the marks of a plot, where they touch neither each other nor a mark."""

from __future__ import annotations

from collections.abc import Sequence

_LETTER, _LINE, _MARK = 6.2, 14.0, 7.0
"""Pixels: the width of a letter and the height of a line of 11 pixels, half the width of a mark."""

_PLACES = {
    "middle right": (0.0, 1), "top center": (1.0, 0), "middle left": (0.0, -1), "bottom center": (-1.0, 0),
    "top right": (1.0, 1), "top left": (1.0, -1), "bottom right": (-1.0, 1), "bottom left": (-1.0, -1),
}  # fmt: skip
"""Where plotly puts a text: lines above its mark, and on which side of it."""

Box = tuple[float, float, float, float]


def placed(
    names: Sequence[str],
    at: Sequence[tuple[float, float]],
    bars: Sequence[tuple[float, float, float]],
    size: tuple[float, float],
) -> list[str | None]:
    """For each name a place beside its mark, as plotly calls it, or None where every place is taken.

    at: (x, y) of the marks in pixels from the lower left corner of axes of `size` (width, height); bars: horizontal
    lines (from x, to x, y). Earlier names choose first; a label keeps clear of all marks and bars, of earlier labels
    and of the edges.
    """
    marks = [_around(x, y, _MARK, _MARK) for x, y in at]
    taken: list[Box] = [(left, y - 2, right, y + 2) for left, right, y in bars]
    found: list[str | None] = []
    for index, name in enumerate(names):
        others = [*marks[:index], *marks[index + 1 :], *taken]
        boxes = {place: box_of(name, at[index], place) for place in _PLACES}
        free = (
            place
            for place, box in boxes.items()
            if _within(box, size) and not any(touch(box, other) for other in others)
        )
        place = next(free, None)
        found.append(place)
        if place is not None:
            taken.append(boxes[place])
    return found


def box_of(name: str, at: tuple[float, float], place: str) -> Box:
    """(left, bottom, right, top) of a name in pixels."""
    lines, side = _PLACES[place]
    half = _LETTER * len(name) / 2
    return _around(at[0] + side * (half + _MARK), at[1] + lines * (_LINE / 2 + _MARK), half, _LINE / 2)


def touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _around(x: float, y: float, half: float, tall: float) -> Box:
    return x - half, y - tall, x + half, y + tall


def _within(box: Box, size: tuple[float, float]) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]
