"""Every node against torch, NumPy integers, or a calculation by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from neuro.errors import NeuroError, ParameterError, ShapeError
from neuro.graph import Graph, Input, Stateless
from neuro.nodes import (
    IF,
    LI,
    LIF,
    Add,
    Affine,
    AvgPool,
    BatchNorm,
    Clamp,
    Concat,
    Conv,
    Dequantise,
    Dropout,
    Experts,
    LeakyReLU,
    MaxCount,
    MaxPool,
    Pad,
    Permute,
    Quantise,
    Readout,
    ReLU,
    Requantise,
    Reshape,
    Scale,
    Slice,
    Softmax,
)

small = st.integers(1, 3)
one, ones = torch.tensor(1.0), torch.ones(2)


def same(node: Stateless, reference: Callable[..., Tensor], *x: Tensor) -> None:
    """The node gives what the reference gives, in the shape it promised."""
    with torch.no_grad():
        y, expected = node.forward(*x), reference(*x)
    assert tuple(y.shape[1:]) == node.output_shape(*(tuple(value.shape[1:]) for value in x))
    torch.testing.assert_close(y, expected)


@given(
    dims=st.integers(1, 3), groups=small, out=small, into=small, kernel=small, stride=small,
    padding=st.integers(0, 2), dilation=st.integers(1, 2), bias=st.booleans(), extra=st.integers(0, 3),
)  # fmt: skip
def test_conv(
    dims: int, groups: int, out: int, into: int, kernel: int, stride: int, padding: int, dilation: int, bias: bool,
    extra: int,
) -> None:  # fmt: skip
    size = max(dilation * (kernel - 1) + 1 - 2 * padding, 1) + extra
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    layer = kind(into * groups, out * groups, kernel, stride, padding, dilation, groups, bias)
    node = Conv(layer.weight, layer.bias, (stride,) * dims, (padding,) * dims, (dilation,) * dims, groups)
    same(node, layer, torch.randn(2, into * groups, *(size + d for d in range(dims))))


@given(
    dims=st.integers(1, 3), kernel=small, stride=small, pad=st.integers(0, 1), ceil=st.booleans(),
    count=st.booleans(), size=st.integers(3, 7),
)  # fmt: skip
def test_pools(dims: int, kernel: int, stride: int, pad: int, ceil: bool, count: bool, size: int) -> None:
    pad = min(pad, kernel // 2)
    x = torch.randn(2, 3, *(size + d for d in range(dims)))
    average = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[dims - 1]
    largest = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dims - 1]
    window = ((kernel,) * dims, (stride,) * dims, (pad,) * dims)
    same(AvgPool(*window, count, ceil), average(kernel, stride, pad, ceil_mode=ceil, count_include_pad=count), x)
    same(MaxPool(*window, ceil), largest(kernel, stride, pad, ceil_mode=ceil), x)
    whole = (10 * x).to(torch.int32)
    assert torch.equal(
        MaxPool(*window, ceil).forward(whole), largest(kernel, stride, pad, ceil_mode=ceil)(whole.float()).int()
    )


def test_elementwise_and_reshaping() -> None:
    x, y = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    same(ReLU(), nn.ReLU(), x)
    same(Clamp(0, 6), nn.ReLU6(), 10 * x)
    same(LeakyReLU(0.2), nn.LeakyReLU(0.2), x)
    same(Dropout(0.9), lambda value: value, x)
    same(Softmax(1), nn.Softmax(2), x)
    same(Softmax(0, log=True), nn.LogSoftmax(1), x)
    same(Add(), lambda *v: v[0] + v[1] + v[2], x, y, x)
    same(Concat(1), lambda *v: torch.cat(v, 2), x, y[:, :, :2])
    same(Reshape((5, 12)), lambda value: value.reshape(2, 5, 12), x)
    same(Permute((2, 0, 1)), lambda value: value.permute(0, 3, 1, 2), x)
    same(Pad(((0, 1), (1, 0), (2, -1)), 3.0), lambda value: nn.functional.pad(value, (2, -1, 1, 0, 0, 1), value=3.0), x)
    same(Slice(2, 1, 5, 2), lambda value: value[..., 1:5:2], x)
    factor, offset = torch.randn(3, 1, 1), torch.randn(5)
    same(Scale(factor, offset), lambda value: value * factor + offset, x)
    layer = nn.Linear(5, 7)
    same(Affine(layer.weight, layer.bias), layer, x)


def test_batch_norm_and_its_scale() -> None:
    layer = nn.BatchNorm2d(3).eval()
    layer.running_mean, layer.running_var = torch.randn(3), torch.rand(3) + 0.1
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    node = BatchNorm(layer.running_mean, layer.running_var, layer.weight.detach(), layer.bias.detach(), layer.eps)
    x = torch.randn(4, 3, 5, 5)
    same(node, layer, x)
    torch.testing.assert_close(node.as_scale(3).forward(x), node.forward(x))


@given(
    bits=st.integers(2, 12), top=st.integers(1, 2**12), seed=st.integers(0, 10**6), groups=st.integers(1, 2),
)  # fmt: skip
def test_integer_sums_equal_64_bit_arithmetic(bits: int, top: int, seed: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-top, top + 1, (2, 4, 5))
    w = rng.integers(-(2**bits), 2**bits, (4, 4 // groups, 3))
    b = rng.integers(-(2**20), 2**20, 4)
    weight, bias = torch.from_numpy(w.astype(np.int32)), torch.from_numpy(b.astype(np.int32))
    y = Conv(weight, bias, (1,), (1,), (1,), groups).forward(torch.from_numpy(x.astype(np.int32)))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1)))
    expected = np.zeros((2, 4, 5), np.int64)
    for o in range(4):
        first = o // (4 // groups) * (4 // groups)
        for p in range(5):
            expected[:, o, p] = (padded[:, first : first + 4 // groups, p : p + 3] * w[o]).sum((1, 2)) + b[o]
    assert y.dtype == torch.int32
    assert np.array_equal(y.numpy(), expected)
    wide = Affine(torch.from_numpy(w.reshape(4, -1).astype(np.int32)), torch.from_numpy(b.astype(np.int32)))
    flat = rng.integers(-top, top + 1, (3, wide.weight.shape[1]))
    result = wide.forward(torch.from_numpy(flat.astype(np.int32)))
    assert np.array_equal(result.numpy(), flat @ w.reshape(4, -1).T + b)


def test_a_sum_that_leaves_32_bits_is_refused() -> None:
    node = Affine(torch.full((1, 4), 2**15, dtype=torch.int32))
    assert node.forward(torch.full((1, 4), 2**13, dtype=torch.int32)).item() == 2**30
    with pytest.raises(ParameterError, match="a sum leaves 32-bit integers"):
        node.forward(torch.full((1, 4), 2**14, dtype=torch.int32))


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8), st.floats(0.01, 10), st.integers(1, 200))
def test_quantise(values: list[float], step: float, high: int) -> None:
    x = torch.tensor([values])
    q = Quantise(step, -high, high).forward(x)
    assert q.dtype == torch.int32
    assert int(q.abs().max()) <= high
    inside = q.abs() < high
    assert bool(((q * step - x).abs()[inside] <= step / 2 * (1 + 1e-5) + 1e-5).all())


def test_quantise_saturates_at_32_bits_instead_of_wrapping() -> None:
    q = Quantise(1e-9, -(2**31), 2**31 - 1).forward(torch.tensor([10.0, -10.0]))
    assert q.tolist() == [2**31 - 1, -(2**31)]


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=2), st.floats(1e-7, 1), st.floats(1e-7, 1))
def test_requantise_and_dequantise_by_channel(sums: list[int], m0: float, m1: float) -> None:
    x = torch.tensor([[[sums[0]], [sums[1]]]], dtype=torch.int32)
    multiplier = torch.tensor([m0, m1], dtype=torch.float64)
    expected = [min(max(round(s * m), 0), 255) for s, m in zip(sums, (m0, m1), strict=True)]
    assert Requantise(multiplier, 0, 255).forward(x).flatten().tolist() == expected
    real = Dequantise(multiplier).forward(x).flatten()
    torch.testing.assert_close(real, torch.tensor(sums, dtype=torch.float64).mul(multiplier).float())


def affine_graph(weight: Tensor, name: str = "net") -> Graph:
    return Graph({"x": Input((weight.shape[1],)), "fc": Affine(weight)}, {"fc": ("x",)}, name)


@given(st.integers(1, 4), st.integers(0, 100))
def test_experts_weigh_the_k_best(k: int, seed: int) -> None:
    torch.manual_seed(seed)
    router, weights = torch.randn(4, 3), torch.randn(4, 2, 3)
    node = Experts(affine_graph(router), tuple(affine_graph(weight) for weight in weights), k)
    x = torch.randn(5, 3)
    p = torch.softmax(x @ router.T, 1)
    expected = torch.zeros(5, 2)
    for b in range(5):
        for e in p[b].argsort(descending=True)[:k]:
            expected[b] += p[b, e] * weights[e] @ x[b]
    torch.testing.assert_close(node.forward(x), expected)
    assert node.parameters == 4 * 3 + 4 * 2 * 3
    assert node.output_shape((3,)) == (2,)


net2, net3 = affine_graph(torch.ones(2, 3)), affine_graph(torch.ones(2, 4))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Affine(torch.ones(3)), ParameterError, r"Affine: weight must be \(out, in\), got \(3,\)"),
        (lambda: Affine(torch.ones(0, 3)), ParameterError, r"got \(0, 3\)"),
        (lambda: Affine(torch.ones(2, 3), torch.ones(3)), ParameterError, r"bias must have shape \(2,\), got \(3,\)"),
        (lambda: Affine(torch.ones(2, 3), torch.ones(2, dtype=torch.int32)), ParameterError, "float32 but bias is"),
        (lambda: Affine(torch.ones(2, 3)).output_shape((4,)), ShapeError, r"cannot take features of shape \(4,\)"),
        (lambda: Conv(torch.ones(2, 3)), ParameterError, r"Conv: weight must be"),
        (lambda: Conv(torch.ones(2, 3, 1, 1), stride=(1,)), ParameterError, r"stride must be 2 integers >= 1"),
        (lambda: Conv(torch.ones(2, 3, 1, 1), stride=(0, 1)), ParameterError, r"stride must be 2 integers >= 1"),
        (lambda: Conv(torch.ones(2, 3, 1, 1), padding=(-1, 0)), ParameterError, "padding must be 2 integers >= 0"),
        (lambda: Conv(torch.ones(3, 1, 1, 1), groups=2), ParameterError, "3 output channels do not split in 2"),
        (lambda: Conv(torch.ones(2, 3, 1, 1)).output_shape((2, 5, 5)), ShapeError, "groups=1 cannot take features"),
        (lambda: Conv(torch.ones(2, 3, 3, 3)).output_shape((3, 2, 5)), ShapeError, "larger than its padded input"),
        (lambda: Scale(torch.ones(4)).output_shape((3, 1)), ShapeError, r"factor of shape \(4,\) does not broadcast"),
        (lambda: Scale(torch.ones(2, 3)).output_shape((3,)), ShapeError, "does not broadcast"),
        (lambda: BatchNorm(one, one, one, one), ParameterError, "vectors of one length"),
        (lambda: BatchNorm(ones, ones, ones, torch.ones(3)), ParameterError, "vectors of one length"),
        (lambda: BatchNorm(-ones, -ones, -ones, -ones), ParameterError, r"var \+ eps must be > 0"),
        (lambda: BatchNorm(ones, ones, ones, ones).output_shape((3,)), ShapeError, "2 channels cannot normalise"),
        (lambda: Clamp(1, 1), ParameterError, "low must be below high, got 1 and 1"),
        (lambda: Clamp(float("nan"), 1), ParameterError, "low must be below high"),
        (lambda: Softmax(2).output_shape((3, 4)), ShapeError, "have no dimension 2"),
        (lambda: Quantise(0, 0, 1), ParameterError, "step must be > 0 and finite, got 0"),
        (lambda: Quantise(float("nan"), 0, 1), ParameterError, "step must be > 0"),
        (lambda: Quantise(1, 3, 2), ParameterError, "low must be below high within 32 bits"),
        (lambda: Quantise(1, 0, 2**31), ParameterError, "within 32 bits"),
        (lambda: Requantise(torch.tensor([0.0]), 0, 1), ParameterError, "vector of positive numbers"),
        (lambda: Requantise(one, 0, 1), ParameterError, "vector of positive numbers"),
        (lambda: Requantise(torch.ones(2), 0, 1).output_shape((3,)), ShapeError, "2 multipliers for features"),
        (lambda: AvgPool((2,), (2, 2), (0,)), ParameterError, "do not describe a window"),
        (lambda: MaxPool((2, 2), (0, 1), (0, 0)), ParameterError, "do not describe a window"),
        (lambda: MaxPool((2, 2), (1, 1), (2, 0)), ParameterError, "more than half of the window"),
        (lambda: MaxPool((2, 2), (2, 2), (0, 0)).output_shape((3, 8)), ShapeError, "2-dimensional window cannot"),
        (lambda: AvgPool((9,), (1,), (0,)).output_shape((3, 8)), ShapeError, "larger than its padded input"),
        (lambda: Reshape((5,)).output_shape((2, 3)), ShapeError, "has 6 elements"),
        (lambda: Permute((0, 0)), ParameterError, r"order must use each of 0..1 once"),
        (lambda: Permute((0, 1)).output_shape((3,)), ShapeError, "does not fit features"),
        (lambda: Pad(((1, 1),)).output_shape((3, 3)), ShapeError, "amounts for 1 dimensions"),
        (lambda: Pad(((-2, -1),)).output_shape((3,)), ShapeError, "leaves nothing"),
        (lambda: Pad(((1, 1),), float("inf")), ParameterError, "value must be finite"),
        (lambda: Slice(0, 2, 2), ParameterError, "selects nothing"),
        (lambda: Slice(0, 0, 2, 0), ParameterError, "selects nothing"),
        (lambda: Slice(0, 0, 4).output_shape((3,)), ShapeError, "leaves features of shape"),
        (lambda: Add().output_shape((2,), (3,)), ShapeError, r"different shapes \(2,\), \(3,\)"),
        (lambda: Concat(1).output_shape((2, 3), (3, 3)), ShapeError, "do not line up"),
        (lambda: Concat(2).output_shape((2, 3), (3, 3)), ShapeError, "do not line up"),
        (lambda: Concat(-1).output_shape((2, 3), (2, 3)), ShapeError, "do not line up"),
        (lambda: Experts(net2, (net2, net2), 3), ParameterError, r"k must lie in 1..2, got 3"),
        (lambda: Experts(net2, (net2,) * 3), ShapeError, r"gives \(2,\) scores for 3 experts"),
        (lambda: Experts(net2, (net2, affine_graph(torch.ones(5, 3)))), ShapeError, "one output shape"),
        (lambda: Experts(net2, (net2, net3)).output_shape((3,)), ShapeError, r"takes \(4,\), not features of \(3,\)"),
        (lambda: IF(-one, one), ParameterError, r"IF: theta must be > 0, got -1"),
        (lambda: IF(one, one, "hard"), ParameterError, "reset must be 'subtract' or 'zero' or 'none', got 'hard'"),  # type: ignore[arg-type]
        (lambda: IF(torch.ones(4), one).output_shape((3,)), ShapeError, "theta of shape"),
        (lambda: LIF(torch.tensor(1.1), one, one), ParameterError, r"LIF: beta must lie in \[0, 1\]"),
        (lambda: LIF(torch.tensor(0.9), 0 * one, one), ParameterError, "theta must be > 0"),
        (lambda: LI(torch.tensor(-0.1)), ParameterError, "LI: beta must lie in"),
        (lambda: Readout(-1), ParameterError, "start must be >= 0, got -1"),
        (lambda: MaxCount((3,), (1,), (0,)).output_shape((1, 2)), ShapeError, "larger than its padded input"),
    ],
)  # fmt: skip
def test_refusals(make: Callable[[], object], kind: type[NeuroError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
