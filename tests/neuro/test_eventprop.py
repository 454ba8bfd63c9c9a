"""Spike trains against an integrated membrane, their gradients against finite differences and the closed form."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.eventprop import spike_trains
from neuro.first_spike import Kind, first_spike_times, membrane_of

KINDS = get_args(Kind)
MOST = 4


def network(seed: int, batch: int = 2, inputs: int = 4, k: int = 2, outputs: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    trains = 3 * torch.rand(batch, inputs, k, generator=g, dtype=torch.float64)
    trains[torch.rand(batch, inputs, k, generator=g) < 0.1] = torch.inf
    weight = torch.randn(outputs, inputs, generator=g, dtype=torch.float64) + 0.8
    return trains, weight, 0.4 + 0.3 * torch.rand(outputs, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_integrated_differential_equations(kind: Kind) -> None:
    trains, weight, theta = network(1, batch=4, outputs=6)
    found = spike_trains(trains, weight, theta, membrane=kind, most=MOST)
    model, dt = membrane_of(kind), 2e-3
    v = torch.zeros(4, 6, dtype=torch.float64)
    i, fired = torch.zeros_like(v), torch.zeros(4, 6, dtype=torch.long)
    wanted = torch.full((4, 6, MOST + 1), torch.inf, dtype=torch.float64)
    for step in range(4_000):
        arriving = ((trains >= step * dt) & (trains < (step + 1) * dt)).double().sum(2)
        i = i + arriving @ weight.t()
        v = v + dt * (model.gain * (i - dt / 2 * i) - model.leak * (v + dt / 2 * (model.gain * i - model.leak * v)))
        i = i * (1 - dt + dt**2 / 2)
        for b, j in ((v >= theta) & (fired < MOST + 1)).nonzero().tolist():
            wanted[b, j, fired[b, j]] = (step + 1) * dt
            fired[b, j] += 1
            v[b, j] = 0.0
    wanted = wanted[..., :MOST]
    both = torch.isfinite(found) & torch.isfinite(wanted)
    assert (torch.isfinite(found) == torch.isfinite(wanted)).double().mean() > 0.95
    assert torch.isfinite(found[..., 1]).sum() > 3
    assert (found - wanted)[both].abs().quantile(0.9) < 10 * dt


@given(st.integers(0, 10_000), st.sampled_from(KINDS))
def test_one_spike_is_the_closed_form(seed: int, kind: Kind) -> None:
    trains, weight, theta = (t.requires_grad_() for t in network(seed, k=1))
    results = []
    for spikes in (
        spike_trains(trains, weight, theta, membrane=kind, tau=1.4, most=1)[..., 0],
        first_spike_times(trains[..., 0], weight, theta, membrane=kind, tau=1.4, backend="reference"),
    ):
        fired = torch.isfinite(spikes)
        gradients = torch.autograd.grad(torch.where(fired, spikes, 0.0).square().sum(), (trains, weight, theta))
        results.append((spikes.detach(), *gradients))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    with torch.no_grad():
        many = spike_trains(trains, weight, theta, membrane=kind, tau=1.4, most=MOST)
    assert torch.equal(many[..., 0], results[0][0])
    assert bool((many[..., 1:] >= many[..., :-1]).all())


@given(st.integers(0, 10_000), st.sampled_from(KINDS))
def test_gradients_are_those_of_finite_differences(seed: int, kind: Kind) -> None:
    """All spikes of a train, through every reset; samples whose spikes meet an input or touch are left out."""
    tensors = network(seed)
    plain = spike_trains(*tensors, membrane=kind, most=MOST)
    fired = torch.isfinite(plain)
    events = tensors[0].flatten(1)
    near = ((plain[..., None] - events[:, None, None]).abs() < 0.02).any(-1)
    leaves = [t.clone().requires_grad_() for t in tensors]
    spikes = spike_trains(*leaves, membrane=kind, most=MOST)
    clear = torch.zeros_like(fired)
    for b, j in (~(near | ~fired)).any(-1).nonzero().tolist():
        good = 0
        while good < MOST and bool(fired[b, j, good]) and not bool(near[b, j, good]):
            steep = torch.autograd.grad(spikes[b, j, good], leaves[2], retain_graph=True)[0].abs().max()
            if float(steep) > 6:
                break
            good += 1
        clear[b, j, :good] = True
    pull = torch.randn(plain.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    exact = torch.autograd.grad(torch.where(clear, spikes * pull, 0.0).sum(), leaves)
    step = 1e-4
    for number, (value, gradient) in enumerate(zip(tensors, exact, strict=True)):
        for place in range(value.numel()):
            if not torch.isfinite(value.reshape(-1)[place]):
                continue
            at = []
            for by in (-3, -2, -1, 1, 2, 3):
                other = value.clone().reshape(-1)
                other[place] += by * step
                moved = [other.reshape(value.shape) if n == number else t for n, t in enumerate(tensors)]
                at.append(float(torch.where(clear, spike_trains(*moved, membrane=kind, most=MOST) * pull, 0.0).sum()))
            numeric = (45 * (at[3] - at[2]) - 9 * (at[4] - at[1]) + (at[5] - at[0])) / (60 * step)
            assert float(gradient.reshape(-1)[place]) == pytest.approx(numeric, rel=1e-6, abs=1e-7)


def test_refusals() -> None:
    trains, weight, theta = network(0)
    for wrong, error in (
        (lambda: spike_trains(trains[..., 0], weight), ShapeError),
        (lambda: spike_trains(trains, weight, theta[1:]), ShapeError),
        (lambda: spike_trains(trains, weight, -1.0), ParameterError),
        (lambda: spike_trains(trains, weight, most=0), ParameterError),
        (lambda: spike_trains(trains * torch.nan, weight), ParameterError),
    ):
        with pytest.raises(error):
            wrong()
