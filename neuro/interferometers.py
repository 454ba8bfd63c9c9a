"""Meshes of Mach-Zehnder interferometers: every unitary matrix is one, and every matrix is two with a row between.

One interferometer (MZI) acts on two neighbouring modes. Its cell is, with s = sin(theta/2) and c = cos(theta/2),

    T = 1/2 [[e^{i phi} (e^{i theta} - 1), i e^{i phi} (1 + e^{i theta})], [i (e^{i theta} + 1), 1 - e^{i theta}]]
      = i e^{i theta/2} [[e^{i phi} s, e^{i phi} c], [c, -s]]

Shen et al. 2017 (arXiv 1610.02365) [recalled]. The mesh is the rectangle of Clements et al. 2016 (arXiv 1603.08788)
[recalled]: k columns of cells, k (k - 1) / 2 in all, and one phase at each input.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import pi

import torch
from torch import Tensor

from neuro.errors import ParameterError, ShapeError

PLANCK = 6.62607015e-34
"""J s; exact since 2019."""

LIGHT = 299_792_458.0
"""m/s; exact."""


def photon_energy(wavelength: float) -> float:
    """h c / wavelength, in joules for a wavelength in metres.

    >>> f"{0.64 * photon_energy(532e-9):.2e} J"
    '2.39e-19 J'
    """
    if not wavelength > 0:
        raise ParameterError(f"photon_energy: wavelength must be > 0 m, got {wavelength}")
    return PLANCK * LIGHT / wavelength


def cell(theta: Tensor, phi: Tensor) -> Tensor:
    """T of one interferometer, (..., 2, 2) for phases (...) in radians."""
    s, c = torch.sin(theta / 2), torch.cos(theta / 2)
    common = torch.polar(torch.ones_like(theta), (pi + theta) / 2)
    upper = common * torch.polar(torch.ones_like(phi), phi)
    return torch.stack((torch.stack((upper * s, upper * c), -1), torch.stack((common * c, -common * s), -1)), -2)


def cells_in(modes: int) -> int:
    """Interferometers in the mesh of a unitary matrix."""
    return modes * (modes - 1) // 2


def interferometers_for(outputs: int, inputs: int, tile: int | None = None) -> int:
    """Interferometers that hold an (outputs, inputs) matrix, attenuators among them.

    Untiled, one mesh for each side of the singular value decomposition and an attenuator for each singular value; in
    tiles of `tile` by `tile`, one for each weight of each tile.

    >>> interferometers_for(300, 784), interferometers_for(300, 784, tile=64)
    (352086, 266240)
    """
    if tile is None:
        return cells_in(outputs) + cells_in(inputs) + min(outputs, inputs)
    return tiles_for(outputs, inputs, tile) * (2 * cells_in(tile) + tile)


def tiles_for(outputs: int, inputs: int, tile: int) -> int:
    """Tiles of `tile` by `tile` that cover an (outputs, inputs) matrix.

    >>> tiles_for(300, 784, 64)
    65
    """
    return -(-outputs // tile) * -(-inputs // tile)


def _nulled(modes: int) -> Iterator[tuple[bool, int, int, int]]:
    """Clements et al. 2016, alg. 1: (from the right, row and column of the entry to null, upper mode of the cell)."""
    for diagonal in range(1, modes):
        for step in range(diagonal):
            if diagonal % 2:
                yield True, modes - 1 - step, diagonal - 1 - step, diagonal - 1 - step
            else:
                row = modes - diagonal + step
                yield False, row, step, row - 1


@cache
def _places(modes: int) -> tuple[tuple[int, ...], tuple[tuple[int, int, int], ...]]:
    """Where the cells of a mesh stand.

    The place of each cell of `_nulled` in the order of the light, and (upper mode of the first cell, first place,
    cells) of each column. Every cell stands in the first column where both its modes are free.
    """
    order = list(_nulled(modes))
    right = [number for number, (from_right, *_) in enumerate(order) if from_right]
    left = [number for number, (from_right, *_) in enumerate(order) if not from_right]
    free = [0] * modes
    stands = []
    for number in (*right, *reversed(left)):
        upper = order[number][3]
        column = max(free[upper], free[upper + 1])
        free[upper] = free[upper + 1] = column + 1
        stands.append((column, upper, number))
    stands.sort()
    places = [0] * len(order)
    columns: list[tuple[int, int, int]] = []
    for place, (column, upper, number) in enumerate(stands):
        places[number] = place
        if column == len(columns):
            columns.append((upper, place, 0))
        first, start, count = columns[column]
        if upper != first + 2 * count:
            raise AssertionError(f"a mesh of {modes} modes has a gap in column {column}")
        columns[column] = (first, start, count + 1)
    return tuple(places), tuple(columns)


def depth(modes: int) -> int:
    """Columns of cells that light passes in a mesh of so many modes."""
    return len(_places(modes)[1])


def phases_of(unitary: Tensor) -> tuple[Tensor, Tensor]:
    """Phases of the mesh that is `unitary` (..., k, k): of its cells (..., k (k - 1) / 2, 2), of its inputs (..., k).

    The cells stand in the order of the light, column by column; the last dimension holds theta in [0, pi] and phi in
    [0, 2 pi]. All matrices at once. Raises ShapeError for what is not square, ParameterError for what is not unitary.
    """
    if unitary.ndim < 2 or unitary.shape[-1] != unitary.shape[-2]:
        raise ShapeError(f"phases_of: needs square matrices, got {tuple(unitary.shape)}")
    modes = unitary.shape[-1]
    lead = unitary.shape[:-2]
    rest = unitary.to(torch.complex128).reshape(lead.numel(), modes, modes)
    identity = torch.eye(modes, dtype=rest.dtype)
    if rest.numel() and not float((rest @ rest.mH - identity).abs().max()) < 1e-6:
        raise ParameterError("phases_of: the matrix is not unitary; decompose it by singular values first")
    rest = rest.permute(1, 2, 0).contiguous()  # the many small matrices last: every step works on whole rows of memory
    places, _ = _places(modes)
    cells = torch.zeros(len(places), 2, rest.shape[-1], dtype=torch.float64)
    nulled = list(_nulled(modes))
    for place, (from_right, row, column, m) in zip(places, nulled, strict=True):
        if from_right:
            a, b = rest[row, m], rest[row, m + 1]
            theta, phi = 2 * torch.atan2(b.abs(), a.abs()), torch.angle(-b * a.conj())
        else:
            a, b = rest[m, column], rest[m + 1, column]
            theta, phi = 2 * torch.atan2(a.abs(), b.abs()), torch.angle(a * b.conj())
        t = cell(theta, phi).movedim(0, -1)
        if from_right:
            first, second = rest[:, m].clone(), rest[:, m + 1].clone()
            rest[:, m], rest[:, m + 1] = first * t[0, 0] + second * t[1, 0], first * t[0, 1] + second * t[1, 1]
        else:
            first, second = rest[m].clone(), rest[m + 1].clone()
            t = t.conj()
            rest[m], rest[m + 1] = t[0, 0] * first + t[1, 0] * second, t[0, 1] * first + t[1, 1] * second
        cells[place, 0], cells[place, 1] = theta, phi
    inputs = torch.angle(rest.diagonal().T.contiguous())
    # U = T_left D T_right^+ with D on the wrong side: D T(theta, phi)^+ = T(theta, phi') D'
    for place, (from_right, _, _, m) in reversed(list(zip(places, nulled, strict=True))):
        if from_right:
            theta, phi = cells[place].clone()
            cells[place, 1] = inputs[m] - inputs[m + 1]
            inputs[m + 1] = inputs[m + 1] + pi - theta
            inputs[m] = inputs[m + 1] - phi
    cells[:, 1] %= 2 * pi
    return cells.movedim(-1, 0).reshape(*lead, len(places), 2), (inputs % (2 * pi)).T.reshape(*lead, modes)


def mesh(cells: Tensor, inputs: Tensor) -> Tensor:
    """The matrix (..., k, k), complex, that a mesh applies to its input: the inverse of `phases_of`."""
    modes = inputs.shape[-1]
    if cells.shape != (*inputs.shape[:-1], cells_in(modes), 2):
        raise ShapeError(f"mesh: {modes} modes have cells (..., {cells_in(modes)}, 2), got {tuple(cells.shape)}")
    lead = inputs.shape[:-1]
    phases = cells.reshape(lead.numel(), cells_in(modes), 2).movedim(0, -1)
    entering = torch.polar(torch.ones_like(inputs), inputs).reshape(lead.numel(), modes).T
    field = torch.eye(modes, dtype=entering.dtype)[..., None] * entering
    for first, start, count in _places(modes)[1]:
        t = cell(phases[start : start + count, 0], phases[start : start + count, 1])[:, None]
        upper = field[first : first + 2 * count : 2].clone()
        lower = field[first + 1 : first + 2 * count : 2]
        mixed = t[..., 1, 0] * upper + t[..., 1, 1] * lower
        field[first : first + 2 * count : 2] = t[..., 0, 0] * upper + t[..., 0, 1] * lower
        field[first + 1 : first + 2 * count : 2] = mixed
    return field.movedim(-1, 0).reshape(*lead, modes, modes)


def on_grid(phases: Tensor, bits: int | None) -> Tensor:
    """The nearest of 2^bits evenly spaced phases in [0, 2 pi); the phases themselves where bits is None."""
    if bits is None:
        return phases
    levels = 2**bits
    return (phases * (levels / (2 * pi))).round() % levels * (2 * pi / levels)
