"""Diffractive deep neural network: printed layers of phases that are trained, and nothing but light behind them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neuro.baselines.rival import Plan, Rival, Trained
from neuro.baselines.shot_noise import counted
from neuro.datasets import Split
from neuro.errors import ParameterError
from neuro.graph import Graph, Input
from neuro.nodes import Diffractive
from neuro.nodes.diffractive import centred, detected, detectors, free_space, through
from neuro.training import accuracy, fit

LAYERS = 5
MARGIN = 4
"""Dark points beside the image, in all."""

# distance, gain and learning rate were chosen on validation digits, of 80, 160 and 320 µm, 20 and 40, 0.05 and 0.1
WAVELENGTH = 532e-9
PITCH = 1e-6
DISTANCE = 160e-6
GAIN = 40.0
LEARNING_RATE = 0.1


class DiffractiveNetwork(nn.Module):
    """The layers of a `Diffractive` node while they learn: (batch, 1, height, width) -> (batch, classes).

    Scores are `gain` times the share of each detector in the light on all of them. The node gives the light itself,
    whose largest is the same.
    """

    transfer: Tensor
    masks: Tensor

    def __init__(
        self, grid: int, classes: int, *, layers: int = LAYERS, distance: float = DISTANCE, gain: float = GAIN
    ) -> None:
        super().__init__()
        self.distance, self.gain = distance, gain
        self.phase = nn.Parameter(2 * math.pi * torch.rand(layers, grid, grid))
        transfer = free_space(grid, PITCH, distance, WAVELENGTH).to(torch.complex64)
        self.register_buffer("transfer", transfer, persistent=False)
        self.register_buffer("masks", detectors(classes, grid), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        field = centred(x[:, 0], self.phase.shape[1]).to(torch.complex64)
        light = detected(through(field, self.phase, self.transfer), self.masks)
        return self.gain * light / light.sum(1, keepdim=True).clamp_min(torch.finfo(light.dtype).tiny)

    def node(self, photons: float | None = None, seed: int = 0) -> Diffractive:
        phase = self.phase.detach() % (2 * math.pi)
        return Diffractive(phase, len(self.masks), PITCH, self.distance, WAVELENGTH, photons, seed)


def _diffractive(data: Split, seed: int, plan: Plan) -> Trained:
    if len(data.features) != 3 or data.features[0] != 1:
        raise ParameterError(f"diffractive: needs images of one channel, {data.name!r} has features {data.features}")
    grid = max(data.features) + MARGIN
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = DiffractiveNetwork(grid, len(data.classes))
    own = {"optimizer": "adamw", "learning_rate": LEARNING_RATE, "weight_decay": 0.0}
    fit(module, data, **(plan.training(seed) | own))
    nodes = {"image": Input(data.features), "layers": module.node(counted(plan.photons), seed)}
    graph = Graph(nodes, {"layers": ("image",)}, "diffractive network")
    note = (
        f"{LAYERS} printed layers of {grid} x {grid} points, {PITCH * 1e6:g} µm apart in a plane, planes "
        f"{DISTANCE * 1e6:g} µm apart, {WAVELENGTH * 1e9:g} nm, {plan.photons:g} photons a pixel at full brightness. "
        "Nothing but the detectors is not linear."
    )
    return Trained(graph, accuracy(graph, data.validation_x, data.validation_y), (note,), {"grid": grid})


DIFFRACTIVE = Rival("diffractive network", _diffractive, family="photonic")
