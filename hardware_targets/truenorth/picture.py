"""A picture of a chip at work: the mesh of cores, coloured by what each of them did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import get_colorscale

from neuro.atomic import replacing
from neuro.errors import ParameterError, ShapeError
from neuro.report.sheet import engineering
from neuro.report.style import SCALE, figure, literal

from .activity import Activity

EMPTY = "rgba(128,128,128,0.16)"
IDLE = [[0, EMPTY], [1e-9, get_colorscale(SCALE)[0][1]], *get_colorscale(SCALE)[1:]]
"""The house's scale, but grey where nothing happened."""
VIEWS = ("synaptic events", "spikes", "packets received", "packets sent on")
MOST_SIDE = 512


def picture(activity: Activity, names: Sequence[str] | None = None) -> go.Figure:
    """The mesh as it lies, row 0 on top; lines are borders of chips, a star is where outputs leave the mesh.

    Four views, by button: synaptic events, spikes and packets of each core, and the packets that each router sent on
    to a neighbour; all per tick. Pointing at a core tells them together. names: what each core holds, for pointing.
    """
    network, ticks = activity.network, max(activity.ticks, 1)
    if names is not None and len(names) != network.count:
        raise ShapeError(f"picture: {network.count} cores need as many names, got {len(names)}")
    height, width = activity.through.shape
    if max(height, width) > MOST_SIDE:
        raise ParameterError(f"picture: the mesh is {width} x {height}; at most {MOST_SIDE} x {MOST_SIDE} can be drawn")
    x, y = (network.positions - np.asarray(activity.origin)).T

    def on_mesh(values: NDArray[np.int64]) -> NDArray[np.float64]:
        field = np.full((height, width), np.nan)
        field[y, x] = values / ticks
        return field

    views = (
        on_mesh(activity.synaptic_events), on_mesh(activity.spikes), on_mesh(activity.packets),
        activity.through / ticks,
    )  # fmt: skip
    told = np.array(
        [[f"position {i + activity.origin[0]}, {j + activity.origin[1]}: no core" for i in range(width)]
         for j in range(height)], object,
    )  # fmt: skip
    for core in range(network.count):
        told[y[core], x[core]] = f"core {core}" + ("" if names is None else f": {literal(names[core])}")
    for title, field in zip(VIEWS, views, strict=True):
        for place in zip(*np.nonzero(~np.isnan(field)), strict=True):
            told[place] += f"<br>{title} {field[place]:,.4g} per tick"

    cell = int(np.clip(560 / max(height, width), 8, 46))
    drawn = figure(170 + cell * height, plot_bgcolor="rgba(0,0,0,0)")
    columns, rows = np.arange(width) + activity.origin[0], np.arange(height) + activity.origin[1]
    for number, (title, field) in enumerate(zip(VIEWS, views, strict=True)):
        drawn.add_heatmap(
            x=columns, y=rows, z=field, customdata=told, colorscale=IDLE, zmin=0,
            zmax=max(float(np.nanmax(field, initial=0)), 1e-9), xgap=1, ygap=1, hoverongaps=False,
            visible=number == 0, hovertemplate="%{customdata}<extra></extra>",
            colorbar={"title": {"text": f"{title} per tick", "side": "right"}, "thickness": 12},
        )  # fmt: skip
    if network.output_position is not None:
        drawn.add_scatter(
            x=[network.output_position[0]], y=[network.output_position[1]], mode="markers", showlegend=False,
            marker={"symbol": "star", "size": max(9, cell // 2), "color": "#d45f00"},
            hovertemplate="output bus<extra></extra>",
        )  # fmt: skip
    _borders(drawn, activity, columns, rows)
    always = [True] * (len(drawn.data) - len(VIEWS))
    buttons = [
        {"label": title, "method": "update", "args": [{"visible": [k == i for k in range(len(VIEWS))] + always}]}
        for i, title in enumerate(VIEWS)
    ]
    drawn.update_layout(
        updatemenus=[
            {"type": "buttons", "direction": "right", "buttons": buttons, "x": 0, "xanchor": "left", "y": 1.0,
             "yanchor": "bottom", "pad": {"b": 8}, "showactive": True, "bgcolor": "rgba(128,128,128,0.16)"}
        ],
        margin={"t": 64},
    )  # fmt: skip
    sums = (activity.spikes, activity.synaptic_events, activity.through)
    spikes, events, hops = (engineering(round(int(total.sum()) / ticks, 1)) for total in sums)
    said = f"{network.count:,} cores, {activity.ticks:,} ticks; per tick {spikes} spikes, {events} events, {hops} hops"
    drawn.update_xaxes(
        title=f"column of the mesh<br>{said}", range=[columns[0] - 0.5, columns[-1] + 0.5],
        dtick=_tick(width), showgrid=False, showline=False, constrain="domain",
    )  # fmt: skip
    drawn.update_yaxes(
        title="row", range=[rows[-1] + 0.5, rows[0] - 0.5], dtick=_tick(height), scaleanchor="x", showgrid=False,
        showline=False, constrain="domain",
    )  # fmt: skip
    return drawn


def write_picture(path: str | Path, activity: Activity, names: Sequence[str] | None = None) -> None:
    """`picture` as one HTML file that needs nothing else, written atomically."""
    page = picture(activity, names).to_html(include_plotlyjs=True, full_html=True)
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")


def _tick(cells: int) -> int:
    return 1 if cells <= 16 else 4 if cells <= 64 else 16


def _borders(drawn: go.Figure, activity: Activity, columns: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    """Lines where one chip ends and the next begins."""
    wide, high = activity.network.shape.chip
    line = {"color": "#d45f00", "width": 1.5, "dash": "dot"}
    for x in columns[1:][columns[1:] % wide == 0]:
        drawn.add_vline(float(x) - 0.5, line=line)
    for y in rows[1:][rows[1:] % high == 0]:
        drawn.add_hline(float(y) - 0.5, line=line)
