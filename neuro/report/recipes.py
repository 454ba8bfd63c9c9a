"""Plots of conversions: recipes beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from neuro.report.pareto import pareto
from neuro.report.style import complete, figure, literal, remark


def accuracy_against_cost(
    points: Sequence[tuple[str, float, float]], *, dense: float | None = None, cost: str = "ticks"
) -> go.Figure:
    """Accuracy (a fraction) against a cost > 0, with the Pareto front. points: (name, cost, accuracy).

    The points of one recipe at several T share a colour and are joined in the order of their cost, and so do recipes of
    one kind that have one point each. dense: the accuracy of the original network, a level across the plot. The cost
    has a logarithmic axis.
    """
    recipes = [name.rsplit(" T=", 1)[0] for name, _, _ in points]
    families: dict[str, list[tuple[float, float, str]]] = {}
    for recipe, (name, at, accuracy) in zip(recipes, points, strict=True):
        family = recipe if recipes.count(recipe) > 1 else recipe.split("(")[0]
        families.setdefault(family, []).append((at, accuracy, name))
    look = complete(None, families)
    drawn = figure(height=460)
    front = [points[index] for index in pareto([(at, accuracy) for _, at, accuracy in points])]
    if front:
        drawn.add_scatter(
            x=[at for _, at, _ in front],
            y=[100 * accuracy for _, _, accuracy in front],
            mode="lines",
            name="Pareto front",
            line={"color": "rgba(128,128,128,0.8)", "dash": "dot", "shape": "hv", "width": 2},
            hoverinfo="skip",
        )
    for family, found in families.items():
        found.sort()
        drawn.add_scatter(
            x=[at for at, _, _ in found],
            y=[100 * accuracy for _, accuracy, _ in found],
            name=literal(family),
            mode="lines+markers" if len(found) > 1 else "markers",
            line={"color": look[family].colour, "width": 1.5},
            marker={"symbol": look[family].symbol, "size": 9, "color": look[family].colour},
            text=[literal(name) for _, _, name in found],
            hovertemplate="%{text}<br>%{x:.4g}<br>%{y:.2f} %<extra></extra>",
        )
    if not points:
        remark(drawn, "no recipe was measured")
    elif dense is not None:
        drawn.add_hline(y=100 * dense, line={"dash": "dash", "color": "rgba(128,128,128,0.8)"})
    drawn.update_xaxes(type="log", title=literal(cost))
    drawn.update_yaxes(title="accuracy (%)")
    drawn.update_layout(showlegend=True)
    return drawn
