"""Synapses that follow spikes: the same spikes as dense arithmetic, exactly where sums are exact; the same counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuro.graph import Graph, Input, Node, Stateless
from neuro.kernels.events import Currents, fires, population
from neuro.kernels.paths import Paths
from neuro.kernels.spikes import Spikes, pack
from neuro.kernels.synapses import LANES, padded, table
from neuro.nodes import (
    IF,
    LIF,
    Add,
    Affine,
    AvgPool,
    Concat,
    Conv,
    MaxCount,
    Pad,
    Permute,
    Readout,
    Reshape,
    Scale,
    Slice,
    Spiking,
)
from neuro.simulate import Run, simulate

POOL = ((2, 2), (2, 2), (0, 0))
zero, one = torch.tensor(0.0), torch.tensor(1.0)


def whole(*shape: int) -> Tensor:
    """Small integers: their sums are exact in single precision, in any order."""
    return torch.randint(-2, 4, shape).float()


class Sketch:
    """A network drawn node by node, every weight and threshold a whole number."""

    def __init__(self, *shape: int) -> None:
        self.nodes: dict[str, Node] = {"x": Input(shape)}
        self.sources: dict[str, tuple[str, ...]] = {}
        self.at = "x"

    def put(self, node: Node, *given: str) -> str:
        name = f"{node.kind.lower()}{len(self.nodes)}"
        self.nodes[name], self.sources[name] = node, given or (self.at,)
        self.at = name
        return name

    @property
    def shape(self) -> tuple[int, ...]:
        return Graph(self.nodes, self.sources).shapes[self.at]

    def neurons(self, kind: str, reset: str) -> str:
        channels = (self.shape[0], *(1,) * (len(self.shape) - 1))
        theta, v0 = torch.randint(1, 6, channels).float(), torch.randint(0, 3, ()).float()
        if kind == "lif":
            return self.put(LIF(torch.tensor(0.5), theta, v0, reset))  # type: ignore[arg-type]
        return self.put(IF(theta, v0, reset))  # type: ignore[arg-type]

    def block(self, kind: str, neuron: str, reset: str) -> None:
        here, (channels, high, wide) = self.at, self.shape
        if kind == "residual":
            main = self.put(Conv(whole(channels, channels, 3, 3), None, (1, 1), (1, 1)))
            self.put(Add(), main, self.put(Scale(whole(channels, 1, 1)), here))
        elif kind == "shortcut":
            main = self.put(Conv(whole(2 * channels, channels, 3, 3), whole(2 * channels), (2, 2), (1, 1)))
            self.put(Slice(1, 0, high, 2), here)
            self.put(Slice(2, 0, wide, 2))
            self.put(Pad(((channels // 2, channels - channels // 2), (0, 0), (0, 0))))
            self.put(Add(), main, self.put(Scale(whole(2 * channels, 1, 1))))
        elif kind == "plain sum":
            self.put(Add(), self.put(Conv(whole(channels, channels, 1, 1)), here), here)
        elif kind == "grouped":
            self.put(Conv(whole(2 * channels, 1, 3, 2), whole(2 * channels), (1, 1), (2, 1), (1, 2), channels))
        elif kind == "mean":
            self.put(AvgPool(*POOL) if min(high, wide) > 1 else AvgPool((1, 1), (1, 1), (0, 0)))
        elif kind == "overlapping mean":
            self.put(AvgPool((2, 2), (1, 1), (1, 1)))
        elif kind == "maximum":
            self.put(MaxCount((2, 2), (1, 1), (1, 1)))
            self.put(Conv(whole(channels, channels, 2, 2), None, (1, 1), (1, 1)))
        elif kind == "concat":
            self.put(Concat(), here, here)
            self.put(Conv(whole(3, 2 * channels, 3, 3), None, (2, 1), (1, 1)))
        elif kind == "turned":
            self.put(Permute((0, 2, 1)))
            self.put(Conv(whole(channels, channels, 3, 3), None, (1, 1), (1, 1)))
        elif kind == "rows":
            self.put(Affine(whole(wide, wide), whole(wide)))
        elif kind == "bias map":
            self.put(Scale(whole(channels, 1, 1), whole(channels, high, wide)))
        else:
            self.put(Conv(whole(17, channels, 3, 3), whole(17), (1, 1), (1, 1)))
        self.neurons(neuron, reset)

    def graph(self) -> Graph:
        size = math.prod(self.shape)
        self.put(Reshape((size,)))
        self.put(Affine(whole(20, size), whole(20)))
        self.neurons("if", "subtract")
        self.put(Affine(whole(3, 20)))
        self.put(Readout())
        return Graph(self.nodes, self.sources, "sketch")


BLOCKS = (
    "residual", "shortcut", "plain sum", "grouped", "mean", "overlapping mean", "maximum", "concat", "turned", "rows",
    "bias map", "wide",
)  # fmt: skip


def drawn(kinds: list[str], neuron: str, reset: str, seed: int) -> Graph:
    torch.manual_seed(seed)
    sketch = Sketch(2, 5, 6)
    sketch.put(Conv(whole(4, 2, 3, 3), whole(4), (1, 1), (1, 1)))
    sketch.neurons(neuron, reset)
    for kind in kinds:
        sketch.block(kind, neuron, reset)
    return sketch.graph()


def same(run: Run, expected: Run) -> None:
    assert run.recordings["spikes"].keys() == expected.recordings["spikes"].keys()
    for name, spikes in expected.recordings["spikes"].items():
        assert torch.equal(run.recordings["spikes"][name], spikes), name
        assert torch.equal(run.recordings["counts"][name], expected.recordings["counts"][name]), name
    torch.testing.assert_close(run.outputs, expected.outputs)
    assert run.counts == expected.counts


@settings(max_examples=30)
@given(
    kinds=st.lists(st.sampled_from(BLOCKS), max_size=3),
    neuron=st.sampled_from(["if", "lif"]),
    reset=st.sampled_from(["subtract", "zero"]),
    timed=st.sampled_from(["constant", "timed", "spikes"]),
    steps=st.integers(1, 6),
    batch=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_the_same_spikes_and_counts_as_the_reference(
    kinds: list[str], neuron: str, reset: str, timed: str, steps: int, batch: int, seed: int
) -> None:
    graph = drawn(kinds, neuron, reset, seed)
    x = whole(batch, 2, 5, 6) if timed == "constant" else whole(steps, batch, 2, 5, 6)
    x = (x > 1).float() if timed == "spikes" else x
    expected, *others = (
        simulate(graph, x, steps=steps, record=["spikes", "counts"], kernel=kernel)  # type: ignore[arg-type]
        for kernel in ("reference", "events", "auto")
    )
    for run in others:
        same(run, expected)


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_block(kind: str) -> None:
    graph, x = drawn([kind], "if", "subtract", 1), whole(3, 2, 5, 6)
    runs = [simulate(graph, x, steps=6, record=["spikes", "counts"], kernel=k) for k in ("reference", "events")]  # type: ignore[arg-type]
    assert 0.02 < float(runs[0].recordings["spikes"]["if2"].float().mean()) < 0.98
    same(runs[1], runs[0])


def test_a_batch_equals_the_stack_of_its_samples() -> None:
    graph, x = drawn(["shortcut", "residual"], "lif", "zero", 2), torch.rand(4, 2, 5, 6)
    together = simulate(graph, x, steps=7, record=["spikes"], kernel="events")
    singles = [simulate(graph, sample[None], steps=7, record=["spikes"], kernel="events") for sample in x]
    for name, spikes in together.recordings["spikes"].items():
        assert torch.equal(spikes, torch.cat([run.recordings["spikes"][name] for run in singles], 1))
    torch.testing.assert_close(together.outputs, torch.cat([run.outputs for run in singles]))
    assert together.counts.total == sum((run.counts.total for run in singles[1:]), singles[0].counts.total)


def test_silence_in_silence_out() -> None:
    sketch = Sketch(2, 5, 6)
    sketch.neurons("if", "subtract")
    sketch.nodes[sketch.at] = IF(one, zero)
    sketch.put(Conv(whole(4, 2, 3, 3), None, padding=(1, 1)))
    sketch.put(IF(one, zero))
    sketch.put(Conv(whole(4, 4, 3, 3), None, padding=(1, 1)))
    sketch.put(IF(one, zero))
    graph = Graph(sketch.nodes, sketch.sources)
    run = simulate(graph, torch.zeros(9, 2, 2, 5, 6), record=["spikes"], kernel="events")
    assert not bool(run.outputs.any())
    assert run.counts.total.accumulates == run.counts.total.spikes == 0
    assert run.counts.total.updates == 9 * 2 * 30 * (2 + 4 + 4)


def test_real_weights_agree_but_for_the_rounding_of_sums() -> None:
    torch.manual_seed(3)
    sketch = Sketch(3, 12, 12)
    for into, out in ((3, 16), (16, 24), (24, 40)):
        sketch.put(Conv(torch.randn(out, into, 3, 3) / (3 * into**0.5), torch.rand(out) / 4, padding=(1, 1)))
        sketch.put(IF(torch.rand(out, 1, 1) + 0.5, torch.tensor(0.25)))
    sketch.put(AvgPool((12, 12), (12, 12), (0, 0)))
    sketch.put(Reshape((40,)))
    sketch.put(Affine(torch.randn(5, 40)))
    sketch.put(Readout())
    graph, x = Graph(sketch.nodes, sketch.sources), torch.rand(3, 3, 12, 12)
    fast, slow = (simulate(graph, x, steps=16, record=["spikes"], kernel=k) for k in ("events", "numba"))  # type: ignore[arg-type]
    for name, spikes in slow.recordings["spikes"].items():
        assert 0.02 < float(spikes.float().mean()) < 0.6
        assert float((spikes != fast.recordings["spikes"][name]).float().mean()) < 1e-3
    torch.testing.assert_close(fast.outputs, slow.outputs, atol=1e-2, rtol=1e-2)


MAPS: list[tuple[tuple[int, ...], Stateless, tuple[Stateless, ...]]] = [
    ((3, 5, 6), Conv(whole(5, 3, 3, 3), None, (1, 1), (1, 1)), ()),
    ((18, 5, 6), Conv(whole(33, 18, 3, 3), None, (2, 2), (1, 1)), ()),
    ((4, 7, 6), Conv(whole(6, 2, 3, 2), None, (2, 3), (0, 1), (1, 2), 2), ()),
    ((4, 9), Conv(whole(6, 4, 3), None, (2,), (2,), (2,)), ()),
    ((2, 4, 3, 5), Conv(whole(6, 2, 3, 2, 2), None, (1, 1, 2), (1, 0, 1), (1, 1, 1)), ()),
    ((2, 5, 1), Conv(whole(4, 2, 3, 3), None, (1, 1), (1, 1)), ()),
    ((20,), Affine(whole(70, 20)), ()),
    ((4, 3, 2), Affine(whole(9, 24)), (Reshape((24,)),)),
    ((4, 3, 2), Affine(whole(9, 6)), (Slice(0, 1, 4, 2), Slice(2, 0, 1), Permute((2, 1, 0)), Reshape((6,)))),
    ((4, 4, 6), AvgPool(*POOL), ()),
    ((4, 5, 5), AvgPool((4, 2), (2, 1), (1, 1)), ()),
    ((4, 3, 3), Scale(whole(4, 1, 1)), ()),
    ((4, 6, 5), Scale(whole(8, 1, 1)), (Slice(1, 0, 6, 2), Slice(2, 1, 5, 2), Pad(((3, 1), (0, 0), (1, 0))))),
    ((4, 6, 5), Conv(whole(3, 5, 3, 3)), (Pad(((0, 1), (1, 1), (0, 2))), Permute((0, 2, 1)))),
]  # fmt: skip


def spread(shape: tuple[int, ...], node: Stateless, moves: tuple[Stateless, ...], at: int, out: int) -> np.ndarray:
    """What one spike of the neuron `at` adds, read from the table alone; (out channels, positions)."""
    runs = table(node, shape, moves)
    assert runs is not None
    channel, place = divmod(at, math.prod(shape[1:]))
    sums = np.zeros(10**3 * padded(out), dtype=np.float32)
    for run in range(runs.first[place], runs.first[place + 1]):
        if runs.block:
            size = runs.vectors[run] * LANES
            begin = channel * runs.block + runs.start[run]
            sums[runs.target[run] : runs.target[run] + size] += runs.weights[begin : begin + size]
        else:
            sums[runs.target[run] + channel] += runs.weights[channel]
    return sums.reshape(-1, padded(out))[:, :out].T


@pytest.mark.parametrize(("shape", "node", "moves"), MAPS)
def test_the_table_of_a_map_is_the_map(shape: tuple[int, ...], node: Stateless, moves: tuple[Stateless, ...]) -> None:
    """The response to each single spike, against the dense node."""
    size = math.prod(shape)
    value = torch.eye(size).reshape(size, *shape)
    for step in (*moves, node):
        value = step.forward(value)
    expected = value.reshape(size, value.shape[1], -1).numpy()
    for at in range(size):
        found = spread(shape, node, moves, at, value.shape[1])
        assert np.array_equal(found[:, : expected.shape[2]], expected[at])
        assert not found[:, expected.shape[2] :].any()


def test_neighbouring_targets_are_one_run() -> None:
    """A 3x3 convolution has three runs inside the image, each as long as three positions, and fewer at its border."""
    runs = table(Conv(torch.randn(32, 16, 3, 3), None, (1, 1), (1, 1)), (16, 4, 5))
    assert runs is not None
    first, last = runs.first[6], runs.first[7]
    assert runs.vectors[first:last].tolist() == [6, 6, 6]
    assert np.diff(runs.target[first:last]).tolist() == [5 * 32, 5 * 32]
    assert runs.vectors[: runs.first[1]].tolist() == [4, 4]
    assert runs.per_spike == pytest.approx(32 * (9 * 6 + 6 * 10 + 4 * 4) / 20)


@pytest.mark.parametrize(
    ("node", "shape", "moves"),
    [
        (Affine(whole(5, 4)), (3, 4), ()),
        (AvgPool((3,), (2,), (1,), False), (2, 8), ()),
        (AvgPool((3,), (2,), (0,), True, True), (2, 8), ()),
        (Scale(torch.rand(3, 4)), (3, 4), ()),
        (Conv(whole(2, 2, 2), None, (1,), (0,), (1,)), (3, 2), (Permute((1, 0)),)),
        (Conv(whole(2, 2, 3, 3).double(), None), (2, 4, 4), ()),
    ],
)
def test_maps_that_stay_dense(node: Stateless, shape: tuple[int, ...], moves: tuple[Stateless, ...]) -> None:
    assert table(node, shape, moves) is None


def test_weights_changed_in_place_are_seen() -> None:
    node = Affine(whole(5, 4))
    before = table(node, (4,))
    assert table(node, (4,)) is before
    node.weight.add_(1)
    after = table(node, (4,))
    assert before is not None
    assert after is not None
    assert np.array_equal(after.weights.reshape(-1, LANES)[:4, :5], node.weight.T)
    assert not np.array_equal(after.weights, before.weights)


@given(
    st.sampled_from([(1,), (16,), (17, 3), (40, 2, 3), (5, 2, 2, 2)]), st.integers(1, 5), st.integers(1, 4),
    st.floats(0, 1), st.integers(0, 10**6),
)  # fmt: skip
def test_bits_are_spikes(shape: tuple[int, ...], steps: int, batch: int, rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    z = (torch.rand(steps, batch, *shape) < rate).float()
    bits = pack(z)
    assert torch.equal(bits.dense, z)
    assert torch.equal(bits.counts, z.sum(0, keepdim=True).int())
    assert torch.equal(bits.often, z.sum((0, 1)).int())
    assert bits.density == pytest.approx(float(z[:, :2].mean()))
    moved = bits.moved(Reshape((math.prod(shape),)))
    assert torch.equal(moved.dense, z.flatten(2))
    assert torch.equal(moved.often, z.sum((0, 1)).int().flatten())


@dataclass(frozen=True, eq=False)
class Stubborn(IF):
    """A population of another kind with the fields of IF."""


def test_only_known_populations_are_taken() -> None:
    assert fires(IF(one, zero))
    assert fires(LIF(one, one, zero))
    assert not fires(Stubborn(one, zero))
    assert not fires(IF(one.double(), zero.double()))
    assert not fires(Readout())


def chosen(rate: float) -> object:
    """What a convolution of random spikes becomes under "auto"."""
    nodes = {"x": Input((16, 8, 8)), "conv": Conv(torch.randn(16, 16, 3, 3), None, (1, 1), (1, 1)), "if": IF(one, zero)}
    graph = Graph(nodes, {"conv": ("x",), "if": ("conv",)})
    paths = Paths(graph, {"x", "if"}, 4)
    spikes = paths.as_bits("x", (torch.rand(4, 2, 16, 8, 8) < rate).float())
    assert isinstance(spikes, Spikes)
    return paths.follow("conv", nodes["conv"], [spikes])


def test_auto_follows_spikes_where_they_are_few() -> None:
    assert isinstance(chosen(0.1), Currents)
    assert chosen(1.0) is None


def test_potentials_are_recorded_by_the_dense_kernels() -> None:
    graph, x = drawn(["residual"], "if", "subtract", 4), whole(2, 2, 5, 6)
    fast, slow = (simulate(graph, x, steps=4, record=["v"], kernel=k) for k in ("events", "reference"))  # type: ignore[arg-type]
    for name, v in slow.recordings["v"].items():
        torch.testing.assert_close(fast.recordings["v"][name], v)


def test_the_number_of_threads_stays() -> None:
    threads = torch.get_num_threads()
    node: Spiking = IF(one, zero)
    population(node, Currents((), (torch.rand(1, 3, 5),)), (5,), 4)  # type: ignore[arg-type]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("kind", BLOCKS)
def test_populations_take_events(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Populations take events from all that tables describe; rows, maxima and joined channels enter densely."""
    seen: list[int] = []

    def watched(node: IF, currents: Currents, shape: tuple[int, ...], steps: int) -> Spikes:
        seen.append(len(currents.paths))
        return population(node, currents, shape, steps)

    monkeypatch.setattr("neuro.kernels.paths.population", watched)
    simulate(drawn([kind], "if", "subtract", 1), whole(2, 2, 5, 6), steps=4, kernel="events")
    expected = {name: [0, 2, 1] for name in ("residual", "shortcut", "plain sum")}
    expected |= {"maximum": [1, 1], "concat": [1, 1], "rows": [0, 1]}
    assert seen == expected.get(kind, [0, 1, 1])
