"""Plots of a comparison as plotly figures, from plain data. Every name is shown letter by letter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from neuro.errors import ParameterError, ShapeError
from neuro.report.fronts import accuracy_against_energy
from neuro.report.images import MOST_MARKERS, core_loads, spike_raster
from neuro.report.pareto import pareto
from neuro.report.points import Point, points
from neuro.report.style import Style, complete, figure, literal, looks_of, remark, shortened, styles

__all__ = [
    "MOST_MARKERS",
    "Point",
    "Style",
    "accuracy_against_energy",
    "accuracy_against_time",
    "activity_per_layer",
    "core_loads",
    "looks_of",
    "pareto",
    "points",
    "quantisation_error",
    "spike_raster",
    "styles",
]


def accuracy_against_time(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    *,
    dense: Mapping[str, float] | None = None,
    looks: Mapping[str, Style] | None = None,
) -> go.Figure:
    """Accuracy after T steps. `curves[name]` is (T, accuracy); `dense[name]` a level that needs no steps.

    Accuracies are fractions; the axis shows per cent. T has a logarithmic axis, on which powers of two lie evenly.
    """
    levels = dict(dense or {})
    look = complete(looks, [*curves, *levels])
    drawn = figure()
    every: set[int] = set()
    for name, (steps, accuracy) in curves.items():
        if len(steps) != len(accuracy):
            raise ShapeError(f"curve {name!r}: {len(steps)} values of T but {len(accuracy)} accuracies")
        if any(step < 1 for step in steps):
            raise ParameterError(f"curve {name!r}: T must be at least 1, got {min(steps)}")
        every.update(steps)
        line = {"color": look[name].colour, "width": 2}
        drawn.add_scatter(
            x=list(steps),
            y=[100 * value for value in accuracy],
            name=literal(name),
            mode="lines+markers",
            line=line,
            marker={"symbol": look[name].symbol, "size": 8},
            hovertemplate="T = %{x}<br>%{y:.2f} %<extra>%{fullData.name}</extra>",
        )
    ends = [min(every), max(every)] if every else [1, 1]
    for name, level in levels.items():
        drawn.add_scatter(
            x=[ends[0] / 1.08, ends[1] * 1.08],
            y=[100 * level] * 2,
            name=f"{literal(name)} (no steps)",
            mode="lines",
            line={"color": look[name].colour, "dash": "dash", "width": 2},
            hovertemplate="%{y:.2f} %<extra>%{fullData.name}</extra>",
        )
    if not curves:
        remark(drawn, "no curve was recorded")
    ticks = sorted(every)
    while len(ticks) > 12:
        ticks = ticks[::2]
    drawn.update_xaxes(type="log", title="time steps T", tickvals=ticks, ticktext=[str(tick) for tick in ticks])
    drawn.update_yaxes(title="test accuracy (%)")
    drawn.update_layout(showlegend=True)
    return drawn


def activity_per_layer(
    activity: Mapping[str, Mapping[str, float]], *, looks: Mapping[str, Style] | None = None
) -> go.Figure:
    """Spikes per neuron and step of every layer: `activity[model][layer]`, from 0 to 1."""
    return _bars(activity, "spikes per neuron and step", "%{x:.4f} spikes per neuron and step", looks)


def quantisation_error(
    errors: Mapping[str, Mapping[str, float]],
    *,
    quantity: str = "relative RMS error of the weights (%)",
    looks: Mapping[str, Style] | None = None,
) -> go.Figure:
    """How far the chip's integers are from the floating-point values, layer by layer: `errors[model][layer]`."""
    return _bars(errors, literal(quantity), "%{x:.4g}", looks)


def _bars(
    values: Mapping[str, Mapping[str, float]], quantity: str, hover: str, looks: Mapping[str, Style] | None
) -> go.Figure:
    """Horizontal bars, the first layer on top; layers of several models share a line where they share a name."""
    look = complete(looks, values)
    layers = list(dict.fromkeys(layer for measured in values.values() for layer in measured))
    rows = sum(len(measured) for measured in values.values())
    drawn = figure(150 + 22 * max(rows, 4), barmode="group", bargap=0.25)
    for model, measured in values.items():
        drawn.add_bar(
            x=[measured[layer] for layer in layers if layer in measured],
            y=[layers.index(layer) for layer in layers if layer in measured],
            customdata=[literal(layer) for layer in layers if layer in measured],
            orientation="h",
            name=literal(model),
            marker={"color": look[model].colour},
            texttemplate="%{x:.3g}",
            textposition="auto",
            hovertemplate=f"%{{customdata}}<br>{hover}<extra>%{{fullData.name}}</extra>",
        )
    if not layers:
        remark(drawn, "no layer was measured")
    places = list(range(len(layers)))
    drawn.update_xaxes(title=quantity, rangemode="tozero")
    drawn.update_yaxes(tickvals=places, ticktext=[shortened(layer) for layer in layers], showgrid=False)
    drawn.update_yaxes(range=[max(len(layers), 1) - 0.5, -0.5])
    drawn.update_layout(showlegend=True)
    return drawn
