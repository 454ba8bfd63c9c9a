"""Sigma-delta: every neuron sends quantised changes of its activation, so what stays the same costs nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from converters.calibrate import activations, by_channel, check_calibration
from converters.convert import apply
from converters.legalise import is_activation
from converters.scales import channel_shape, channel_vector, compressed
from converters.spiking import absorb_scales
from neuro.errors import ParameterError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph, Input, Node, Shape
from neuro.nodes import (
    Affine,
    Clamp,
    Conv,
    ConvTranspose,
    Delta,
    MaxCount,
    MaxPool,
    Pad,
    Scale,
    Sigma,
    SigmaDeltaReLU,
)
from neuro.rewrite import Builder, append, rebuild


@dataclass(frozen=True)
class SigmaDelta:
    """For streams of frames, x (frames, batch, *features): one simulation step is one frame.

    Every reader knows the activation of a neuron to less than `threshold` times its range, at every frame; the read-out
    holds the logits of the newest frame (`record=["outputs"]` those of all frames). Where nothing changes there are no
    events. The range is the largest activation of the channel on calibration data; an event carries `bits` bits, its
    sign included, and reaches 1 + margin ranges: what is larger takes several frames. Biases enter once. The input is
    sent as changes too. A chip that pipelines its layers answers `depth` ticks later. Lava's sigma-delta processes;
    Brehove et al. 2025 (Loihi 2) [recalled].
    """

    threshold: float = 1 / 32
    bits: int = 8
    margin: float = 1.0
    per_channel: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 2 <= self.bits <= 24:
            raise ParameterError(f"SigmaDelta: bits must be an integer in 2..24, got {self.bits!r}")
        if not 0 <= self.margin < math.inf:
            raise ParameterError(f"SigmaDelta: margin must be >= 0, got {self.margin}")
        if not self.unit < 2 * self.threshold <= 2:
            raise ParameterError(
                f"SigmaDelta: threshold must lie in ({self.unit / 2:.2g}, 1] ranges with {self.bits} bits and margin "
                f"{self.margin}, got {self.threshold}"
            )

    @property
    def levels(self) -> int:
        """The largest number that an event carries."""
        return 2 ** (self.bits - 1) - 1

    @property
    def unit(self) -> float:
        """What an event counts in, in ranges."""
        return (1 + self.margin) / self.levels


@apply.register
def _(recipe: SigmaDelta, plain: Graph, calibration: Tensor | None) -> Graph:
    x = check_calibration(plain, calibration)
    largest = activations(plain, x, lambda _, value: value.amax(0, keepdim=True))
    constant = _constant_parts(plain)
    _check_pools(plain, constant)

    def rule(builder: Builder, name: str) -> object:
        node, shape = plain.nodes[name], plain.shapes[name]
        if isinstance(node, Input):
            theta, step = _units(recipe, x.abs().max().reshape(1), shape)
            sender = builder.add(f"{name}.changes", Delta(theta, step, recipe.levels), (builder.keep(name),))
        elif is_activation(node):
            theta, step = _units(recipe, by_channel(largest[name], recipe.per_channel).amax(1), shape)
            v0 = compressed(constant[plain.sources[name][0]])
            high = node.high if isinstance(node, Clamp) else math.inf
            sender = builder.keep(name, SigmaDeltaReLU(v0, theta, step, recipe.levels, high))
            builder.note(name, node.kind, "SigmaDeltaReLU", "activation replaced by neurons")
        else:
            return builder.keep(name, _of_changes(node))
        builder.alias[name] = builder.add(f"{name}.scale", Scale(step), (sender,))
        return None

    graph = append(rebuild(plain, rule), "readout", Sigma(constant[plain.output]))
    return absorb_scales(graph.edit(name=f"{plain.name}, sigma-delta"))


def _units(recipe: SigmaDelta, widest: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Threshold and unit of the events for channels that reach `widest`; a silent one gets the widest of its layer."""
    overall = widest.max()
    widest = channel_shape(torch.where(widest > 0, widest, overall if overall > 0 else torch.tensor(1.0)), shape)
    return recipe.threshold * widest, recipe.unit * widest


def _of_changes(node: Node) -> Node:
    """The node on changes of its input: constants have no changes, and the largest value is that of the sums."""
    if isinstance(node, MaxPool):
        return MaxCount(node.kernel, node.stride, node.padding, node.ceil)
    if isinstance(node, Affine | Conv | ConvTranspose):
        return replace(node, bias=None)
    if isinstance(node, Scale):
        return replace(node, offset=None)
    if isinstance(node, Pad):
        return replace(node, value=0.0)
    return node


def _constant_parts(plain: Graph) -> dict[str, Tensor]:
    """What leaves every node while input and activations are 0: what biases and paddings add, (*features)."""
    silenced = {name: Scale(torch.tensor(0.0)) if is_activation(node) else node for name, node in plain.nodes.items()}
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        evaluate(
            plain.edit(nodes=silenced),
            torch.zeros(1, *plain.shapes[plain.inputs[0]]),
            observe=lambda name, value: found.update({name: value[0]}),
        )
    return found


def _check_pools(plain: Graph, constant: Mapping[str, Tensor]) -> None:
    """A maximum over the sums of changes is right where all values of its window have the same constant part."""
    refused = [
        f"  {name!r}: MaxPool of sums whose biases differ within a channel; put an activation before it"
        for name, node in plain.nodes.items()
        if isinstance(node, MaxPool) and channel_vector(constant[plain.sources[name][0]]) is None
    ]
    if refused:
        raise UnsupportedNode(f"{plain.name!r}: {len(refused)} node(s) cannot be converted:\n" + "\n".join(refused))
