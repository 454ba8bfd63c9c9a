"""Training in faint light: the noise is that of the device, and networks that knew it see better."""

from __future__ import annotations

import math

import pytest
import torch

from neuro import datasets
from neuro.baselines.networks import mlp
from neuro.baselines.photonic import mesh_affine, on_meshes
from neuro.baselines.shot_noise import ShotNoiseLinear, counted, trained_in_light
from neuro.errors import ParameterError, UnsupportedNode
from neuro.nodes import Affine
from neuro.trace import trace
from neuro.training import accuracy, fit


def test_it_is_the_noise_of_the_device() -> None:
    weight, bias, x = torch.randn(6, 9), torch.randn(6), torch.rand(1, 9).expand(20_000, -1)
    with torch.no_grad():
        learning = ShotNoiseLinear(weight, bias, 4.0)(x)
    light = mesh_affine(Affine(weight, bias), 3, photons=4.0).forward(x)
    torch.testing.assert_close(learning.std(0), light.std(0), rtol=0.03, atol=0)
    error = (learning.mean(0) - light.mean(0)) / light.std(0)
    assert float(error.abs().max()) < 5 * math.sqrt(2 / 20_000)


def test_whoever_learnt_in_faint_light_sees_better_in_it() -> None:
    data = datasets.load("digits")
    module = mlp((64, 32, 10))
    fit(module, data, epochs=10, batch_size=50, learning_rate=1e-2, threads=1)
    dense = trace(module, data.train_x[:2])
    trained = trained_in_light(dense, data, 3.0, epochs=10, batch_size=50)
    assert list(trained.nodes) == list(dense.nodes)
    x, y = data.train_x, data.train_y
    before, after = (accuracy(on_meshes(graph, photons=3.0), x, y) for graph in (dense, trained))
    assert after > before + 0.1


def test_light_without_number_draws_no_counts() -> None:
    assert counted(math.inf) is None
    assert counted(3.0) == 3.0


def test_what_cannot_learn_in_light_is_refused() -> None:
    network = trace(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Sigmoid()), torch.zeros(1, 4))
    data = datasets.load("digits")
    with pytest.raises(UnsupportedNode, match="Sigmoid"):
        trained_in_light(network, data, 3.0, epochs=2)
    with pytest.raises(ParameterError, match="photons"):
        trained_in_light(network, data, 0.0, epochs=2)
