"""How accuracy falls with an imperfection of a device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from neuro.errors import ParameterError, ShapeError
from neuro.report.style import Style, complete, decades, figure, literal, remark


def accuracy_against_noise(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    quantity: str,
    *,
    levels: Mapping[str, float] | None = None,
    looks: Mapping[str, Style] | None = None,
    logarithmic: bool = False,
    part: str = "validation",
) -> go.Figure:
    """Accuracy against `quantity`: `curves[name]` is (values, accuracies), `levels[name]` what is without it.

    Accuracies are fractions; the axis shows per cent. `part` says of which samples. Raises ShapeError where values and
    accuracies are not as many, ParameterError for values <= 0 on a logarithmic axis.
    """
    flat = dict(levels or {})
    look = complete(looks, [*curves, *flat])
    drawn = figure()
    every: list[float] = []
    for name, (values, accuracies) in curves.items():
        if len(values) != len(accuracies):
            raise ShapeError(f"curve {name!r}: {len(values)} values but {len(accuracies)} accuracies")
        if logarithmic and any(value <= 0 for value in values):
            raise ParameterError(f"curve {name!r}: a logarithmic axis has no place for {min(values):g}")
        every.extend(values)
        drawn.add_scatter(
            x=list(values),
            y=[100 * accuracy for accuracy in accuracies],
            name=literal(name),
            mode="lines+markers",
            line={"color": look[name].colour, "width": 2},
            marker={"symbol": look[name].symbol, "size": 8},
            hovertemplate="%{x:.4g}<br>%{y:.2f} %<extra>%{fullData.name}</extra>",
        )
    for name, level in flat.items():
        drawn.add_scatter(
            x=[min(every), max(every)] if every else [1, 1],
            y=[100 * level] * 2,
            name=literal(name),
            mode="lines",
            line={"color": look[name].colour, "dash": "dash", "width": 2},
            hovertemplate="%{y:.2f} %<extra>%{fullData.name}</extra>",
        )
    if not every:
        remark(drawn, "no curve was recorded")
    drawn.update_xaxes(title=literal(quantity))
    if logarithmic and every:
        low, high = math.log10(min(every)), math.log10(max(every))
        drawn.update_xaxes(type="log", tickvals=(ticks := decades(low, high)), ticktext=[f"{at:g}" for at in ticks])
    drawn.update_yaxes(title=f"{literal(part)} accuracy (%)")
    drawn.update_layout(showlegend=True)
    return drawn
