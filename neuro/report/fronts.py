"""Accuracy against energy: every row a mark, its range a bar, and the front of those that nothing beats."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go

from neuro.errors import ParameterError
from neuro.report.labels import Axes, Box, Place, placed, side
from neuro.report.pareto import pareto
from neuro.report.points import Point, series
from neuro.report.sheet import engineering, span
from neuro.report.style import Style, complete, decades, figure, literal, remark

_WIDTH, _HEIGHT = 720, 400
"""Pixels of the smallest axes for which labels are placed; the page leaves labels out where it has fewer."""

_ROOMY = (1050, 500)
"""Pixels of the axes on a wide page, on which labels must not touch either."""

_LEGEND_LINE, _LEGEND_ENTRY, _LEGEND_LETTER = 19, 50, 7
"""Pixels of the legend: height of a line, width of an entry without its name, width of a letter."""

_ACCURACIES = (
    *range(0, 90, 10), 90, 92, 94, 95, 96, 97, 98, 98.5, 99, 99.2, 99.5, 99.7, 99.8, 99.9, 99.95, 99.98, 99.99
)  # fmt: skip


def accuracy_against_energy(
    points: Sequence[Point | tuple[str, float, float]],
    *,
    model: str,
    looks: Mapping[str, Style] | None = None,
    named: Collection[str] = (),
) -> go.Figure:
    """Accuracy (a fraction) against energy (J per inference) under one energy `model`, with its Pareto front.

    `points` are those of `neuro.report.points` or plain (name, energy, accuracy). The front is that of the energies
    themselves, whatever their ranges. Names that differ in their time steps alone are joined by a line over T. Where
    errors span a factor of 5, the accuracy axis is logarithmic in the error, so that the best are told apart. The
    points of the front and those `named` have their name beside them whatever the crowd, others where there is room.
    Two energy models need two figures; they are never put on one axis.
    """
    known = [Point(*point) for point in points]
    if any(point.energy < 0 for point in known):
        raise ParameterError("accuracy_against_energy: energies must be at least 0 J")
    front = pareto([(point.energy, point.accuracy) for point in known])
    look = looks_of_points(known, looks)
    visible = [point for point in known if point.energy > 0]
    axis, up = _energies(visible), _Accuracies(visible)
    across: tuple[float, float] = axis["range"]  # type: ignore[assignment]
    best = [known[index] for index in front if known[index].energy > 0]
    lines = _series(visible)
    legend = _LEGEND_LINE * _legend_lines(lines)
    drawn = figure(_HEIGHT + 110 + legend, meta={"wide": True, "labelled_from": _WIDTH})
    if best:
        drawn.add_scatter(
            x=[point.energy for point in best],
            y=[up.place(point.accuracy) for point in best],
            mode="lines",
            name="Pareto front",
            line={"color": "rgba(128,128,128,0.8)", "dash": "dot", "shape": "hv", "width": 2},
            hoverinfo="skip",
        )
    places = _labels(best, [point for point in visible if point not in best], named, across, up)
    beside = {point: side(point.name, place) for point, place in places.items() if place is not None}
    titled: set[str] = set()
    for name, found in lines.items():
        family, style = found[0].family, look[found[0].name]
        drawn.add_scatter(
            x=[point.energy for point in found],
            y=[up.place(point.accuracy) for point in found],
            error_x=_bars(found, 10.0 ** across[0], style.colour),
            mode="lines+markers+text" if len(found) > 1 else "markers+text",
            text=[literal(point.name) if beside.get(point) else "" for point in found],
            textposition=[beside.get(point) or "middle right" for point in found],
            textfont={"size": 11, "color": style.colour},
            name=literal(name),
            line={"color": style.colour, "width": 1.3},
            marker={
                "color": style.colour,
                "symbol": style.symbol,
                "size": 11,
                "line": {"width": 1, "color": "rgba(128,128,128,0.9)"},
            },
            customdata=[_said(point, point in best) for point in found],
            hovertemplate="%{customdata}<extra></extra>",
            legendgroup=family,
            legendgrouptitle={"text": literal(family)} if family and family not in titled else None,
        )
        titled.add(family or "")
    for point, place in places.items():
        if place is not None and beside[point] is None:
            _lined(drawn, point, place, up, look[point.name].colour)
    free = [point.name for point in known if point.energy == 0]
    if free:
        remark(drawn, f"0 J has no place on this axis: {', '.join(free)}", y=0.02)
    if not known:
        remark(drawn, "no row has both an accuracy and this energy")
    drawn.update_xaxes(type="log", title=f"energy per inference<br>{literal(model)}", **axis)  # type: ignore[arg-type]
    drawn.update_yaxes(**up.axis)
    drawn.update_layout(showlegend=True, legend={"groupclick": "toggleitem", "tracegroupgap": 6, "font": {"size": 12}})
    if hasattr(go.layout.Legend, "maxheight"):
        drawn.update_layout(legend={"maxheight": legend + 200})
    return drawn


def looks_of_points(points: Sequence[Point], looks: Mapping[str, Style] | None) -> dict[str, Style]:
    families = {point.name: point.family for point in points} if any(point.family for point in points) else None
    return complete(looks, [point.name for point in points], families)


def _series(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Points by the name in the legend; those of one network at several T together, by T."""
    kin: dict[tuple[str, str | None], list[Point]] = {}
    for point in points:
        kin.setdefault((series(point.name)[0], point.family), []).append(point)
    named: dict[str, list[Point]] = {}
    for (stem, _), found in kin.items():
        found.sort(key=lambda point: series(point.name)[1] or 0)
        steps = [str(at) for point in found if (at := series(point.name)[1]) is not None]
        name = f"{stem} T={', '.join(steps)}" if len(found) > 1 and steps else found[0].name
        named.setdefault(name, []).extend(found)
    return named


def _said(point: Point, best: bool) -> str:
    """What the pointer shows of a point."""
    ends = f" ({span(*point.range, 'J')})" if point.range and point.range[0] < point.range[1] else ""
    spread = "" if point.deviation is None else f" ± {100 * point.deviation:.2f}"
    seeds = "" if point.seeds is None else f", {point.seeds} seed{'s' * (point.seeds > 1)}"
    said = [
        point.name,
        f"{engineering(point.energy, 'J')}{ends}; exactly {point.energy:.6g} J",
        f"{100 * point.accuracy:.2f}{spread} %{seeds}",
        "on the Pareto front" if best else "beaten by another on both axes",
        *textwrap.wrap(point.known, 64),
    ]
    return "<br>".join(map(literal, said))


def _bars(points: Sequence[Point], low: float, colour: str) -> dict[str, object] | None:
    ranges = [point.range or (point.energy, point.energy) for point in points]
    if all(start == end for start, end in ranges):
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [end - point.energy for point, (_, end) in zip(points, ranges, strict=True)],
        "arrayminus": [point.energy - max(start, low) for point, (start, _) in zip(points, ranges, strict=True)],
        "color": colour,
        "thickness": 1,
        "width": 3,
    }


def _labels(
    best: Sequence[Point],
    others: Sequence[Point],
    named: Collection[str],
    across: tuple[float, float],
    up: _Accuracies,
) -> dict[Point, Place | None]:
    """Where each name stands beside its mark, clear of ranges and of the front; None where it has no room.

    The front chooses first, then those `named`; both always have a name.
    """
    points = [*best, *sorted(others, key=lambda point: point.name not in named)]
    needed = [index for index, point in enumerate(points) if index < len(best) or point.name in named]
    drawn = [_axes(points, len(best), across, up, size) for size in ((_WIDTH, _HEIGHT), _ROOMY)]
    places = placed([point.name for point in points], drawn, needed)
    return dict(zip(points, places, strict=True))


def _axes(
    points: Sequence[Point], best: int, across: tuple[float, float], up: _Accuracies, size: tuple[int, int]
) -> Axes:
    """Marks, and the lines of their ranges and of the front, which are the first `best` points."""
    left, right = across

    def along(energy: float) -> float:
        return float((np.log10(max(energy, 10.0**left)) - left) / (right - left) * size[0])

    at = [(along(point.energy), up.height(point.accuracy) * size[1]) for point in points]
    lines = [_line(along(low), y, along(high), y) for point, (_, y) in zip(points, at, strict=True)
             for low, high in [point.range or (point.energy, point.energy)]]  # fmt: skip
    for (x, y), (next_x, next_y) in pairwise(at[:best]):
        lines += [_line(x, y, next_x, y), _line(next_x, y, next_x, next_y)]
    return Axes(at, lines, size)


def _line(x: float, y: float, to_x: float, to_y: float) -> Box:
    """The pixels of a horizontal or vertical line."""
    return min(x, to_x) - 2, min(y, to_y) - 2, max(x, to_x) + 2, max(y, to_y) + 2


def _lined(drawn: go.Figure, point: Point, place: Place, up: _Accuracies, colour: str) -> None:
    """A name away from its mark, with a thin line to it."""
    y = up.place(point.accuracy)
    drawn.add_annotation(
        text=literal(point.name), x=float(np.log10(point.energy)), y=float(np.log10(y)) if up.by_error else y,
        ax=place[0], ay=-place[1], arrowwidth=1, arrowhead=0, arrowcolor=colour, standoff=7, borderpad=0,
        font={"size": 11, "color": colour}, name="label",
    )  # fmt: skip


def _legend_lines(lines: Mapping[str, Sequence[Point]]) -> int:
    """Lines of the legend at the width for which labels are placed: groups side by side until a line is full."""
    groups: dict[str | None, list[str]] = {}
    for name, found in lines.items():
        groups.setdefault(found[0].family, []).append(name)
    if list(groups) in ([], [None]):
        return 1 + sum(_LEGEND_ENTRY + _LEGEND_LETTER * len(name) for name in lines) // _WIDTH
    total, tallest, across = 0, 1, _LEGEND_ENTRY + _LEGEND_LETTER * len("Pareto front")
    for names in groups.values():
        width = _LEGEND_ENTRY + _LEGEND_LETTER * max(map(len, names))
        if across + width > _WIDTH:
            total, tallest, across = total + tallest, 0, 0
        tallest, across = max(tallest, 1 + len(names)), across + width
    return total + tallest


class _Accuracies:
    """The vertical axis: per cent, or the logarithm of the error under labels in per cent."""

    def __init__(self, points: Sequence[Point]) -> None:
        errors = [1 - point.accuracy for point in points]
        self.by_error = bool(errors) and min(errors) > 0 and max(errors) >= 5 * min(errors)
        values = [self._at(point.accuracy) for point in points] or [0.0]
        self.low, self.high = min(values), max(values)
        pad = 0.08 * (self.high - self.low) or 1.0
        self.low, self.high = self.low - pad, self.high + pad

    def _at(self, accuracy: float) -> float:
        return -float(np.log10(100 * (1 - accuracy))) if self.by_error else 100 * accuracy

    def place(self, accuracy: float) -> float:
        """What plotly is given: the error in per cent, or the accuracy."""
        return 100 * (1 - accuracy) if self.by_error else 100 * accuracy

    def height(self, accuracy: float) -> float:
        """From 0, at the bottom, to 1."""
        return (self._at(accuracy) - self.low) / (self.high - self.low)

    @property
    def axis(self) -> dict[str, object]:
        if not self.by_error:
            return {"title": "test accuracy (%)"}
        shown: list[float] = []
        for accuracy in _ACCURACIES:
            at = self.height(accuracy / 100)
            if 0 <= at <= 1 and (not shown or (at - self.height(shown[-1] / 100)) * _HEIGHT > 22):
                shown.append(accuracy)
        return {
            "title": "test accuracy (%)",
            "type": "log",
            "range": [-self.low, -self.high],
            "tickvals": [100 - accuracy for accuracy in shown],
            "ticktext": [f"{accuracy:g}" for accuracy in shown],
        }


def _energies(points: Sequence[Point]) -> dict[str, object]:
    """At least one whole decade on the axis, so that single points are not blown up, and ticks at 1, 2 and 5."""
    if not points:
        return {"range": [-9.0, -6.0]}
    ends = [end for point in points for end in (*(point.range or ()), point.energy) if end > 0]
    floor = min(point.energy for point in points) / 100
    low, high = float(np.log10(max(min(ends), floor))), float(np.log10(max(ends)))
    pad = max(0.15, (1.0 - (high - low)) / 2)
    low, high = low - pad, high + pad
    ticks = decades(low, high)
    return {"range": [low, high], "tickvals": ticks, "ticktext": [_round(value) for value in ticks], "ticksuffix": ""}


def _round(energy: float) -> str:
    number, unit = engineering(energy, "J").split(" ", 1)
    return f"{float(number):g} {unit}"
