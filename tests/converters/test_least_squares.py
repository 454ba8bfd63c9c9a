"""Refitted weights are those of least squares: they find a known map, and no step from them is downhill."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from converters.least_squares import FEWEST_ROWS_PER_INPUT, refit
from neuro.errors import NeuroError, ParameterError, ShapeError
from neuro.nodes import Affine, Conv


def cases() -> dict[str, tuple[Affine | Conv, tuple[int, ...]]]:
    torch.manual_seed(1)
    return {
        "affine": (Affine(torch.randn(3, 6), torch.randn(3)), (6,)),
        "rows": (Affine(torch.randn(3, 6)), (4, 6)),
        "plain": (Conv(torch.randn(4, 3, 3, 3), torch.randn(4), padding=(1, 1)), (3, 7, 7)),
        "strided": (Conv(torch.randn(4, 2, 3, 2), None, (2, 1), (1, 0), (1, 2)), (2, 9, 8)),
        "grouped": (Conv(torch.randn(6, 2, 3, 3), torch.randn(6), groups=3), (6, 6, 6)),
        "depthwise": (Conv(torch.randn(8, 1, 3, 3), torch.randn(8), padding=(1, 1), groups=4), (4, 6, 6)),
        "line": (Conv(torch.randn(4, 2, 3), None, (1,), (1,), (1,), 2), (4, 9)),
        "solid": (Conv(torch.randn(2, 2, 2, 2, 2), None, (1,) * 3, (0,) * 3, (1,) * 3), (2, 4, 4, 4)),
    }


KINDS = st.sampled_from(sorted(cases()))


def blurred(node: Affine | Conv) -> Affine | Conv:
    return replace(node, weight=node.weight + 0.5 * torch.randn_like(node.weight), bias=None)


@pytest.mark.parametrize("kind", cases())
def test_a_linear_map_is_found(kind: str) -> None:
    """Without noise and with next to no ridge, whatever the weights before."""
    node, shape = cases()[kind]
    x = torch.randn(60, *shape)
    found = refit(blurred(node), x, node.forward(x) + 1.5, ridge=1e-7)
    torch.testing.assert_close(found.weight, node.weight, rtol=0, atol=2e-5)
    torch.testing.assert_close(found.forward(x), node.forward(x) + 1.5, rtol=0, atol=1e-4)
    assert replace(found, weight=node.weight, bias=node.bias).output_shape(shape) == node.output_shape(shape)


def test_weights_behind_an_average_stay_equal() -> None:
    """A matrix that reads means over 5 values is fitted as one that reads the means themselves."""
    torch.manual_seed(2)
    x, small = torch.randn(90, 4, 5), Affine(torch.randn(3, 4), torch.randn(3))
    large = Affine(small.weight.repeat_interleave(5, 1) / 5, small.bias)
    wanted = large.forward(x.flatten(1)) + torch.randn(90, 3)
    found, mean = refit(large, x.flatten(1), wanted), refit(small, x.mean(2), wanted)
    torch.testing.assert_close(found.weight, mean.weight.repeat_interleave(5, 1) / 5)
    torch.testing.assert_close(found.bias, mean.bias)
    assert not torch.equal(found.weight, large.weight)


@settings(max_examples=15)
@given(KINDS, st.sampled_from([1e-3, 0.1, 3.0]), st.sampled_from([2, 3, 50]), st.integers(0, 10**6))
def test_the_objective_is_flat_at_the_fit(kind: str, ridge: float, batch: int, seed: int) -> None:
    """Its gradient by autograd through the node itself; with too few rows only the bias is fitted."""
    node, shape = cases()[kind]
    torch.manual_seed(seed)
    x, start = torch.randn(batch, *shape) + 0.3, blurred(node)
    wanted = node.forward(x) + torch.randn(batch, *node.output_shape(shape))
    found = refit(start, x, wanted, ridge)
    groups = node.groups if isinstance(node, Conv) else 1
    inputs = node.weight[0].numel()
    rows = unfolded(node, x).reshape(-1, groups, inputs)
    spread = rows.var(0, unbiased=False).mean(1).double()
    strength = ridge * spread
    assert found.bias is not None
    weight, bias = found.weight.double().requires_grad_(), found.bias.double().requires_grad_()
    left = replace(node, weight=weight, bias=bias).forward(x.double()) - wanted
    channels = 1 if isinstance(node, Conv) else -1
    fit = left.square().movedim(channels, 0).flatten(1).mean(1).sum()
    away = (weight - start.weight).square().reshape(groups, -1).sum(1)
    loss = fit + (strength * away).sum()
    enough = len(rows) >= FEWEST_ROWS_PER_INPUT * inputs
    assert enough or torch.equal(found.weight, start.weight)
    for gradient in torch.autograd.grad(loss, (weight, bias) if enough else (bias,)):
        assert float(gradient.abs().max()) < 1e-4 * (1 + float(loss.detach()))


def unfolded(node: Affine | Conv, x: Tensor) -> Tensor:
    """Patches by asking a convolution with one-hot kernels for them: (rows, groups * inputs of a group)."""
    if isinstance(node, Affine):
        return x.reshape(-1, x.shape[-1])
    inputs = node.weight[0].numel()
    picks = (
        torch.eye(inputs).reshape(inputs, *node.weight.shape[1:]).repeat(node.groups, *(1,) * (node.weight.ndim - 1))
    )
    return replace(node, weight=picks, bias=None).forward(x).movedim(1, -1).flatten(0, -2)


@pytest.mark.parametrize("kind", cases())
def test_a_strong_ridge_moves_the_bias_only(kind: str) -> None:
    node, shape = cases()[kind]
    x = torch.randn(20, *shape)
    found = refit(node, x, node.forward(x) + 2, ridge=1e9)
    torch.testing.assert_close(found.weight, node.weight, rtol=0, atol=1e-5)
    assert found.bias is not None
    torch.testing.assert_close(
        found.bias, torch.full((len(node.weight),), 2.0) + (0 if node.bias is None else node.bias)
    )


@pytest.mark.parametrize("kind", cases())
def test_little_data_change_little(kind: str) -> None:
    """One sample of noise pulls less than many do, and data without any spread leave the weights alone."""
    node, shape = cases()[kind]
    x, noise = torch.randn(200, *shape), torch.randn(200, *node.output_shape(shape))
    still = refit(node, torch.ones_like(x[:1]) if isinstance(node, Affine) else torch.zeros_like(x[:1]), noise[:1])
    assert bool(torch.isfinite(still.weight).all())
    if isinstance(node, Conv):
        torch.testing.assert_close(still.weight, node.weight)
    one = float((refit(node, x[:1], node.forward(x[:1]) + noise[:1]).weight - node.weight).norm())
    assert one < float(node.weight.norm())


@pytest.mark.parametrize("kind", cases())
def test_rectified_targets_leave_negative_values_free(kind: str) -> None:
    """The distance to the nearest value that a ReLU does not tell from the target is smaller than without."""
    node, shape = cases()[kind]
    x = torch.randn(200, *shape)
    y, coarse = node.forward(x), x.round()

    def distance(fitted: Affine | Conv) -> float:
        found = fitted.forward(coarse)
        return float(torch.where(y > 0, found - y, found.clamp(min=0)).square().mean())

    free, bound = (refit(node, coarse, y, 1e-3, rectified=rectified) for rectified in (True, False))
    assert distance(free) < distance(bound) < distance(node)


def test_the_rest_is_taken_from_the_target() -> None:
    node, shape = cases()["plain"]
    x = torch.randn(30, *shape)
    y, rest = torch.randn(2, 30, *node.output_shape(shape))
    together, apart = refit(node, x, y, rest=rest), refit(node, x, y - rest)
    torch.testing.assert_close(together.weight, apart.weight)
    torch.testing.assert_close(together.bias, apart.bias)


def test_some_positions_are_enough_and_the_seed_says_which() -> None:
    node, shape = cases()["plain"]
    x = torch.randn(300, *shape)
    wanted = node.forward(x) + torch.randn(300, *node.output_shape(shape))
    every = refit(blurred(node), x, wanted, 1e-3, samples=10**6)
    few, again, others = (refit(node, x, wanted, 1e-3, samples=2000, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(few.weight, again.weight)
    assert not torch.equal(few.weight, others.weight)
    assert float((few.weight - node.weight).abs().max()) < 0.15
    assert float((every.weight - node.weight).abs().max()) < 0.06


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"ridge": 0.0}, ParameterError, "ridge must be > 0, got 0"),
        ({"wanted": torch.zeros(5, 4)}, ShapeError, r"Affine gives \(5, 3\) on these inputs, but wanted is \(5, 4\)"),
        ({"rest": torch.zeros(1, 3)}, ShapeError, r"but rest is \(1, 3\)"),
        ({"seen": torch.zeros(5, 7)}, ShapeError, "cannot take features"),
    ],
)  # fmt: skip
def test_refusals(change: dict[str, Tensor], kind: type[NeuroError], message: str) -> None:
    given = {"seen": torch.zeros(5, 6), "wanted": torch.zeros(5, 3), **change}
    with pytest.raises(kind, match=message):
        refit(Affine(torch.ones(3, 6)), **given)  # type: ignore[arg-type]
