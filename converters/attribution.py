"""Where a population loses: the distance between an activation and its spikes, cut into causes that add up.

Bu et al. 2022 (arXiv 2303.04347), sec. 3, split the error of a converted layer into clipping, quantisation and
unevenness; here each is taken on the input that the layer really received, and threshold, weights and saturation have
parts of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from converters.activity import SERIES_BYTES, fired, passed_on
from converters.legalise import is_activation
from converters.scales import channel_shape
from neuro.graph import Graph, Node, Stateless
from neuro.nodes import (
    IF,
    Corrected,
    CountThenFire,
    GradedIF,
    RampFirstSpike,
    Requantise,
    Staircase,
)

# What a spike is worth to the layers behind it.


def gain(plain: Graph, snn: Graph, name: str, theta: Tensor) -> Tensor:
    """How many thresholds a spike of each channel is worth to the layers behind it; one where it is worth its own.

    Noise on one channel alone goes through what lies between this population and the next ones, in both networks; the
    gain is the least-squares ratio of what arrives. It counts as different from one only where it is so by more than
    the two arrivals differ in shape, for quantised weights make it uncertain.
    """
    stops = [other for other, node in plain.nodes.items() if is_activation(node) and other in snn.nodes]
    shape = plain.shapes[name]
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    at_once = max(1, int(SERIES_BYTES / (4 * noise.numel())))
    ratios = []
    for part in torch.arange(shape[0]).split(at_once):
        alone = torch.zeros(len(part) + 1, *shape)
        alone[torch.arange(len(part)), part] = noise[part]
        wanted = _arrivals(plain, name, alone, stops)
        found = _arrivals(snn, name, alone / theta, stops)
        ratios.append(_ratio(wanted, found, len(part)))
    return channel_shape(torch.cat(ratios), shape)


def _arrivals(graph: Graph, start: str, value: Tensor, stops: list[str]) -> dict[str, Tensor]:
    """(rows - 1, everything) at the input of every stop that `start` reaches; the last row, silence, is subtracted."""
    reached, ends = {start: value}, {}
    for name, node in graph.nodes.items():
        given = graph.sources[name]
        if name == start or not reached.keys() & set(given):
            continue
        if name in stops:
            ends[name] = reached[given[0]]
            continue
        inputs = [reached[s] if s in reached else torch.zeros(len(value), *graph.shapes[s]) for s in given]
        reached[name] = passed_on(node, inputs)
    if graph.output in reached:
        ends["output"] = reached[graph.output]
    return {end: (arrived[:-1] - arrived[-1:]).flatten(1) for end, arrived in ends.items()}


def _ratio(wanted: dict[str, Tensor], found: dict[str, Tensor], rows: int) -> Tensor:
    common = [end for end in wanted if end in found and found[end].shape == wanted[end].shape]
    if not common:
        return torch.ones(rows)
    a, s = (torch.cat([ends[end] for end in common], 1).double() for ends in (wanted, found))
    ratio = (a * s).sum(1) / (a * a).sum(1).clamp(min=1e-30)
    unlike = (s - ratio[:, None] * a).norm(dim=1) / s.norm(dim=1).clamp(min=1e-30)
    sure = ((ratio - 1).abs() > 0.02 + unlike) & (ratio > 0)
    return torch.where(sure, ratio, 1.0).float()


# How each kind of population turns what it receives into a value.


@dataclass(frozen=True, eq=False)
class Seen:
    """What went through one population; all (batch, *features).

    original: the activation in the original network. pre: what the original weights make of the values that really
    arrived, and `wanted` its activation. current: what it received, and `sent` what it sent: means over time, or sums
    where it counts in windows.
    """

    original: Tensor
    pre: Tensor
    wanted: Tensor
    current: Tensor
    sent: Tensor


@dataclass(frozen=True, eq=False)
class Units:
    """In units of the original network, broadcast against the features: the `worth` of what is sent, the `step` of the
    membrane, and the `bias` that its threshold should hold in place of its weights."""

    worth: Tensor
    step: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class Response:
    """z: the pre-activation received, in original units. drive: what would be sent were it neither limited nor whole,
    `limit` the most that can be sent, and `constant` what would be sent if z arrived evenly."""

    z: Tensor
    drive: Tensor
    limit: float
    constant: Tensor


ONE, NONE = torch.ones(()), torch.zeros(())


def _fitted(of: Tensor, to: Tensor, otherwise: Tensor) -> Tensor:
    """The factor per channel that brings `of` nearest to `to` (batch, *features); `otherwise` where there is none."""
    shape = tuple(of.shape[1:])
    of, to = (value.transpose(0, 1).flatten(1).double() for value in (of, to))
    factor = channel_shape((of * to).sum(1) / (of * of).sum(1).clamp(min=1e-30), shape)
    return torch.where(factor > 0, factor, otherwise.double()).float()


@singledispatch
def units(node: Node, name: str, plain: Graph, snn: Graph, seen: Seen) -> Units:
    """The units of a population; of an unknown kind, the worth that explains best what it sent."""
    return Units(_fitted(seen.sent, seen.original, ONE), ONE, NONE)


@units.register(IF)
@units.register(Corrected)
@units.register(GradedIF)
def _(node: IF | Corrected | GradedIF, name: str, plain: Graph, snn: Graph, seen: Seen) -> Units:
    return Units(node.theta * gain(plain, snn, name, node.theta), ONE, NONE)


@units.register(CountThenFire)
@units.register(Staircase)
@units.register(Requantise)
def _(node: CountThenFire | Staircase | Requantise, name: str, plain: Graph, snn: Graph, seen: Seen) -> Units:
    theta, half, _ = _stairs(node, seen.current)
    membrane = seen.current + half
    step = _fitted(membrane - channel_mean(membrane), seen.pre - channel_mean(seen.pre), ONE)
    return Units(_fitted(seen.sent, seen.original, theta * step), step, NONE)


@units.register
def _(node: RampFirstSpike, name: str, plain: Graph, snn: Graph, seen: Seen) -> Units:
    implied = (node.window - node.theta).float()
    gap = seen.pre - seen.current - implied
    shift = channel_mean(gap)
    sure = shift.abs() > 10 * channel_mean((gap - shift) ** 2).sqrt() + 1e-5 * seen.pre.abs().max()
    return Units(ONE, ONE, implied + torch.where(sure, shift, 0.0))


def channel_mean(value: Tensor) -> Tensor:
    """(1, channels, 1, ...) from (batch, channels, ...)."""
    return value.mean([dim for dim in range(value.ndim) if dim != 1], keepdim=True)


def _stairs(node: CountThenFire | Staircase | Requantise, current: Tensor) -> tuple[Tensor, Tensor | float, int]:
    """Threshold, what is added to the sum beside the half threshold that rounds, and the number of stairs."""
    if isinstance(node, Requantise):
        return channel_shape(1 / node.multiplier.double(), tuple(current.shape[1:])), 0.0, node.high
    return node.theta.double(), node.v0.double() - node.theta.double() / 2, node.levels


@singledispatch
def response(node: Node, units: Units, seen: Seen, steps: int | None) -> Response | None:
    """What a population should have done with what it received; None for kinds unknown here."""
    return None


@response.register(IF)
@response.register(Corrected)
@response.register(GradedIF)
def _(node: IF | Corrected | GradedIF, units: Units, seen: Seen, steps: int | None) -> Response:
    assert steps is not None
    size = max(1, int(SERIES_BYTES / (4 * steps * seen.current[0].numel())))
    plain = IF(node.theta, node.v0) if isinstance(node, Corrected) else node
    constant = torch.cat([fired(plain, part[None], steps).mean(0) for part in seen.current.split(size)])
    limit = node.levels if isinstance(node, GradedIF) else 1
    return Response(seen.current, seen.current / node.theta, limit, constant)


@response.register(CountThenFire)
@response.register(Staircase)
@response.register(Requantise)
def _(node: CountThenFire | Staircase | Requantise, units: Units, seen: Seen, steps: int | None) -> Response:
    theta, half, stairs = _stairs(node, seen.current)
    membrane = seen.current.double() + half
    z, drive = (membrane * units.step).float(), (membrane / theta).float()
    if isinstance(node, Requantise):
        return Response(z, drive, stairs, node.forward(seen.current).float())
    return Response(z, drive, stairs, ((seen.current.double() + node.v0) / theta).floor().clamp(0, stairs).float())


@response.register
def _(node: RampFirstSpike, units: Units, seen: Seen, steps: int | None) -> Response:
    drive = seen.current + (node.window - node.theta).float()
    return Response(seen.current + units.bias, drive, node.window, node.forward(seen.current))


# The cut.


def losses(
    activation: Stateless, node: Node, units: Units, steps: int | None, saturated: bool, seen: Seen
) -> tuple[Tensor, dict[str, Tensor]]:
    """The value of what a population sent, and the parts of value - wanted by cause. The parts add up to it exactly.

    With f the activation, top = worth * limit and C(z) = min(f(z), top), from the value wanted to the value sent:
    clipping C(pre) - f(pre); weights C(z) - C(pre); threshold worth * clip(drive, 0, limit) - C(z), not zero where a
    spike is worth something else to its readers than it took; quantisation, from there to worth * constant; unevenness,
    from there to worth * sent. In a saturated population the first three are one: it is stuck, whatever came.
    """
    value = units.worth * seen.sent
    found = response(node, units, seen, steps)
    if found is None:
        return value, {"other": value - seen.wanted}
    top = units.worth * found.limit
    cut, received = torch.minimum(seen.wanted, top), torch.minimum(activation.forward(found.z), top)
    ideal, constant = units.worth * found.drive.clamp(0, found.limit), units.worth * found.constant
    parts = {
        "clipping": cut - seen.wanted,
        "weights": received - cut,
        "threshold": ideal - received,
        "quantisation": constant - ideal,
        "unevenness": value - constant,
    }
    if saturated:
        parts["saturation"] = parts.pop("clipping") + parts.pop("weights") + parts.pop("threshold")
    return value, parts
