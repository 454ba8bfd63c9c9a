"""A picture of where a converted network loses: one bar per layer, cut by cause."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from neuro.report.style import Style, complete, figure, literal, remark, shortened


def losses_per_layer(
    losses: Mapping[str, Mapping[str, float]],
    *,
    costs: Mapping[str, float] | None = None,
    looks: Mapping[str, Style] | None = None,
) -> go.Figure:
    """What each layer adds to the error, `losses[layer][cause]`, stacked; the first layer on top.

    Losses are fractions of the activation of the layer, shown in per cent. costs[layer]: the relative change of the
    logits by this layer alone, shown beside the bar.
    """
    causes = list(dict.fromkeys(cause for parts in losses.values() for cause in parts))
    look = complete(looks, causes)
    drawn = figure(150 + 24 * max(len(losses), 4), barmode="stack", bargap=0.25)
    layers = list(losses)
    for cause in causes:
        drawn.add_bar(
            x=[100 * losses[layer].get(cause, 0.0) for layer in layers],
            y=list(range(len(layers))),
            customdata=[literal(layer) for layer in layers],
            orientation="h",
            name=literal(cause),
            marker={"color": look[cause].colour},
            hovertemplate="%{customdata}<br>%{x:.3g} %<extra>%{fullData.name}</extra>",
        )
    for place, layer in enumerate(layers):
        if costs and layer in costs:
            drawn.add_annotation(
                x=100 * sum(losses[layer].values()), y=place, text=f"logits {100 * costs[layer]:.2g} %",
                showarrow=False, xanchor="left", xshift=4,
            )  # fmt: skip
    if not layers:
        remark(drawn, "no layer was measured")
    drawn.update_xaxes(title="error that the layer adds (% of its activation)", rangemode="tozero")
    drawn.update_yaxes(tickvals=list(range(len(layers))), ticktext=[shortened(layer) for layer in layers])
    drawn.update_yaxes(showgrid=False, range=[max(len(layers), 1) - 0.5, -0.5])
    drawn.update_layout(showlegend=True)
    return drawn
