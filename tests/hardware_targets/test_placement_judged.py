"""A second opinion on placements of whole networks, from the limits of the chip's file and the synapses alone.

Nothing of the mapper is used to judge it: synapses come from torch's own convolution, memory from the block layout as
nengo-loihi describes it, hops from the numbers of the cores.
"""

from __future__ import annotations

import dataclasses
import math
from itertools import permutations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardware_targets.anneal import anneal, cost
from hardware_targets.chip import Chip, load_chip
from hardware_targets.demand import program_demand
from hardware_targets.loihi.program import Connection, Conv2d, Dense, Input, Population, Program
from hardware_targets.loihi.simulate import simulate_program
from hardware_targets.place import Placement, allocate, place
from hardware_targets.route import links
from neuro.errors import ParameterError, ShapeError

Spikes = dict[str, np.ndarray]


def small_chip(name: str, **limits: int) -> Chip:
    chip = load_chip(name)
    changed = {key: dataclasses.replace(q, value=limits.get(key, q.value)) for key, q in chip.limits.items()}
    return dataclasses.replace(chip, limits=changed)


def synapses(connection: Connection) -> sp.csc_array:
    """(targets, sources), one where there is a synapse; every tap of a kernel is one."""
    if not isinstance(connection, Conv2d):
        return sp.csc_array((np.asarray(connection.weights) != 0).astype(np.int64))
    sources = torch.eye(connection.source_size).reshape(-1, *connection.input_shape)
    taps = torch.ones(connection.weights.shape)
    geometry = (connection.stride, connection.padding, connection.dilation, connection.groups)
    reached = torch.nn.functional.conv2d(sources, taps, None, *geometry).flatten(1)
    return sp.csc_array(reached.T.numpy().astype(np.int64))


def list_bits(synapses_of_axon: np.ndarray, bits: int) -> int:
    """Per axon: blocks of 64 synapses, 10 bits of header each, every block rounded up to words of 64 bits."""
    total = 0
    for count in synapses_of_axon:
        blocks = [64] * (int(count) // 64) + ([int(count) % 64] if count % 64 else [])
        total += sum(math.ceil((block * bits + 10) / 64) * 64 for block in blocks)
    return total


def judge(program: Program, chip: Chip, placement: Placement) -> None:
    limit = {name: quantity.value for name, quantity in chip.limits.items()}
    numbers = [core.number for core in placement.cores]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < limit["cores"] * limit["chips"] for number in numbers)
    home = {population.name: np.full(population.size, -1) for population in program.populations}
    for core in placement.cores:
        for piece in core.slices:
            assert (home[piece.population][piece.neurons] == -1).all(), "a neuron lives twice"
            home[piece.population][piece.neurons] = core.number
    assert all((where >= 0).all() for where in home.values())

    edges = {connection.name: synapses(connection) for connection in program.connections}
    out_axons = dict.fromkeys(numbers, 0)
    for source in program.sources:
        targets = np.zeros((source.size, limit["cores"] * limit["chips"]), bool)
        for connection in program.connections:
            if connection.source == source.name:
                entries = edges[connection.name].tocoo()
                targets[entries.col, home[connection.target][entries.row]] = True
        for number in numbers if source.name in home else ():
            out_axons[number] += int(targets[home[source.name] == number].sum())

    for population in program.populations:
        fan_in = sum((edges[c.name].sum(1) for c in program.into(population.name)), np.zeros(population.size))
        assert np.max(fan_in) <= limit["fan_in"]
    for number in numbers:
        here = {name: np.flatnonzero(where == number) for name, where in home.items()}
        neurons = sum(len(found) for found in here.values())
        arriving: dict[str, np.ndarray] = {}
        memory, formats = neurons * limit["neuron_memory_bits"], 0
        for connection in program.connections:
            mine = here[connection.target]
            if not len(mine):
                continue
            counted = np.asarray(edges[connection.name][mine].sum(0)).reshape(-1)
            if not counted.any():
                continue
            formats += 1
            arriving[connection.source] = arriving.get(connection.source, False) | (counted > 0)
            bits = min(b for b in (1, 2, 3, 4, 5, 6, 8) if b >= connection.num_weight_bits)
            bits += math.ceil(math.log2(connection.max_delay + 1))
            axons = counted[counted > 0]
            if isinstance(connection, Conv2d) and limit["shared_kernels"]:
                area = math.prod(connection.output_shape[1:])
                taps = math.prod(connection.weights.shape[1:])
                memory += len(set(mine // area)) * taps * bits + 64 * len(axons)
            else:
                index = max(6, math.ceil(math.log2(max(len(mine), 2))))
                ordered = len(axons) * list_bits(np.array([len(mine)]), bits)
                memory += min(ordered, list_bits(axons, bits + index))
        assert neurons <= limit["neurons_per_core"]
        assert sum(int(mask.sum()) for mask in arriving.values()) <= limit["in_axons_per_core"]
        assert out_axons[number] <= limit["out_axons_per_core"]
        assert memory <= limit["synapse_memory_bits"]
        assert formats <= limit["synapse_formats"]
        for key, values in (("threshold_formats", "vth"), ("neuron_formats", "dv")):
            if key in limit:
                held = {
                    (p.name, "never") if p.reset == "none" else int(value)
                    for p in program.populations
                    for value in np.broadcast_to(getattr(p, values), p.size)[here[p.name]]
                }
                assert len(held) <= limit[key]


def judge_traffic(program: Program, chip: Chip, placement: Placement, spikes: Spikes) -> tuple[int, int]:
    """Packets and hops of every single spike, and that the placement and its links say the same."""

    def tile(number: int) -> tuple[int, int]:
        which, core = divmod(number, chip.limit("cores"))
        row, column = divmod(core // chip.limit("cores_per_tile"), chip.limit("mesh_width"))
        return column + which * chip.limit("mesh_width"), row

    home = placement.homes
    packets = hops = 0
    for source in program.sources:
        goes = [set() for _ in range(source.size)]
        for connection in program.connections:
            if connection.source == source.name:
                for target, neuron in zip(*synapses(connection).nonzero(), strict=True):
                    goes[neuron].add(int(home[connection.target][target]))
        for neuron, fired in enumerate(spikes[source.name]):
            here = home[source.name][neuron] if source.name in {p.name for p in program.populations} else 0
            x, y = tile(int(here))
            packets += int(fired) * len(goes[neuron])
            hops += int(fired) * sum(abs(tile(core)[0] - x) + abs(tile(core)[1] - y) for core in goes[neuron])
    assert placement.packets(spikes) == packets
    assert placement.hops(spikes) == hops
    assert links(placement, spikes).hops == pytest.approx(hops)
    return packets, hops


def even(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-60, 60, shape) * 2 + 2 * (rng.random(shape) < 0.5)


def conv(source: str, target: str, weights: np.ndarray, shape: tuple[int, int, int], **geometry: int) -> Conv2d:
    return Conv2d(source=source, target=target, weights=weights, input_shape=shape, **geometry)


def lenet() -> Program:
    """6@5x5, strides for pools, 16@5x5, 60, 10, on 16 x 16 pixels."""
    rng = np.random.default_rng(0)
    return Program(
        (Input("x", 256),),
        (
            Population("c1", 6 * 256, vth=np.repeat(np.arange(6) * 7 + 400, 256)),
            Population("p1", 6 * 64, vth=100),
            Population("c2", 16 * 16, vth=900),
            Population("fc", 60, vth=900),
            Population("out", 10, reset="none"),
        ),
        (
            conv("x", "c1", even(rng, 6, 1, 5, 5), (1, 16, 16), padding=2),
            conv("c1", "p1", np.full((6, 1, 2, 2), 64), (6, 16, 16), stride=2, groups=6),
            conv("p1", "c2", even(rng, 16, 6, 5, 5), (6, 8, 8)),
            Dense(source="c2", target="fc", weights=even(rng, 60, 256)),
            Dense(source="fc", target="out", weights=even(rng, 10, 60)),
        ),
    )


def perceptron() -> Program:
    rng = np.random.default_rng(1)
    loop = Dense(source="b", target="b", weights=even(rng, 120, 120) // 8 * 2, name="loop")
    return Program(
        (Input("x", 256),),
        (Population("a", 200, vth=2500), Population("b", 120, vth=2000), Population("out", 10, reset="none")),
        (
            Dense(source="x", target="a", weights=even(rng, 200, 256)),
            Dense(source="a", target="b", weights=even(rng, 120, 200)),
            loop,
            Dense(source="b", target="out", weights=even(rng, 10, 120)),
        ),
    )


def residual() -> Program:
    """Two convolutions and a skip of one tick around them, then classes."""
    rng = np.random.default_rng(2)
    same = {"padding": 1}
    skip = np.zeros((8, 8, 1, 1), int)
    skip[np.arange(8), np.arange(8)] = 64
    return Program(
        (Input("x", 256),),
        (*(Population(name, 8 * 64, vth=500) for name in ("stem", "a", "b")), Population("out", 10, reset="none")),
        (
            conv("x", "stem", even(rng, 8, 1, 3, 3), (1, 16, 16), padding=1, stride=2),
            conv("stem", "a", even(rng, 8, 8, 3, 3), (8, 8, 8), **same),
            conv("a", "b", even(rng, 8, 8, 3, 3), (8, 8, 8), **same),
            conv("stem", "b", skip, (8, 8, 8)),
            Dense(source="b", target="out", weights=even(rng, 10, 512)),
        ),
    )


NETWORKS = {"lenet": lenet, "perceptron": perceptron, "residual": residual}
SMALL = {"neurons_per_core": 128, "in_axons_per_core": 512, "out_axons_per_core": 512, "synapse_memory_bits": 60_000}


def measured(program: Program, seed: int = 3) -> Spikes:
    spikes = np.random.default_rng(seed).random((12, 4, 256)) < 0.2
    return simulate_program(program, {"x": spikes}, 12).counts.spikes


@pytest.mark.parametrize("chips", [1, 3])
@pytest.mark.parametrize("name", ["loihi1", "loihi2"])
@pytest.mark.parametrize("network", NETWORKS)
def test_no_limit_is_broken_and_every_packet_is_counted(network: str, name: str, chips: int) -> None:
    program = NETWORKS[network]()
    cores = {"cores": 32, "cores_per_tile": 2, "mesh_width": 4, "chips": 3} if chips == 3 else {}
    chip = small_chip(name, **SMALL, **cores)
    spikes = measured(program)
    placement = place(program, chip, rates=spikes)
    assert len(placement.cores) > 4
    judge(program, chip, placement)
    judge_traffic(program, chip, placement, spikes)


@pytest.mark.parametrize(("network", "most"), [("lenet", 0.3), ("perceptron", 0.75), ("residual", 0.6)])
def test_fewer_hops_than_in_sequence(network: str, most: float) -> None:
    """Rates come from one run, hops from another. Sequential: index order, a core for every slice, cores row by row.

    All to all, every neuron reaches every core of the next layer, so that only the distances can shrink.
    """
    program, chip = NETWORKS[network](), small_chip("loihi1", **SMALL)
    rates, spikes = measured(program), measured(program, seed=4)
    sequential, _ = allocate(program_demand(program), chip, sequential=True)
    assert place(program, chip, rates=rates).hops(spikes) <= most * sequential.hops(spikes)


def test_annealing_is_reproducible_and_bounded_below_by_its_start() -> None:
    program, chip = residual(), small_chip("loihi1", **SMALL)
    spikes = measured(program)
    places = [place(program, chip, rates=spikes, seed=seed) for seed in (5, 5, 6)]
    sites = [[core.number for core in placement.cores] for placement in places]
    assert sites[0] == sites[1]
    still = place(program, chip, rates=spikes, effort=0)
    assert [core.number for core in still.cores] == list(range(len(still.cores)))
    assert all(placement.hops(spikes) <= still.hops(spikes) for placement in places)
    assert all(placement.packets(spikes) == still.packets(spikes) for placement in places)


@given(st.integers(0, 10**6))
def test_annealing_finds_the_best_of_few_places(seed: int) -> None:
    rng = np.random.default_rng(seed)
    flow = np.triu(rng.random((4, 4)) * (rng.random((4, 4)) < 0.7), 1)
    flow, entering = flow + flow.T, rng.random(4)
    places = np.array([[0, 0], [1, 0], [2, 0], [0, 1], [2, 1], [2, 1]])
    found = anneal(flow, entering, places, np.arange(4), seed=seed)
    assert len(set(found.tolist())) == 4
    least = min(cost(flow, entering, places, np.array(tried)) for tried in permutations(range(6), 4))
    assert cost(flow, entering, places, found) == pytest.approx(least)


def test_active_neurons_share_cores_where_that_costs_no_packet() -> None:
    """All to all, so slices may be of any neurons: those that never fire go together."""
    program, chip = perceptron(), small_chip("loihi1", **SMALL)
    spikes = measured(program)
    silent = np.arange(200) % 2 == 1
    spikes["a"] = np.where(silent, 0, 50)
    placement = place(program, chip, rates=spikes)
    judge(program, chip, placement)
    pieces = [piece for core in placement.cores for piece in core.slices if piece.population == "a"]
    shares = [silent[piece.neurons].mean() for piece in pieces]
    assert sum(0 < share < 1 for share in shares) <= 1


def test_wrong_rates_and_efforts_are_refused() -> None:
    program, chip = perceptron(), load_chip("loihi1")
    with pytest.raises(ShapeError, match=r"rates of 'a' must be \(200,\), got \(0,\)"):
        place(program, chip, rates={"x": np.ones(256)})
    bad = measured(program) | {"b": np.full(120, np.nan)}
    with pytest.raises(ParameterError, match="rates of 'b' must be finite"):
        place(program, chip, rates=bad)
    with pytest.raises(ParameterError, match="effort must be a number >= 0"):
        place(program, chip, effort=-1)
