"""What the tracer refuses, and that it says all of it at once, with place and rewrite."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.errors import NeuroError, ParameterError, ShapeError, UnsupportedNode
from neuro.trace import trace


class Spelled(nn.Module):
    def __init__(self, function: Callable[..., object], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.function = function

    def forward(self, *x: Tensor) -> object:
        return self.function(self, *x)


class Recurrent(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 8)
        self.rnn = nn.LSTM(8, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(torch.relu(self.embed(x)))
        z, _ = self.attention(y, y, y)
        z = F.scaled_dot_product_attention(z, z, z)
        return F.gelu(self.head(self.norm(z).mean(1)))


@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrence_attention_and_all_else_are_refused_in_one_message(batch_first: bool) -> None:
    with pytest.raises(UnsupportedNode) as caught:
        trace(Recurrent(batch_first), torch.randn(3, 5, 8))
    head, *lines = str(caught.value).splitlines()
    assert head == "'Recurrent': 5 operation(s) have no node"
    for line, words in zip(
        lines,
        (
            ("'rnn' (LSTM)", "aten.lstm", "y, _ = self.rnn(torch.relu", "recurrent layers"),
            ("'attention' (MultiheadAttention)", "aten.", "z, _ = self.attention(y, y, y)", "attention multiplies"),
            ("aten.scaled_dot_product_attention", "F.scaled_dot_product_attention(z, z, z)", "attention multiplies"),
            ("'norm' (LayerNorm)", "aten.layer_norm", "self.norm(z)", "BatchNorm"),
            ("aten.gelu", "return F.gelu", "no node has this curve"),
        ),
        strict=True,
    ):
        assert all(word in line for word in words), line
        assert "test_trace_refusals.py:" in line


REFUSED = [
    pytest.param(lambda m, x: x * x, "aten.mul", "products of two signals", id="product"),
    pytest.param(lambda m, x: x + x.mean((2, 3), keepdim=True), "aten.add", "do not add", id="broadcast sum"),
    pytest.param(lambda m, x: F.dropout(x), "aten.dropout", "training=self.training", id="dropout left on"),
    pytest.param(lambda m, x: x + torch.randn(4, 8, 6), "aten.randn", "deterministic", id="noise"),
    pytest.param(lambda m, x: x.transpose(0, 1), "aten.transpose", "batch", id="batch moved"),
    pytest.param(lambda m, x: x - x.mean(0), "aten.mean", "along the batch", id="batch mean"),
    pytest.param(lambda m, x: x[1:], "aten.slice", "out of the batch", id="batch cut"),
    pytest.param(lambda m, x: x.view(-1), "aten.view", "batch must stay", id="batch merged"),
    pytest.param(lambda m, x: F.adaptive_max_pool2d(x, 5), "adaptive_max_pool2d", "divisors", id="uneven pooling"),
    pytest.param(lambda m, x: F.max_pool2d(x, 2, dilation=2), "max_pool2d", "dilation=1", id="dilated pooling"),
    pytest.param(lambda m, x: torch.maximum(x, x.mean((2, 3), True)), "aten.maximum", "one shape", id="two shapes"),
    pytest.param(lambda m, x: torch.where(x > 0, x, x), "aten.where", "selects", id="where"),
    pytest.param(lambda m, x: x.argmax(1), "aten.argmax", "after the network", id="argmax"),
    pytest.param(lambda m, x: x.flatten(1).sort(1)[1] * 1.0, "aten.sort", "after the network", id="sort"),
    pytest.param(lambda m, x: F.interpolate(x, size=(11, 6)), "aten.upsample", "whole scale_factor", id="resize"),
    pytest.param(
        lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear"), "aten.upsample", "nearest", id="bilinear"
    ),
    pytest.param(lambda m, x: x.erfinv(), "aten.erfinv", "neuro.trace.register", id="unheard of"),
]


@pytest.mark.parametrize(("function", "operation", "reason"), REFUSED)
def test_refusal(function: Callable[..., Tensor], operation: str, reason: str) -> None:
    with pytest.raises(UnsupportedNode) as caught:
        trace(Spelled(function), torch.randn(3, 4, 8, 6))
    assert operation in str(caught.value)
    assert reason in str(caught.value)
    assert "at test_trace_refusals.py:" in str(caught.value)


MODULES = [
    pytest.param(nn.BatchNorm2d(4, track_running_stats=False), "running statistics", id="batch norm"),
    pytest.param(nn.GroupNorm(2, 4), "BatchNorm", id="group norm"),
    pytest.param(nn.SiLU(), "ReLU", id="silu"),
    pytest.param(nn.GELU(), "ReLU", id="gelu"),
]


@pytest.mark.parametrize(("module", "reason"), MODULES)
def test_refused_module(module: nn.Module, reason: str) -> None:
    with pytest.raises(UnsupportedNode, match=reason):
        trace(nn.Sequential(nn.ReLU(), module), torch.randn(3, 4, 8, 6))


def branch(_: nn.Module, x: Tensor) -> Tensor:
    if x.sum() > 0:
        return x
    return -x


def count(_: nn.Module, x: Tensor) -> Tensor:
    for _ in range(int(x.abs().max())):
        x = x + 1
    return x


@pytest.mark.parametrize(("function", "code"), [(branch, "if x.sum() > 0:"), (count, "for _ in range(int(")])
def test_control_flow_on_data_is_named(function: Callable[..., Tensor], code: str) -> None:
    with pytest.raises(UnsupportedNode, match="control flow on data at test_trace_refusals") as caught:
        trace(Spelled(function), torch.randn(3, 4))
    assert code in str(caught.value)
    assert "\n" not in str(caught.value)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


def test_a_module_that_changes_its_own_buffer_is_refused_and_left_as_it_was() -> None:
    module = Counting()
    with pytest.raises(UnsupportedNode, match=r"aten\.add.*own parameter or buffer"):
        trace(module, torch.randn(3, 4))
    assert module.calls == 0


@pytest.mark.parametrize(
    ("module", "example", "error", "words"),
    [
        (nn.Linear(4, 2), torch.zeros(2, 4, dtype=torch.int64), ParameterError, "floating-point"),
        (nn.Linear(4, 2), torch.zeros(0, 4), ParameterError, "example"),
        (nn.Linear(4, 2), torch.full((2, 4), torch.nan), ParameterError, "NaN"),
        (nn.Linear(4, 2), (torch.zeros(2, 4), torch.zeros(3, 4)), ParameterError, "one batch size"),
        (nn.Linear(4, 2), torch.zeros(2, 5), ShapeError, "does not run on samples of shape"),
        (F.relu, torch.zeros(2, 4), ParameterError, "torch.nn.Module"),
        (Spelled(lambda m, x: (x, -x)), torch.zeros(2, 4), UnsupportedNode, "2 outputs in a tuple"),
        (Spelled(lambda m, x: {"y": -x, "z": x}), torch.zeros(2, 4), UnsupportedNode, "2 outputs in a dict"),
        (Spelled(lambda m, x, y: x + 1), (torch.zeros(2, 4), torch.zeros(2, 4)), UnsupportedNode, "does not depend"),
        (Spelled(lambda m, x: torch.ones(2, 3)), torch.zeros(2, 4), UnsupportedNode, "constant"),
    ],
)
def test_bad_arguments(module: nn.Module, example: Tensor, error: type[NeuroError], words: str) -> None:
    with pytest.raises(error, match=words):
        trace(module, example)


def test_not_a_number_in_the_weights_is_refused() -> None:
    module = nn.Sequential(nn.Linear(4, 2))
    with torch.no_grad():
        module[0].weight[0, 0] = torch.nan
    with pytest.raises(ParameterError, match="NaN"):
        trace(module, torch.randn(2, 4))


def test_the_check_names_the_first_layer_that_differs() -> None:
    class Moody(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            type(self).calls += 1
            return super().forward(x) * type(self).calls

    module = nn.Sequential(nn.Linear(4, 4), Moody(4, 4), nn.ReLU())
    with pytest.raises(UnsupportedNode, match=r"does not equal its module on a batch of 3: node '(1|2)"):
        trace(module, torch.randn(3, 4))
    assert trace(module, torch.randn(3, 4), check=False).output == "2"
