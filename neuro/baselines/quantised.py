"""The fair rival of a rate code: a network without spikes whose activations carry as many bits as T steps can tell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.baselines.networks import mlp
from neuro.baselines.standardise import Standardise
from neuro.errors import ParameterError
from neuro.graph import Graph, Input, Node, Shape
from neuro.nodes import Affine, Dequantise, Quantise, Requantise, Reshape

PIXEL = 1 / 255
"""Step of the input: the 8 bits in which a picture is stored."""


def bits_for(steps: int) -> int:
    """ceil(log2(T + 1)): a neuron that fires 0 to T times in T steps tells T + 1 numbers apart."""
    if steps < 1:
        raise ParameterError(f"bits_for: steps must be >= 1, got {steps}")
    return steps.bit_length()


def _rounded(x: Tensor) -> Tensor:
    """round(x), with the gradient of x: the straight-through estimator."""
    return x + (x.round() - x).detach()


class LearnedStep(nn.Module):
    """y = s clip(round(x / s), 0, 2^bits - 1), a ReLU of `bits` whose step s is learnt.

    Esser et al. 2020 (arXiv 1902.08153), eq. 1-3; the gradient of s is scaled by 1 / sqrt(N Q), sec. 2.2, and s starts
    at 2 mean(relu(x)) / sqrt(Q) of the first batch, with Q = 2^bits - 1 and N features.
    """

    step: nn.Parameter
    started: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        if not 1 <= bits <= 8:
            raise ParameterError(f"LearnedStep: bits must lie in 1..8, got {bits}")
        self.top = 2**bits - 1
        self.step = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("started", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not bool(self.started):
            with torch.no_grad():
                self.step.copy_(2 * x.relu().mean().clamp(min=1e-6) / math.sqrt(self.top))
                self.started.fill_(True)
        scale = 1 / math.sqrt(x[0].numel() * self.top)
        step = self.size()
        step = step * scale + (step - step * scale).detach()
        return step * _rounded((x / step).clamp(0, self.top))

    def size(self) -> Tensor:
        """The step, which stays positive whatever the optimizer does."""
        return self.step.abs().clamp(min=1e-8)


def quantised_weight(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Whole numbers (out, in) of `bits`, sign included, and the step of each row (out,): weight is about their product.

    Straight-through: the whole numbers carry the gradient of weight / step.
    """
    top = 2 ** (bits - 1) - 1
    step = weight.detach().abs().amax(1).clamp(min=1e-12) / top
    return _rounded(weight / step[:, None]), step


class QuantisedMLP(nn.Module):
    """`mlp(sizes)` with weights of `weight_bits` (per output), hidden activations of `activation_bits` and 8-bit inputs
    in [0, 1], trained as it will run: (batch, *features) -> (batch, classes). `integers_of` makes its Graph.

    `entry` standardises the pixels on their way to the first sums, which take it over in the end.
    """

    def __init__(
        self, sizes: Sequence[int], activation_bits: int, weight_bits: int = 8, entry: Standardise | None = None
    ) -> None:
        super().__init__()
        self.entry = Standardise(0.0, 1.0) if entry is None else entry
        if not 2 <= weight_bits <= 8:
            raise ParameterError(f"QuantisedMLP: weight_bits must lie in 2..8, got {weight_bits}")
        self.weight_bits = weight_bits
        linear = [part for part in mlp(sizes) if isinstance(part, nn.Linear)]
        self.linear = nn.ModuleList(linear)
        self.activations = nn.ModuleList(LearnedStep(activation_bits) for _ in linear[1:])

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry((x.flatten(1) / PIXEL).round().clamp(0, 255) * PIXEL)
        for layer, activation in self.layers():
            whole, step = quantised_weight(layer.weight, self.weight_bits)
            x = F.linear(x, whole * step[:, None], layer.bias)
            x = x if activation is None else activation(x)
        return x

    def layers(self) -> Iterator[tuple[nn.Linear, LearnedStep | None]]:
        """Every layer with what follows it; the last one with nothing."""
        for layer, activation in zip_longest(self.linear, self.activations):
            assert isinstance(layer, nn.Linear)
            assert activation is None or isinstance(activation, LearnedStep)
            yield layer, activation


def integers_of(module: QuantisedMLP, shape: Shape) -> Graph:
    """The network on whole numbers, for samples of `shape`: 32-bit sums, requantised after each hidden layer.

    It equals the module up to the rounding of its biases, to one step of the sums, and of ties.
    """
    nodes: dict[str, Node] = {"x": Input(shape), "pixels": Quantise(PIXEL, 0, 255)}
    if len(shape) > 1:
        nodes["flat"] = Reshape((math.prod(shape),))
    entry = module.entry
    unit = torch.tensor(PIXEL / entry.deviation, dtype=torch.float64)
    with torch.no_grad():
        for number, (layer, activation) in enumerate(module.layers()):
            whole, step = quantised_weight(layer.weight, module.weight_bits)
            sums = step.double() * unit
            bias = layer.bias.double()
            if number == 0:
                bias = bias - entry.mean / entry.deviation * step.double() * whole.double().sum(1)
            bias = (bias / sums).round().to(torch.int32)
            nodes[f"layer{number}"] = Affine(whole.to(torch.int32), bias)
            if activation is None:
                nodes["logits"] = Dequantise(sums)
            else:
                unit = activation.size().double()
                nodes[f"activation{number}"] = Requantise(sums / unit, 0, activation.top)
    names = list(nodes)
    return Graph(nodes, {name: (before,) for before, name in pairwise(names)}, "quantised")
