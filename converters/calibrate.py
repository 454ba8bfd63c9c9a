"""Statistics of the activations of a network on calibration data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from converters.legalise import is_activation
from neuro.errors import DataError, ParameterError, ShapeError
from neuro.evaluate import evaluate
from neuro.graph import Graph

BATCH = 256


def check_calibration(graph: Graph, x: Tensor | None) -> Tensor:
    """Calibration data as float32, or one clear refusal."""
    if x is None:
        raise ParameterError(
            f"{graph.name!r}: this recipe sets thresholds from data; "
            "pass calibration=x with a few hundred training samples"
        )
    shape = graph.shapes[graph.inputs[0]]
    if tuple(x.shape[1:]) != shape:
        sizes = ", ".join(map(str, shape))
        raise ShapeError(f"{graph.name!r}: calibration data must be (samples, {sizes}), got {tuple(x.shape)}")
    if x.shape[0] < 1:
        raise DataError(f"{graph.name!r}: the calibration data hold no samples")
    if not bool(torch.isfinite(x).all()):
        raise DataError(f"{graph.name!r}: the calibration data hold NaN or infinite values")
    return x.to(torch.float32)


def activations(graph: Graph, x: Tensor, reduce: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
    """`reduce(name, value)` of the output (batch, channels, ...) of every activation, batches concatenated."""
    found: dict[str, list[Tensor]] = {}

    def observe(name: str, value: Tensor) -> None:
        if is_activation(graph.nodes[name]):
            found.setdefault(name, []).append(reduce(name, value))

    with torch.no_grad():
        for chunk in x.split(BATCH):
            evaluate(graph, chunk, observe=observe)
    return {name: torch.cat(parts) for name, parts in found.items()}


def by_channel(value: Tensor, per_channel: bool) -> Tensor:
    """(batch, channels, ...) as (channels or 1, everything else)."""
    return value.transpose(0, 1).flatten(1) if per_channel else value.reshape(1, -1)


def percentile(values: Tensor, percent: float) -> Tensor:
    """The smallest value that `percent` % of each row do not exceed (inverted distribution, no interpolation)."""
    rank = max(1, min(values.shape[1], -int(-values.shape[1] * percent // 100)))
    if rank == values.shape[1]:
        return values.amax(1)
    return values.kthvalue(rank, dim=1).values
