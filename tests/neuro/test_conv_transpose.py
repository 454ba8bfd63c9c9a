"""The transposed convolution: torch's arithmetic, the adjoint of a convolution, exact integers, true counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardware_targets.lower import matrix_of
from neuro.counts import fan_out
from neuro.errors import NeuroError, ParameterError, ShapeError
from neuro.files import load, save
from neuro.graph import Graph, Input
from neuro.nodes import IF, Conv, ConvTranspose
from neuro.simulate import simulate


@st.composite
def transposed(draw: st.DrawFn) -> tuple[ConvTranspose, tuple[int, ...]]:
    dims, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    sizes = [[draw(st.integers(low, 3)) for _ in range(dims)] for low in (1, 1, 1)]
    kernel, stride, dilation = map(tuple, sizes)
    more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    padding = tuple(draw(st.integers(0, (k - 1) * d)) for k, d in zip(kernel, dilation, strict=True))
    torch.manual_seed(draw(st.integers(0, 10**6)))
    weight = torch.randn(2 * groups, 3, *kernel)
    bias = torch.randn(3 * groups) if draw(st.booleans()) else None
    shape = (2 * groups, *(draw(st.integers(3, 5)) for _ in range(dims)))
    return ConvTranspose(weight, bias, stride, padding, more, dilation, groups), shape


def torch_module(node: ConvTranspose) -> torch.nn.Module:
    kind = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)[node.weight.ndim - 3]
    outputs = node.weight.shape[1] * node.groups
    module = kind(
        node.weight.shape[0], outputs, tuple(node.weight.shape[2:]), node.stride, node.padding, node.output_padding,
        node.groups, node.bias is not None, node.dilation,
    )  # fmt: skip
    module.weight.data = node.weight
    if node.bias is not None:
        module.bias.data = node.bias
    return module


@given(transposed())
def test_it_is_torchs_and_the_adjoint_of_a_convolution(drawn: tuple[ConvTranspose, tuple[int, ...]]) -> None:
    node, shape = drawn
    x = torch.randn(2, *shape)
    y = node.forward(x)
    assert tuple(y.shape[1:]) == node.output_shape(shape)
    torch.testing.assert_close(y, torch_module(node)(x).detach())
    forth, back = (
        Conv(node.weight, None, node.stride, node.padding, node.dilation, node.groups),
        replace(node, bias=None),
    )
    other = torch.randn_like(y)
    into = forth.forward(other)
    # Where dilation leaves room for much output padding, the convolution sees places beyond the input.
    window = tuple(slice(0, size) for size in x.shape)
    torch.testing.assert_close((back.forward(x) * other).sum(), (x * into[window]).sum(), rtol=1e-3, atol=1e-3)


@given(transposed())
def test_integers_are_exact_and_fan_out_counts_the_matrix(drawn: tuple[ConvTranspose, tuple[int, ...]]) -> None:
    node, shape = drawn
    whole = replace(node, weight=(20 * node.weight).round().int(), bias=None)
    x = torch.randint(-50, 50, (2, *shape), dtype=torch.int32)
    slow = torch_module(replace(whole, weight=whole.weight.double()))(x.double()).detach()
    assert torch.equal(whole.forward(x), slow.int())
    matrix = matrix_of(whole, shape)
    reached = torch.from_numpy(matrix.astype(bool).sum(0)).reshape(shape)
    assert torch.equal(fan_out(whole, shape), reached.double())
    assert (matrix @ x[0].flatten().double().numpy() == slow[0].flatten().numpy()).all()


@given(transposed())
def test_factors_of_channels_go_into_the_weights(drawn: tuple[ConvTranspose, tuple[int, ...]]) -> None:
    node, shape = drawn
    x, plain = torch.randn(2, *shape), replace(node, bias=None)
    form = (-1, *(1,) * (node.weight.ndim - 2))
    into, out = torch.rand(shape[0]), torch.rand(node.output_shape(shape)[0])
    scaled = replace(plain, weight=node.weight * node.per_input(into) * node.per_output(out))
    torch.testing.assert_close(
        scaled.forward(x), plain.forward(x * into.reshape(form)) * out.reshape(form), rtol=1e-4, atol=1e-5
    )
    rows = torch.stack(
        [replace(plain, weight=node.weight * node.per_output(row)).weight.abs().sum() for row in torch.eye(len(out))]
    )
    torch.testing.assert_close(node.by_output().abs().sum(1), rows)


def test_spikes_cause_one_addition_for_each_weight_they_meet() -> None:
    node = ConvTranspose(torch.randn(1, 1, 3, 3), None, (2, 2), (1, 1), (1, 1))
    one = torch.ones(())
    graph = Graph({"x": Input((1, 3, 3)), "up": node, "n": IF(one, 0 * one)}, {"up": ("x",), "n": ("up",)})
    corner, centre = torch.zeros(1, 1, 1, 3, 3), torch.zeros(1, 1, 1, 3, 3)
    corner[..., 0, 0], centre[..., 1, 1] = 1, 1
    assert simulate(graph, corner).counts.nodes["up"].accumulates == 4
    assert simulate(graph, centre).counts.nodes["up"].accumulates == 9
    dense = simulate(
        graph.edit(nodes={"x": Input((1, 3, 3)), "up": node}, sources={"up": ("x",)}), torch.rand(2, 1, 3, 3)
    )
    assert dense.counts.nodes["up"].macs == 2 * 9 * 9
    assert dense.counts.nodes["up"].effective_macs == 2 * (4 + 4 * 6 + 4 * 9)


def test_it_is_saved_and_shown(tmp_path: Path) -> None:
    node = ConvTranspose(torch.randn(4, 3, 2, 2), torch.randn(6), (2, 2), groups=2)
    graph = Graph({"x": Input((4, 3, 3)), "up": node}, {"up": ("x",)})
    save(graph, tmp_path / "up.h5")
    again = load(tmp_path / "up.h5").nodes["up"]
    assert isinstance(again, ConvTranspose)
    assert torch.equal(again.weight, node.weight)
    assert (again.stride, again.groups) == ((2, 2), 2)
    assert "kernel 2×2, stride 2×2, groups 2" in str(graph)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: ConvTranspose(torch.ones(2, 2)), ParameterError, "weight must be"),
        (lambda: ConvTranspose(torch.ones(3, 1, 2, 2), groups=2), ParameterError, "do not split in 2 groups"),
        (lambda: ConvTranspose(torch.ones(2, 1, 2, 2), torch.ones(2)), ParameterError, r"bias must have shape \(1,\)"),
        (lambda: ConvTranspose(torch.ones(2, 1, 2, 2), output_padding=(1, 0)), ParameterError, "must be smaller"),
        (
            lambda: ConvTranspose(torch.ones(2, 1, 2, 2), stride=(0, 1)),
            ParameterError,
            "stride must be 2 integers >= 1",
        ),
        (lambda: ConvTranspose(torch.ones(2, 1, 2, 2)).output_shape((3, 4, 4)), ShapeError, "cannot take features"),
        (
            lambda: ConvTranspose(torch.ones(2, 1, 2, 2), padding=(2, 2)).output_shape((2, 2, 2)),
            ShapeError,
            "leaves nothing",
        ),
    ],
)
def test_refusals(make: object, kind: type[NeuroError], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()  # type: ignore[operator]
