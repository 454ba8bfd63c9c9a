"""Graphs on small cores: the chip fires when the graph does, whatever had to be copied, relayed, split or delayed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hardware_targets import check, compile, load_chip, price, run
from hardware_targets.chip import Chip, Quantity
from hardware_targets.truenorth.program import CoreProgram, encode_spikes
from neuro import simulate, trace
from neuro.errors import DoesNotFit, ParameterError, ShapeError, UnsupportedNode
from neuro.graph import Graph, Input, Node
from neuro.nodes import IF, LIF, Add, Affine, AvgPool, BatchNorm, Conv, MaxPool, Readout, ReLU, Reshape

CHIP = load_chip("truenorth")


def small(axons: int, neurons: int, chip: Chip = CHIP) -> Chip:
    """The same chip with cores of another size."""
    sizes = {"axons_per_core": axons, "neurons_per_core": neurons}
    limits = {name: Quantity(value, "", "a test", "assumed") for name, value in sizes.items()}
    return replace(chip, limits={**chip.limits, **limits})


def chain(*nodes: Node) -> Graph:
    names = [f"{node.kind.lower()}{number}" for number, node in enumerate(nodes)]
    return Graph(dict(zip(names, nodes, strict=True)), {b: (a,) for a, b in pairwise(names)})


def forgetful(theta: float | Tensor = 1.0) -> LIF:
    return LIF(torch.zeros(()), torch.as_tensor(theta), torch.zeros(()), "zero")


def trinary(*shape: int, seed: int = 0, values: tuple[float, ...] = (-1.0, 0.0, 1.0)) -> Tensor:
    drawn = torch.randint(len(values), shape, generator=torch.Generator().manual_seed(seed))
    return torch.tensor(values, dtype=torch.float32)[drawn]


def bits(steps: int, batch: int, *shape: int, seed: int = 1, rate: float = 0.5) -> Tensor:
    return (torch.rand(steps, batch, *shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def same_spikes(graph: Graph, chip: Chip, x: Tensor, **options: int) -> CoreProgram:
    """Compile, run, compare every spike of every population and every output; the program."""
    program = compile(graph, chip)
    assert isinstance(program, CoreProgram)
    found = run(program, x, steps=len(x), record=["spikes"], **options)
    wanted = simulate(graph, x, steps=len(x), record=["spikes"], kernel="reference")
    for name, spikes in wanted.recordings["spikes"].items():
        assert torch.equal(found.recordings["spikes"][name], spikes.float()), name
    torch.testing.assert_close(found.outputs, wanted.outputs, rtol=1e-5, atol=1e-5)
    return program


@st.composite
def layers(draw: st.DrawFn) -> Graph:
    """Two to four layers of trinary weights between populations that forget, or that remember; a read-out last."""
    integer = st.integers(0, 2**16)
    memory = draw(st.booleans())
    shape: tuple[int, ...] = (draw(st.sampled_from([2, 4])), draw(st.integers(4, 7)), draw(st.integers(4, 7)))
    nodes: list[Node] = [Input(shape)]

    def population(channels: int, dims: int) -> Node:
        form = (channels, *(1,) * (dims - 1))
        seeds = torch.Generator().manual_seed(draw(integer))
        theta = torch.randint(1, 4, form, generator=seeds).float()
        if memory and draw(st.booleans()):
            v0 = torch.randint(-2, 1, form, generator=seeds).float()
            return IF(theta, v0, draw(st.sampled_from(["subtract", "zero"])))
        return forgetful(theta - 0.5 * draw(st.booleans()))

    for number in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["conv", "average", "maximum"] if number else ["conv"]))
        if kind == "conv":
            groups, channels = draw(st.sampled_from([1, 2])), draw(st.sampled_from([2, 4, 6]))
            kernel = draw(st.sampled_from([1, 2, 3])) if min(shape[1:]) > 2 else 1
            weight = trinary(channels, shape[0] // groups, kernel, kernel, seed=draw(integer))
            bias = trinary(channels, seed=draw(integer), values=(-1.0, 0.0, 1.0, 2.0)) if draw(st.booleans()) else None
            stride, padding = draw(st.sampled_from([1, 2])), draw(st.integers(0, kernel // 2))
            nodes += [Conv(weight, bias, (stride,) * 2, (padding,) * 2, (1, 1), groups)]
            shape = nodes[-1].output_shape(shape)
            nodes += [population(channels, 3)]
        elif min(shape[1:]) > 1:
            average = [AvgPool((2, 2), (2, 2), (0, 0)), forgetful(0.5)]
            nodes += average if kind == "average" else [MaxPool((2, 2), (1, 1), (0, 0))]
            shape = nodes[-1 if kind == "maximum" else -2].output_shape(shape)
    if draw(st.booleans()):
        size = shape[0] * shape[1] * shape[2]
        weight, bias = torch.arange(3.0 * size).reshape(3, size) % 5 - 2, torch.tensor([0.5, 0.0, -1.0])
        nodes += [Reshape((size,)), Affine(weight, bias), Readout()]
    elif isinstance(nodes[-1], MaxPool):
        nodes += [Conv(torch.ones(2, shape[0], 1, 1), None), forgetful()]
    return chain(*nodes)


@settings(max_examples=30, phases=[Phase.generate], deadline=None, suppress_health_check=list(HealthCheck))
@given(layers(), st.sampled_from([(256, 256), (100, 40), (76, 120)]), st.integers(1, 3), st.integers(0, 99))
def test_the_chip_fires_when_the_graph_does(graph: Graph, core: tuple[int, int], steps: int, seed: int) -> None:
    x = bits(steps, 3, *graph.shapes[graph.inputs[0]], seed=seed)
    same_spikes(graph, small(*core), x, batch_size=2)


def test_samples_follow_each_other_without_a_pause() -> None:
    pool = MaxPool((2, 2), (2, 2), (0, 0))
    graph = chain(Input((1, 9, 9)), Conv(trinary(6, 1, 3, 3), None, (2, 2)), forgetful(), pool)
    x = bits(3, 5, 1, 9, 9)
    program = same_spikes(graph, CHIP, x)
    together, alone = run(program, x), run(program, x, batch_size=1)
    assert torch.equal(together.outputs, alone.outputs)
    (events,) = together.counts.nodes.values()
    assert events.accumulates == alone.counts.total.accumulates > 0
    assert together.counts.steps == 3 + program.depth - 1 == 4


def test_a_series_and_its_parts_give_the_same() -> None:
    """Without memory, every tick stands alone."""
    graph = chain(Input((40,)), Affine(trinary(30, 40)), forgetful(2.0), Affine(trinary(10, 30)), forgetful())
    x = bits(4, 6, 40)
    program = compile(graph, CHIP)
    whole = run(program, x, record=["spikes"]).recordings["spikes"]
    parts = [run(program, x[t : t + 1], record=["spikes"]).recordings["spikes"] for t in range(4)]
    for name, spikes in whole.items():
        assert torch.equal(spikes, torch.cat([part[name] for part in parts]))


def test_a_held_input_becomes_evenly_spaced_spikes() -> None:
    graph = chain(Input((3,)), Affine(torch.eye(3)), forgetful())
    program = compile(graph, CHIP)
    x = torch.tensor([[0.0, 0.3, 1.0], [0.5, 0.25, 0.9]])
    given = encode_spikes(program, x, 20)
    assert given.sum(0).tolist() == [[0, 6, 20], [10, 5, 18]]
    assert torch.allclose(run(program, x, steps=20).outputs, torch.tensor(given.mean(0)).float())


def test_splitters_take_over_where_copies_would_multiply() -> None:
    graph = chain(
        Input((6,)), Affine(trinary(10, 6)), forgetful(), Affine(trinary(10, 10, seed=1)), forgetful(),
        Affine(trinary(24, 10, seed=2)), forgetful(), Readout(),
    )  # fmt: skip
    program = same_spikes(graph, small(32, 8), bits(2, 20, 6))
    relayed = [cut.corelet.name for cut in program.placement.cuts if cut.relayed]
    assert relayed
    assert any("splitter cores, 1 tick later" in note for note in program.placement.notes)
    assert program.depth == 3 + len(relayed)


def test_a_path_that_skips_waits_for_the_other() -> None:
    nodes = {
        "x": Input((12,)), "a": Affine(trinary(12, 12)), "za": forgetful(), "b": Affine(trinary(12, 12, seed=1)),
        "zb": forgetful(), "c": Affine(trinary(12, 12, seed=2)), "d": Affine(trinary(12, 12, seed=3)), "sum": Add(),
        "zc": forgetful(2.0), "e": Affine(trinary(12, 12, seed=4)), "both": Add(), "zd": forgetful(), "read": Readout(),
    }  # fmt: skip
    sources = {
        "a": ("x",), "za": ("a",), "b": ("za",), "zb": ("b",), "c": ("zb",), "d": ("za",), "sum": ("c", "d"),
        "zc": ("sum",), "e": ("x",), "both": ("zc", "e"), "zd": ("both",), "read": ("zd",),
    }  # fmt: skip
    program = same_spikes(Graph(nodes, sources), small(64, 64), bits(3, 10, 12))
    assert program.placement.at == {"za": 0, "zb": 1, "zc": 2, "zd": 3}


@pytest.mark.parametrize("chip", ["ranc_128", "ranc_256", "ranc_512x128"])
def test_cores_without_a_floor_forget_as_well(chip: str) -> None:
    graph = chain(
        Input((2, 6, 6)), Conv(trinary(8, 2, 3, 3), trinary(8, seed=5)), forgetful(), MaxPool((2, 2), (2, 2), (0, 0)),
        Conv(trinary(5, 8, 2, 2, seed=6), None), forgetful(3.0), Readout(),
    )  # fmt: skip
    same_spikes(graph, load_chip(chip), bits(2, 10, 2, 6, 6))


def test_norms_and_scaled_weights_become_thresholds() -> None:
    """0.3 W x normalised by batch statistics is W x against a threshold of its own."""
    drawn = torch.Generator().manual_seed(0)
    mean, var, weight, bias = (torch.rand(6, generator=drawn) + 0.1 for _ in range(4))
    graph = chain(
        Input((3, 5, 5)), Conv(0.3 * trinary(6, 3, 3, 3), None), BatchNorm(mean - 0.5, var, weight, bias - 0.6, 1e-5),
        forgetful(0.05), Readout(),
    )  # fmt: skip
    same_spikes(graph, CHIP, bits(1, 50, 3, 5, 5))


def violations(graph: Graph, chip: Chip = CHIP) -> dict[str, str]:
    with pytest.raises(DoesNotFit) as refused:
        compile(graph, chip)
    fit = check(graph, chip)
    said = {violation.resource: str(violation) for violation in refused.value.violations}
    assert fit.ok == (set(said) == {"weights"})
    return said


def test_fan_in_257_is_refused_and_256_fits() -> None:
    def dense(inputs: int) -> Graph:
        return chain(Input((inputs,)), Affine(torch.ones(3, inputs)), forgetful(100.0), Readout())

    assert "257 needed, 256 available; give its neurons at most 256 axons" in violations(dense(257))["fan_in"]
    same_spikes(dense(256), CHIP, bits(1, 5, 256, rate=0.4))


def test_a_fifth_weight_value_is_split_into_bits() -> None:
    def dense(*values: float) -> Graph:
        weight = trinary(20, 30, values=values)
        return chain(Input((30,)), Affine(weight), forgetful(2.0), Affine(trinary(4, 20)), forgetful(), Readout())

    program = same_spikes(dense(-2, -1, 0, 1, 2, 3), CHIP, bits(2, 20, 30))
    assert "lif2: split: 5 weight values as 4 bits, an axon for every bit of an input" in program.placement.notes
    four = same_spikes(dense(-2, -1, 0, 1, 2), CHIP, bits(2, 20, 30))
    assert any("one axon type per weight value: -2, -1, 1, 2" in note for note in four.placement.notes)
    assert "axon_types 9 needed, 4 available" in violations(dense(1, 2, 3, 5, 6, 7, 9, 11, 13))["axon_types"]


def test_a_second_target_is_split_and_the_report_says_so() -> None:
    signs = Affine(torch.tensor([[1.0], [-1.0]]))
    graph = chain(Input((8,)), Affine(torch.ones(1, 8)), forgetful(4.0), signs, forgetful())
    program = same_spikes(graph, CHIP, bits(3, 20, 8))
    assert any("drive up to 2 axons, a neuron has 1 target: split into 2 copies" in n for n in program.placement.notes)
    assert str(check(graph, CHIP)).count("1 target") == 1


def test_what_no_core_computes_is_refused_with_its_place() -> None:
    dense = Affine(trinary(4, 6))
    said = violations(chain(Input((6,)), Affine(torch.rand(4, 6)), forgetful()))
    assert "lif2" in said["weights"]
    assert "decay" in violations(chain(Input((6,)), dense, LIF(*torch.tensor([0.9, 1.0, 0.0])), Readout()))
    assert "v0" in violations(chain(Input((6,)), dense, IF(torch.tensor(1.0), torch.tensor(1.0)), Readout()))
    with pytest.raises(UnsupportedNode, match="ReLU"):
        compile(chain(Input((6,)), dense, ReLU()), CHIP)
    big = chain(Input((16,)), Affine(trinary(40, 16)), forgetful(), Affine(trinary(40, 40)), forgetful())
    few = replace(small(96, 8), limits={**small(96, 8).limits, "cores": Quantity(3, "", "a test", "assumed")})
    assert "3 available" in violations(big, few)["cores"]


def test_bad_input_is_refused() -> None:
    program = compile(chain(Input((6,)), Affine(trinary(4, 6)), forgetful()), CHIP)
    with pytest.raises(ShapeError):
        run(program, torch.zeros(2, 5), steps=1)
    for x, steps in ((torch.full((2, 6), 1.5), 1), (torch.full((1, 2, 6), 0.5), 1), (torch.zeros(2, 6), None)):
        with pytest.raises(ParameterError):
            run(program, x, steps=steps)
    with pytest.raises(ParameterError):
        run(program, torch.zeros(2, 6), steps=1, record=["v"])
    with pytest.raises(ParameterError):
        run(program, torch.zeros(2, 6), steps=1, backend="lava")


def test_check_answers_before_training() -> None:
    """An ordinary network with the weights of its birth: counted as if they were trinary."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 5, stride=2), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(8 * 144, 10),
    )  # fmt: skip
    fit = check(trace(net, torch.zeros(1, 1, 28, 28)), CHIP)
    assert fit.ok
    assert fit.cores == len(fit.placement.cores) > 0
    assert any("yet to be trained, two axons per input" in note for note in fit.notes)
    assert {resource.name for resource in fit.resources} == {"cores", "axons", "neurons"}
    wide = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10))
    fit = check(trace(wide, torch.zeros(1, 1, 28, 28)), CHIP)
    assert not fit.ok
    assert fit.tightest == "fan_in"
    assert "1,568 needed, 256 available" in str(fit)


def test_events_are_billed_by_the_chip() -> None:
    graph = chain(Input((8,)), Affine(torch.ones(4, 8)), forgetful(2.0), Readout())
    result = run(compile(graph, CHIP), torch.ones(1, 3, 8))
    assert result.counts.per_sample("accumulates") == 32
    seen = run(compile(graph, CHIP), torch.ones(1, 3, 8), record=["activity"], batch_size=2).activity
    assert seen is not None
    assert seen.synaptic_events.tolist() == [3 * 32]
    assert seen.ticks == 3
    bill = price(result.counts, CHIP)
    assert bill.per_sample == pytest.approx(32 * 26e-12)
