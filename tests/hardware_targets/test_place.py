"""Placement keeps every limit. The judge below is written from the limits alone, synapse by synapse."""

from __future__ import annotations

import dataclasses
import math
import time
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardware_targets.check import check
from hardware_targets.chip import Chip, load_chip
from hardware_targets.demand import AllBut, Kernel, Listed, graph_demand, program_demand
from hardware_targets.loihi.program import Conv2d, Dense, Input, Population, Program, Sparse
from hardware_targets.lower import matrix_of
from hardware_targets.place import Placement, allocate, place
from hardware_targets.route import settle
from neuro.errors import DoesNotFit, ParameterError, ShapeError
from neuro.graph import Graph
from neuro.graph import Input as GraphInput
from neuro.nodes import Affine, Conv, ReLU, Reshape


def chip_with(name: str = "loihi1", **limits: object) -> Chip:
    """A shipped chip with other limits; None removes one."""
    chip = load_chip(name)
    changed = dict(chip.limits)
    for key, value in limits.items():
        if value is None:
            del changed[key]
        else:
            changed[key] = dataclasses.replace(changed[key], value=value)
    return dataclasses.replace(chip, limits=changed)


def synapses_of(connection: Dense | Sparse | Conv2d) -> list[tuple[int, int]]:
    """(target, source) of every synapse, by loops."""
    if isinstance(connection, Dense):
        weights = connection.effective_weights
        return [(i, j) for i in range(weights.shape[0]) for j in range(weights.shape[1]) if weights[i, j]]
    if isinstance(connection, Sparse):
        entries = zip(connection.rows, connection.columns, connection.effective_weights, strict=True)
        return [(int(i), int(j)) for i, j, w in entries if w]
    (channels, height, width), (outs, rows, columns) = connection.input_shape, connection.output_shape
    _, per_group, kernel_h, kernel_w = connection.weights.shape
    found = []
    for o, r, c in np.ndindex(outs, rows, columns):
        for i, k, m in np.ndindex(per_group, kernel_h, kernel_w):
            y = r * connection.stride[0] - connection.padding[0] + k * connection.dilation[0]
            x = c * connection.stride[1] - connection.padding[1] + m * connection.dilation[1]
            if 0 <= y < height and 0 <= x < width:
                channel = i + (o // (outs // connection.groups)) * per_group
                found.append(((o * rows + r) * columns + c, (channel * height + y) * width + x))
    assert channels == per_group * connection.groups
    return found


def block_bits(synapses: int, bits: int) -> int:
    """Blocks of 64 synapses with 10 bits of header, in words of 64 bits."""
    total = 0
    while synapses > 0:
        total += math.ceil((min(synapses, 64) * bits + 10) / 64) * 64
        synapses -= 64
    return total


def judge(program: Program, chip: Chip, placement: Placement) -> None:
    """Every limit of every core, and that `used` tells the truth."""
    limit = {name: quantity.value for name, quantity in chip.limits.items()}
    home = placement.homes
    seen: dict[str, list[int]] = {p.name: [] for p in program.populations}
    for core in placement.cores:
        for piece in core.slices:
            seen[piece.population] += [int(n) for n in piece.neurons]
            assert (home[piece.population][piece.neurons] == core.number).all()
    for population in program.populations:
        assert sorted(seen[population.name]) == list(range(population.size))
    assert len(placement.cores) <= limit["cores"] * limit["chips"]

    edges = {c.name: synapses_of(c) for c in program.connections}
    targets: dict[tuple[str, int], set[int]] = {}
    axons: dict[int, set[tuple[str, int]]] = {core.number: set() for core in placement.cores}
    for connection in program.connections:
        for i, j in edges[connection.name]:
            core_number = int(home[connection.target][i])
            axons[core_number].add((connection.source, j))
            targets.setdefault((connection.source, j), set()).add(core_number)

    for core in placement.cores:
        neurons = [(piece.population, int(n)) for piece in core.slices for n in piece.neurons]
        out = sum(len(targets.get(neuron, ())) for neuron in neurons)
        memory, formats = len(neurons) * limit["neuron_memory_bits"], 0
        for connection in program.connections:
            for piece in core.slices:
                if piece.population != connection.target:
                    continue
                mine = {int(n) for n in piece.neurons}
                lists: dict[int, int] = {}
                for i, j in edges[connection.name]:
                    if i in mine:
                        lists[j] = lists.get(j, 0) + 1
                if not lists:
                    continue
                formats += 1
                bits = min(b for b in (1, 2, 3, 4, 5, 6, 8) if b >= connection.num_weight_bits)
                bits += math.ceil(math.log2(connection.max_delay + 1))
                if isinstance(connection, Conv2d) and limit["shared_kernels"]:
                    area = connection.output_shape[1] * connection.output_shape[2]
                    touched = len({n // area for n in mine})
                    per_channel = max(np.bincount([i for i, _ in edges[connection.name]]))
                    memory += touched * int(per_channel) * bits + 64 * len(lists)
                else:
                    index = max(6, math.ceil(math.log2(max(len(mine), 2))))
                    ordered = len(lists) * block_bits(len(mine), bits)
                    memory += min(ordered, sum(block_bits(n, bits + index) for n in lists.values()))
        assert len(neurons) == core.used["neurons"] <= limit["neurons_per_core"]
        assert len(axons[core.number]) == core.used["in_axons"] <= limit["in_axons_per_core"]
        assert out == core.used["out_axons"] <= limit["out_axons_per_core"]
        assert memory == core.used["memory_bits"] <= limit["synapse_memory_bits"]
        assert formats == core.used["synapse_formats"] <= limit["synapse_formats"]
        if "threshold_formats" in limit:
            thresholds = {
                int(p.vth[n]) if p.reset != "none" else -1
                for piece in core.slices
                for p in [program.population(piece.population)]
                for n in piece.neurons
            }
            assert len(thresholds) <= limit["threshold_formats"]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Input, convolution, sparse side path, dense readout; loops now and then."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    groups = draw(st.sampled_from([1, 2]))
    kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    conv = Conv2d(
        source="x",
        target="a",
        weights=rng.integers(-9, 10, (4, 2 // groups, kernel, kernel)),
        input_shape=(2, 6, 5),
        stride=stride,
        padding=draw(st.integers(0, 1)),
        groups=groups,
        num_weight_bits=draw(st.sampled_from([3, 7, 8])),
    )
    size = conv.target_size
    middle = draw(st.integers(1, 40))
    density = draw(st.sampled_from([0.05, 0.5, 1.0]))
    dense = rng.integers(-99, 99, (middle, size)) * (rng.random((middle, size)) < density)
    count = draw(st.integers(0, 30))
    pairs = rng.permutation(middle * 60)[:count]
    sparse = Sparse(
        source="x",
        target="b",
        weights=rng.integers(1, 99, count),
        rows=pairs // 60,
        columns=pairs % 60,
        shape=(middle, 60),
        delays=np.int32(draw(st.sampled_from([0, 1, 5]))),
    )
    connections = [conv, Dense(source="a", target="b", weights=dense, name="d"), sparse]
    if draw(st.booleans()):
        connections.append(Dense(source="b", target="b", weights=rng.integers(0, 2, (middle, middle)), name="loop"))
    populations = (
        Population("a", size, vth=np.repeat(np.arange(1, 5), size // 4)),
        Population("b", middle, vth=rng.integers(1, draw(st.sampled_from([2, 30])), middle), reset="zero"),
    )
    return Program((Input("x", 60),), populations, tuple(connections))


@given(
    programs(),
    st.sampled_from(["loihi1", "loihi2"]),
    st.integers(3, 60),
    st.integers(20, 200),
    st.integers(4, 300),
    st.sampled_from([3_000, 10_000, 100_000]),
    st.sampled_from([2, 16]),
    st.none() | st.integers(0, 99),
)
def test_every_limit_is_kept_or_refused_with_the_numbers(
    program: Program,
    name: str,
    neurons: int,
    in_axons: int,
    out_axons: int,
    memory: int,
    thresholds: int,
    seed: int | None,
) -> None:
    limits: dict[str, object] = {
        "neurons_per_core": neurons,
        "in_axons_per_core": in_axons,
        "out_axons_per_core": out_axons,
        "synapse_memory_bits": memory,
    }
    if name == "loihi1":
        limits["threshold_formats"] = thresholds
    chip = chip_with(name, **limits)
    rng = np.random.default_rng(seed)
    rates = None if seed is None else {part.name: rng.random(part.size) for part in program.sources}
    placement, violations = allocate(program_demand(program), chip, rates)
    if not violations:
        judge(program, chip, placement)
        judge(program, chip, place(program, chip, rates=rates, effort=0.1))
        return
    for violation in violations:
        assert isinstance(violation.needed, str) or violation.needed > violation.available
        assert violation.remedy
    with pytest.raises(DoesNotFit) as caught:
        place(program, chip, rates=rates)
    assert str(caught.value).splitlines() == [str(violation) for violation in violations]


def one_layer(sources: int, size: int = 1, bits: int = 8) -> Program:
    return Program(
        (Input("x", sources),),
        (Population("y", size),),
        (Dense(source="x", target="y", weights=np.full((size, sources), 8), num_weight_bits=bits),),
    )


def test_one_axon_too_many() -> None:
    chip = load_chip("loihi1")
    assert place(one_layer(4096), chip).cores[0].used["in_axons"] == 4096
    with pytest.raises(DoesNotFit, match="y on core 0: in_axons 4,097 needed, 4,096 available; give the") as caught:
        place(one_layer(4097), chip)
    assert {(v.layer, v.core, v.resource) for v in caught.value.violations} == {
        ("y", 0, "in_axons"),
        ("y", None, "fan_in"),
    }


def test_one_neuron_too_many() -> None:
    chip = chip_with(cores=2)
    assert len(place(one_layer(1, 2048), chip).cores) == 2
    with pytest.raises(DoesNotFit, match="cores 3 needed, 2 available"):
        place(one_layer(1, 2049), chip)


def test_one_weight_bit_too_many() -> None:
    chip = load_chip("loihi1")
    narrow = dict(chip.arithmetic)
    narrow["weight_bits"] = dataclasses.replace(narrow["weight_bits"], value=(1, 2, 4))
    chip = dataclasses.replace(chip, arithmetic=narrow)
    place(one_layer(3, bits=4), chip)
    with pytest.raises(DoesNotFit, match="y: weight_bits 5 needed, 4 available"):
        place(one_layer(3, bits=5), chip)


def test_one_bit_of_memory_too_many() -> None:
    used = place(one_layer(100, 30), load_chip("loihi1")).cores[0].used["memory_bits"]
    assert used == 100 * math.ceil((30 * 8 + 10) / 64) * 64
    assert len(place(one_layer(100, 30), chip_with(synapse_memory_bits=used)).cores) == 1
    assert len(place(one_layer(100, 30), chip_with(synapse_memory_bits=used - 1)).cores) == 2
    with pytest.raises(DoesNotFit, match="memory_bits 6,400 needed, 6,399 available"):
        place(one_layer(100), chip_with(synapse_memory_bits=6399))


def test_one_core_too_many_for_the_axons_of_a_neuron() -> None:
    """A neuron whose targets need three cores takes three output axons."""
    program = Program(
        (Input("x", 1),),
        (Population("a", 1), Population("b", 9)),
        (
            Dense(source="x", target="a", weights=np.full((1, 1), 8)),
            Dense(source="a", target="b", weights=np.full((9, 1), 8)),
        ),
    )
    placement = place(program, chip_with(neurons_per_core=4, out_axons_per_core=3))
    judge(program, placement.chip, placement)
    with pytest.raises(DoesNotFit, match="a on core 0: out_axons 3 needed, 2 available"):
        place(program, chip_with(neurons_per_core=3, out_axons_per_core=2))


def test_seventeen_thresholds_need_two_cores() -> None:
    program = dataclasses.replace(one_layer(1, 17), populations=(Population("y", 17, vth=np.arange(1, 18)),))
    assert len(place(program, load_chip("loihi1")).cores) == 2
    assert len(place(program, load_chip("loihi2")).cores) == 1


def test_all_violations_come_at_once() -> None:
    program = Program(
        (Input("x", 50),),
        (Population("a", 40, reset="subtract"), Population("b", 30)),
        (
            Dense(source="x", target="a", weights=np.full((40, 50), 8), num_message_bits=8),
            Dense(source="a", target="b", weights=np.full((30, 40), 8), delays=np.int32(63)),
        ),
    )
    with pytest.raises(DoesNotFit) as caught:
        place(program, chip_with(in_axons_per_core=45, cores=1, neurons_per_core=20))
    found = {(v.layer, v.resource) for v in caught.value.violations}
    assert found == {
        ("a", "reset"),
        ("a", "graded_spike_bits"),
        ("a", "in_axons"),
        ("b", "delay"),
        ("(whole network)", "cores"),
    }


def test_a_kernel_is_stored_once_where_the_chip_shares_it() -> None:
    conv = Conv2d(source="x", target="y", weights=np.full((8, 4, 3, 3), 5), input_shape=(4, 12, 12), padding=1)
    program = Program((Input("x", 576),), (Population("y", 1152),), (conv,))
    two = place(program, load_chip("loihi2"))
    assert len(two.cores) == 1
    assert two.cores[0].used["memory_bits"] == 8 * 4 * 9 * 8 + 576 * 64 + 1152 * 48
    unrolled = place(program, chip_with("loihi2", shared_kernels=False))
    assert sum(core.used["memory_bits"] for core in unrolled.cores) > 4 * two.cores[0].used["memory_bits"]


def test_neurons_that_read_the_same_pixels_share_a_core() -> None:
    """Cut channel by channel, this layer would need twice as many cores."""
    conv = Conv2d(source="x", target="y", weights=np.full((16, 16, 3, 3), 5), input_shape=(16, 16, 16), padding=1)
    program = Program((Input("x", 4096),), (Population("y", 4096),), (conv,))
    chip = chip_with("loihi2", in_axons_per_core=1024)
    placement = place(program, chip)
    by_channels = 4096 / (2 * 16)  # two rows of one channel read four rows of sixteen: 1024 axons
    assert len(placement.cores) <= by_channels / 8
    assert all(core.used["in_axons"] <= 1024 for core in placement.cores)


def test_small_populations_share_a_core() -> None:
    program = Program(
        (Input("x", 5),),
        (Population("a", 10), Population("b", 10)),
        (
            Dense(source="x", target="a", weights=np.full((10, 5), 8)),
            Dense(source="a", target="b", weights=np.full((10, 10), 8)),
        ),
    )
    (core,) = place(program, load_chip("loihi1")).cores
    assert [piece.population for piece in core.slices] == ["a", "b"]
    assert core.used["in_axons"] == 15
    assert core.used["out_axons"] == 10


def test_packets_and_hops_by_hand() -> None:
    """One neuron a core, four cores a tile, two tiles a row: a 0..4, b 5..9 on tiles (0,0), (1,0), (0,1)."""
    program = Program(
        (Input("x", 2),),
        (Population("a", 5), Population("b", 5)),
        (
            Dense(source="x", target="a", weights=np.eye(5, 2, dtype=int) * 8),
            Dense(source="a", target="b", weights=np.eye(5, dtype=int)[::-1] * 8),
        ),
    )
    placement = place(program, chip_with(neurons_per_core=1, mesh_width=2, mesh_height=16), effort=0)
    assert len(placement.cores) == 10
    assert placement.packets({"a": [1, 0, 2, 0, 1]}) == 4
    # a0 on tile (0,0) reaches b4 on tile (0,1): 1 hop; a2 on (0,0) reaches b2 on (1,0): 1; a4 and b0 share (1,0): 0
    assert placement.hops({"a": [1, 0, 2, 0, 1]}) == 1 + 2 * 1 + 0
    assert placement.packets({"x": [3, 4]}) == 7
    assert placement.hops({"x": [3, 4]}) == 0
    assert placement.packets({"b": [9, 9, 9, 9, 9]}) == 0
    with pytest.raises(ShapeError):
        placement.packets({"a": [1]})
    with pytest.raises(ParameterError, match="no 'q'"):
        placement.hops({"q": [1]})


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(0, 10**6),
)
def test_a_kernel_reaches_what_its_matrix_reaches(
    height: int, width: int, stride: int, padding: int, dilation: int, groups: int, seed: int
) -> None:
    node = Conv(torch.ones(4, 4 // groups, height, width), None, (stride, 1), (padding, 0), (1, dilation), groups)
    shape = (4, 7, 6)
    matrix = matrix_of(node, shape)
    graph = Graph({"x": GraphInput(shape), "c": node, "r": ReLU()}, {"c": ("x",), "r": ("c",)})
    reach = graph_demand(graph, 8, "zero").links[0].reach
    listed = Listed(matrix)
    assert isinstance(reach, Kernel)
    assert (reach.fan_in() == listed.fan_in()).all()
    some = reach.fan_in() > 0
    assert (reach.first()[some] == listed.first()[some]).all()
    targets = np.flatnonzero(np.random.default_rng(seed).random(matrix.shape[0]) < 0.3)
    if targets.size:
        assert (reach.synapses(targets) == listed.synapses(targets)).all()


def test_a_hundred_thousand_neurons_are_placed_quickly() -> None:
    nodes: dict = {"x": GraphInput((3, 32, 32))}
    sources: dict[str, tuple[str, ...]] = {}
    last, channels = "x", 3
    for number, out in enumerate((32, 32, 34)):
        nodes[f"conv{number}"] = Conv(torch.randn(out, channels, 3, 3), None, (1, 1), (1, 1))
        nodes[f"relu{number}"] = ReLU()
        sources[f"conv{number}"], sources[f"relu{number}"] = (last,), (f"conv{number}",)
        last, channels = f"relu{number}", out
    demand = graph_demand(Graph(nodes, sources), 8, "zero")
    assert sum(population.size for population in demand.populations) > 100_000
    start = time.process_time()
    placement, violations = allocate(demand, load_chip("loihi2"))
    settle(placement)
    assert time.process_time() - start < 60
    assert not violations
    assert len(placement.cores) < 128


def test_wide_layers_are_checked_in_seconds() -> None:
    """Nothing is multiplied out: the shapes and the zeros of 25 million weights are enough."""
    weights = {name: torch.ones(shape) for name, shape in (("a", (4000, 784)), ("b", (4000, 4000)), ("c", (10, 4000)))}
    nodes: dict = {"x": GraphInput((28, 28)), "flat": Reshape((784,)), "a": Affine(weights["a"]), "ra": ReLU()}
    nodes |= {"b": Affine(weights["b"]), "rb": ReLU(), "c": Affine(weights["c"])}
    names = list(nodes)
    graph = Graph(nodes, {name: (before,) for before, name in pairwise(names)})
    start = time.process_time()
    fit = check(graph, load_chip("loihi2"))
    assert time.process_time() - start < 10
    assert [(v.resource, v.available) for v in fit.violations] == [("cores", 128)]


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1), st.integers(0, 10**6))
def test_all_to_all_but_a_few_is_what_is_listed(targets: int, sources: int, density: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((targets, sources)) < density
    few, listed = AllBut(mask), Listed(sp.csr_array(mask))
    some = np.flatnonzero(rng.random(targets) < 0.5)
    assert (few.synapses(some) == listed.synapses(some)).all()
    assert (few.fan_in() == listed.fan_in()).all()
    assert (few.first() == listed.first()).all()


def test_other_families_are_refused() -> None:
    chip = dataclasses.replace(load_chip("loihi1"), family="truenorth")
    with pytest.raises(ParameterError, match="'truenorth'"):
        place(one_layer(1), chip)


def test_the_table_names_cores_and_limits() -> None:
    placement = place(one_layer(3, 5), load_chip("loihi1"))
    assert placement.rows()[0][:3] == ("0", "y[0:5]", "5 / 1,024")
    assert "1 of 128 cores" in placement._repr_html_()
    assert program_demand(one_layer(3, 5)).sizes == {"x": 3, "y": 5}
