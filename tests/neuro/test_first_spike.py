"""First-spike times against an integrated membrane and brute force; their gradients against finite differences."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.first_spike import Kind, first_spike_times, gradient_limit, membrane_of
from neuro.first_spike.membrane import minus_lambert_w0

KINDS = get_args(Kind)
BACKENDS = ("reference", "numba")
SILENT = 0.1


def network(seed: int, *, batch: int = 3, inputs: int = 8, outputs: int = 5, tau: float = 1.0) -> tuple[Tensor, ...]:
    """times (batch, in), weight (out, in), theta (out,), axonal (in,), synaptic (out, in), float64."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    times = 3 * tau * rand(batch, inputs)
    times[rand(batch, inputs) < SILENT] = torch.inf
    weight = 1.2 * torch.randn(outputs, inputs, generator=g, dtype=torch.float64) + 0.4
    return times, weight, 0.4 + 0.5 * rand(outputs), tau * rand(inputs), tau * rand(outputs, inputs)


def brute_force(times: Tensor, weight: Tensor, theta: Tensor, kind: str, tau: float, delay: Tensor) -> Tensor:
    """Every causal set on its own, its potential summed spike by spike and its crossing found by bisection."""
    model = membrane_of(kind)
    found = torch.full((len(times), len(weight)), torch.inf, dtype=torch.float64)
    for b in range(len(times)):
        for j in range(len(weight)):
            arrival = (times[b] + delay[j]) / tau
            level = theta[j] / tau if kind == "alpha" else theta[j]

            def v(s: Tensor, arrival: Tensor = arrival, j: int = j) -> Tensor:
                since = s[:, None] - arrival
                return torch.where(since > 0, weight[j] * model.response(since.clamp(min=0)), 0.0).sum(-1)

            order = arrival[torch.isfinite(arrival)].sort().values
            if not len(order):
                continue
            for start, end in zip(order, [*order[1:], order[-1] + 40], strict=True):
                grid = torch.linspace(float(start), float(end), 400, dtype=torch.float64)
                above = (v(grid) >= level).nonzero()
                if len(above):
                    low, high = grid[max(int(above[0, 0]) - 1, 0)], grid[int(above[0, 0])]
                    for _ in range(60):
                        middle = (low + high) / 2
                        low, high = (middle, high) if v(middle[None])[0] < level else (low, middle)
                    found[b, j] = high * tau
                    break
    return found


def integrated(times: Tensor, weight: Tensor, theta: Tensor, kind: str, tau: float, dt: float) -> Tensor:
    """The differential equations of membrane and current in steps of dt (Runge-Kutta, second order)."""
    model = membrane_of(kind)
    arrival, level = times / tau, theta / tau if kind == "alpha" else theta
    v = torch.zeros(len(times), len(weight), dtype=torch.float64)
    i, fired = torch.zeros_like(v), torch.full_like(v, torch.inf)
    for step in range(int(16 / dt)):
        inside = ((arrival >= step * dt) & (arrival < (step + 1) * dt)).double()
        i = i + inside @ weight.t()
        half_i, half_v = i - dt / 2 * i, v + dt / 2 * (model.gain * i - model.leak * v)
        v = v + dt * (model.gain * half_i - model.leak * half_v)
        i = i - dt * half_i
        fired = torch.where(torch.isinf(fired) & (v >= level), (step + 1) * dt, fired)
    return fired * tau


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_causal_set_by_brute_force(kind: Kind, backend: str) -> None:
    tau = 1.7
    times, weight, theta, _, synaptic = network(3, tau=tau)
    found = first_spike_times(times, weight, theta, membrane=kind, tau=tau, synaptic=synaptic, backend=backend)
    wanted = brute_force(times, weight, theta, kind, tau, synaptic)
    assert torch.isfinite(wanted).any()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_integrated_differential_equations(kind: Kind) -> None:
    times, weight, theta, _, _ = network(4, batch=8, outputs=10)
    found = first_spike_times(times, weight, theta, membrane=kind)
    wanted = integrated(times, weight, theta, kind, 1.0, dt := 2e-3)
    agree = torch.isfinite(found) == torch.isfinite(wanted)
    assert agree.double().mean() > 0.97  # a potential that only touches the threshold is seen by one of the two
    both = torch.isfinite(found) & torch.isfinite(wanted)
    assert both.sum() > 20
    late = (found - wanted)[both].abs()
    assert late.quantile(0.9) < 3 * dt


def test_published_formulas() -> None:
    """Lambert W, logarithm and Mostafa's quotient as printed, one causal set, against ours."""
    from scipy.special import lambertw

    t = torch.tensor([0.1, 0.4, 0.5], dtype=torch.float64)
    w = torch.tensor([1.5, 0.8, 1.1], dtype=torch.float64)
    g_theta = torch.tensor(0.6, dtype=torch.float64)
    a, b = (w * t.exp()).sum(), (w * t * t.exp()).sum()
    lambert = b / a - float(lambertw(float(-g_theta / a * torch.exp(b / a))).real)
    a2 = (w * (t / 2).exp()).sum()
    logarithm = 2 * torch.log(2 * a / (a2 + torch.sqrt(a2**2 - 4 * a * g_theta)))
    quotient = torch.log(a / (w.sum() - g_theta))
    for kind, wanted in (("equal", lambert), ("double", logarithm), ("non-leaky", quotient)):
        assert wanted > t.max()
        found = first_spike_times(t[None], w[None], g_theta, membrane=kind)
        assert float(found) == pytest.approx(float(wanted), abs=1e-12)


def test_lambert_function() -> None:
    q = torch.cat([torch.logspace(-14, 2.8, 200, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    y = minus_lambert_w0(q)
    assert bool(((y > 0) & (y <= 1)).all())
    torch.testing.assert_close(y - torch.log(y), 1 + q, rtol=1e-14, atol=0)


def test_a_negative_potential_that_rises_without_reaching_the_threshold_stays_silent() -> None:
    """A strong inhibition before a weak excitation: the quadratic of leak 1/2 has real solutions, but none in time."""
    times, weight = torch.tensor([[0.0, 3.0]]), torch.tensor([[-5.0, 0.4]])
    for kind in KINDS:
        for backend in BACKENDS:
            assert float(first_spike_times(times, weight, membrane=kind, backend=backend)) == float("inf")


@pytest.mark.parametrize("kind", KINDS)
def test_backends_agree_over_long_times(kind: Kind) -> None:
    """Inputs over 50 tau, in clusters and alone: origins move on, some crossings lie in long gaps."""
    generator = torch.Generator().manual_seed(0)
    times = torch.cat([50 * torch.rand(6, 40, generator=generator), torch.rand(6, 20, generator=generator) + 7], 1)
    weight = 0.3 * torch.randn(20, 60, generator=generator).double() + 0.15
    found = []
    for backend in BACKENDS:
        weight.requires_grad_().grad = None
        spikes = first_spike_times(times.double(), weight, membrane=kind, backend=backend)
        torch.where(torch.isfinite(spikes), spikes, 0.0).sum().backward()
        found.append((spikes.detach(), weight.grad))
    assert torch.isfinite(found[0][0]).any()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@given(st.integers(0, 10_000), st.sampled_from(KINDS), st.booleans())
def test_backends_agree(seed: int, kind: Kind, delays: bool) -> None:
    tensors = [t.requires_grad_() for t in network(seed)]
    times, weight, theta, axonal, synaptic = tensors
    extra = {"axonal": axonal, "synaptic": synaptic} if delays else {"axonal": axonal}
    results = []
    for backend in BACKENDS:
        spikes = first_spike_times(times, weight, theta, membrane=kind, tau=1.3, backend=backend, **extra)
        fired = torch.isfinite(spikes)
        loss = torch.where(fired, spikes, 0.0).square().sum()
        used = [times, weight, theta, *extra.values()]
        gradients = torch.autograd.grad(loss, used)
        results.append((spikes.detach(), *gradients))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@given(st.integers(0, 10_000), st.sampled_from(KINDS), st.sampled_from(BACKENDS))
def test_gradients_are_those_of_finite_differences(seed: int, kind: Kind, backend: str) -> None:
    """Relative error below 1e-6 for weights, times, thresholds and both delays, away from edges of causal sets."""
    names = ("times", "weight", "theta", "axonal", "synaptic")
    values = dict(zip(names, network(seed, batch=2, inputs=5, outputs=3), strict=True))
    pull = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def spikes(**given: Tensor) -> Tensor:
        return first_spike_times(**{**values, **given}, membrane=kind, tau=1.3, backend=backend)

    plain = spikes()
    arrival = values["times"][:, None] + values["axonal"] + values["synaptic"]
    clear = torch.isfinite(plain) & ((plain[..., None] - arrival).abs() > 0.02).all(-1)
    step = 1e-4

    def loss(**given: Tensor) -> Tensor:
        found = spikes(**given)
        return torch.where(keep, found * pull, 0.0).sum()

    keep = clear
    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    # Where the slope at the threshold is small, higher derivatives are too large for any difference quotient.
    unit = torch.autograd.grad(torch.where(clear, spikes(**leaves), 0.0).sum(), leaves["theta"])[0]
    keep = clear & (unit.abs() < 6)
    exact = torch.autograd.grad(loss(**leaves), list(leaves.values()))
    for (name, value), gradient in zip(values.items(), exact, strict=True):
        for place in range(value.numel()):
            if not torch.isfinite(value.reshape(-1)[place]):
                assert gradient.reshape(-1)[place] == 0
                continue

            def moved(by: float, value: Tensor = value, place: int = place) -> Tensor:
                other = value.clone().reshape(-1)
                other[place] += by * step
                return other.reshape(value.shape)

            at = [float(loss(**{name: moved(by)})) for by in (-3, -2, -1, 1, 2, 3)]
            numeric = (45 * (at[3] - at[2]) - 9 * (at[4] - at[1]) + (at[5] - at[0])) / (60 * step)
            assert float(gradient.reshape(-1)[place]) == pytest.approx(numeric, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_late_inputs_have_no_influence(kind: Kind, backend: str) -> None:
    times, weight, theta, _, _ = (t.requires_grad_() for t in network(5, batch=20))
    spikes = first_spike_times(times, weight, theta, membrane=kind, backend=backend)
    for j in range(len(weight)):
        fired = torch.isfinite(spikes[:, j])
        of_times = torch.autograd.grad(spikes[fired, j].sum(), times, retain_graph=True)[0]
        late = times >= spikes[:, j, None]
        assert late.any()
        assert (of_times[late] == 0).all()
        assert not fired.any() or (of_times[fired] != 0).any()
    with torch.no_grad():
        after = torch.where(torch.isfinite(spikes).any(1), torch.where(torch.isfinite(spikes), spikes, 0).amax(1), 99)
        more = torch.cat([times, after[:, None] + 1e-9], 1)
        again = first_spike_times(more, torch.cat([weight, 9 * torch.ones(5, 1)], 1), theta, membrane=kind)
    fired = torch.isfinite(spikes)
    torch.testing.assert_close(again[fired], spikes.detach()[fired], rtol=0, atol=1e-10)


@given(st.integers(0, 10_000), st.sampled_from(KINDS), st.floats(-20, 20))
def test_only_differences_of_times_matter(seed: int, kind: Kind, shift: float) -> None:
    times, weight, theta, _, _ = network(seed)
    plain = first_spike_times(times, weight, theta, membrane=kind)
    torch.testing.assert_close(first_spike_times(times + shift, weight, theta, membrane=kind), plain + shift)
    order = torch.randperm(times.shape[1], generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(first_spike_times(times[:, order], weight[:, order], theta, membrane=kind), plain)
    singles = [first_spike_times(row[None], weight, theta, membrane=kind) for row in times]
    assert torch.equal(torch.cat(singles), plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_over_fifty_time_constants(kind: Kind, backend: str) -> None:
    """Nothing overflows, and times are those of float64 to their own rounding."""
    times, weight, theta, _, _ = network(6, batch=6, inputs=40, outputs=6)
    wide = times / 3 * 50
    exact = first_spike_times(wide, weight, theta, membrane=kind, backend=backend)
    single = [t.float().requires_grad_() for t in (wide, weight, theta)]
    found = first_spike_times(*single, membrane=kind, backend=backend)
    assert found.dtype == torch.float32
    both = torch.isfinite(exact) & torch.isfinite(found)
    assert (torch.isfinite(exact) == torch.isfinite(found)).double().mean() > 0.95
    assert both.sum() > 10
    torch.testing.assert_close(found.detach()[both].double(), exact[both], rtol=1e-6, atol=2e-5)
    found[both].sum().backward()
    assert all(bool(torch.isfinite(t.grad).all()) for t in single)


def test_silence() -> None:
    none = torch.full((2, 3), torch.inf, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    for backend in BACKENDS:
        spikes = first_spike_times(none, weight, backend=backend)
        assert torch.isinf(spikes).all()
        gradients = torch.autograd.grad(torch.where(torch.isinf(spikes), 0.0, spikes).sum(), (none, weight))
        assert all((g == 0).all() for g in gradients)
    weak = first_spike_times(torch.zeros(1, 1), torch.tensor([[0.999 * torch.e]]), membrane="equal")
    strong = first_spike_times(torch.zeros(1, 1), torch.tensor([[1.001 * torch.e]]), membrane="equal")
    assert torch.isinf(weak)
    assert 0.9 < float(strong) < 1


def test_large_layers_stay_small_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference takes outputs in chunks and gives the same for every size of them."""
    import sys

    times, weight, theta, _, synaptic = network(8, batch=4, inputs=30, outputs=11)
    plain = first_spike_times(times, weight, theta, synaptic=synaptic, backend="reference")
    monkeypatch.setattr(sys.modules["neuro.first_spike.reference"], "CHUNK", 4 * 30 * 2)
    assert torch.equal(first_spike_times(times, weight, theta, synaptic=synaptic, backend="reference"), plain)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("delayed", [False, True])
def test_gradient_limit_drops_single_neurons_of_samples(backend: str, delayed: bool) -> None:
    times, weight, theta, _, synaptic = network(9, batch=6)
    weight.requires_grad_()
    options = {"backend": backend, "synaptic": synaptic if delayed else None}

    def of_weight(limit: float | None, pick: Tensor) -> Tensor:
        if limit is None:
            spikes = first_spike_times(times, weight, theta, **options)
        else:
            with gradient_limit(limit):
                spikes = first_spike_times(times, weight, theta, **options)
        return torch.autograd.grad(torch.where(pick & torch.isfinite(spikes), spikes, 0.0).sum(), weight)[0]

    dropped = 0
    for b in range(len(times)):
        pick = torch.zeros(len(times), len(weight), dtype=torch.bool)
        pick[b] = True
        full, limited = of_weight(None, pick), of_weight(0.5, pick)
        for one, other in zip(full, limited, strict=True):
            over = bool(one.abs().max() > 0.5)
            dropped += over
            torch.testing.assert_close(other, torch.zeros_like(one) if over else one)
    assert 0 < dropped < len(times) * len(weight)


def test_refusals() -> None:
    times, weight, theta, _, _ = network(0)
    for wrong, error in (
        (lambda: first_spike_times(times[:, 1:], weight), ShapeError),
        (lambda: first_spike_times(times, weight, theta[1:]), ShapeError),
        (lambda: first_spike_times(times, weight, synaptic=weight.t()), ShapeError),
        (lambda: first_spike_times(times, weight, 0.0), ParameterError),
        (lambda: first_spike_times(times, weight, tau=0.0), ParameterError),
        (lambda: first_spike_times(times * torch.nan, weight), ParameterError),
        (lambda: first_spike_times(times, weight, membrane="triple"), ParameterError),
        (lambda: first_spike_times(times, weight, backend="gpu"), ParameterError),
        (lambda: first_spike_times(times * 1000, weight, backend="reference"), ParameterError),
    ):
        with pytest.raises(error):
            wrong()
    assert torch.isfinite(first_spike_times(times * 1000, 9 * weight.abs())).any()
