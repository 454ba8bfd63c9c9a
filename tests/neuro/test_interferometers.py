"""Meshes of interferometers: unitary cells, every unitary matrix as phases, energy kept, and their size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.interferometers import (
    cell,
    cells_in,
    depth,
    interferometers_for,
    mesh,
    on_grid,
    phases_of,
    photon_energy,
    tiles_for,
)

ANGLES = st.floats(0, 2 * math.pi)


def unitary(seed: int, *shape: int, real: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    kind = torch.float64 if real else torch.complex128
    return torch.linalg.qr(torch.randn(*shape, shape[-1], dtype=kind, generator=generator))[0]


@given(theta=ANGLES, phi=ANGLES)
def test_a_cell_is_unitary_and_as_published(theta: float, phi: float) -> None:
    t = cell(torch.tensor(theta, dtype=torch.float64), torch.tensor(phi, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(t @ t.conj().T, np.eye(2), atol=1e-12)
    e, f = np.exp(1j * theta), np.exp(1j * phi)
    written = np.array([[f * (e - 1), 1j * f * (1 + e)], [1j * (e + 1), 1 - e]]) / 2
    np.testing.assert_allclose(t, written, atol=1e-12)


@given(modes=st.integers(1, 9), batch=st.integers(0, 3), real=st.booleans(), seed=st.integers(0, 1000))
def test_every_unitary_matrix_is_a_mesh(modes: int, batch: int, real: bool, seed: int) -> None:
    wanted = unitary(seed, batch, modes, real=real)
    cells, inputs = phases_of(wanted)
    assert cells.shape == (batch, cells_in(modes), 2)
    assert inputs.shape == (batch, modes)
    torch.testing.assert_close(mesh(cells, inputs), wanted.to(torch.complex128), rtol=0, atol=1e-12)
    if cells.numel():
        assert cells.min() >= 0
        assert cells[..., 0].max() <= math.pi
        assert cells.max() <= 2 * math.pi


@pytest.mark.parametrize("wanted", [torch.eye(5), -torch.eye(4).flip(0), torch.diag(torch.tensor([1.0, -1.0, 1.0]))])
def test_entries_that_are_zero_have_phases_too(wanted: Tensor) -> None:
    torch.testing.assert_close(mesh(*phases_of(wanted)).real, wanted.double(), rtol=0, atol=1e-12)


@given(modes=st.integers(2, 8), seed=st.integers(0, 1000))
def test_any_phases_keep_the_light(modes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    cells = 10 * torch.randn(cells_in(modes), 2, dtype=torch.float64, generator=generator)
    matrix = mesh(cells, torch.randn(modes, dtype=torch.float64, generator=generator))
    torch.testing.assert_close(matrix @ matrix.mH, torch.eye(modes, dtype=matrix.dtype), rtol=0, atol=1e-12)


def test_what_is_no_mesh_is_refused() -> None:
    with pytest.raises(ShapeError, match="square"):
        phases_of(torch.zeros(2, 3))
    with pytest.raises(ParameterError, match="not unitary"):
        phases_of(torch.full((3, 3), 0.5))
    with pytest.raises(ShapeError, match="3 modes"):
        mesh(torch.zeros(2, 2), torch.zeros(3))


def test_a_rectangle_is_as_deep_as_wide() -> None:
    assert [depth(modes) for modes in (1, 2, 3, 4, 9, 64)] == [0, 1, 3, 4, 9, 64]
    assert depth(784) == 784  # 0.1 dB each would be 78 dB
    assert interferometers_for(300, 784) == 352_086
    assert tiles_for(300, 784, 64) == 65
    assert interferometers_for(300, 784, 64) == 266_240


def test_photons_of_green_light() -> None:
    assert 0.64 * photon_energy(532e-9) == pytest.approx(2.39e-19, rel=2e-3)
    with pytest.raises(ParameterError, match="> 0 m"):
        photon_energy(0.0)


@given(bits=st.integers(1, 12), phase=ANGLES)
def test_phases_lie_on_their_grid(bits: int, phase: float) -> None:
    given_phase = torch.tensor(phase, dtype=torch.float64)
    held = on_grid(given_phase, bits)
    step = 2 * math.pi / 2**bits
    away = abs(float(held) - phase)
    assert min(away, 2 * math.pi - away) <= step / 2 + 1e-9
    assert 0 <= held < 2 * math.pi
    assert on_grid(held, bits) == held
    assert on_grid(given_phase, None) == given_phase
