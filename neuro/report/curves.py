"""How a training went, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from neuro.report.style import figure, literal, remark, styles
from neuro.training.history import Epoch


def losses(epochs: Sequence[Epoch]) -> go.Figure:
    """Mean loss per sample on the training and the validation data after every epoch."""
    return _lines(
        epochs,
        {
            "training": [epoch.train_loss for epoch in epochs],
            "validation": [epoch.validation_loss for epoch in epochs],
        },
        "loss per sample",
    )


def accuracies(epochs: Sequence[Epoch]) -> go.Figure:
    """Accuracy on the validation data after every epoch, in per cent."""
    found = [None if epoch.validation_accuracy is None else 100 * epoch.validation_accuracy for epoch in epochs]
    return _lines(epochs, {"validation": found}, "validation accuracy (%)")


def spike_rates(epochs: Sequence[Epoch]) -> go.Figure:
    """Spikes per neuron and step of every population after every epoch, on the validation data."""
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch.spike_rates))
    rates = {name: [epoch.spike_rates.get(name) for epoch in epochs] for name in names}
    return _lines(epochs, rates, "spikes per neuron and step")


def _lines(epochs: Sequence[Epoch], curves: dict[str, list[float | None]], quantity: str) -> go.Figure:
    drawn = figure()
    looks = styles(curves)
    for name, values in curves.items():
        if all(value is None for value in values):
            continue
        drawn.add_scatter(
            x=[epoch.number for epoch in epochs],
            y=values,
            name=literal(name),
            mode="lines+markers",
            line={"color": looks[name].colour, "width": 2},
            marker={"symbol": looks[name].symbol, "size": 6},
            hovertemplate="epoch %{x}<br>%{y:.4g}<extra>%{fullData.name}</extra>",
        )
    if not drawn.data:
        remark(drawn, "nothing was recorded")
    drawn.update_xaxes(title="epoch")
    drawn.update_yaxes(title=quantity)
    drawn.update_layout(showlegend=True)
    return drawn
