"""Encoders: what each spike train tells of the number behind it, and that a seed gives the same spikes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuro.encode import ENCODERS, Constant, Delta, LinearLatency, LogarithmicLatency, Rate
from neuro.errors import ParameterError, ShapeError

units = st.floats(0.0, 1.0, width=32)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(values: list[float]) -> Tensor:
    return torch.tensor([values])


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_encoder_puts_time_first_and_keeps_batch_features_and_type(name: str, dtype: torch.dtype) -> None:
    x = torch.rand(4, 6, 3, 5, dtype=dtype)
    spikes = ENCODERS[name](x, 6, seeded())
    assert spikes.shape == ((6, 4, 2, 3, 5) if name == "delta" else (6, 4, 6, 3, 5))
    assert spikes.dtype == dtype
    assert name == "constant" or bool(((spikes == 0) | (spikes == 1)).all())


@pytest.mark.parametrize("name", ENCODERS)
def test_same_seed_same_spikes_and_a_batch_is_a_stack_of_singles(name: str) -> None:
    x = torch.rand(3, 7, 4)
    encode = ENCODERS[name]
    assert torch.equal(encode(x, 7, seeded(5)), encode(x, 7, seeded(5)))
    if name != "rate":  # which draws once for the whole batch
        assert torch.equal(encode(x, 7), torch.cat([encode(one[None], 7) for one in x], dim=1))


def test_constant_shows_x_at_every_step_and_takes_no_memory() -> None:
    x = torch.randn(2, 3)
    series = Constant()(x, 1000)
    assert torch.equal(series[0], x)
    assert torch.equal(series[999], x)
    assert series.untyped_storage().nbytes() == x.untyped_storage().nbytes()


@given(p=st.floats(0.0, 1.0, width=32), peak=st.floats(0.0625, 1.0, width=32), seed=st.integers(0, 2**32))
def test_rate_has_mean_and_variance_of_bernoulli_draws(p: float, peak: float, seed: int) -> None:
    neurons, steps = 400, 50
    counts = Rate(peak)(torch.full((1, neurons), p, dtype=torch.float64), steps, seeded(seed)).sum(0).flatten()
    chance, draws = peak * p, neurons * steps
    spread = math.sqrt(chance * (1 - chance) / draws)
    assert abs(float(counts.sum()) / draws - chance) <= 5.5 * spread + 1e-9
    variance = steps * chance * (1 - chance)
    # Of `neurons` counts: their variance scatters by var^2 (2 / (n - 1) + excess kurtosis / n).
    excess = (1 - 6 * chance * (1 - chance)) / variance if variance > 0 else 0.0
    scatter = variance * math.sqrt(2 / (neurons - 1) + max(excess, 0.0) / neurons)
    assert abs(float(counts.var()) - variance) <= 6.5 * scatter + 1e-9


def test_rate_is_independent_between_steps_and_neurons() -> None:
    spikes = Rate()(torch.full((1, 200), 0.3), 500, seeded(1))[:, 0] - 0.3
    bound = 5 * 0.21 / math.sqrt(500 * 200)
    assert abs(float((spikes[1:] * spikes[:-1]).mean())) < bound
    assert abs(float((spikes[:, 1:] * spikes[:, :-1]).mean())) < bound


def test_rate_at_the_ends_is_certain_and_seeds_differ() -> None:
    x = batch([0.0, 1.0, 0.5])
    spikes = Rate()(x, 200, seeded(0))
    assert float(spikes[..., 0].sum()) == 0.0
    assert float(spikes[..., 1].sum()) == 200.0
    assert not torch.equal(spikes, Rate()(x, 200, seeded(1)))


@given(steps=st.integers(1, 12), more=st.integers(0, 12), seed=st.integers(0, 99))
def test_a_longer_rate_code_begins_as_a_shorter_one(steps: int, more: int, seed: int) -> None:
    x = torch.linspace(0, 1, 35).reshape(5, 7)
    assert torch.equal(Rate()(x, steps + more, seeded(seed))[:steps], Rate()(x, steps, seeded(seed)))


@given(values=st.lists(units, min_size=2, max_size=30), steps=st.integers(2, 40))
def test_linear_latency_spikes_once_and_tells_x_to_half_a_step(values: list[float], steps: int) -> None:
    x = batch(values)
    spikes = LinearLatency()(x, steps)
    assert torch.equal(spikes.sum(0), (x > 0).to(x.dtype))
    times = spikes.argmax(0).double()
    decoded = 1 - times / (steps - 1)
    assert bool(((decoded - x).abs()[x > 0] <= 0.5 / (steps - 1) + 1e-6).all())


@given(values=st.lists(units, min_size=2, max_size=30), theta=st.floats(0.05, 0.8), tau=st.floats(0.5, 20.0))
def test_logarithmic_latency_is_when_a_leaky_integrator_crosses(values: list[float], theta: float, tau: float) -> None:
    x, steps = batch(values).double(), 30
    spikes = LogarithmicLatency(tau, theta)(x, steps)
    for value, train in zip(x[0], spikes[:, 0].T, strict=True):
        # v(t) = x (1 - exp(-t / tau)): below theta when the step of the spike begins, not below when it ends.
        v = [float(value) * -math.expm1(-t / tau) for t in range(steps + 1)]
        if train.any():
            t = int(train.argmax())
            assert float(train.sum()) == 1.0
            assert v[t] <= theta + 1e-9 <= v[t + 1] + 2e-9
        else:
            assert v[-1] <= theta + 1e-9


@given(values=st.lists(units, min_size=2, max_size=30, unique=True))
def test_larger_numbers_never_spike_later(values: list[float]) -> None:
    x = batch(sorted(values, reverse=True))
    for encode in (LinearLatency(), LogarithmicLatency(5.0, 0.1)):
        spikes = encode(x, 50)[:, 0]
        times = torch.where(spikes.any(0), spikes.argmax(0), 50)
        assert bool((times[1:] >= times[:-1]).all())


def test_linear_latency_agrees_with_snntorch() -> None:
    spikegen = pytest.importorskip("snntorch.spikegen")
    x = torch.rand(5, 40, generator=seeded()) * 0.98 + 0.02
    theirs = spikegen.latency(x, num_steps=16, threshold=0.01, normalize=True, linear=True)
    assert torch.equal(LinearLatency()(x, 16), theirs)


@given(
    start=st.floats(-2.0, 2.0),
    moves=st.lists(st.floats(-0.999, 0.999), min_size=1, max_size=60),
    theta=st.floats(0.01, 2.0),
)
def test_delta_follows_what_moves_by_less_than_a_step(start: float, moves: list[float], theta: float) -> None:
    x = start + theta * torch.tensor([0.0, *moves], dtype=torch.float64).cumsum(0)
    spikes = Delta(theta)(x[None], len(x))[:, 0]
    assert float(spikes.sum(1).max()) <= 1.0  # never on and off at once
    followed = x[0] + theta * (spikes[:, 0] - spikes[:, 1]).cumsum(0)
    assert float((x - followed).abs().max()) < theta * (1 + 1e-9)


def test_delta_is_silent_for_constants_mirrored_for_the_opposite_and_late_for_jumps() -> None:
    assert float(Delta()(torch.full((2, 9, 3), 0.7), 9).sum()) == 0.0
    x = torch.rand(3, 20, 4, generator=seeded())
    assert torch.equal(Delta()(x, 20), Delta()(-x, 20).flip(2))
    jump = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    assert Delta(0.25)(jump, 6)[:, 0, 0].tolist() == [0, 1, 1, 1, 1, 0]
    assert Delta(0.25, start=0.0)(torch.full((1, 6), 0.5), 6)[:, 0, 0].tolist() == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("name", ENCODERS)
def test_bad_numbers_and_steps_are_refused(name: str) -> None:
    encode, x = ENCODERS[name], torch.rand(2, 3)
    for steps in (0, -1, True, 2.0):
        with pytest.raises(ParameterError, match="steps must be"):
            encode(x, steps, seeded())  # type: ignore[arg-type]
    for value in (math.nan, math.inf):
        with pytest.raises(ParameterError, match="finite"):
            encode(torch.full((2, 3), value), 3, seeded())
    with pytest.raises(ShapeError, match="floating-point"):
        encode(torch.ones(2, 3, dtype=torch.int64), 3, seeded())


@pytest.mark.parametrize("encode", [Rate(), LinearLatency(), LogarithmicLatency()])
@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_what_is_a_probability_or_an_intensity_must_lie_in_0_1(encode: Rate, value: float) -> None:
    with pytest.raises(ParameterError, match=r"\[0, 1\]"):
        encode(torch.full((2, 3), value), 3, seeded())


def test_other_refusals() -> None:
    with pytest.raises(ParameterError, match="generator"):
        Rate()(torch.rand(2, 3), 4)
    with pytest.raises(ShapeError, match=r"\(batch, 4, \*features\)"):
        Delta()(torch.rand(2, 3), 4)
    for make in (
        lambda: Rate(0.0),
        lambda: Rate(math.nan),
        lambda: LinearLatency(1.0),
        lambda: LogarithmicLatency(tau=0.0),
        lambda: LogarithmicLatency(theta=1.0),
        lambda: Delta(0.0),
        lambda: Delta(start=math.inf),
    ):
        with pytest.raises(ParameterError):
            make()
