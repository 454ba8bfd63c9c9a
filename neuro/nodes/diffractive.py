"""Light that passes thin layers, one behind the other, and bends on its way between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Shape, Stateless
from neuro.nodes.photonic import check_light, poisson


def free_space(grid: int, pitch: float, distance: float, wavelength: float) -> Tensor:
    """Transfer function exp(2 pi i z sqrt(1 / wavelength^2 - f^2)) of the way between two planes, (grid, grid).

    Angular spectrum: Goodman, Introduction to Fourier Optics, sec. 3.10 [recalled]. The planes have `grid` by `grid`
    points of `pitch`, repeated without end; lengths in metres. Waves finer than the wavelength fade on the way.
    """
    f = torch.fft.fftfreq(grid, pitch, dtype=torch.float64)
    along = torch.sqrt((wavelength**-2 - f[:, None] ** 2 - f**2).to(torch.complex128))
    return torch.exp(2j * math.pi * distance * along)


def propagate(field: Tensor, transfer: Tensor) -> Tensor:
    """P_z u = F^-1(F(u) * transfer) for fields (..., grid, grid)."""
    return torch.fft.ifft2(torch.fft.fft2(field) * transfer)


def through(field: Tensor, phase: Tensor, transfer: Tensor) -> Tensor:
    """u <- P_z(u) e^{i phase} for each layer of `phase` (layers, grid, grid), and P_z once more to the detectors."""
    for layer in phase:
        field = propagate(field, transfer) * torch.polar(torch.ones_like(layer), layer)
    return propagate(field, transfer)


def detected(field: Tensor, masks: Tensor) -> Tensor:
    """sum of |u|^2 on each detector, (batch, classes), for fields (batch, grid, grid) and `detectors`."""
    intensity = field.real.square() + field.imag.square()
    return intensity.flatten(1) @ masks.flatten(1).T.to(intensity.dtype)


def detectors(classes: int, grid: int) -> Tensor:
    """One square for each class on a plane of grid x grid, in rows of about equal numbers: bool (classes, grid, grid).

    Raises ParameterError where they do not fit.
    """
    rows = max(1, round(math.sqrt(classes)))
    in_row = [classes // rows + (row < classes % rows) for row in range(rows)]
    side = grid // (2 * max(rows, *in_row)) + 1
    if side * max(rows, *in_row) > grid:
        raise ParameterError(f"detectors: {classes} squares do not fit on {grid} x {grid} points; use more points")
    masks = torch.zeros(classes, grid, grid, dtype=torch.bool)
    centres = ((row, place, count) for row, count in enumerate(in_row) for place in range(count))
    for mask, (row, place, count) in zip(masks, centres, strict=True):
        top = round((row + 0.5) * grid / rows - side / 2)
        left = round((place + 0.5) * grid / count - side / 2)
        mask[top : top + side, left : left + side] = True
    return masks


def centred(image: Tensor, grid: int) -> Tensor:
    """Images (..., height, width) in the middle of dark planes of grid x grid."""
    height, width = image.shape[-2:]
    plane = image.new_zeros(*image.shape[:-2], grid, grid)
    top, left = (grid - height) // 2, (grid - width) // 2
    plane[..., top : top + height, left : left + width] = image
    return plane


@dataclass(frozen=True, eq=False)
class Diffractive(Stateless):
    """Light of amplitude x passes `layers` of phases; y_c is the intensity on the detector of class c.

    u_0 = x; u_l = P_z(u_{l-1}) e^{i phase_l} for l = 1..layers; y_c = sum over detector c of |P_z u_layers|^2.
    Diffractive deep neural network: Lin et al. 2018 (arXiv 1804.08711) [recalled]; P_z is `free_space` over
    `distance`. `phase` (layers, grid, grid) in radians; lengths in metres. `pitch` is at least wavelength / sqrt(2), so
    that every wave of the plane travels and no energy is lost. Takes images (1, height, width), placed in the middle.
    `photons` per pixel at full brightness: counts ~ Poisson(photons y), and y is counts / photons. None: no shot noise.
    """

    phase: Tensor
    classes: int
    pitch: float
    distance: float
    wavelength: float
    photons: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.phase.ndim != 3 or self.phase.shape[1] != self.phase.shape[2] or 0 in self.phase.shape:
            raise ParameterError(f"Diffractive: phase must be (layers, grid, grid), got {tuple(self.phase.shape)}")
        for name in ("pitch", "distance", "wavelength"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ParameterError(f"Diffractive: {name} must be finite and > 0 m, got {getattr(self, name)}")
        if self.pitch < self.wavelength / math.sqrt(2) * (1 - 1e-9):
            least = f"{self.wavelength / math.sqrt(2):.4g}"
            raise ParameterError(f"Diffractive: pitch must be at least wavelength / sqrt(2) = {least} m")
        detectors(self.classes, self.grid)
        check_light(self, self.photons, self.seed)

    @property
    def grid(self) -> int:
        return self.phase.shape[1]

    @cached_property
    def transfer(self) -> Tensor:
        return free_space(self.grid, self.pitch, self.distance, self.wavelength).to(torch.complex64)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if len(shape) != 3 or shape[0] != 1 or max(shape) > self.grid:
            raise ShapeError(f"Diffractive: {self.grid} x {self.grid} points cannot show features of shape {shape}")
        return (self.classes,)

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return torch.float32

    def behind(self, x: Tensor) -> Tensor:
        """The field on the plane of the detectors, complex (batch, grid, grid), for images (batch, 1, ...)."""
        return through(centred(x[:, 0].float(), self.grid).to(torch.complex64), self.phase, self.transfer)

    def forward(self, *inputs: Tensor) -> Tensor:
        y = detected(self.behind(inputs[0]), detectors(self.classes, self.grid))
        return y if self.photons is None else (poisson(self.photons * y, self.seed) / self.photons).float()
