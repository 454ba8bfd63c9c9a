"""A picture of a placement: the cores of the mesh with their load, and what the links between the tiles carry."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import get_colorscale

from hardware_targets.cut import Rates
from hardware_targets.placement import Core, Placement, core_limits, tiles_of
from hardware_targets.route import Links, links
from neuro.report.style import SCALE, figure, literal, shortened

LOAD_SCALE = [[0, "rgba(128,128,128,0.16)"], [1e-9, get_colorscale(SCALE)[0][1]], *get_colorscale(SCALE)[1:]]
"""The house's scale, but grey where a core is empty."""
LINK_SCALE = [[0, "rgba(212,95,0,0.10)"], [1, "rgba(212,95,0,1)"]]
GAP = 0.75
"""Width of the space between two tiles, where their links are drawn, in widths of a core."""
MOST_TEXTS = 64


def mesh(placement: Placement, rates: Rates = None, *, unit: str = "packets per tick") -> go.Figure:
    """The tiles of the chips as they lie. A core's colour is the share of the resource that it uses most of; the
    colour of an arrow is the packets on that link, routed along the row first. Pointing at either tells the numbers.

    rates: spikes of every neuron and input per tick, {part: (size,)}, see `spike_rates`; left out, one each (say so in
    `unit`).
    """
    chip = placement.chip
    across = int(np.ceil(np.sqrt(chip.limit("cores_per_tile"))))
    down = -(-chip.limit("cores_per_tile") // across)
    width, height = chip.limit("mesh_width") * chip.limit("chips"), chip.limit("mesh_height")
    columns, rows = _edges(width, across), _edges(height, down)
    load, texts, told = _cores(placement, across, down, (len(rows) - 1, len(columns) - 1))
    carried = links(placement, rates)
    flow, arrows, links_told = _links(carried, across, down, load.shape, unit)

    drawn = figure(130 + int(rows[-1] * 46), plot_bgcolor="rgba(0,0,0,0)")
    few = len(placement.cores) <= MOST_TEXTS
    drawn.add_heatmap(
        x=columns, y=rows, z=load, customdata=told, text=texts, texttemplate="%{text}" if few else "",
        colorscale=LOAD_SCALE, zmin=0, zmax=max(100.0, float(np.nanmax(load))), xgap=2, ygap=2, hoverongaps=False,
        colorbar={"title": {"text": "load (%)", "side": "right"}, "thickness": 12, "x": 1.0},
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    drawn.add_heatmap(
        x=columns, y=rows, z=flow, customdata=links_told, text=arrows, texttemplate="%{text}", colorscale=LINK_SCALE,
        zmin=0, zmax=max(carried.busiest, 1e-12), xgap=1, ygap=1, hoverongaps=False,
        colorbar={"title": {"text": literal(unit), "side": "right"}, "thickness": 12, "x": 1.11},
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    middle_x, middle_y = _middles(width, across), _middles(height, down)
    hops, busiest = (f"{value:,.4g}" for value in (carried.hops, carried.busiest))
    said = f"tile column; {len(placement.cores)} cores, {hops} hops, {busiest} on the busiest link ({literal(unit)})"
    drawn.update_xaxes(
        title=said, tickvals=middle_x, ticktext=list(map(str, range(width))), showgrid=False, showline=False
    )
    drawn.update_yaxes(
        title="tile row", tickvals=middle_y, ticktext=list(map(str, range(height))), range=[float(rows[-1]), 0.0],
        showgrid=False, showline=False,
    )  # fmt: skip
    return drawn


def _edges(tiles: int, cells: int) -> NDArray[np.float64]:
    """Borders of the cells of a row of tiles: the cores of a tile, then a gap."""
    return np.concatenate([[0.0], np.cumsum(np.tile([1.0] * cells + [GAP], tiles))[:-1]])


def _middles(tiles: int, cells: int) -> list[float]:
    return [number * (cells + GAP) + cells / 2 for number in range(tiles)]


def _cores(
    placement: Placement, across: int, down: int, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.object_], NDArray[np.object_]]:
    """Load in per cent (0 where empty, NaN in the gaps), short names and full descriptions of every cell."""
    load = np.full(shape, np.nan)
    texts, told = np.full(shape, "", object), np.full(shape, "", object)
    chip = placement.chip
    every = np.arange(chip.limit("cores") * chip.limit("chips"))
    cells = _cells(placement, every, across, down)
    load[cells] = 0.0
    told[cells] = [f"core {number}: empty" for number in every]
    for core in placement.cores:
        cell = tuple(int(part[0]) for part in _cells(placement, np.array([core.number]), across, down))
        share, resource = _tightest(placement, core)
        load[cell] = 100 * share
        texts[cell] = shortened(core.slices[0].population, 7)
        told[cell] = (
            f"core {core.number}: {literal(', '.join(map(str, core.slices)))}<br>"
            + "<br>".join(f"{n} {core.used[n]:,} / {limit:,}" for n, limit in core_limits(chip).items())
            + f"<br>fullest: {resource}, {100 * share:.0f} %"
        )
    return load, texts, told


def _cells(
    placement: Placement, numbers: NDArray[np.int64], across: int, down: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    tiles = tiles_of(placement.chip, numbers)
    inside = numbers % placement.chip.limit("cores") % placement.chip.limit("cores_per_tile")
    return tiles[:, 1] * (down + 1) + inside // across, tiles[:, 0] * (across + 1) + inside % across


def _tightest(placement: Placement, core: Core) -> tuple[float, str]:
    limits = core_limits(placement.chip)
    return max((core.used[name] / limit if limit else 0.0, name) for name, limit in limits.items())


def _links(
    carried: Links, across: int, down: int, shape: tuple[int, int], unit: str
) -> tuple[NDArray[np.float64], NDArray[np.object_], NDArray[np.object_]]:
    """Packets of every link in its cell between two tiles, arrows and descriptions."""
    flow = np.full(shape, np.nan)
    arrows, told = np.full(shape, "", object), np.full(shape, "", object)
    # a link leaves (x, y) for the tile one step on; its cell lies in the gap on that side, each direction in its own
    sides = (
        (carried.east, (1, 0), across, 0, "→"),
        (carried.west, (-1, 0), -1, down - 1, "←"),
        (carried.south, (0, 1), 0, down, "↓"),
        (carried.north, (0, -1), across - 1, -1, "↑"),
    )
    for packets, (step_x, step_y), right, below, arrow in sides:
        for y, x in zip(*np.nonzero(packets), strict=True):
            cell = y * (down + 1) + below, x * (across + 1) + right
            flow[cell], arrows[cell] = packets[y, x], arrow
            told[cell] = f"tile ({x}, {y}) to ({x + step_x}, {y + step_y})<br>{packets[y, x]:,.4g} {literal(unit)}"
    return flow, arrows, told
