"""Losses and bounds on firing rates against formulas written out, and against snnTorch's."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from neuro import Network, trace
from neuro.errors import NeuroError, ParameterError, ShapeError
from neuro.modules import LIF
from neuro.training import (
    Criterion,
    CrossEntropy,
    LowerRate,
    MaxOverTime,
    MembraneCrossEntropy,
    MSECount,
    RateCrossEntropy,
    Regularised,
    UpperRate,
    cross_entropy,
)

IN_TIME: tuple[Criterion, ...] = (
    RateCrossEntropy(),
    RateCrossEntropy(gain=4.0),
    MembraneCrossEntropy("mean"),
    MembraneCrossEntropy("last"),
    MembraneCrossEntropy("every"),
    MaxOverTime(),
    MSECount(0.9, 0.1),
)


def random_spikes(*shape: int, seed: int = 0) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4).double()


def negative_log_softmax(scores: Tensor, y: Tensor) -> float:
    """-log(e^s_y / sum_k e^s_k), mean over the batch, sample by sample in plain Python."""
    costs = []
    for row, label in zip(scores.tolist(), y.tolist(), strict=True):
        costs.append(math.log(sum(math.exp(score) for score in row)) - row[label])
    return sum(costs) / len(costs)


@given(steps=st.integers(1, 9), batch=st.integers(1, 5), seed=st.integers(0, 1000))
def test_criteria_are_their_formulas(steps: int, batch: int, seed: int) -> None:
    z = random_spikes(steps, batch, 3, seed=seed)
    v = torch.randn(steps, batch, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = torch.arange(batch) % 3

    def same(criterion: Criterion, outputs: Tensor, expected: float) -> None:
        assert float(criterion.cost(outputs, y)) == pytest.approx(expected, abs=1e-12)

    same(CrossEntropy(), v[0], negative_log_softmax(v[0], y))
    same(RateCrossEntropy(), z, negative_log_softmax(z.sum(0), y))
    same(RateCrossEntropy(gain=4.0), z, negative_log_softmax(4 * z.sum(0) / steps, y))
    same(MembraneCrossEntropy("mean"), v, negative_log_softmax(v.sum(0) / steps, y))
    same(MembraneCrossEntropy("last"), v, negative_log_softmax(v[steps - 1], y))
    same(MembraneCrossEntropy("every"), v, sum(negative_log_softmax(now, y) for now in v) / steps)
    same(MaxOverTime(), v, negative_log_softmax(torch.tensor([[max(o) for o in b] for b in v.permute(1, 2, 0)]), y))
    squares = [
        (float(z[:, b, k].sum()) / steps - (0.9 if k == int(y[b]) else 0.1)) ** 2
        for b in range(batch)
        for k in range(3)
    ]
    same(MSECount(0.9, 0.1), z, sum(squares) / (3 * batch))


def test_criteria_are_those_of_snntorch() -> None:
    functional = pytest.importorskip("snntorch.functional")
    y = torch.tensor([2, 0, 1, 1])
    z, v = random_spikes(10, 4, 3).float(), torch.randn(10, 4, 3)
    torch.testing.assert_close(RateCrossEntropy().cost(z, y), functional.ce_count_loss()(z, y))
    torch.testing.assert_close(MaxOverTime().cost(v, y), functional.ce_max_membrane_loss()(v, y))
    theirs = functional.mse_count_loss(correct_rate=0.8, incorrect_rate=0.2)(z, y)
    # theirs is the squared error of counts, over T
    torch.testing.assert_close(10 * MSECount(0.8, 0.2).cost(z, y), theirs)
    torch.testing.assert_close(MembraneCrossEntropy("every").cost(v, y).reshape(1), functional.ce_rate_loss()(v, y))


@pytest.mark.parametrize("criterion", IN_TIME, ids=repr)
def test_the_best_answer_scores_most_and_costs_least(criterion: Criterion) -> None:
    y = torch.tensor([2, 0, 1])
    right = torch.zeros(6, 3, 3).scatter_(2, y.repeat(6, 1)[..., None], 1.0)
    assert torch.equal(criterion.scores(right).argmax(1), y)
    for wrong in (right.roll(1, 2), torch.zeros_like(right)):
        assert criterion.cost(wrong, y) > criterion.cost(right, y)
    network = nn.Identity()
    assert torch.equal(criterion(network, right, y), criterion.cost(right, y))


@pytest.mark.parametrize("criterion", IN_TIME, ids=repr)
def test_gradients_are_those_of_finite_differences(criterion: Criterion) -> None:
    outputs = torch.randn(4, 3, 3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([2, 0, 1])
    assert torch.autograd.gradcheck(lambda given: criterion.cost(given, y), (outputs,))


def test_bounds_are_their_formulas() -> None:
    """Rates 0, 1/4, 1/2, 1 of four neurons in one layer, and 1/2 of one in another; one sample."""
    first = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1.0]])[:, None]
    second = torch.tensor([[1], [0], [1], [0.0]])[:, None]
    first, second = first.double(), second.double()
    spikes = {"first": first, "second": second}
    assert float(UpperRate(0.4)(spikes)) == pytest.approx(((0.1**2 + 0.6**2) / 4 + 0.1**2) / 2)
    assert float(LowerRate(0.4)(spikes)) == pytest.approx((0.4**2 + 0.15**2) / 4 / 2)
    assert float(UpperRate(0.4, per="layer")(spikes)) == pytest.approx(((1.75 / 4 - 0.4) ** 2 + 0.1**2) / 2)
    assert float(LowerRate(0.45, weight=3.0, per="layer")(spikes)) == pytest.approx(3 * (0.45 - 1.75 / 4) ** 2 / 2)
    two = {name: torch.cat((fired, torch.zeros_like(fired)), 1) for name, fired in spikes.items()}
    assert float(UpperRate(0.4)(two)) == pytest.approx(float(UpperRate(0.4)(spikes)) / 2)


def test_regularised_adds_bounds_on_hidden_rates_while_training_only() -> None:
    step = nn.Sequential(nn.Linear(4, 6), LIF(0.9), nn.Linear(6, 3), LIF(0.9, theta=0.5))
    network = Network(trace(step, torch.zeros(1, 4)))
    x, y = 3 * torch.rand(5, 2, 4), torch.tensor([0, 2])
    loss = Regularised(RateCrossEntropy(), (UpperRate(0.1, weight=2.0), LowerRate(0.9)))
    outputs, spikes, _ = network(x, record=True)
    hidden = spikes["1"].mean(0)
    bounds = 2 * (hidden - 0.1).clamp(min=0).square().mean() + (0.9 - hidden).clamp(min=0).square().mean()
    cost = loss(network, x, y)
    torch.testing.assert_close(cost, RateCrossEntropy().cost(outputs, y) + bounds)
    assert torch.equal(loss.cost(outputs, y), RateCrossEntropy().cost(outputs, y))
    assert torch.equal(loss.scores(outputs), RateCrossEntropy().scores(outputs))
    (of_bounds,) = torch.autograd.grad(cost - RateCrossEntropy().cost(outputs, y), network.get_parameter("0/weight"))
    assert bool((of_bounds != 0).any())
    for without in (nn.Identity(), Network(trace(nn.Sequential(nn.Linear(4, 3), LIF(0.9)), torch.zeros(1, 4)))):
        with pytest.raises(ParameterError, match="no hidden populations"):
            loss(without, x[..., :4], y)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda: RateCrossEntropy(gain=0.0), ParameterError, "gain"),
        (lambda: MembraneCrossEntropy("first"), ParameterError, "at"),  # type: ignore[arg-type]
        (lambda: MSECount(0.2, 0.4), ParameterError, "incorrect < correct"),
        (lambda: UpperRate(1.5), ParameterError, "limit"),
        (lambda: LowerRate(0.1, weight=math.nan), ParameterError, "weight"),
        (lambda: LowerRate(0.1, per="cell"), ParameterError, "per"),  # type: ignore[arg-type]
        (lambda: cross_entropy(nn.Identity(), torch.zeros(4, 2, 3), torch.zeros(2).long()), ShapeError, "in time"),
        (lambda: MaxOverTime().scores(torch.zeros(2, 3)), ShapeError, "encode"),
    ],
)
def test_refusals_are_one_line(wrong, error: type[NeuroError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        wrong()
    assert "\n" not in str(caught.value)
