"""Random changes of training images that leave their class alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.errors import ParameterError, ShapeError

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""(batch, channels, height, width) and a CPU generator in, images of the same shape out."""


def random_affine(*, shift: float = 0.0, degrees: float = 0.0, scale: float = 0.0) -> Augment:
    """Shift each image by up to `shift` pixels, turn it by up to `degrees`, zoom it by a factor in 1 -+ `scale`.

    Every image draws its own four numbers, uniformly. Bilinear interpolation, zeros from outside, as
    `torch.nn.functional.affine_grid` and `grid_sample` define them. Raises ParameterError for negative amounts or
    scale >= 1, and ShapeError when called on anything but (batch, channels, height, width).
    """
    for name, amount in (("shift", shift), ("degrees", degrees), ("scale", scale)):
        if not (math.isfinite(amount) and amount >= 0):
            raise ParameterError(f"random_affine: {name} must be finite and >= 0, got {amount}")
    if scale >= 1:
        raise ParameterError(f"random_affine: scale must be below 1, got {scale}")

    def augment(x: Tensor, generator: torch.Generator) -> Tensor:
        if x.ndim != 4:
            raise ShapeError(f"random_affine takes (batch, channels, height, width), got {tuple(x.shape)}")
        height, width = x.shape[2:]
        angle, zoom, right, down = 2 * torch.rand(4, x.shape[0], generator=generator) - 1
        angle = angle * math.radians(degrees)
        zoom = 1 + zoom * scale
        # affine_grid maps output to input coordinates in [-1, 1]: one pixel of width is 2 / width; height / width keeps
        # a turn a turn where the image is not square.
        cosine, sine = angle.cos() / zoom, angle.sin() / zoom
        rows = torch.stack((cosine, sine * height / width, right * shift * 2 / width), 1)
        columns = torch.stack((-sine * width / height, cosine, down * shift * 2 / height), 1)
        theta = torch.stack((rows, columns), 1).to(x)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)

    return augment


@dataclass(frozen=True)
class ShiftFlip:
    """Shift each image by whole pixels, up to `shift` in each direction, zeros from outside; mirror every second one.

    Every image draws for itself. `flip`: whether images are mirrored, left for right. The usual augmentation of CIFAR
    (He et al. 2016, sec. 4.2, with shift=4). Raises ParameterError for a negative shift, ShapeError when called on
    anything but (batch, channels, height, width).
    """

    shift: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.shift, bool) or not isinstance(self.shift, int) or self.shift < 0:
            raise ParameterError(f"ShiftFlip: shift must be a whole number of pixels >= 0, got {self.shift!r}")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if x.ndim != 4:
            raise ShapeError(f"ShiftFlip takes (batch, channels, height, width), got {tuple(x.shape)}")
        batch, _, height, width = x.shape
        down, right = torch.randint(0, 2 * self.shift + 1, (2, batch, 1), generator=generator)
        mirrored = (torch.rand(batch, 1, generator=generator) < 0.5) & self.flip
        columns = torch.arange(width).expand(batch, -1)
        columns = torch.where(mirrored, columns.flip(1), columns) + right
        rows = torch.arange(height) + down
        padded = F.pad(x, (self.shift,) * 4)
        image = torch.arange(batch)[:, None, None]
        return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
