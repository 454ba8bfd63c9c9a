"""Light that multiplies: meshes of interferometers, and media whose intensities are read. Fields are in units of x."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Node, Shape, Stateless
from neuro.interferometers import cell, cells_in, mesh, on_grid


def generator_of(*numbers: int) -> torch.Generator:
    """A generator of its own for every sequence of numbers >= 0, e.g. a seed and what it is for."""
    (state,) = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


FABRICATION, DETECTION = 0, 1
"""What a seed draws: what is fixed when a device is made, and every count of photons."""


def check_light(node: Node, photons: float | None, seed: int) -> None:
    """ParameterError where a node has no light or no seed."""
    if photons is not None and not (photons > 0 and math.isfinite(photons)):
        raise ParameterError(f"{node.kind}: photons must be finite and > 0, or None for no shot noise, got {photons}")
    if seed < 0:
        raise ParameterError(f"{node.kind}: seed must be >= 0, got {seed}")


def poisson(mean: Tensor, seed: int) -> Tensor:
    """Counts of photons whose mean numbers are given: shot noise. The same seed and shape draw the same numbers."""
    return torch.poisson(mean.double(), generator=generator_of(seed, DETECTION))


@dataclass(frozen=True, eq=False)
class MeshAffine(Stateless):
    """y = W x + b, with W in tiles of k by k, each of which light passes: W_tile = gain Re(U A V).

    V and U are meshes of Mach-Zehnder interferometers (`neuro.interferometers`), A attenuators between them, each one
    more interferometer of which one way out is dark. Shen et al. 2017 (arXiv 1610.02365) [recalled].

    `phases` (rows, columns, k^2, 2): theta and phi of the cells of V, of A, of U, in the order of the light;
    `input_phases` (rows, columns, k); `gain` (rows, columns) of the detectors, whose partial sums add up digitally;
    bias (outputs,) or None. The device holds phases that are rounded to `phase_bits` and then off by a Gaussian error
    of deviation `phase_noise` [rad], drawn once from `seed`: a made device stays as it is.

    Shot noise: with W~ = (W - min W) / (max W - min W) and an exposure e = photons * inputs / sum(x), at which every
    multiplication gets `photons` on average, counts ~ Poisson(e W~ x) and

        y = (max W - min W) counts / e + min(W) sum(x) + b

    as in Wang et al. 2022 (Nat. Commun. 13:123), by their simulation (mcmahon-lab/ONN-QAT-SQL). The counts of a row of
    tiles add up to one Poisson count. It needs x >= 0. One call draws all its counts from `seed`, so that equal batches
    give equal results. None: no shot noise.
    """

    phases: Tensor
    input_phases: Tensor
    gain: Tensor
    inputs: int
    outputs: int
    bias: Tensor | None = None
    phase_bits: int | None = None
    phase_noise: float = 0.0
    photons: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        rows, columns, tile = self.input_phases.shape if self.input_phases.ndim == 3 else (0, 0, 0)
        if not tile or self.phases.shape != (rows, columns, tile**2, 2) or self.gain.shape != (rows, columns):
            raise ParameterError(
                "MeshAffine: phases must be (rows, columns, k^2, 2), input_phases (rows, columns, k) and gain "
                f"(rows, columns), got {tuple(self.phases.shape)}, {tuple(self.input_phases.shape)}, "
                f"{tuple(self.gain.shape)}"
            )
        for name, size, tiles in (("outputs", self.outputs, rows), ("inputs", self.inputs, columns)):
            if not (tiles - 1) * tile < size <= tiles * tile:
                raise ParameterError(f"MeshAffine: {tiles} tiles of {tile} do not fit {size} {name}")
        if self.bias is not None and self.bias.shape != (self.outputs,):
            raise ParameterError(f"MeshAffine: bias must have shape ({self.outputs},), got {tuple(self.bias.shape)}")
        if self.phase_bits is not None and not 1 <= self.phase_bits <= 32:
            raise ParameterError(f"MeshAffine: phase_bits must lie in 1..32 or be None, got {self.phase_bits}")
        if not (self.phase_noise >= 0 and math.isfinite(self.phase_noise)):
            raise ParameterError(f"MeshAffine: phase_noise must be finite and >= 0 rad, got {self.phase_noise}")
        check_light(self, self.photons, self.seed)

    @property
    def tile(self) -> int:
        """k: inputs and outputs of a tile."""
        return self.input_phases.shape[2]

    @property
    def tiles(self) -> int:
        return self.gain.numel()

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not shape or shape[-1] != self.inputs:
            raise ShapeError(f"MeshAffine: {self.inputs} inputs cannot take features of shape {shape}")
        return (*shape[:-1], self.outputs)

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return torch.float32

    def held(self) -> tuple[Tensor, Tensor]:
        """The phases that the device has, in the shapes of `phases` and `input_phases`."""
        generator = generator_of(self.seed, FABRICATION)

        def made(wanted: Tensor) -> Tensor:
            error = torch.randn(wanted.shape, generator=generator, dtype=torch.float64)
            return on_grid(wanted.double(), self.phase_bits) + self.phase_noise * error

        return made(self.phases), made(self.input_phases)

    @cached_property
    def weight(self) -> Tensor:
        """W (outputs, inputs), float64, as the light meets it."""
        phases, entering = self.held()
        tile, cells = self.tile, cells_in(self.tile)
        before, between, behind = phases.split((cells, tile, cells), dim=2)
        v, u = mesh(torch.stack((before, behind)), torch.stack((entering, torch.zeros_like(entering))))
        passing = cell(between[..., 0], between[..., 1])[..., 0, 0]
        tiles = self.gain[..., None, None] * (u @ (passing[..., None] * v)).real
        return tiles.transpose(1, 2).flatten(2).flatten(0, 1)[: self.outputs, : self.inputs].contiguous()

    def lit(self, photons: float | None) -> MeshAffine:
        """The very same device under other light."""
        same = replace(self, photons=photons)
        vars(same)["weight"] = self.weight
        return same

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        if self.photons is None:
            return F.linear(x.float(), self.weight.float(), None if self.bias is None else self.bias.float())
        if x.numel() and float(x.min()) < 0:
            raise ParameterError(f"MeshAffine: light has no negative intensity; the least input is {float(x.min()):g}")
        x = x.double()
        low, high = self.weight.aminmax()
        total = x.sum(-1, keepdim=True)
        # an equal exposure: a faint sample is shown for longer
        exposure = self.photons * self.inputs / total.clamp_min(torch.finfo(torch.float32).tiny)
        counts = poisson(exposure * F.linear(x, (self.weight - low) / (high - low).clamp_min(1e-300)), self.seed)
        y = (high - low) * counts / exposure + low * total
        return (y if self.bias is None else y + self.bias).float()


@dataclass(frozen=True, eq=False)
class ScatteredIntensity(Stateless):
    """y = |S x|^2: light of amplitudes x passes a scattering medium, and detectors see intensities.

    S (outputs, inputs) is complex Gaussian, each entry of mean 0 and mean square 1 / outputs, so that the light is kept
    on average. It is drawn from `seed` and nothing stores it: the medium is the matrix. Saade et al. 2016 (arXiv
    1510.06664) [recalled]. `photons` per multiplication at full brightness (x = 1): counts ~ Poisson(photons outputs
    |S x|^2), and y is counts / (photons outputs). None: no shot noise.
    """

    inputs: int
    outputs: int
    photons: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.inputs, self.outputs) < 1:
            raise ParameterError(f"ScatteredIntensity: needs inputs and outputs, got {self.inputs}, {self.outputs}")
        check_light(self, self.photons, self.seed)

    @cached_property
    def medium(self) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of S, each (outputs, inputs), float32."""
        shape = (2, self.outputs, self.inputs)
        real, imaginary = torch.randn(shape, generator=generator_of(self.seed, FABRICATION)) / (2 * self.outputs) ** 0.5
        return real, imaginary

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if shape != (self.inputs,):
            raise ShapeError(f"ScatteredIntensity: {self.inputs} inputs cannot take features of shape {shape}")
        return (self.outputs,)

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return torch.float32

    def forward(self, *inputs: Tensor) -> Tensor:
        x = inputs[0].float()
        real, imaginary = self.medium
        y = F.linear(x, real).square() + F.linear(x, imaginary).square()
        if self.photons is None:
            return y
        exposure = self.photons * self.outputs
        return (poisson(exposure * y, self.seed) / exposure).float()
