"""Training in the light that a network will run in: weights that few photons can tell apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.datasets import Split
from neuro.errors import ParameterError, UnsupportedNode
from neuro.graph import Graph, Input
from neuro.nodes import Affine, ReLU, Reshape
from neuro.training import Cosine, fit


def counted(photons: float) -> float | None:
    """`photons` of a plan as nodes take them: None, which draws no counts, where they are without number."""
    return None if photons == float("inf") else photons


class ShotNoiseLinear(nn.Module):
    """W x + b and the shot noise of a `MeshAffine`, as a Gaussian of the same deviation; drawn anew at every call.

    Var y = (max W - min W)^2 W~ x sum(x) / (photons inputs), with W~ = (W - min W) / (max W - min W), for x >= 0. Its
    gradient draws outliers in, for they set the scale on which counts are read.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, photons: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.photons = photons

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        low, high = self.weight.aminmax()
        light = F.linear(x, self.weight - low).clamp_min(0) * x.sum(-1, keepdim=True)
        variance = (high - low) * light / (self.photons * self.weight.shape[1])
        return y + torch.randn_like(y) * (variance + 1e-12).sqrt()


def trained_in_light(
    graph: Graph, data: Split, photons: float, *, epochs: int, seed: int = 0, learning_rate: float = 3e-3,
    batch_size: int = 100, threads: int | None = 1,
) -> Graph:  # fmt: skip
    """A dense network, trained on with the shot noise of `photons` per multiplication; a Graph of the same form.

    Wang et al. 2022 make their network robust too, but train with few bits in place of noise. Takes chains of `Affine`,
    `ReLU` and `Reshape`; raises UnsupportedNode for others, ParameterError for photons <= 0. The network that does best
    on validation samples, with noise, is kept. The learning rate was chosen on validation digits, of 1e-3 and 3e-3.
    """
    if not photons > 0:
        raise ParameterError(f"trained_in_light: photons must be > 0, got {photons}")
    layers: dict[str, nn.Module] = {}
    for name, node in graph.nodes.items():
        match node:
            case Input():
                continue
            case Affine():
                layers[name] = ShotNoiseLinear(node.weight, node.bias, photons)
            case ReLU():
                layers[name] = nn.ReLU()
            case Reshape() if len(graph.shapes[name]) == 1:
                layers[name] = nn.Flatten()
            case _:
                raise UnsupportedNode(
                    f"{node.kind} {name!r}: trained_in_light takes chains of Affine, ReLU and Reshape"
                )
    module = nn.Sequential(*layers.values())
    fit(module, data, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, schedule=Cosine(), seed=seed,
        threads=threads)  # fmt: skip
    learnt = {
        name: Affine(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
        for name, layer in layers.items()
        if isinstance(layer, ShotNoiseLinear)
    }
    return graph.edit(nodes={**graph.nodes, **learnt})
