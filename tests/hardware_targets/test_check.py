"""check answers before training what place will find after it."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch

from hardware_targets.check import check
from hardware_targets.chip import load_chip
from hardware_targets.demand import Demand, Population
from hardware_targets.loihi.program import Conv2d, Dense, Input, Program
from hardware_targets.loihi.program import Population as Neurons
from hardware_targets.place import place
from neuro.errors import ParameterError, UnsupportedNode
from neuro.graph import Graph, Node
from neuro.graph import Input as GraphInput
from neuro.nodes import (
    IF,
    Add,
    Affine,
    AvgPool,
    BatchNorm,
    Conv,
    Dropout,
    LeakyReLU,
    Readout,
    ReLU,
    Reshape,
    Softmax,
)


def chain(*parts: tuple[str, Node]) -> Graph:
    names = [name for name, _ in parts]
    return Graph(dict(parts), {name: (before,) for before, name in pairwise(names)})


def integers(*shape: int) -> torch.Tensor:
    """Even, never zero, within 8 bits."""
    return (torch.randint(1, 60, shape) * 2 * (2 * torch.randint(0, 2, shape) - 1)).float()


def spiking() -> IF:
    return IF(torch.ones(()), torch.zeros(()), "zero")


def network(activation: type[Node] | None = None) -> tuple[Graph, Program]:
    """The same weights as a Graph and as the Program a compiler makes of it, pools multiplied into what follows."""
    conv, pooled, last = integers(8, 2, 3, 3), integers(6, 8, 3, 3), integers(10, 6)
    nodes = [
        ("x", GraphInput((2, 14, 14))),
        ("conv", Conv(conv, None, (1, 1), (1, 1))),
        ("a", activation() if activation else spiking()),
        ("pool", AvgPool((2, 2), (2, 2), (0, 0))),
        ("conv2", Conv(pooled, None)),
        ("b", activation() if activation else spiking()),
        ("mean", AvgPool((5, 5), (5, 5), (0, 0))),
        ("flat", Reshape((6,))),
        ("fc", Affine(last)),
        ("readout", Readout()),
    ]
    graph = chain(*nodes) if not activation else chain(*nodes[:-1])
    program = Program(
        (Input("x", 2 * 14 * 14),),
        (
            Neurons("a", 8 * 196, vth=np.repeat(np.arange(8) + 1, 196)),
            Neurons("b", 150, vth=np.repeat(np.arange(6) + 1, 25)),
            Neurons("readout", 10, reset="none"),
        ),
        (
            Conv2d(source="x", target="a", weights=conv.int().numpy(), input_shape=(2, 14, 14), padding=1),
            Conv2d(
                source="a",
                target="b",
                weights=np.kron(pooled.int().numpy(), np.ones((2, 2), int)),
                input_shape=(8, 14, 14),
                stride=2,
            ),
            Dense(source="b", target="readout", weights=np.repeat(last.int().numpy(), 25, axis=1)),
        ),
    )
    return graph, program


@pytest.mark.parametrize("activation", [None, ReLU, LeakyReLU])
@pytest.mark.parametrize("cut", [{}, {"in_axons_per_core": 300}, {"neurons_per_core": 100, "out_axons_per_core": 150}])
@pytest.mark.parametrize("name", ["loihi1", "loihi2"])
def test_check_and_place_agree(name: str, activation: type[Node] | None, cut: dict[str, int]) -> None:
    chip = load_chip(name)
    limits = {name: dataclasses.replace(q, value=cut.get(name, q.value)) for name, q in chip.limits.items()}
    chip = dataclasses.replace(chip, limits=limits)
    graph, program = network(activation)
    fit, placement = check(graph, chip), place(program, chip)
    assert fit.ok, str(fit)
    assert fit.cores == len(placement.cores)
    for ours, theirs in zip(fit.placement.cores, placement.cores, strict=True):
        assert ours.used == theirs.used
        assert [list(piece.neurons) for piece in ours.slices] == [list(piece.neurons) for piece in theirs.slices]


def test_a_program_is_checked_as_it_is_placed() -> None:
    _, program = network()
    fit = check(program, load_chip("loihi1"))
    assert fit.ok
    assert fit.cores == len(place(program, load_chip("loihi1")).cores)


def test_what_conversion_folds_away_costs_nothing() -> None:
    ones, zeros = torch.ones(3), torch.zeros(3)
    plain = chain(
        ("x", GraphInput((4,))), ("fc", Affine(integers(3, 4))), ("r", ReLU()), ("out", Affine(integers(2, 3)))
    )
    dressed = chain(
        ("x", GraphInput((4,))),
        ("fc", Affine(integers(3, 4))),
        ("bn", BatchNorm(zeros, ones, ones, zeros)),
        ("r", ReLU()),
        ("drop", Dropout()),
        ("out", Affine(integers(2, 3))),
        ("softmax", Softmax()),
    )
    chip = load_chip("loihi2")
    one, two = check(plain, chip), check(dressed, chip)
    assert one.resources == two.resources
    assert [piece.population for piece in two.placement.cores[0].slices] == ["r", "readout"]


def test_a_residual_waits_for_the_longer_path() -> None:
    same = Conv(integers(3, 3, 3, 3), None, (1, 1), (1, 1))
    graph = Graph(
        {
            "x": GraphInput((3, 8, 8)),
            "c1": same,
            "a": spiking(),
            "c2": same,
            "b": spiking(),
            "c3": same,
            "sum": Add(),
            "c": spiking(),
            "flat": Reshape((192,)),
            "fc": Affine(integers(4, 192)),
            "out": Readout(),
        },
        {
            "c1": ("x",),
            "a": ("c1",),
            "c2": ("a",),
            "b": ("c2",),
            "c3": ("b",),
            "sum": ("c3", "a"),
            "c": ("sum",),
            "flat": ("c",),
            "fc": ("flat",),
            "out": ("fc",),
        },
    )
    fit = check(graph, load_chip("loihi2"))
    assert fit.ok
    (core,) = fit.placement.cores
    assert core.used["synapse_formats"] == 5
    assert core.used["in_axons"] == 4 * 192


def test_131072_neurons_fit_loihi_1_and_one_more_does_not() -> None:
    chip = load_chip("loihi1")

    def neurons(size: int) -> Demand:
        return Demand("many", {}, (Population("y", size, "zero", np.zeros(size, np.int64)),), ())

    assert check(neurons(131_072), chip).ok
    fit = check(neurons(131_073), chip)
    (violation,) = fit.violations
    assert (violation.resource, violation.needed, violation.available) == ("cores", 129, 128)
    assert fit.tightest == "cores"
    assert "129 needed, 128 available" in str(fit)
    assert "does not fit (1 violation);" in str(fit)


def test_the_tightest_resource_is_the_one_that_ends_the_slices() -> None:
    wide = chain(("x", GraphInput((3000,))), ("fc", Affine(torch.ones(600, 3000))), ("r", ReLU()))
    assert check(wide, load_chip("loihi2")).tightest == "memory_bits"
    small = chain(("x", GraphInput((3000,))), ("fc", Affine(torch.ones(2, 3000))), ("r", ReLU()))
    assert check(small, load_chip("loihi2")).tightest == "in_axons"


def test_pruned_weights_take_no_synapse() -> None:
    dense = torch.ones(600, 3000)
    pruned = dense * (torch.rand(600, 3000) < 0.05)
    full, thin = (
        check(chain(("x", GraphInput((3000,))), ("fc", Affine(w)), ("r", ReLU())), load_chip("loihi2"))
        for w in (dense, pruned)
    )
    assert thin.cores < full.cores


def test_a_reset_that_the_chip_lacks() -> None:
    graph = chain(
        ("x", GraphInput((4,))),
        ("fc", Affine(integers(3, 4))),
        ("s", IF(torch.ones(()), torch.zeros(()), "subtract")),
        ("out", Affine(integers(2, 3))),
        ("r", Readout()),
    )
    fit = check(graph, load_chip("loihi1"))
    assert [(v.layer, v.resource, v.needed, v.available) for v in fit.violations] == [
        ("s", "reset", "subtract", "zero")
    ]
    assert check(graph, load_chip("loihi2")).ok


def test_weight_bits_are_the_callers_choice() -> None:
    graph, _ = network()
    chip = load_chip("loihi2")
    assert [v.resource for v in check(graph, chip, weight_bits=9).violations] == ["weight_bits"] * 3
    memory = [max(c.used["memory_bits"] for c in check(graph, chip, weight_bits=b).placement.cores) for b in (2, 8)]
    assert memory[0] < memory[1]
    with pytest.raises(ParameterError, match="weight_bits"):
        check(graph, chip, weight_bits=0)


def test_nodes_without_a_form_on_a_chip_are_all_named() -> None:
    graph = chain(("x", GraphInput((4,))), ("soft", Reshape((4,))), ("fc", Affine(integers(3, 4))), ("r", ReLU()))
    strange = graph.edit(nodes={**graph.nodes, "soft": _Cube(), "fc": _Cube()})
    with pytest.raises(UnsupportedNode, match="2 node") as caught:
        check(strange, load_chip("loihi2"))
    assert "'soft'" in str(caught.value)
    assert "'fc'" in str(caught.value)


@dataclasses.dataclass(frozen=True, eq=False)
class _Cube(Node):
    def output_shape(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        return shapes[0]


def test_wrong_use() -> None:
    graph, _ = network()
    with pytest.raises(ParameterError, match="'loihi1' is of 'spinnaker'"):
        check(graph, dataclasses.replace(load_chip("loihi1"), family="spinnaker"))
    with pytest.raises(ParameterError, match="takes a Graph"):
        check("network", load_chip("loihi1"))  # type: ignore[arg-type]


def test_the_answer_is_readable() -> None:
    graph, _ = network()
    fit = check(graph, load_chip("loihi2"))
    assert "fits; tightest" in str(fit)
    assert "in_axons" in fit._repr_html_()
    assert all(0 <= resource.share <= 1 for resource in fit.resources)
