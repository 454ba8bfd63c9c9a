"""Trinary weights and neurons without memory: what they compute, how they learn, and the graph that they become."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuro import simulate, trace
from neuro.encode import Rate
from neuro.errors import ParameterError, ShapeError
from neuro.nodes import LIF, Conv
from neuro.training import Encoded, RateCrossEntropy, accuracy, fit
from neuro.trinary import EachTick, Ensemble, Thermometer, Trinary, TrinaryConv2d, TrinaryLinear, Votes, trinary


def seasoned(step: nn.Module, seed: int = 0) -> nn.Module:
    """In eval mode, with statistics and thresholds as if it had seen something."""
    drawn = torch.Generator().manual_seed(seed)
    for part in step.modules():
        if isinstance(part, Trinary):
            size = part.mean.shape
            part.mean.copy_(2 * torch.randn(size, generator=drawn))
            part.var.copy_(1 + 5 * torch.rand(size, generator=drawn))
            part.offset.data = torch.randn(size, generator=drawn)
    return step.eval()


def bits(*shape: int, seed: int = 0) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5).float()


def test_gradients_pass_straight_to_hidden_weights_and_not_further_outside() -> None:
    hidden = torch.tensor([-1.7, -0.6, -0.4, 0.0, 0.4, 0.6, 1.7], requires_grad=True)
    used = trinary(hidden)
    assert used.tolist() == [-1, -1, 0, 0, 0, 1, 1]
    (down,) = torch.autograd.grad(used.sum(), hidden, retain_graph=True)
    (up,) = torch.autograd.grad(-used.sum(), hidden)
    assert down.tolist() == [0, 1, 1, 1, 1, 1, 1]  # descent would carry the first further below -1
    assert up.tolist() == [-1, -1, -1, -1, -1, -1, 0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1, 2]), st.sampled_from([1, 2, 3]), st.sampled_from([1, 2]))
def test_the_graph_answers_as_the_module(seed: int, groups: int, kernel: int, stride: int) -> None:
    torch.manual_seed(seed)
    first = TrinaryConv2d(2, 6, kernel, stride, kernel // 2, groups)
    size = first(bits(1, 2, 5, 6)).numel()
    step = seasoned(nn.Sequential(first, nn.Flatten(), TrinaryLinear(size, 20, 2), Votes(20, 5)), seed)
    x = bits(30, 2, 5, 6, seed=seed)
    found = simulate(trace(step, x), x[None]).outputs
    with torch.no_grad():
        wanted = step(x)
    torch.testing.assert_close(found * step[-1].log_gain.detach().exp() / 4, wanted, rtol=1e-5, atol=1e-5)


def test_norm_and_threshold_become_a_whole_number() -> None:
    """Every sum that a neuron can have: it fires with the folded bias where it does with its own norm."""
    layer = seasoned(TrinaryLinear(40, 50))
    sums = torch.arange(-40.0, 41.0)[:, None].expand(-1, 50)
    normal = (sums.double() - layer.mean) / (layer.var.double() + 1e-4).sqrt() + layer.offset.detach()
    bias = layer.bias()
    assert torch.equal(bias, bias.round())
    assert torch.equal(normal >= 0, sums + bias >= 1)


def test_groups_are_blocks_of_a_matrix() -> None:
    torch.manual_seed(0)
    layer = TrinaryLinear(12, 6, groups=3).eval()
    graph = trace(layer, bits(2, 12))
    (conv,) = (node for node in graph.nodes.values() if isinstance(node, Conv))
    assert set(conv.weight.unique().tolist()) <= {-1.0, 0.0, 1.0}
    blocks = torch.block_diag(*conv.weight.flatten(1).split(2))
    x = bits(20, 12)
    assert torch.equal(layer.sums(x, trinary(layer.hidden)), x @ blocks.T)
    assert any(isinstance(node, LIF) and not node.beta.any() for node in graph.nodes.values())


def problem(samples: int = 600, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Four noisy patterns of 64 bits."""
    drawn = torch.Generator().manual_seed(seed)
    patterns = bits(4, 64, seed=7)
    y = torch.randint(4, (samples,), generator=drawn)
    return (patterns[y] - (torch.rand(samples, 64, generator=drawn) < 0.2).float()).abs(), y


def test_fit_trains_it() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(TrinaryLinear(64, 64, groups=2), TrinaryLinear(64, 40), Votes(40, 4))
    x, y = problem()
    before = accuracy(net, x, y)
    fit(net, (x, y), epochs=8, batch_size=30, learning_rate=2e-2, threads=1)
    graph = trace(net, x[:2])
    fresh_x, fresh_y = problem(seed=1)
    right = (simulate(graph, fresh_x[None]).outputs.argmax(1) == fresh_y).float().mean()
    assert before < 0.6
    assert right > 0.95


def test_several_ticks_of_rates_train_as_well() -> None:
    torch.manual_seed(0)
    net = EachTick(nn.Sequential(TrinaryLinear(64, 40), Votes(40, 4)))
    x, y = problem()
    x = 0.25 + 0.5 * x  # brightness; every tick shows it as spikes of that rate
    shown = Encoded(Rate(), 6)
    fit(net, (x, y), epochs=6, batch_size=30, learning_rate=2e-2, encode=shown, loss=RateCrossEntropy(), threads=1)
    one = accuracy(net, x, y, encode=Encoded(Rate(), 1), loss=RateCrossEntropy())
    many = accuracy(net, x, y, encode=Encoded(Rate(), 12), loss=RateCrossEntropy())
    assert many > 0.9
    assert many > one


def test_each_tick_stands_alone() -> None:
    tick = seasoned(nn.Sequential(TrinaryLinear(12, 9), Votes(9, 3)))
    x = bits(5, 4, 12)
    assert torch.equal(EachTick(tick).eval()(x), torch.stack([tick(one) for one in x]))


def test_an_ensemble_votes_together() -> None:
    members = [nn.Sequential(TrinaryLinear(12, 8), TrinaryLinear(8, 9)) for _ in range(3)]
    net = seasoned(nn.Sequential(Ensemble(*members), Votes(27, 3)))
    x = bits(40, 12)
    votes = sum(member(x).unflatten(1, (3, 3)).sum(1) for member in members)
    assert torch.equal(simulate(trace(net, x), x[None]).outputs, votes)


@given(st.integers(1, 6), st.lists(st.floats(0, 1, width=32), min_size=2, max_size=8))
def test_a_thermometer_counts_the_marks_below(levels: int, values: list[float]) -> None:
    x = torch.tensor(values)[:, None, None, None]
    shown = Thermometer(levels)(x)
    assert shown.shape == (len(values), levels, 1, 1)
    assert bool((shown.diff(dim=1) <= 0).all())
    marks = [(k + 1) / (levels + 1) for k in range(levels)]
    counts = [sum(value >= torch.tensor(mark) for mark in marks) for value in x.flatten()]
    assert shown.sum((1, 2, 3)).tolist() == counts


def test_arguments_out_of_their_domain_are_refused() -> None:
    with pytest.raises(ParameterError, match="3 outputs do not divide into 2 groups"):
        TrinaryLinear(4, 3, groups=2)
    with pytest.raises(ParameterError, match="3 inputs do not divide into 2 groups"):
        TrinaryConv2d(3, 4, 3, groups=2)
    with pytest.raises(ParameterError, match="equally many"):
        Votes(11, 10)
    with pytest.raises(ParameterError, match="levels"):
        Thermometer(0)
    with pytest.raises(ShapeError, match="channels"):
        Thermometer(2)(torch.zeros(3, 4))
