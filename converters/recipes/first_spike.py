"""Time to first spike: every neuron says its activation by the time of one spike, with unchanged weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from converters.calibrate import BATCH, activations, check_calibration
from converters.convert import apply
from converters.legalise import is_activation
from converters.spiking import channel_shape
from neuro.errors import ParameterError
from neuro.evaluate import evaluate
from neuro.graph import Graph
from neuro.nodes import Affine, Clamp, Conv, RampFirstSpike
from neuro.rewrite import Builder, rebuild


@dataclass(frozen=True)
class FirstSpike:
    """The exact map of a ReLU network on first-spike times: Stanojevic et al. 2024, B1 model [recalled].

    The window of a layer is its largest activation on calibration data times 1 + margin; larger values are clipped
    (`first_spike_report` counts them). time_bits: None for continuous time, n for 2^n slots per window. The input is a
    current, not a spike.
    """

    time_bits: int | None = None
    margin: float = 1.0

    def __post_init__(self) -> None:
        if self.time_bits is not None and not 1 <= self.time_bits <= 24:
            raise ParameterError(f"FirstSpike: time_bits must lie in 1..24 or be None, got {self.time_bits}")
        if not 0 <= self.margin < float("inf"):
            raise ParameterError(f"FirstSpike: margin must be >= 0, got {self.margin}")


@apply.register
def _(recipe: FirstSpike, plain: Graph, calibration: Tensor | None) -> Graph:
    x = check_calibration(plain, calibration)
    largest = {
        name: float(value.max())
        for name, value in activations(plain, x, lambda _, value: value.amax().reshape(1)).items()
    }

    def rule(builder: Builder, name: str) -> object:
        node = plain.nodes[name]
        if not is_activation(node):
            return builder.keep(name)
        window = largest[name] * (1 + recipe.margin) or 1.0
        if isinstance(node, Clamp):
            window = node.high
        (source,) = plain.sources[name]
        bias = _bias_into_threshold(builder, plain, source)
        theta = torch.tensor(window, dtype=torch.float64) - bias
        builder.note(name, node.kind, "RampFirstSpike", "activation replaced by neurons")
        return builder.keep(name, RampFirstSpike(theta, window, recipe.time_bits))

    return rebuild(plain, rule).edit(name=f"{plain.name}, first spike")


def _bias_into_threshold(builder: Builder, plain: Graph, source: str) -> Tensor:
    """Take the bias out of the weighted node that a population alone reads; 0 where it must stay a current."""
    alias = builder.alias[source]
    node = builder.nodes[alias]
    shape = plain.shapes[source]
    alone = len(plain.targets[source]) == 1
    if not (isinstance(node, Affine | Conv) and alone and node.bias is not None):
        return torch.zeros((), dtype=torch.float64)
    builder.nodes[alias] = replace(node, bias=None)
    bias = node.bias.double()
    return bias if isinstance(node, Affine) else channel_shape(bias, shape)


@dataclass(frozen=True)
class FirstSpikeReport:
    """What first spikes cost and lose on data.

    spikes_per_neuron: mean over neurons and samples, at most 1; clipped: share of values beyond their window where the
    original activation has no bound; logit_error: norm of the difference of the logits to those of the original network
    over their norm; same_class: share of samples with the same largest logit.
    """

    spikes_per_neuron: float
    clipped: float
    logit_error: float
    same_class: float


def first_spike_report(original: Graph, spiking: Graph, x: Tensor) -> FirstSpikeReport:
    """Compare a first-spike network with the network it came from on x (samples, *features)."""
    spikes = neurons = clipped = 0
    logits = []
    bounded = {change.node for change in spiking.history if (change.was, change.became) == ("Clamp", "RampFirstSpike")}

    def observe(name: str, value: Tensor) -> None:
        nonlocal spikes, neurons, clipped
        for reader in spiking.targets[name]:
            node = spiking.nodes[reader]
            if isinstance(node, RampFirstSpike):
                clipped += 0 if reader in bounded else node.clipped(value)
                spikes += int(torch.isfinite(node.times(value)).sum())
                neurons += value.numel()

    with torch.no_grad():
        for part in x.split(BATCH):
            logits.append((evaluate(original, part), evaluate(spiking, part, observe=observe)))
    wanted, found = (torch.cat(each) for each in zip(*logits, strict=True))
    error = float((found - wanted).norm() / wanted.norm().clamp(min=1e-30))
    same = float((found.argmax(1) == wanted.argmax(1)).float().mean())
    return FirstSpikeReport(spikes / neurons, clipped / neurons, error, same)
