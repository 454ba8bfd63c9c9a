"""Graphs are values that are right from birth."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuro.errors import ParameterError, ShapeError
from neuro.evaluate import evaluate
from neuro.graph import Change, Graph, Input
from neuro.nodes import IF, Add, Affine, BatchNorm, Dequantise, Quantise, ReLU, Reshape
from neuro.rewrite import append, rebuild


def mlp() -> Graph:
    nodes = {"x": Input((4,)), "a": Affine(torch.eye(3, 4), torch.ones(3)), "r": ReLU(), "b": Affine(torch.eye(2, 3))}
    return Graph(nodes, {"a": ("x",), "r": ("a",), "b": ("r",)}, "mlp")


def test_shapes_dtypes_parameters() -> None:
    graph = mlp()
    assert dict(graph.shapes) == {"x": (4,), "a": (3,), "r": (3,), "b": (2,)}
    assert set(graph.dtypes.values()) == {torch.float32}
    assert graph.parameters == 3 * 4 + 3 + 2 * 3
    assert (graph.inputs, graph.output) == (("x",), "b")
    assert dict(graph.targets) == {"x": ("a",), "a": ("r",), "r": ("b",), "b": ()}


@given(st.permutations(["x", "a", "r", "s", "t"]))
def test_order_is_topological_whatever_order_was_given(names: list[str]) -> None:
    nodes = {"x": Input((2,)), "a": Affine(torch.eye(2)), "r": ReLU(), "s": Add(), "t": Add()}
    sources = {"a": ("x",), "r": ("a",), "s": ("x", "r"), "t": ("s", "s")}
    graph = Graph({name: nodes[name] for name in names}, {n: sources[n] for n in names if n in sources})
    place = {name: number for number, name in enumerate(graph.nodes)}
    assert all(place[source] < place[name] for name, given in graph.sources.items() for source in given)
    torch.testing.assert_close(evaluate(graph, torch.tensor([[1.0, -3.0]])), torch.tensor([[4.0, -6.0]]))


def test_valid_order_is_kept() -> None:
    nodes = {"x": Input((2,)), "b": ReLU(), "a": ReLU(), "s": Add()}
    assert list(Graph(nodes, {"b": ("x",), "a": ("x",), "s": ("a", "b")}).nodes) == ["x", "b", "a", "s"]


def test_refusals_name_the_place() -> None:
    x, eye = Input((2,)), Affine(torch.eye(2))
    with pytest.raises(ParameterError, match=r"'net': edge into 'a' names 'y', which is no node"):
        Graph({"x": x, "a": eye}, {"a": ("y",)}, "net")
    with pytest.raises(ParameterError, match=r"'net': edge into 'ghost' names 'ghost'"):
        Graph({"x": x}, {"ghost": ("x",)}, "net")
    with pytest.raises(ParameterError, match=r"'net' has no nodes"):
        Graph({}, {}, "net")
    with pytest.raises(ParameterError, match=r"cycle through 'a', 'b'"):
        Graph({"x": x, "a": Add(), "b": ReLU()}, {"a": ("x", "b"), "b": ("a",)})
    with pytest.raises(ShapeError, match=r"ReLU 'r': takes 1 input\(s\), got 2"):
        Graph({"x": x, "r": ReLU()}, {"r": ("x", "x")})
    with pytest.raises(ShapeError, match=r"ReLU 'r': takes 1 input\(s\), got 0"):
        Graph({"x": x, "r": ReLU()}, {})
    with pytest.raises(ShapeError, match=r"Add 's': takes two or more inputs, got 1"):
        Graph({"x": x, "s": Add()}, {"s": ("x",)})
    with pytest.raises(ShapeError, match=r"Input 'x': takes 0 input\(s\), got 1"):
        Graph({"y": x, "x": x}, {"x": ("y",)})
    with pytest.raises(ParameterError, match=r"has 2 outputs \(a, b\)"):
        _ = Graph({"x": x, "a": ReLU(), "b": ReLU()}, {"a": ("x",), "b": ("x",)}).output
    with pytest.raises(ParameterError, match=r"at least 1, got \(3, 0\)"):
        Input((3, 0))


def test_misfit_says_at_which_node() -> None:
    with pytest.raises(ShapeError, match=r"weight \(3, 4\) cannot take features of shape \(5,\)") as caught:
        Graph({"x": Input((5,)), "fc": Affine(torch.ones(3, 4))}, {"fc": ("x",)}, "net")
    assert caught.value.__notes__ == ["at node 'fc' of 'net'"]


def test_nan_and_complex_parameters_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"Affine: weight holds 2 NaN or infinite values"):
        Affine(torch.tensor([[1.0, float("nan"), float("inf")]]))
    with pytest.raises(ParameterError, match=r"Affine: weight is complex"):
        Affine(torch.ones(1, 1, dtype=torch.complex64))
    with pytest.raises(ParameterError, match=r"IF: v0 holds 1 NaN"):
        IF(torch.tensor(1.0), torch.tensor(float("nan")))


def test_integer_weights_need_integer_input() -> None:
    integer = Affine(torch.ones(2, 2, dtype=torch.int32))
    with pytest.raises(ShapeError, match="integer weights need integer input; put a Quantise"):
        Graph({"x": Input((2,)), "fc": integer}, {"fc": ("x",)})
    nodes = {"x": Input((2,)), "q": Quantise(0.1, -8, 7), "fc": integer, "d": Dequantise(torch.tensor([0.1]))}
    graph = Graph(nodes, {"q": ("x",), "fc": ("q",), "d": ("fc",)})
    assert list(graph.dtypes.values()) == [torch.float32, torch.int32, torch.int32, torch.float32]


def test_values_are_frozen_and_edits_are_new_graphs() -> None:
    graph = mlp()
    with pytest.raises(TypeError):
        graph.nodes["y"] = ReLU()  # type: ignore[index]
    with pytest.raises(AttributeError):
        graph.name = "other"  # type: ignore[misc]
    change = Change("r", "ReLU", "IF", "to try")
    edited = graph.edit(change, name="second")
    assert (graph.history, edited.history, edited.name) == ((), (change,), "second")
    assert str(change) == "r: ReLU -> IF (to try)"


def test_rebuild_drops_renames_and_tells_where_a_rule_failed() -> None:
    graph = mlp()
    without = rebuild(graph, lambda b, name: b.drop(name) if isinstance(graph.nodes[name], ReLU) else b.keep(name))
    assert list(without.nodes) == ["x", "a", "b"]
    assert without.sources["b"] == ("a",)
    extended = append(append(graph, "b", ReLU()), "b", Reshape((1, 2)))
    assert list(extended.nodes) == ["x", "a", "r", "b", "b_2", "b_3"]
    assert extended.output == "b_3"

    def failing(builder: object, name: str) -> None:
        raise ParameterError("no")

    with pytest.raises(ParameterError) as caught:
        rebuild(graph, failing)
    assert caught.value.__notes__ == ["at node 'x' of 'mlp'"]


def test_evaluate_observes_every_node_and_refuses_misuse() -> None:
    graph, x = mlp(), torch.randn(5, 4)
    seen: dict[str, torch.Tensor] = {}
    y = evaluate(graph, x, observe=seen.__setitem__)
    assert list(seen) == list(graph.nodes)
    torch.testing.assert_close(y, (x[:, :3] + 1).clamp(min=0)[:, :2])
    with pytest.raises(ShapeError, match=r"'mlp' takes \(batch, 4\), got \(5, 3\)"):
        evaluate(graph, x[:, :3])
    with pytest.raises(ShapeError, match="takes 1 inputs, got 2"):
        evaluate(graph, x, x)
    spiking = append(graph, "if", IF(torch.tensor(1.0), torch.tensor(0.0)))
    with pytest.raises(ParameterError, match=r"holds neurons \(IF 'if'\); use simulate"):
        evaluate(spiking, x)


def test_statistics_of_batch_norm_are_no_parameters() -> None:
    ones = torch.ones(3)
    assert BatchNorm(ones, ones, ones, ones).parameters == 6
