"""Statistics of the activations of a network on calibration data."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from converters.legalise import is_activation
from neuro.errors import DataError, ParameterError, ShapeError
from neuro.evaluate import evaluate
from neuro.graph import Graph, Stateless

BATCH = 256

PLACES = 4096
"""Values of each channel from which thresholds are searched."""

SHARES = tuple(1 - 0.01 * i for i in range(95))
"""Thresholds tried, as shares of the largest activation: Li et al. 2021, code."""


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


def last_readers(graph: Graph) -> dict[str, list[str]]:
    """For every node, the names that nobody reads after it: what a walk through the graph may forget there."""
    reader = {source: name for name, given in graph.sources.items() for source in given}
    forgotten: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, name in reader.items():
        forgotten[name].append(source)
    return forgotten


def forward(node: Stateless, *given: Tensor) -> Tensor:
    """What a node gives, (samples, *features), without gradients and in batches."""
    with torch.no_grad():
        return torch.cat([node.forward(*part) for part in zip(*(each.split(BATCH) for each in given), strict=True)])


def by_channel(value: Tensor, per_channel: bool) -> Tensor:
    """(batch, channels, ...) as (channels or 1, everything else)."""
    return value.transpose(0, 1).flatten(1) if per_channel else value.reshape(1, -1)


def _from_top(count: int, percent: float) -> int:
    """How many of the largest of `count` values one must see to know the percentile."""
    return count + 1 - max(1, min(count, -int(-count * percent // 100)))


def percentile(values: Tensor, percent: float) -> Tensor:
    """The smallest value that `percent` % of each row do not exceed (inverted distribution, no interpolation)."""
    return values.topk(_from_top(values.shape[1], percent), dim=1).values[:, -1]


def percentiles(
    graph: Graph, x: Tensor, percent: float, per_channel: bool = True, layers: Mapping[str, float] | None = None
) -> dict[str, Tensor]:
    """`percentile` of every channel (or of all values) of every activation, exactly.

    layers: other percentages for single activations, by name. Of each row only the largest values are kept from batch
    to batch, as many as the percentile needs. Raises ParameterError for names that are no activations.
    """
    own = {} if layers is None else dict(layers)
    known = [name for name, node in graph.nodes.items() if is_activation(node)]
    if odd := [name for name in own if name not in known]:
        raise ParameterError(f"{graph.name!r} has no activation {', '.join(map(repr, odd))}; it has {', '.join(known)}")
    kept: dict[str, Tensor] = {}

    def observe(name: str, value: Tensor) -> None:
        if is_activation(graph.nodes[name]):
            rows = by_channel(value, per_channel)
            count = rows.shape[1] // len(value) * len(x)
            rows = torch.cat([kept[name], rows], 1) if name in kept else rows
            fewest = _from_top(count, own.get(name, percent))
            kept[name] = rows.topk(min(fewest, rows.shape[1]), dim=1).values

    with torch.no_grad():
        for chunk in x.split(BATCH):
            evaluate(graph, chunk, observe=observe)
    return {name: rows[:, -1] for name, rows in kept.items()}


def drawn(rows: Tensor, places: int, seed: int = 0) -> Tensor:
    """Some `places` columns of (..., columns), drawn at random: a stride would see a few columns of an image only."""
    size = rows.shape[-1]
    if size <= places:
        return rows
    return rows[..., torch.randint(size, (places,), generator=torch.Generator().manual_seed(seed))]


def sampled(graph: Graph, x: Tensor, per_channel: bool = True, places: int = PLACES) -> dict[str, Tensor]:
    """Some `places` values of every channel (or of all values) of every activation, as (channels or 1, places)."""

    def some(name: str, value: Tensor) -> Tensor:
        return drawn(by_channel(value, per_channel), -(-places * len(value) // len(x))).T

    return {name: rows.T for name, rows in activations(graph, x, some).items()}


def mmse(values: Tensor, steps: int, v0: float = 0.5) -> Tensor:
    """The threshold theta of each row that minimises |x - theta/T * clip(floor(T x / theta + v0), 0, T)|^2.

    That is the rate of a neuron under constant input after T = `steps` steps, started at v0 thresholds. Li et al. 2021,
    SNN calibration, and its code: theta is a share of the largest value. values (rows, samples) >= 0; rows that are
    zero everywhere get 0.
    """
    largest = values.amax(1)
    best, least = largest, torch.full_like(largest, torch.inf)
    for share in SHARES:
        theta = (largest * share).clamp(min=torch.finfo(values.dtype).tiny)[:, None]
        rate = (values * (steps / theta)).add_(v0).floor_().clamp_(0, steps).mul_(theta / steps)
        error = rate.sub_(values).square_().sum(1)
        best, least = torch.where(error < least, theta[:, 0], best), torch.minimum(error, least)
    return torch.where(largest > 0, best, largest)
