"""Surrogates: exact spikes forward, slopes that are those of their definitions and of other libraries backward."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuro.errors import ParameterError
from neuro.surrogate import (
    ArcTan,
    Boxcar,
    FastSigmoid,
    MultiGaussian,
    Sigmoid,
    SuperSpike,
    Surrogate,
    Triangle,
    spike,
)

SMOOTH = {
    ArcTan(3.0): lambda u: torch.atan(math.pi / 2 * 3 * u) / math.pi + 0.5,
    FastSigmoid(5.0): lambda u: (1 + 5 * u / (1 + 5 * u.abs())) / 2,
    Sigmoid(4.0): lambda u: torch.sigmoid(4 * u),
}
"""What each of them is the derivative of."""

AREAS = {Triangle(0.5, 3.0): 1.5, Boxcar(0.25, 1.5): 0.75, SuperSpike(20.0): 2 / 20, MultiGaussian(): 0.5 * (1 - 0.15)}

EVERY: list[Surrogate] = [*SMOOTH, *AREAS]


@pytest.mark.parametrize("surrogate", SMOOTH, ids=repr)
def test_slope_is_the_derivative_of_the_smooth_step(surrogate: Surrogate) -> None:
    u = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(SMOOTH[surrogate](u).sum(), u)
    assert torch.allclose(surrogate.slope(u.detach()), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("surrogate", AREAS, ids=repr)
def test_area(surrogate: Surrogate) -> None:
    u = torch.linspace(-400, 400, 4_000_001, dtype=torch.float64)
    assert float(torch.trapezoid(surrogate.slope(u), u)) == pytest.approx(AREAS[surrogate], rel=2e-3)


@pytest.mark.parametrize("surrogate", EVERY, ids=repr)
def test_slopes_are_even_and_largest_at_the_threshold(surrogate: Surrogate) -> None:
    u = torch.linspace(0, 5, 501, dtype=torch.float64)
    assert torch.allclose(surrogate.slope(u), surrogate.slope(-u))
    assert surrogate.slope(u).argmax() == 0


@pytest.mark.parametrize("surrogate", EVERY, ids=repr)
def test_support_is_where_the_slope_is_not_zero(surrogate: Surrogate) -> None:
    inside, far = torch.tensor([0.0, 0.2]), torch.tensor([-9.0, -1.0001, 1.0001, 9.0])
    assert bool((surrogate.slope(inside) > 0).all())
    if surrogate.support is None:
        assert bool((surrogate.slope(far) != 0).all())
    else:
        edge = torch.tensor([1.001, 50.0]) * surrogate.support
        assert not surrogate.slope(edge).any()
        assert not surrogate.slope(-edge).any()
        assert bool((surrogate.slope(0.99 * edge[:1] / 1.001) > 0).all())


@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20), st.booleans(), st.sampled_from(EVERY)
)
def test_spikes_are_the_step_function(values: list[float], strict: bool, surrogate: Surrogate) -> None:
    u = torch.tensor([*values, 0.0, -0.0], requires_grad=True)
    z = spike(u, surrogate, strict)
    assert torch.equal(z, ((u > 0) if strict else (u >= 0)).float())
    given_ = torch.arange(1, len(u) + 1).float()
    z.backward(given_)
    assert u.grad is not None
    assert torch.equal(u.grad, given_ * surrogate.slope(u.detach()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes_are_kept(dtype: torch.dtype) -> None:
    u = torch.randn(5, dtype=dtype, requires_grad=True)
    z = spike(u, ArcTan())
    z.sum().backward()
    assert z.dtype == dtype
    assert u.grad is not None
    assert u.grad.dtype == dtype


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_parameters_are_positive_and_finite(value: float) -> None:
    with pytest.raises(ParameterError, match="ArcTan: alpha must be a finite number > 0"):
        ArcTan(value)
    with pytest.raises(ParameterError, match="Triangle: height must be"):
        Triangle(1.0, value)


def _slope_of(function: object, u: Tensor) -> Tensor:
    given_ = u.clone().requires_grad_()
    function(given_).sum().backward()  # type: ignore[operator]
    assert given_.grad is not None
    return given_.grad


def test_slopes_of_snntorch() -> None:
    surrogate = pytest.importorskip("snntorch.surrogate")
    u = torch.linspace(-2, 2, 81)
    for ours, theirs in (
        (ArcTan(2.0), surrogate.atan(alpha=2.0)),
        (SuperSpike(25.0), surrogate.fast_sigmoid(slope=25)),
        (Sigmoid(25.0), surrogate.sigmoid(slope=25)),
    ):
        assert torch.allclose(ours.slope(u), _slope_of(theirs, u), rtol=1e-4, atol=1e-7)


def test_slopes_of_norse() -> None:
    threshold = pytest.importorskip("norse.torch.functional.threshold")
    u = torch.linspace(-2, 2, 81)
    for ours, name, alpha in ((SuperSpike(1.0), "super", 1.0), (Triangle(1.0, 0.3), "triangle", 0.3)):
        theirs = _slope_of(lambda v, name=name, alpha=alpha: threshold.threshold(v, name, alpha), u)
        assert torch.allclose(ours.slope(u), theirs, rtol=1e-5, atol=1e-7), name
