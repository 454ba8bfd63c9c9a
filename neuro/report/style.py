"""One look for every plot: a model keeps its colour, marker and dash wherever it appears, on white and on black."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from neuro.report.points import series
from neuro.report.row import Row
from neuro.report.sheet import family_of

PALETTE = ("#2f7fc8", "#d45f00", "#00936b", "#b5609f", "#9a7400", "#6f72c9", "#c0504d", "#6b7d8a")
"""Each has a contrast of 3 to 1 or more against the light and the dark page; after Okabe and Ito's accessible set."""

SYMBOLS = (
    "circle", "square", "diamond", "triangle-up", "x", "triangle-down", "star", "pentagon", "hexagon", "cross",
    "hourglass", "bowtie", "triangle-left", "triangle-right", "star-diamond", "diamond-tall",
)  # fmt: skip
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")

SCALE = "Cividis"
"""Colours of heat maps: even in lightness, and the same to colour-blind readers."""

_GRID = {
    "gridcolor": "rgba(128,128,128,0.28)",
    "linecolor": "rgba(128,128,128,0.6)",
    "showline": True,
    "zeroline": False,
}

_HOUSE = go.layout.Template(
    layout={
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#777777"},
        "colorway": PALETTE,
        "margin": {"l": 8, "r": 14, "t": 30, "b": 8},
        "xaxis": {**_GRID, "automargin": True, "title": {"standoff": 8}},
        "yaxis": {**_GRID, "automargin": True, "title": {"standoff": 8}},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        "hoverlabel": {"align": "left"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#8a939c", "activecolor": "#2f7fc8"},
    }
)


@dataclass(frozen=True)
class Style:
    colour: str
    symbol: str
    dash: str


def styles(names: Iterable[str], families: Mapping[str, str | None] | None = None) -> dict[str, Style]:
    """A look for each name, by its place among the distinct names. Give the same mapping to every plot of a page.

    Names that differ in their time steps alone share a look. With `families[name]`, names of one family share a colour
    and differ in their symbols.
    """
    kin: dict[str, dict[str, None]] = {}
    places = {}
    distinct = list(dict.fromkeys(names))
    for name in distinct:
        family = (families or {}).get(name) or ""
        kin.setdefault(family, {}).setdefault(series(name)[0])
        places[name] = family
    order, looks = list(kin), {}
    for name in distinct:
        within = list(kin[places[name]]).index(series(name)[0])
        colour = order.index(places[name]) if families else within
        looks[name] = Style(
            PALETTE[colour % len(PALETTE)], SYMBOLS[within % len(SYMBOLS)], DASHES[within % len(DASHES)]
        )
    return looks


def looks_of(rows: Sequence[Row]) -> dict[str, Style]:
    """The looks of rows: a colour for each family that occurs, a symbol for each row in it."""
    families = {row.model: family_of(row) for row in rows} if any(row.family for row in rows) else None
    return styles((row.model for row in rows), families)


def family_colours(rows: Sequence[Row]) -> dict[str, str]:
    """The colour that `looks_of` gives to each family."""
    looks = looks_of(rows)
    return {family_of(row): looks[row.model].colour for row in reversed(rows)}


def complete(
    given: Mapping[str, Style] | None, names: Iterable[str], families: Mapping[str, str | None] | None = None
) -> dict[str, Style]:
    """`given`, with looks for the names it lacks."""
    known = dict(given or {})
    return {**styles([*known, *names], families), **known}


def literal(name: str) -> str:
    """`name` as plotly shows it letter by letter: plotly reads tags, entities and TeX in every text."""
    return escape(" ".join(name.split()), quote=False).replace("$", "&#36;").replace("%{", "%&#123;")


def shortened(name: str, length: int = 22) -> str:
    """`name` cut in its middle for an axis; the pointer shows it whole."""
    if len(name) > length:
        half = (length - 1) // 2
        name = f"{name[:half]}…{name[len(name) - half :]}"
    return literal(name)


def decades(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis from 10^low to 10^high: at 1, 2 and 5, or at powers of ten where it is long.

    >>> decades(-1.0, 1.0)
    [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
    """
    factors = (1, 2, 5) if high - low < 2.5 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    every = [float(f"{factor}e{power}") for power in powers for factor in factors]
    return [value for value in every if low - 1e-9 <= math.log10(value) <= high + 1e-9]


def figure(height: int = 360, **layout: object) -> go.Figure:
    """An empty figure of `height` pixels in the look of the house; its width is that of its box."""
    return go.Figure(layout={"template": _HOUSE, "height": height, "autosize": True, **layout})


def remark(drawn: go.Figure, said: str, y: float = 0.5) -> None:
    """A line of plain text inside the plot."""
    drawn.add_annotation(text=literal(said), x=0.5, y=y, xref="paper", yref="paper", showarrow=False)
