"""Simulation: symmetries first, then closed forms, then independent engines."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuro.errors import NeuroError, ParameterError, ShapeError
from neuro.evaluate import evaluate
from neuro.flow import carries_spikes, depth, has_neurons
from neuro.graph import Graph, Input, Node
from neuro.nodes import (
    IF,
    LI,
    LIF,
    Add,
    Affine,
    AvgPool,
    Concat,
    Conv,
    MaxCount,
    MaxPool,
    Neuron,
    Pad,
    Readout,
    ReLU,
    Reshape,
)
from neuro.simulate import simulate

zero, one = torch.tensor(0.0), torch.tensor(1.0)


def chain(shape: tuple[int, ...], *nodes: Node) -> Graph:
    names = ["x", *(f"n{number}" for number in range(len(nodes)))]
    return Graph(
        dict(zip(names, (Input(shape), *nodes), strict=True)),
        {name: (before,) for before, name in itertools.pairwise(names)},
    )


def convolutional() -> Graph:
    """Two populations, a max of counts, an average, a residual sum and a read-out."""
    nodes = {
        "x": Input((2, 6, 6)),
        "conv": Conv(torch.randn(3, 2, 3, 3), torch.randn(3), (1, 1), (1, 1)),
        "if": IF(torch.rand(3, 1, 1) + 0.5, torch.rand(3, 1, 1) / 2),
        "max": MaxCount((2, 2), (2, 2), (0, 0)),
        "mean": AvgPool((2, 2), (2, 2), (0, 0)),
        "sum": Add(),
        "flat": Reshape((27,)),
        "fc": Affine(torch.randn(5, 27), torch.randn(5)),
        "lif": LIF(torch.rand(5), torch.rand(5) + 0.5, zero, "zero"),
        "out": Affine(torch.randn(4, 5)),
        "readout": Readout(),
    }
    sources = {
        "conv": ("x",), "if": ("conv",), "max": ("if",), "mean": ("if",), "sum": ("max", "mean"), "flat": ("sum",),
        "fc": ("flat",), "lif": ("fc",), "out": ("lif",), "readout": ("out",),
    }  # fmt: skip
    return Graph(nodes, sources, "small")


def same_spikes(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("timed", [False, True])
def test_cutting_the_batch_equals_one_run(timed: bool) -> None:
    graph = convolutional()
    x = torch.rand(8, 5, 2, 6, 6) if timed else torch.rand(5, 2, 6, 6)
    whole = simulate(graph, x, steps=8, record=["spikes", "v", "outputs"])
    cut = simulate(graph, x, steps=8, record=["spikes", "v", "outputs"], memory=1.0)
    torch.testing.assert_close(cut.outputs, whole.outputs)
    same_spikes(whole.recordings["spikes"], cut.recordings["spikes"])
    torch.testing.assert_close(whole.recordings["v"]["lif"], cut.recordings["v"]["lif"])
    assert cut.counts == whole.counts
    assert whole.counts.samples == 5
    assert whole.counts.steps == 8 + depth(graph) == 10


def test_a_batch_equals_the_stack_of_its_samples() -> None:
    graph, x = convolutional(), torch.rand(4, 2, 6, 6)
    whole = simulate(graph, x, steps=8, record=["spikes"])
    singles = [simulate(graph, sample[None], steps=8, record=["spikes"]) for sample in x]
    torch.testing.assert_close(whole.outputs, torch.cat([run.outputs for run in singles]))
    for name, spikes in whole.recordings["spikes"].items():
        assert torch.equal(spikes, torch.cat([run.recordings["spikes"][name] for run in singles], 1))
    assert whole.counts.total == sum((run.counts.total for run in singles[1:]), singles[0].counts.total)


@given(st.permutations(range(6)), st.sampled_from(["subtract", "zero"]))
def test_permuting_neurons_permutes_spikes(order: list[int], reset: str) -> None:
    torch.manual_seed(1)
    w, b, beta, theta = torch.randn(6, 3), torch.randn(6), torch.rand(6), torch.rand(6) + 0.2
    out = torch.randn(2, 6)

    def network(p: list[int]) -> Graph:
        hidden = LIF(beta[p], theta[p], zero, reset)  # type: ignore[arg-type]
        return chain((3,), Affine(w[p], b[p]), hidden, Affine(out[:, p]), Readout())

    x = torch.rand(4, 3)
    plain = simulate(network(list(range(6))), x, steps=12, record=["spikes"])
    moved = simulate(network(order), x, steps=12, record=["spikes"])
    assert torch.equal(moved.recordings["spikes"]["n1"], plain.recordings["spikes"]["n1"][:, :, order])
    assert moved.counts == plain.counts
    torch.testing.assert_close(moved.outputs, plain.outputs)


@given(
    st.lists(st.floats(-1, 1.5, width=32), min_size=1, max_size=6), st.integers(1, 60), st.floats(0.1, 3),
    st.floats(0, 0.96875),
)  # fmt: skip
def test_rate_of_a_constant_current_is_within_one_spike(i: list[float], steps: int, theta: float, v0: float) -> None:
    current = torch.tensor([i])
    graph = chain((len(i),), IF(torch.tensor(theta), torch.tensor(v0 * theta)))
    rate = simulate(graph, current, steps=steps).outputs
    expected = (current / theta).clamp(0, 1)
    assert bool(((rate - expected).abs() <= 1 / steps + 1e-4).all())


def test_charge_is_conserved() -> None:
    """Sum of currents = final potential - initial potential + theta times spikes."""
    current = torch.randn(20, 3, 4)
    node = IF(torch.rand(4) + 0.2, torch.rand(4) / 5)
    run = simulate(chain((4,), node), current, record=["spikes", "v"])
    gained = run.recordings["v"]["n0"][-1] - node.v0 + node.theta * run.recordings["spikes"]["n0"].sum(0)
    torch.testing.assert_close(gained, current.sum(0))


@pytest.mark.parametrize("seed", range(3))
def test_max_count_of_a_network_equals_the_maximum_of_counts(seed: int) -> None:
    torch.manual_seed(seed)
    run = simulate(convolutional(), torch.rand(3, 2, 6, 6), steps=9, record=["spikes"])
    window = MaxPool((2, 2), (2, 2), (0, 0))
    counts = run.recordings["spikes"]["if"].float().sum(0)
    assert torch.equal(run.recordings["spikes"]["max"].float().sum(0), window.forward(counts))


def test_kernels_agree_on_a_network() -> None:
    graph, x = convolutional(), torch.rand(3, 2, 6, 6)
    runs = [simulate(graph, x, steps=10, record=["spikes", "v"], kernel=k) for k in ("numba", "reference", "auto")]  # type: ignore[arg-type]
    for run in runs[1:]:
        same_spikes(runs[0].recordings["spikes"], run.recordings["spikes"])
        torch.testing.assert_close(run.outputs, runs[0].outputs)


def test_recordings() -> None:
    graph, x = convolutional(), torch.rand(3, 2, 6, 6)
    bare = simulate(graph, x, steps=7)
    run = simulate(graph, x, steps=7, record=["spikes", "v", "outputs"])
    assert bare.recordings == {}
    torch.testing.assert_close(run.outputs, bare.outputs)
    assert bare.counts == run.counts
    spikes, v, outputs = (run.recordings[wish] for wish in ("spikes", "v", "outputs"))
    assert {name: tuple(value.shape) for name, value in spikes.items()} == {
        "if": (7, 3, 3, 6, 6), "max": (7, 3, 3, 3, 3), "lif": (7, 3, 5),
    }  # fmt: skip
    assert all(value.dtype == torch.bool for value in spikes.values())
    assert v["if"].shape == (7, 3, 3, 6, 6)
    assert list(outputs) == ["readout"]
    assert outputs["readout"].shape == (7, 3, 4)
    torch.testing.assert_close(outputs["readout"][-1], run.outputs)
    torch.testing.assert_close(v["readout"][-1] / 7, run.outputs)
    assert bare.counts.nodes["if"].spikes == int(spikes["if"].sum())
    assert simulate(graph, x, steps=7, count=False).counts.total.updates == 0


@pytest.mark.parametrize("start", [0, 3, 9])
def test_readout_starts_late(start: int) -> None:
    graph = chain((3,), IF(one, zero), Affine(torch.randn(2, 3)), Readout(start))
    x = torch.rand(2, 3)
    run = simulate(graph, x, steps=8, record=["spikes"])
    currents = run.recordings["spikes"]["n0"].float() @ graph.nodes["n1"].weight.T  # type: ignore[attr-defined]
    expected = currents[start:].mean(0) if start < 8 else torch.zeros(2, 2)
    torch.testing.assert_close(run.outputs, expected)
    series = simulate(graph, x, steps=8, record=["outputs"])
    torch.testing.assert_close(series.outputs, run.outputs)
    constant = chain((3,), IF(one, zero), Readout(start))
    held = simulate(chain((3,), Readout(start)), x, steps=8).outputs
    torch.testing.assert_close(held, x if start < 8 else torch.zeros_like(x))
    assert simulate(constant, x, steps=8).outputs.shape == (2, 3)


def test_the_last_node_gives_a_rate_or_a_potential() -> None:
    x = torch.tensor([[0.25, 0.75]])
    assert simulate(chain((2,), IF(one, zero)), x, steps=8).outputs.tolist() == [[0.25, 0.75]]
    pooled = chain((1, 2), IF(one, zero), MaxCount((2,), (2,), (0,)))
    assert simulate(pooled, x[None], steps=8).outputs.tolist() == [[[0.75]]]
    leaky = simulate(chain((2,), LI(torch.tensor(0.5))), x, steps=3).outputs
    torch.testing.assert_close(leaky, x * 1.75)


def test_a_plain_network_runs_once() -> None:
    graph = chain((3,), Affine(torch.randn(4, 3)), ReLU())
    x = torch.randn(5, 3)
    for run in (simulate(graph, x), simulate(graph, x, steps=1), simulate(graph, x, memory=1.0)):
        torch.testing.assert_close(run.outputs, evaluate(graph, x))
        assert (run.counts.samples, run.counts.steps, run.counts.total.macs) == (5, 1, 60)
    assert not has_neurons(graph)


def test_depth_is_the_longest_chain_of_populations() -> None:
    neuron = IF(one, zero)
    nodes = {"x": Input((2,)), "a": neuron, "b": neuron, "c": neuron, "s": Add(), "r": Readout()}
    sources = {"a": ("x",), "b": ("a",), "c": ("x",), "s": ("b", "c"), "r": ("s",)}
    assert depth(Graph(nodes, sources)) == 2


def test_which_values_are_spikes() -> None:
    nodes: dict[str, Node] = {
        "x": Input((1, 4)), "z": IF(one, zero), "pad": Pad(((0, 0), (1, 1))), "ones": Pad(((0, 0), (1, 1)), 1.0),
        "pool": MaxPool((2,), (2,), (0,)), "mean": AvgPool((2,), (2,), (0,)), "both": Concat(), "mixed": Concat(),
        "end": Concat(1),
    }  # fmt: skip
    sources = {
        "z": ("x",), "pad": ("z",), "ones": ("z",), "pool": ("pad",), "mean": ("ones",), "both": ("pool", "pool"),
        "mixed": ("pool", "mean"), "end": ("both", "mixed"),
    }  # fmt: skip
    graph = Graph(nodes, sources)
    assert carries_spikes(graph) == {"z", "pad", "pool", "both"}
    assert carries_spikes(graph, spiking_inputs=True) == {"x", "z", "pad", "pool", "both"}


spiking = chain((3,), IF(one, zero))
plain = chain((3,), ReLU())
two = Graph({"x": Input((3,)), "y": Input((3,)), "s": Add(), "n": IF(one, zero)}, {"s": ("x", "y"), "n": ("s",)}, "two")


@pytest.mark.parametrize("steps", [0, -1, True, False, 1.5, 10**7, "8"])
def test_bad_numbers_of_steps(steps: object) -> None:
    with pytest.raises(ParameterError, match="steps must be an integer from 1 to 1000000, got"):
        simulate(spiking, torch.rand(2, 3), steps=steps)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: simulate(spiking, torch.rand(2, 3)), ParameterError, "say how many steps to simulate"),
        (lambda: simulate(spiking, torch.rand(2, 4), steps=2), ShapeError, r"takes \(batch, 3\) or \(time, batch, 3\)"),
        (lambda: simulate(spiking, torch.rand(3), steps=2), ShapeError, r"got \(3,\)"),
        (lambda: simulate(spiking, torch.rand(5, 5, 2, 3), steps=2), ShapeError, r"got \(5, 5, 2, 3\)"),
        (lambda: simulate(spiking, torch.rand(4, 2, 3), steps=5), ShapeError, "input has 4 steps but steps=5"),
        (lambda: simulate(spiking, torch.rand(0, 3), steps=5), ShapeError, "holds no samples"),
        (lambda: simulate(spiking, torch.rand(4, 0, 3)), ShapeError, "holds no samples"),
        (lambda: simulate(spiking, torch.rand(0, 4, 3)), ParameterError, "from 1 to 1000000, got 0"),
        (lambda: simulate(spiking, torch.ones(2, 3).int(), steps=5), ShapeError, "takes floating-point input"),
        (lambda: simulate(spiking, torch.tensor([[0, 1, torch.nan]]), steps=5), ParameterError, "NaN or infinite"),
        (lambda: simulate(spiking, torch.tensor([[0, 1, -torch.inf]]), steps=5), ParameterError, "NaN or infinite"),
        (lambda: simulate(plain, torch.rand(2, 3), steps=5), ParameterError, "knows no time; leave steps out"),
        (lambda: simulate(plain, torch.rand(2, 3), steps=True), ParameterError, "knows no time; leave steps out"),
        (lambda: simulate(plain, torch.rand(4, 2, 3)), ParameterError, "knows no time"),
        (lambda: simulate(two, torch.rand(2, 3), steps=2), ParameterError, "'two' has 2 inputs"),
        (lambda: simulate(spiking, torch.rand(2, 3), steps=2, record=["w"]), ParameterError, "record takes .* got 'w'"),  # type: ignore[list-item]
        (lambda: simulate(spiking, torch.rand(2, 3), steps=2, kernel="gpu"), ParameterError, "kernel must be"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_refusals(call: Callable[[], object], kind: type[NeuroError], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def neuron_spikes(node: Neuron, current: Tensor) -> Tensor:
    run = simulate(chain(tuple(current.shape[2:]), node), current, record=["spikes"])
    return run.recordings["spikes"]["n0"].float()


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_lif_equals_snntorch(reset: str) -> None:
    """With reset_delay=False snnTorch resets in the step of the spike, as here; v < theta before every step."""
    leaky = pytest.importorskip("snntorch").Leaky
    beta, theta = 0.875, 1.25
    current = torch.rand(60, 4, 7) * 1.6 - 0.4
    layer = leaky(beta=beta, threshold=theta, reset_mechanism=reset, reset_delay=False)
    mem, expected = torch.zeros(4, 7), []
    with torch.no_grad():
        for i in current:
            spikes, mem = layer(i, mem)
            expected.append(spikes)
    z = neuron_spikes(LIF(torch.tensor(beta), torch.tensor(theta), zero, reset), current)  # type: ignore[arg-type]
    assert 0.05 < float(z.mean()) < 0.9
    assert torch.equal(z, torch.stack(expected))


def test_lif_equals_norse() -> None:
    """Norse steps v += dt / tau (i - v): beta = 1 - dt / tau, and its current counts dt / tau."""
    module = pytest.importorskip("norse.torch.functional.lif_box")
    p = module.LIFBoxParameters(tau_mem_inv=torch.tensor(125.0), v_th=torch.tensor(0.4))
    current = torch.rand(60, 4, 7) * 2 - 0.3
    state, expected = module.LIFBoxFeedForwardState(v=torch.zeros(4, 7)), []
    for i in current:
        spikes, state = module.lif_box_feed_forward_step(i, state, p, dt=0.001)
        expected.append(spikes)
    z = neuron_spikes(LIF(torch.tensor(0.875), torch.tensor(0.4), zero, "zero"), 0.125 * current)
    assert 0.02 < float(z.mean()) < 0.9
    assert torch.equal(z, torch.stack(expected))


def test_if_equals_brian2(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("brian2")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import brian2 as b2

        monkeypatch.setitem(b2.prefs, "codegen.target", "numpy")
        # Steps of 1/64 of the threshold are exact in both engines, ties with the threshold included.
        current = np.random.default_rng(0).integers(-20, 50, (40, 8)) / 64
        b2.defaultclock.dt = 1 * b2.ms
        drive = b2.TimedArray(current, dt=1 * b2.ms)
        group = b2.NeuronGroup(
            8,
            "dv/dt = drive(t, i) / ms : 1",
            threshold="v >= 1",
            reset="v -= 1",
            method="euler",
            namespace={"drive": drive},
        )
        monitor = b2.SpikeMonitor(group)
        b2.Network(group, monitor).run(40 * b2.ms, namespace={"drive": drive})
        expected = np.zeros((40, 8))
        expected[np.rint(np.asarray(monitor.t / b2.ms)).astype(int), np.asarray(monitor.i)] = 1
    z = neuron_spikes(IF(one, zero), torch.from_numpy(current).float()[:, None])[:, 0]
    assert z.sum() > 40
    assert np.array_equal(z.numpy(), expected)
