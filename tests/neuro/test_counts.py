"""Counts against published numbers, brute force, and silence."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuro.counts import Counts, Tally, active_parameters, fan_out
from neuro.graph import Graph, Input, Node
from neuro.nodes import IF, Affine, AvgPool, Conv, Experts, MaxPool, ReLU, Requantise, Reshape, Scale, Softmax
from neuro.simulate import plain_counts, simulate


def chain(shape: tuple[int, ...], *nodes: Node) -> Graph:
    names = ["x", *(f"n{number}" for number in range(len(nodes)))]
    return Graph(
        dict(zip(names, (Input(shape), *nodes), strict=True)),
        {name: (before,) for before, name in itertools.pairwise(names)},
    )


def dense(out: int, into: int, bias: bool = True) -> Affine:
    return Affine(torch.randn(out, into), torch.randn(out) if bias else None)


def test_mlp_784_300_100_10() -> None:
    graph = chain((784,), dense(300, 784), ReLU(), dense(100, 300), ReLU(), dense(10, 100))
    total = plain_counts(graph, torch.rand(1, 784) + 0.01).total
    assert graph.parameters == active_parameters(graph) == 266_610
    assert total.macs == 784 * 300 + 300 * 100 + 100 * 10 == 266_200
    assert total.weight_words == 266_200
    assert total.comparisons == 400
    assert total.additions == 410
    assert total.accumulates == total.spikes == total.updates == 0


def test_lenet5_caffe() -> None:
    pool = MaxPool((2, 2), (2, 2), (0, 0))
    graph = chain(
        (1, 28, 28),
        Conv(torch.randn(20, 1, 5, 5), torch.randn(20)), pool,
        Conv(torch.randn(50, 20, 5, 5), torch.randn(50)), pool, Reshape((800,)),
        dense(500, 800), ReLU(), dense(10, 500),
    )  # fmt: skip
    assert graph.parameters == 431_080
    counts = plain_counts(graph, torch.rand(3, 1, 28, 28))
    assert counts.per_sample("macs") == 2_293_000
    assert counts.samples == 3
    assert counts.nodes["n1"].comparisons == 3 * 20 * 12 * 12 * 3


def test_top_1_of_8_experts() -> None:
    experts = tuple(chain((784,), dense(64, 784, False), ReLU(), dense(10, 64, False)) for _ in range(8))
    graph = chain((784,), Experts(chain((784,), dense(8, 784, False)), experts, k=1))
    assert graph.parameters == 412_800
    assert active_parameters(graph) == 57_088
    counts = plain_counts(graph, torch.rand(5, 784) + 0.01)
    assert counts.per_sample("macs") == 57_088
    assert counts.per_sample("exponentials") == 8


def test_zero_inputs_and_zero_weights_do_no_effective_work() -> None:
    weight = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
    total = plain_counts(chain((3,), Affine(weight)), torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])).total
    assert total.macs == 2 * 3
    assert total.effective_macs == 1 + 2
    assert active_parameters(chain((3,), Affine(weight))) == 3


def brute_fan_out(node: AvgPool | Conv, shape: tuple[int, ...]) -> Tensor:
    """How many outputs move when one input does, weights counted one by one."""
    kernel = node.kernel if isinstance(node, AvgPool) else tuple(node.weight.shape[2:])
    dilation = (1, 1) if isinstance(node, AvgPool) else node.dilation
    outputs = node.output_shape(shape)
    counts = torch.zeros(shape, dtype=torch.float64)
    for o in range(outputs[0]):
        for place in itertools.product(*map(range, outputs[1:])):
            for tap in itertools.product(*map(range, kernel)):
                at = [
                    p * s - q + k * d
                    for p, s, q, k, d in zip(place, node.stride, node.padding, tap, dilation, strict=True)
                ]
                if all(0 <= a < size for a, size in zip(at, shape[1:], strict=True)):
                    if isinstance(node, AvgPool):
                        counts[o, *at] += 1
                    else:
                        per_group = node.weight.shape[1]
                        first = o // (outputs[0] // node.groups) * per_group
                        for c in range(per_group):
                            counts[first + c, *at] += float(node.weight[o, c][tap] != 0)
    return counts


@given(
    st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.integers(1, 2), st.integers(1, 2), st.integers(3, 6),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_fan_out_is_exact_at_borders(
    kernel: int, stride: int, pad: int, dilation: int, groups: int, size: int, ceil: bool, include: bool
) -> None:
    shape = (2, size, size + 1)
    weight = torch.randn(4, 2 // groups, kernel, kernel) * (torch.rand(4, 2 // groups, kernel, kernel) < 0.7)
    if dilation * (kernel - 1) + 1 <= size:
        conv = Conv(weight, None, (stride, 1), (pad, 0), (dilation, dilation), groups)
        assert torch.equal(fan_out(conv, shape), brute_fan_out(conv, shape))
    pool = AvgPool((kernel, kernel), (stride, kernel), (min(pad, kernel // 2), 0), include, ceil)
    assert torch.equal(fan_out(pool, shape), brute_fan_out(pool, shape))


def test_fan_out_of_matrices_and_factors() -> None:
    weight = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 1.0]])
    assert fan_out(Affine(weight), (4, 2)).tolist() == [[3.0, 1.0]] * 4
    assert fan_out(Scale(torch.tensor([[2.0], [0.0]])), (2, 3)).tolist() == [[1.0] * 3, [0.0] * 3]
    with pytest.raises(TypeError, match="ReLU is no connection"):
        fan_out(ReLU(), (2,))


def test_a_silent_layer_updates_but_accumulates_nothing() -> None:
    graph = chain((4,), IF(torch.tensor(1.0), torch.tensor(0.0)), dense(3, 4), IF(torch.tensor(1e9), torch.tensor(0.0)))
    counts = simulate(graph, torch.zeros(2, 4), steps=7).counts
    assert counts.nodes["n0"].spikes == 0
    assert counts.nodes["n1"].accumulates == counts.nodes["n1"].weight_words == 0
    assert counts.nodes["n0"].updates == 2 * 4 * 7
    assert counts.nodes["n2"].updates == 2 * 3 * 7
    assert counts.total.macs == 0


@pytest.mark.parametrize("kernel", ["numba", "reference"])
def test_a_layer_that_always_fires_accumulates_its_whole_fan_out(kernel: str) -> None:
    graph = chain(
        (2, 5, 5), IF(torch.tensor(1.0), torch.tensor(0.0)), Conv(torch.randn(3, 2, 3, 3), None, (2, 2), (1, 1)),
        IF(torch.tensor(1e9), torch.tensor(0.0)),
    )  # fmt: skip
    counts = simulate(graph, torch.full((2, 2, 5, 5), 1.0), steps=6, kernel=kernel).counts  # type: ignore[arg-type]
    assert counts.nodes["n0"].spikes == 2 * 6 * 50
    reach = int(brute_fan_out(graph.nodes["n1"], (2, 5, 5)).sum())  # type: ignore[arg-type]
    assert counts.nodes["n1"].accumulates == 2 * 6 * reach
    assert counts.nodes["n1"].state_words == 2 * counts.nodes["n1"].accumulates
    assert counts.nodes["n1"].macs == 0


def test_a_constant_input_is_computed_once() -> None:
    graph = chain((4,), dense(3, 4), IF(torch.tensor(1.0), torch.tensor(0.0)), dense(2, 3))
    x = torch.rand(5, 4) + 0.1
    held = simulate(graph, x, steps=9)
    shown = simulate(graph, x.expand(9, 5, 4))
    assert held.counts.nodes["n0"].macs == 5 * 12
    assert shown.counts.nodes["n0"].macs == 9 * 5 * 12
    assert held.counts.nodes["n2"] == shown.counts.nodes["n2"]
    torch.testing.assert_close(held.outputs, shown.outputs)


def test_spike_input_is_counted_as_events() -> None:
    graph = chain((4,), dense(3, 4), IF(torch.tensor(1.0), torch.tensor(0.0)))
    spikes = (torch.rand(8, 2, 4) < 0.3).float()
    counts = simulate(graph, spikes).counts
    assert counts.nodes["x"].spikes == int(spikes.sum())
    assert counts.nodes["n0"].accumulates == 3 * int(spikes.sum())
    assert counts.nodes["n0"].macs == 0


def test_adding_counts() -> None:
    a = Counts(2, 5, {"p": Tally(macs=1), "q": Tally(spikes=2)})
    b = Counts(3, 7, {"q": Tally(spikes=5, hops=1)})
    both = a + b
    assert (both.samples, both.steps) == (5, 7)
    assert both.nodes == {"p": Tally(macs=1), "q": Tally(spikes=7, hops=1)}
    assert both.total == Tally(macs=1, spikes=7, hops=1)
    assert both.per_sample("spikes") == pytest.approx(1.4)


def test_precision_is_that_of_the_weights() -> None:
    assert plain_counts(chain((2,), dense(1, 2), Softmax()), torch.rand(1, 2)).precision == "float32"
    integer = chain(
        (2,), dense(1, 2), Requantise(torch.tensor([2.0]), 0, 9), Affine(torch.ones(1, 1, dtype=torch.int32))
    )
    assert plain_counts(integer, torch.rand(1, 2)).precision == "int8"
