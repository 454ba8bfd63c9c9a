"""Plots of many small things: the spikes of a layer, the cores of a chip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from neuro.errors import ParameterError, ShapeError
from neuro.report.style import PALETTE, SCALE, figure, literal, remark, shortened

MOST_MARKERS = 20_000
"""A raster with more spikes becomes an image of densities: a browser draws no more single markers with ease."""

_BINS = 200
_LABELLED_CORES = 40


def spike_raster(
    times: ArrayLike, neurons: ArrayLike, *, steps: int, population: int, layer: str, most: int = MOST_MARKERS
) -> go.Figure:
    """Which neuron of `layer` fired at which step: spike i is (times[i], neurons[i]).

    Steps count from 0 to `steps` - 1 and neurons from 0 to `population` - 1. Beyond `most` spikes the figure is an
    image of densities, in spikes per neuron and step.
    """
    t, n = _whole(times, steps, "times"), _whole(neurons, population, "neurons")
    if t.shape != n.shape:
        raise ShapeError(f"raster of {layer!r}: {t.size} times but {n.size} neurons")
    drawn = figure(420)
    if t.size > most:
        (across, x), (up, y) = _bins(steps), _bins(population)
        count, _, _ = np.histogram2d(n, t, bins=(up, across))
        size = np.diff(up)[:, None] * np.diff(across)[None]
        drawn.add_heatmap(
            x=x,
            y=y,
            z=(count / size).astype(np.float32),
            colorscale=SCALE,
            zmin=0,
            colorbar={"title": {"text": "spikes per neuron and step", "side": "right"}, "thickness": 12},
            hovertemplate="step %{x:.0f}, neuron %{y:.0f}<br>%{z:.3f} spikes per neuron and step<extra></extra>",
        )
    else:
        drawn.add_scatter(
            x=t.astype(np.int32),
            y=n.astype(np.int32),
            mode="markers",
            marker={"symbol": "line-ns-open", "size": float(np.clip(360 / population, 5, 14)), "color": PALETTE[0]},
            hovertemplate="step %{x}, neuron %{y}<extra></extra>",
        )
    drawn.update_xaxes(showgrid=False)
    drawn.update_yaxes(showgrid=False)
    if not t.size:
        remark(drawn, f"{layer}: no spike in {steps} steps")
    drawn.update_xaxes(title="time step", range=[-0.5, steps - 0.5], tickformat="d")
    if steps <= 10:
        drawn.update_xaxes(dtick=1)
    drawn.update_yaxes(title=f"neuron of {shortened(layer)}", range=[-0.5, population - 0.5], tickformat="d")
    if population <= 10:
        drawn.update_yaxes(dtick=1)
    return drawn


def core_loads(
    x: Sequence[int],
    y: Sequence[int],
    load: Sequence[float],
    labels: Sequence[str],
    *,
    mesh: tuple[int, int] | None = None,
    resource: str = "tightest resource",
) -> go.Figure:
    """The cores of a chip on their mesh. Core i sits at (x[i], y[i]), uses the fraction load[i] of `resource` and holds
    labels[i]. A load above 1 does not fit. `mesh` is (width, height); left out, it ends with the last core used.
    """
    if not len(x) == len(y) == len(load) == len(labels):
        raise ShapeError(
            f"cores: {len(x)} x, {len(y)} y, {len(load)} loads and {len(labels)} labels; all must be equal"
        )
    if len(set(zip(x, y, strict=True))) < len(x):
        raise ParameterError("cores: two cores share one place; give every core a place of its own")
    width, height = mesh or (max(x, default=0) + 1, max(y, default=0) + 1)
    if x and (min(x) < 0 or min(y) < 0 or max(x) >= width or max(y) >= height):
        raise ParameterError(f"cores: a place lies outside the mesh of {width} by {height}")
    fraction = np.full((height, width), np.nan)
    held = np.full((height, width), "", dtype=object)
    for column, line, value, label in zip(x, y, load, labels, strict=True):
        fraction[line, column] = 100 * value
        held[line, column] = literal(label)
    shown = np.full((height, width), "", dtype=object)
    if len(x) <= _LABELLED_CORES and width <= 10:
        shown[list(y), list(x)] = [f"{100 * value:.0f} %" for value in load]
    drawn = figure(min(560, 130 + 46 * height))
    drawn.add_heatmap(
        z=np.zeros((height, width), dtype=np.int8),
        colorscale=[[0, "rgba(128,128,128,0.16)"], [1, "rgba(128,128,128,0.16)"]],
        showscale=False,
        xgap=2,
        ygap=2,
        hovertemplate="core (%{x}, %{y}): empty<extra></extra>",
    )
    drawn.add_heatmap(
        z=fraction,
        customdata=held,
        colorscale=SCALE,
        zmin=0,
        zmax=max(100.0, 100 * max(load, default=0)),
        xgap=2,
        ygap=2,
        text=shown,
        texttemplate="%{text}",
        colorbar={"title": {"text": "load (%)", "side": "right"}, "thickness": 12},
        hovertemplate="core (%{x}, %{y}): %{z:.1f} %<br>%{customdata}<extra></extra>",
        hoverongaps=False,
    )
    drawn.update_xaxes(
        title=f"mesh x; colour: {literal(resource)}", range=[-0.5, width - 0.5], showgrid=False, tickformat="d"
    )
    drawn.update_yaxes(title="mesh y", range=[height - 0.5, -0.5], showgrid=False, tickformat="d")
    for axis, size in ((drawn.update_xaxes, width), (drawn.update_yaxes, height)):
        axis(dtick=max(1, -(-size // 16)))
    if not x:
        remark(drawn, "no core is used")
    return drawn


def _whole(values: ArrayLike, below: int, what: str) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ShapeError(f"raster: {what} must be one-dimensional, got shape {array.shape}")
    whole = array.astype(np.int64)
    if array.size and ((whole != array).any() or whole.min() < 0 or whole.max() >= below):
        raise ParameterError(f"raster: {what} must be whole numbers from 0 to {below - 1}")
    return whole


def _bins(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges on half-integers, so that every bin holds whole steps or neurons, and the centres between them."""
    edges = np.unique(np.linspace(0, size, min(size, _BINS) + 1).round()) - 0.5
    return edges, (edges[1:] + edges[:-1]) / 2
