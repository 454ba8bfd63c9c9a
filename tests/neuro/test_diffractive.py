"""Diffraction: propagation against a direct sum and a Gaussian beam, energy, detectors, and a network that learns."""

from __future__ import annotations

import cmath
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuro import datasets
from neuro.baselines.diffractive import DIFFRACTIVE, DiffractiveNetwork
from neuro.baselines.rival import Plan
from neuro.errors import ParameterError, ShapeError
from neuro.files import load, save
from neuro.graph import Graph, Input
from neuro.nodes import Diffractive
from neuro.nodes.diffractive import centred, detectors, free_space, propagate
from neuro.simulate import simulate

WAVELENGTH, PITCH = 0.5, 0.6


def field(grid: int, seed: int = 0, batch: int = 1) -> Tensor:
    return torch.randn(batch, grid, grid, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def layers(grid: int = 12, count: int = 2, classes: int = 4, **other: float) -> Diffractive:
    phase = 2 * math.pi * torch.rand(count, grid, grid, generator=torch.Generator().manual_seed(1))
    return replace(Diffractive(phase, classes, PITCH, 5.0, WAVELENGTH), **other)  # type: ignore[arg-type]


def directly(u: Tensor, distance: float) -> Tensor:
    """The same as plane waves, summed one by one: no transform, no library."""
    grid = len(u)
    found = [[0j] * grid for _ in range(grid)]
    for p in range(grid):
        for q in range(grid):
            # frequencies above half a period per point are negative ones
            fx, fy = ((k - grid if 2 * k >= grid else k) / (grid * PITCH) for k in (p, q))
            amplitude = sum(
                complex(u[x, y]) * cmath.exp(-2j * math.pi * (p * x + q * y) / grid)
                for x in range(grid)
                for y in range(grid)
            )
            passed = amplitude * cmath.exp(2j * math.pi * distance * cmath.sqrt(WAVELENGTH**-2 - fx**2 - fy**2))
            for x in range(grid):
                for y in range(grid):
                    found[x][y] += passed * cmath.exp(2j * math.pi * (p * x + q * y) / grid) / grid**2
    return torch.tensor(found, dtype=torch.complex128)


@pytest.mark.parametrize("grid", [4, 5])
def test_propagation_is_the_sum_of_plane_waves(grid: int) -> None:
    u = field(grid)
    found = propagate(u, free_space(grid, PITCH, 3.7, WAVELENGTH))[0]
    torch.testing.assert_close(found, directly(u[0], 3.7), rtol=0, atol=1e-12)


@given(grid=st.integers(2, 20), distance=st.floats(0.01, 500), seed=st.integers(0, 100))
def test_propagation_keeps_the_energy_and_runs_back(grid: int, distance: float, seed: int) -> None:
    u = field(grid, seed, batch=2)
    way = free_space(grid, PITCH, distance, WAVELENGTH)
    passed = propagate(u, way)
    torch.testing.assert_close(passed.abs().square().sum((1, 2)), u.abs().square().sum((1, 2)), rtol=1e-12, atol=0)
    torch.testing.assert_close(propagate(passed, way.conj()), u, rtol=0, atol=1e-11)
    halves = propagate(propagate(u, free_space(grid, PITCH, distance / 2, WAVELENGTH)),
                       free_space(grid, PITCH, distance / 2, WAVELENGTH))  # fmt: skip
    torch.testing.assert_close(halves, passed, rtol=0, atol=1e-9)


def test_waves_finer_than_the_wavelength_fade() -> None:
    faint = propagate(field(8), free_space(8, WAVELENGTH / 4, 1.0, WAVELENGTH)).abs().square().sum()
    assert faint < 0.5 * field(8).abs().square().sum()


@pytest.mark.parametrize("distance", [100.0, 300.0])
def test_a_gaussian_beam_widens_as_it_must(distance: float) -> None:
    """w(z) = w0 sqrt(1 + (z / z_R)^2), z_R = pi w0^2 / wavelength (Siegman, Lasers, ch. 17)."""
    grid, waist = 128, 6.0
    place = (torch.arange(grid, dtype=torch.float64) - grid / 2) * PITCH
    squared = place[:, None] ** 2 + place**2
    beam = torch.exp(-squared / waist**2).to(torch.complex128)
    intensity = propagate(beam, free_space(grid, PITCH, distance, WAVELENGTH)).abs().square()
    width = math.sqrt(2 * float((intensity * squared).sum() / intensity.sum()))
    rayleigh = math.pi * waist**2 / WAVELENGTH
    assert width == pytest.approx(waist * math.sqrt(1 + (distance / rayleigh) ** 2), rel=0.01)


def test_layers_keep_the_energy() -> None:
    node, x = layers(), torch.rand(3, 1, 8, 10)
    energy = node.behind(x).abs().square().sum((1, 2))
    torch.testing.assert_close(energy, x.square().sum((1, 2, 3)), rtol=1e-4, atol=0)
    y = node.forward(x)
    assert y.shape == (3, 4)
    assert bool((y >= 0).all())
    assert bool((y.sum(1) < energy).all())
    torch.testing.assert_close(node.forward(2 * x), 4 * y, rtol=1e-4, atol=1e-6)


def test_each_layer_is_a_way_and_a_phase() -> None:
    node, x = layers(grid=6, count=1, classes=2), torch.rand(1, 1, 6, 6)
    middle = directly(x[0, 0].to(torch.complex128), 5.0) * torch.exp(1j * node.phase[0].double())
    behind = directly(middle, 5.0)
    torch.testing.assert_close(node.behind(x)[0], behind.to(torch.complex64), rtol=0, atol=1e-4)
    squares = detectors(2, 6)
    expected = torch.stack([behind.abs().square()[mask].sum() for mask in squares])
    torch.testing.assert_close(node.forward(x)[0].double(), expected, rtol=1e-4, atol=1e-5)


@given(classes=st.integers(1, 30), grid=st.integers(10, 60))
def test_detectors_are_alike_and_apart(classes: int, grid: int) -> None:
    masks = detectors(classes, grid)
    areas = masks.flatten(1).sum(1)
    assert len(masks) == classes
    assert int(areas.min()) == int(areas.max()) > 0
    assert int(masks.sum(0).max()) == 1


def test_images_stand_in_the_middle() -> None:
    plane = centred(torch.ones(2, 4, 2), 8)
    assert plane.shape == (2, 8, 8)
    assert float(plane[:, 2:6, 3:5].sum()) == float(plane.sum()) == 16


def test_detectors_count_photons() -> None:
    node, x = layers(photons=200.0, seed=3), torch.rand(1, 1, 8, 8)
    mean = 200 * replace(node, photons=None).forward(x)[0].double()
    counts = 200 * node.forward(x.expand(4000, -1, -1, -1)).double()
    assert float((counts - counts.round()).abs().max()) < 1e-2
    torch.testing.assert_close(counts.mean(0), mean, rtol=0.02, atol=0)
    torch.testing.assert_close(counts.var(0), mean, rtol=0.12, atol=0)


def test_counts_and_files(tmp_path: Path) -> None:
    graph = Graph({"image": Input((1, 8, 8)), "light": layers(photons=10.0)}, {"light": ("image",)})
    x = torch.rand(5, 1, 8, 8)
    run = simulate(graph, x)
    per_sample = {
        name: run.counts.per_sample(name) for name in ("modulations", "detections", "photons", "optical_macs")
    }
    assert per_sample == {"modulations": 64, "detections": 4, "photons": 640, "optical_macs": 2 * 144}
    assert run.counts.total.phase_symbols == run.counts.total.macs == 0
    save(graph, tmp_path / "light.h5")
    assert torch.equal(simulate(load(tmp_path / "light.h5"), x).outputs, run.outputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phase": torch.zeros(4, 4)}, "layers, grid, grid"),
        ({"pitch": WAVELENGTH / 2}, "pitch must be at least"),
        ({"distance": 0.0}, "distance must be finite"),
        ({"wavelength": math.nan}, "wavelength must be finite"),
        ({"classes": 200}, "do not fit"),
        ({"photons": -1.0}, "photons"),
    ],
)
def test_bad_layers_are_refused_at_birth(change: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        replace(layers(), **change)  # type: ignore[arg-type]


def test_images_that_do_not_fit() -> None:
    for shape in ((8, 8), (3, 8, 8), (1, 13, 8)):
        with pytest.raises(ShapeError, match="cannot show"):
            layers().output_shape(shape)


def test_the_node_answers_as_the_module_that_learnt() -> None:
    module, x = DiffractiveNetwork(14, 10), torch.rand(4, 1, 8, 8)
    light = module.node().forward(x)
    torch.testing.assert_close(module.gain * light / light.sum(1, keepdim=True), module(x), rtol=1e-4, atol=1e-5)


def test_it_learns_digits_from_light_alone() -> None:
    data = datasets.load("digits")
    plan = Plan(epochs=6)
    found = DIFFRACTIVE.build(data, 0, plan)
    assert found.validation_accuracy > 0.8
    assert found.validation_accuracy == DIFFRACTIVE.build(data, 0, plan).validation_accuracy
    assert found.graph.parameters == 5 * 12 * 12
    with pytest.raises(ParameterError, match="one channel"):
        DIFFRACTIVE.build(datasets.load("yin-yang"), 0, plan)
