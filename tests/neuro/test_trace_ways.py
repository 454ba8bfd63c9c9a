"""The ways into the tracer: exported programs, torch.fx, foreign modules, other precisions, fixed batches."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from neuro.errors import ParameterError, ShapeError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph, Node, Shape
from neuro.nodes import LIF, Affine, Input, ReLU, Scale
from neuro.trace import register, trace
from neuro.trace.from_fx import straighten


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).eval()


def close(graph: Graph, module: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(evaluate(graph, x), module(x.clone()), rtol=1e-5, atol=1e-5)


@given(
    channels=st.integers(1, 3), groups=st.integers(1, 2), kernel=st.integers(1, 4), stride=st.integers(1, 3),
    dilation=st.integers(1, 2), padding=st.one_of(st.integers(0, 3), st.sampled_from(["same", "valid"])),
    size=st.integers(8, 11),
)  # fmt: skip
def test_any_convolution(
    channels: int, groups: int, kernel: int, stride: int, dilation: int, padding: int | str, size: int
) -> None:
    stride = 1 if padding == "same" else stride
    module = nn.Conv1d(channels * groups, 2 * groups, kernel, stride, padding, dilation, groups)
    graph = trace(module, torch.randn(2, channels * groups, size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own remark on even kernels with padding="same"
        close(graph, module, torch.randn(3, channels * groups, size))


def test_exported_program_from_a_file(tmp_path: Path) -> None:
    module, x = small(), torch.randn(3, 2, 6, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export on its own workings
        for name, shapes in (("free", ({0: torch.export.Dim("batch")},)), ("fixed", None)):
            torch.export.save(torch.export.export(module, (x,), dynamic_shapes=shapes), tmp_path / f"{name}.pt2")
        free, fixed = (torch.export.load(tmp_path / f"{name}.pt2") for name in ("free", "fixed"))
    graph = trace(free, torch.randn(2, 2, 6, 6))
    assert list(graph.nodes)[1:] == ["0", "1", "2", "3", "4"]
    close(graph, module, torch.randn(7, 2, 6, 6))
    close(trace(fixed, x), module, torch.randn(7, 2, 6, 6))
    for program, wrong in ((fixed, torch.randn(2, 2, 6, 6)), (free, torch.randn(2, 2, 7, 6)), (free, (x, x))):
        with pytest.raises(ShapeError, match="exported for inputs"):
            trace(program, wrong)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_become_single_and_the_module_keeps_its_own(kind: torch.dtype) -> None:
    module = small().to(kind)
    graph = trace(module, torch.randn(2, 2, 6, 6, dtype=kind))
    assert all(tensor.dtype == torch.float32 for node in graph.nodes.values() for _, tensor in node.tensors())
    assert [change.was for change in graph.history] == [str(kind).removeprefix("torch.")]
    assert {parameter.dtype for parameter in module.parameters()} == {kind}


def test_the_module_stays_as_it_was_and_shares_no_memory() -> None:
    module = small().train()
    module[1].eval()
    attributes = {name: set(vars(part)) for name, part in module.named_modules()}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    graph = trace(module, torch.randn(4, 2, 6, 6))
    assert [part.training for part in module] == [True, False, True, True, True]
    assert attributes == {name: set(vars(part)) for name, part in module.named_modules()}
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    x = torch.randn(2, 2, 6, 6)
    expected = evaluate(graph, x)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert torch.equal(evaluate(graph, x), expected)
    assert not any(tensor.requires_grad for node in graph.nodes.values() for _, tensor in node.tensors())


def test_a_fixed_batch_is_said() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(3, -1)

    graph = trace(Fixed(), torch.randn(3, 2, 2))
    assert [(change.node, change.became) for change in graph.history] == [("batch", "3")]

    class One(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x.view(1, -1))

    assert [change.became for change in trace(One(), torch.randn(1, 2, 2)).history] == ["1"]


class Keeping(nn.Module):
    """Keeps an activation for later, which torch.export does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.kept = F.relu(self.body(x))
        return self.head(self.kept)


def test_fx_helps_where_export_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    export = torch.export.export

    def only_straight(module: nn.Module, *arguments: object, **keywords: object) -> object:
        if not isinstance(module, torch.fx.GraphModule):
            raise RuntimeError("export cannot follow this")
        return export(module, *arguments, **keywords)

    monkeypatch.setattr(torch.export, "export", only_straight)
    module = Keeping()
    graph = trace(module, torch.randn(3, 4))
    assert [node.kind for node in graph.nodes.values()] == ["Input", "Affine", "ReLU", "Affine"]
    assert {"body", "head"} <= set(graph.nodes)
    assert [(change.became, change.why) for change in graph.history] == [("torch.fx", "export cannot follow this")]
    assert not hasattr(module, "kept")
    close(graph, module, torch.randn(5, 4))


def test_a_module_that_keeps_its_activations_is_traced_and_not_left_with_tracers() -> None:
    module = Keeping()
    graph = trace(module, torch.randn(3, 4))
    assert [node.kind for node in graph.nodes.values()] == ["Input", "Affine", "ReLU", "Affine"]
    assert graph.history == ()
    assert not hasattr(module, "kept")


class Leaky(nn.Module):
    """A foreign neuron, which torch.export could not make sense of."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("needs a simulator")


class Gain(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() * self.factor).repeat_interleave(2, 1)


def _gain(module: Gain, shape: Shape) -> Graph:
    doubled = torch.eye(shape[-1]).repeat_interleave(2, 0)
    nodes = {"in": Input(shape), "scale": Scale(torch.tensor(module.factor)), "copies": Affine(doubled)}
    return Graph(nodes, {"scale": ("in",), "copies": ("scale",)})


def test_registered_modules_are_one_node_or_a_graph_in_their_place() -> None:
    seen: list[Shape] = []

    def leaky(module: Leaky, shape: Shape) -> Node:
        seen.append(shape)
        return Scale(torch.full((shape[0],), module.beta))

    class Louder(Gain):
        pass

    register(Leaky, leaky)
    register(Gain, _gain)
    module = nn.Sequential(nn.Linear(4, 3), Louder(2.0), nn.ReLU())
    graph = trace(module, torch.randn(2, 4))
    assert list(graph.nodes)[1:] == ["0", "1.scale", "1.copies", "2"]
    close(graph, module, torch.randn(5, 4))
    graph = trace(nn.Sequential(nn.Linear(4, 3), Leaky(0.5)), torch.randn(2, 4), check=False)
    assert [node.kind for node in graph.nodes.values()] == ["Input", "Affine", "Scale"]
    assert set(seen) == {(3,)}
    assert "forward" not in vars(module[1])
    traced = straighten(nn.Sequential(nn.Linear(4, 3), Gain(2.0), nn.ReLU()))
    assert [node.op for node in traced.graph.nodes] == ["placeholder", *["call_module"] * 3, "output"]
    assert trace(Gain(3.0), torch.randn(2, 4)).output == "gain.copies"


def test_neurons_trace_without_being_run() -> None:
    class Cell(nn.Module):
        def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
            raise AssertionError("neurons need time")

    register(Cell, lambda module, shape: LIF(torch.tensor(0.9), torch.tensor(1.0), torch.tensor(0.0)))
    graph = trace(nn.Sequential(nn.Linear(4, 3), Cell(), nn.Linear(3, 2)), torch.randn(2, 4))
    assert [node.kind for node in graph.nodes.values()] == ["Input", "Affine", "LIF", "Affine"]

    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = Cell()

        def forward(self, x: Tensor) -> Tensor:
            return self.cell(x, x)

    with pytest.raises(UnsupportedNode, match="takes one tensor"):
        trace(Stateful(), torch.randn(2, 4))


def test_register_refuses_what_is_no_module_or_rule() -> None:
    with pytest.raises(ParameterError, match="subclass"):
        register(int, lambda module, shape: ReLU())  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="function"):
        register(Gain, None)  # type: ignore[arg-type]

    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    register(Wrong, lambda module, shape: 3)  # type: ignore[arg-type, return-value]
    with pytest.raises(ParameterError, match="returned 3"):
        trace(Wrong(), torch.randn(2, 4))
