"""Networks of light: dense layers on meshes, made devices, shot noise, a scattering medium, and the rows."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuro import datasets
from neuro.baselines.networks import mlp
from neuro.baselines.photonic import PHASE_BITS, PHOTONS, ROWS, mesh_affine, noise_curves, on_meshes
from neuro.baselines.reservoir import ridge
from neuro.baselines.rival import Plan
from neuro.counts import Tally, Traffic, tally
from neuro.datasets import Split
from neuro.errors import ParameterError, ShapeError
from neuro.evaluate import evaluate
from neuro.files import load, save
from neuro.graph import Graph, Input
from neuro.interferometers import (
    interferometers_for,
    tiles_for,
)
from neuro.nodes import Affine, MeshAffine, Reshape, ScatteredIntensity
from neuro.simulate import simulate
from neuro.trace import trace
from neuro.training import fit

SMALL = Plan(hidden=(20,), epochs=4, dimensions=64, photons=1000.0)


@pytest.fixture(scope="module")
def digits() -> Split:
    return datasets.load("digits")


def affine(outputs: int, inputs: int, bias: bool = True) -> Affine:
    return Affine(torch.randn(outputs, inputs), torch.randn(outputs) if bias else None)


@given(
    outputs=st.integers(1, 20), inputs=st.integers(1, 20), tile=st.integers(1, 7), bias=st.booleans(),
    scale=st.sampled_from([1e-3, 1.0, 1e3]), zeros=st.booleans(),
)  # fmt: skip
def test_light_without_noise_is_the_dense_layer(
    outputs: int, inputs: int, tile: int, bias: bool, scale: float, zeros: bool
) -> None:
    dense = affine(outputs, inputs, bias)
    dense = replace(dense, weight=scale * dense.weight * (0 if zeros else 1))
    light = mesh_affine(dense, tile)
    assert light.tiles == tiles_for(outputs, inputs, tile)
    assert light.phases.numel() == 2 * interferometers_for(outputs, inputs, tile)
    torch.testing.assert_close(light.weight, dense.weight.double(), rtol=1e-5, atol=1e-10 * scale)
    x = torch.rand(4, inputs)
    torch.testing.assert_close(light.forward(x), dense.forward(x), rtol=1e-5, atol=1e-5 * scale)


def test_a_trained_network_on_meshes_answers_the_same() -> None:
    data = datasets.load("mnist-5k")
    module = mlp((784, 300, 100, 10))
    fit(module, data, epochs=1, batch_size=50, threads=1)
    dense = trace(module, data.train_x[:2])
    light = on_meshes(dense)
    x = data.validation_x
    wanted, found = evaluate(dense, x), evaluate(light, x)
    assert float((found - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())
    assert torch.equal(found.argmax(1), wanted.argmax(1))
    assert sum(node.tiles for node in light.nodes.values() if isinstance(node, MeshAffine)) == 77
    assert [change.became for change in light.history] == ["MeshAffine"] * 3
    with pytest.raises(ParameterError, match="no Affine"):
        on_meshes(light)


def test_more_bits_are_closer() -> None:
    dense = affine(40, 30)
    errors = [
        float((mesh_affine(dense, 16, phase_bits=bits).weight - dense.weight).square().mean().sqrt())
        for bits in (5, 7, 9, 11)
    ]
    assert all(5.5 > coarse / fine > 3.0 for coarse, fine in itertools.pairwise(errors)), errors


def test_a_made_device_stays_as_it_is() -> None:
    dense = affine(64, 64)
    made = [mesh_affine(dense, phase_noise=0.02, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(made[0].weight, made[1].weight)
    assert not torch.equal(made[0].weight, made[2].weight)
    held, entering = made[0].held()
    errors = torch.cat(((held - made[0].phases).flatten(), (entering - made[0].input_phases).flatten()))
    assert float(errors.std()) == pytest.approx(0.02, rel=0.05)
    assert abs(float(errors.mean())) < 1e-3


def test_shot_noise_is_poisson() -> None:
    """A mean of 100 photons has a deviation of 10 %; counts are whole."""
    node = mesh_affine(Affine(torch.tensor([[1.0, 0.0]])), 2, photons=100.0, seed=3)
    y = node.forward(torch.ones(40_000, 2))[:, 0]
    counts = (100 * y).double()
    assert float((counts - counts.round()).abs().max()) < 1e-3
    assert float(y.mean()) == pytest.approx(1, abs=5 * 0.1 / 200)
    assert float(y.std()) == pytest.approx(0.1, rel=0.02)
    skewness = ((y - y.mean()) ** 3).mean() / y.std() ** 3
    assert float(skewness) == pytest.approx(0.1, abs=5 * math.sqrt(6 / 40_000))


def test_shot_noise_has_no_bias_and_the_deviation_of_its_formula() -> None:
    dense, repeats = affine(5, 12), 20_000
    light = mesh_affine(dense, 4, photons=7.0)
    x = torch.rand(1, 12)
    y = light.forward(x.expand(repeats, -1)).double()
    low, high = light.weight.aminmax()
    share = (light.weight - low) / (high - low) @ x[0].double()
    deviation = (high - low) * (share * x.sum() / (7 * 12)).sqrt()
    z = (y.mean(0) - dense.forward(x)[0]) / (deviation / math.sqrt(repeats))
    assert float(z.abs().max()) < 4.5
    torch.testing.assert_close(y.std(0), deviation, rtol=0.03, atol=0)


def test_exposure_follows_the_brightness() -> None:
    """Light of `photons` per multiplication, however bright the sample; the seed fixes every count."""
    node = mesh_affine(affine(6, 8, bias=False), 4, photons=5.0, seed=9)
    x = torch.rand(30, 8)
    y = node.forward(x)
    torch.testing.assert_close(node.forward(4 * x), 4 * y, rtol=1e-5, atol=1e-6)
    assert torch.equal(node.forward(x), y)
    assert torch.equal(node.lit(5.0).forward(x), y)
    assert not torch.equal(replace(node, seed=10).forward(x), y)
    torch.testing.assert_close(node.lit(None).forward(x), x @ node.weight.T.float())
    assert float(node.forward(torch.zeros(2, 8)).abs().max()) == 0
    with pytest.raises(ParameterError, match="no negative intensity"):
        node.forward(-x)


def unwritten(outputs: int, inputs: int, photons: float | None) -> MeshAffine:
    """A device of 64 x 64 tiles whose phases are all 0."""
    rows, columns = -(-outputs // 64), -(-inputs // 64)
    phases, entering = torch.zeros(rows, columns, 4096, 2), torch.zeros(rows, columns, 64)
    gain = torch.ones(rows, columns)
    return MeshAffine(phases, entering, gain, inputs, outputs, torch.zeros(outputs), photons=photons)


def test_counts_of_the_light() -> None:
    """784-300-100-10 in tiles of 64 x 64, layer by layer."""
    total, ideal = Tally(), Tally()
    for outputs, inputs in ((300, 784), (100, 300), (10, 100)):
        flow = Traffic((inputs,), torch.ones(inputs), 3, binary=False)
        total += tally(unwritten(outputs, inputs, 2.0), (flow,), (outputs,))
        ideal += tally(unwritten(outputs, inputs, None), (flow,), (outputs,))
    sums = 12 * 300 + 4 * 100 + 10  # partial sums of tiles
    assert total.optical_macs == 3 * 266_200
    assert total.photons == 3 * 532_400
    assert total.modulations == 3 * (5 * 784 + 2 * 300 + 100)
    assert total.detections == 3 * (13 * 300 + 5 * 100 + 2 * 10)
    assert total.phase_symbols == 3 * 77 * (2 * 64**2 + 64)
    assert total.additions == 3 * (sums + 410 + (783 + 300) + (299 + 100) + (99 + 10))
    assert total.activation_words == 3 * (784 + 300 + 300 + 100 + 100 + 10)
    assert total.macs == ideal.photons == ideal.multiplications == 0
    assert ideal.additions == 3 * (sums + 410)


def test_a_scattering_medium_squares_a_complex_product() -> None:
    node = ScatteredIntensity(9, 400, seed=5)
    x = torch.rand(6, 9)
    real, imaginary = node.medium
    expected = ((real + 1j * imaginary) @ x.T.to(torch.complex64)).abs().square().T
    torch.testing.assert_close(node.forward(x), expected, rtol=1e-4, atol=1e-6)
    kept = node.forward(x).sum(1) / x.square().sum(1)
    assert float(kept.mean()) == pytest.approx(1, abs=0.1)  # light is kept on average
    assert not node.parameters
    assert torch.equal(ScatteredIntensity(9, 400, seed=5).medium[0], real)


def test_detectors_of_the_medium_count_photons() -> None:
    node = ScatteredIntensity(4, 3, photons=50.0, seed=1)
    x = torch.rand(1, 4)
    mean = 50 * 3 * replace(node, photons=None).forward(x)[0].double()
    counts = 150 * node.forward(x.expand(30_000, -1)).double()
    assert float((counts - counts.round()).abs().max()) < 1e-2
    torch.testing.assert_close(counts.mean(0), mean, rtol=0.02, atol=0)
    torch.testing.assert_close(counts.var(0), mean, rtol=0.05, atol=0)


@given(penalty=st.sampled_from([1e-6, 1e-2, 1.0]), seed=st.integers(0, 100))
def test_ridge_is_least_squares_with_a_penalty(penalty: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(40, 6)) + 3, rng.normal(size=(40, 2))
    centred = x - x.mean(0)
    strength = math.sqrt(40 * penalty * centred.var(0).mean())
    longer = np.concatenate([centred, strength * np.eye(6)])
    weight, *_ = np.linalg.lstsq(longer, np.concatenate([y - y.mean(0), np.zeros((6, 2))]), rcond=None)
    found = ridge(torch.from_numpy(x), torch.from_numpy(y), penalty)
    np.testing.assert_allclose(found.weight.numpy(), weight.T, atol=1e-5)
    np.testing.assert_allclose(found.forward(torch.from_numpy(x)).mean(0).numpy(), y.mean(0), atol=1e-5)


def test_devices_are_saved_with_what_they_are(tmp_path: Path) -> None:
    node = mesh_affine(affine(5, 8), 4, phase_bits=6, phase_noise=0.01, photons=3.0, seed=2)
    nodes = {"in": Input((2, 4)), "flat": Reshape((8,)), "light": node, "medium": ScatteredIntensity(5, 7, seed=4)}
    graph = Graph(nodes | {"positive": affine(2, 7)}, {"flat": ("in",), "light": ("flat",), "medium": ("light",),
                  "positive": ("medium",)})  # fmt: skip
    save(graph, tmp_path / "light.h5")
    x = torch.rand(3, 2, 4)
    assert torch.equal(evaluate(load(tmp_path / "light.h5"), x), evaluate(graph, x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phases": torch.zeros(1, 1, 15, 2)}, "phases must be"),
        ({"gain": torch.zeros(2)}, "phases must be"),
        ({"inputs": 5}, "1 tiles of 4 do not fit 5 inputs"),
        ({"outputs": 0}, "do not fit 0 outputs"),
        ({"bias": torch.zeros(4)}, "bias must have shape"),
        ({"phase_bits": 0}, "phase_bits"),
        ({"phase_noise": -1.0}, "phase_noise"),
        ({"photons": 0.0}, "photons must be finite and > 0"),
        ({"photons": math.inf}, "photons must be finite and > 0"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_devices_are_refused_at_birth(change: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        replace(mesh_affine(affine(3, 4), 4), **change)  # type: ignore[arg-type]


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match="4 inputs"):
        mesh_affine(affine(3, 4), 4).output_shape((5,))
    with pytest.raises(ShapeError, match="4 inputs"):
        ScatteredIntensity(4, 3).output_shape((5,))
    with pytest.raises(ParameterError, match="tile"):
        mesh_affine(affine(3, 4), 0)
    with pytest.raises(ParameterError, match="penalty"):
        ridge(torch.rand(4, 2), torch.rand(4, 1), 0.0)


def test_curves_end_where_they_must(digits: Split) -> None:
    module = mlp((64, 24, 10))
    fit(module, digits, epochs=8, batch_size=50, learning_rate=1e-2, threads=1)
    dense = trace(module, digits.train_x[:2])
    curves = noise_curves(dense, digits)
    level = float((evaluate(dense, digits.validation_x).argmax(1) == digits.validation_y).double().mean())
    bits, photons, noise = (curves[name] for name in ("phase bits", "photons per MAC", "phase noise (rad)"))
    assert bits[0] == PHASE_BITS
    assert photons[0] == PHOTONS
    assert bits[1][-1] == pytest.approx(level, abs=0.02)
    assert bits[1][0] < level - 0.3
    assert photons[1][-1] == pytest.approx(level, abs=0.05)
    assert photons[1][0] < level - 0.3
    assert noise[1][0] == pytest.approx(level, abs=0.02)
    assert noise[1][-1] < level - 0.03
    again = noise_curves(on_meshes(dense, phase_bits=3, phase_noise=0.3), digits)
    assert again["phase bits"] == bits  # whatever the device was, one imperfection at a time


@pytest.mark.parametrize("name", ["photonic", "photonic-faint", "reservoir"])
def test_rows_learn_and_repeat(name: str, digits: Split) -> None:
    found = ROWS[name].build(digits, 0, SMALL)
    again = ROWS[name].build(digits, 0, SMALL)
    assert found.validation_accuracy == again.validation_accuracy > (0.2 if name == "photonic-faint" else 0.8)
    run = simulate(found.graph, digits.validation_x)
    assert torch.equal(run.outputs, simulate(again.graph, digits.validation_x).outputs)
    right = (run.outputs.argmax(1) == digits.validation_y).double().mean()
    assert float(right) == pytest.approx(found.validation_accuracy)
    assert run.counts.total.optical_macs
    assert run.counts.total.photons


def test_plans_of_equal_storage_hold_no_more_phases() -> None:
    data = datasets.load("mnist-5k")
    plan = ROWS["photonic"].equal(data, Plan())
    assert plan is not None
    sizes = plan.sizes(data)
    phases = sum(tiles_for(b, a, 64) * (2 * 64**2 + 64) for a, b in itertools.pairwise(sizes))
    assert 0.8 * 266_200 < phases <= 266_200
    assert ROWS["photonic"].equal(datasets.load("digits"), SMALL) is None
    assert [step.phase_bits for step in ROWS["photonic"].ladder(data, Plan())] == [4, 6, 8, 12]
