"""Time to first spike: every neuron says its activation by the time of one spike, with unchanged weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from converters.calibrate import BATCH, activations, check_calibration
from converters.convert import apply
from converters.intervals import bounds
from converters.legalise import is_activation
from converters.scales import channel_shape
from neuro.errors import ParameterError
from neuro.evaluate import evaluate
from neuro.graph import Graph
from neuro.nodes import Affine, Clamp, Conv, ConvTranspose, RampFirstSpike, Scale
from neuro.rewrite import Builder, rebuild

ROUNDING = 1e-4
"""Share by which a bound is widened for the rounding of its sums."""

LONGEST = 2.0**32
"""Windows longer than the largest activation by this factor leave too few digits to double precision."""


@dataclass(frozen=True)
class FirstSpike:
    """The exact map of a ReLU network on first-spike times: Stanojevic et al. 2024, B1 model [recalled].

    The window of a layer is its largest activation on calibration data times 1 + margin; larger values are clipped
    (`first_spike_report` counts them). With windows="bound" nothing can be clipped: the window is the largest value
    that inputs in the range of the calibration data can cause, by interval arithmetic; it is long in deep networks, and
    margin has no part in it. time_bits: None for continuous time, n for 2^n slots per window. The input is a current,
    not a spike.
    """

    time_bits: int | None = None
    margin: float = 1.0
    windows: Literal["calibration", "bound"] = "calibration"

    def __post_init__(self) -> None:
        if self.time_bits is not None and not 1 <= self.time_bits <= 24:
            raise ParameterError(f"FirstSpike: time_bits must lie in 1..24 or be None, got {self.time_bits}")
        if not 0 <= self.margin < float("inf"):
            raise ParameterError(f"FirstSpike: margin must be >= 0, got {self.margin}")
        if self.windows not in ("calibration", "bound"):
            raise ParameterError(f"FirstSpike: windows must be 'calibration' or 'bound', got {self.windows!r}")


@apply.register
def _(recipe: FirstSpike, plain: Graph, calibration: Tensor | None) -> Graph:
    x = check_calibration(plain, calibration)
    largest = {
        name: float(value.max())
        for name, value in activations(plain, x, lambda _, value: value.amax().reshape(1)).items()
    }

    windows = {name: most * (1 + recipe.margin) for name, most in largest.items()}
    if recipe.windows == "bound":
        windows = _bounded(plain, x, largest)

    def rule(builder: Builder, name: str) -> object:
        node = plain.nodes[name]
        if not is_activation(node):
            return builder.keep(name)
        window = node.high if isinstance(node, Clamp) else windows[name] or 1.0
        (source,) = plain.sources[name]
        bias = _bias_into_threshold(builder, plain, source)
        theta = torch.tensor(window, dtype=torch.float64) - bias
        builder.note(name, node.kind, "RampFirstSpike", "activation replaced by neurons")
        return builder.keep(name, RampFirstSpike(theta, window, recipe.time_bits))

    return rebuild(plain, rule).edit(name=f"{plain.name}, first spike")


def _bounded(plain: Graph, x: Tensor, largest: dict[str, float]) -> dict[str, float]:
    reach = bounds(plain, float(x.min()), float(x.max()))
    windows = {name: float(reach[name][1].max()) * (1 + ROUNDING) for name in largest}
    for name, window in windows.items():
        if window > LONGEST * max(largest[name], 1e-30) and not isinstance(plain.nodes[name], Clamp):
            raise ParameterError(
                f"FirstSpike: the bound of {name!r}, {window:.3g}, is so far above what the calibration data cause "
                f"({largest[name]:.3g}) that spike times lose their precision; use windows='calibration'"
            )
    return windows


def _bias_into_threshold(builder: Builder, plain: Graph, source: str) -> Tensor:
    """Take the bias out of the weighted node that a population alone reads; 0 where it must stay a current."""
    alias = builder.alias[source]
    node = builder.nodes[alias]
    shape = plain.shapes[source]
    alone = len(plain.targets[source]) == 1
    if isinstance(node, Scale) and alone and node.offset is not None and bool((node.factor == 1).all()):
        (builder.alias[source],) = builder.sources.pop(alias)
        del builder.nodes[alias]
        return node.offset.double()
    if not (isinstance(node, Affine | Conv | ConvTranspose) and alone and node.bias is not None):
        return torch.zeros((), dtype=torch.float64)
    builder.nodes[alias] = replace(node, bias=None)
    bias = node.bias.double()
    return bias if isinstance(node, Affine) else channel_shape(bias, shape)


@dataclass(frozen=True)
class FirstSpikeReport:
    """What first spikes cost and lose on data; str() says it in three lines.

    samples: how many were compared; spikes_per_neuron: mean over neurons and samples, at most 1; clipped: share of
    values beyond their window where the original activation has no bound; logit_error: norm of the difference of the
    logits to those of the original network over their norm; same_class: share of samples with the same largest logit;
    largest: the largest share of a window that an activation without a bound asked for, above 1 where it was clipped.
    """

    samples: int
    spikes_per_neuron: float
    clipped: float
    logit_error: float
    same_class: float
    largest: float

    def __str__(self) -> str:
        clipped = f"{100 * self.clipped:.3g} % of the activations clipped: convert with a larger margin"
        return "\n".join(
            (
                f"same class on {100 * self.same_class:.2f} % of {self.samples:,} samples, "
                f"logits within {self.logit_error:.2g}",
                f"{self.spikes_per_neuron:.3f} spikes per neuron",
                clipped if self.clipped else f"nothing clipped: at most {100 * self.largest:.0f} % of a window used",
            )
        )


def first_spike_report(original: Graph, spiking: Graph, x: Tensor) -> FirstSpikeReport:
    """Compare a first-spike network with the network it came from on x (samples, *features)."""
    spikes = neurons = clipped = 0
    largest = 0.0
    logits = []
    bounded = {change.node for change in spiking.history if (change.was, change.became) == ("Clamp", "RampFirstSpike")}

    def observe(name: str, value: Tensor) -> None:
        nonlocal spikes, neurons, clipped, largest
        for reader in spiking.targets[name]:
            node = spiking.nodes[reader]
            if isinstance(node, RampFirstSpike):
                if reader not in bounded:
                    clipped += node.clipped(value)
                    asked = value.double() - node.theta.double() + node.window
                    largest = max(largest, float(asked.max()) / node.window)
                spikes += int(torch.isfinite(node.times(value)).sum())
                neurons += value.numel()

    with torch.no_grad():
        for part in x.split(BATCH):
            logits.append((evaluate(original, part), evaluate(spiking, part, observe=observe)))
    wanted, found = (torch.cat(each) for each in zip(*logits, strict=True))
    error = float((found - wanted).norm() / wanted.norm().clamp(min=1e-30))
    same = float((found.argmax(1) == wanted.argmax(1)).float().mean())
    return FirstSpikeReport(len(x), spikes / neurons, clipped / neurons, error, same, largest)


def error_of_time_bits(
    original: Graph, spiking: Graph, x: Tensor, bits: Sequence[int] = (4, 6, 8, 10, 12)
) -> dict[int, FirstSpikeReport]:
    """The report of the same network for each number of bits of time: what a coarser clock would lose on x."""

    def at(count: int) -> Graph:
        nodes = {
            name: replace(node, time_bits=count) if isinstance(node, RampFirstSpike) else node
            for name, node in spiking.nodes.items()
        }
        return spiking.edit(nodes=nodes)

    return {count: first_spike_report(original, at(count), x) for count in bits}
