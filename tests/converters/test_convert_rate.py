"""Rate coding converges to the network it came from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converters import RateCode, activations_replaced, convert
from converters.calibrate import BATCH, activations, by_channel, mmse, percentile, percentiles, sampled
from converters.legalise import legalise
from neuro.errors import DataError, NeuroError, ParameterError, ShapeError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph, Input, Node
from neuro.nodes import (
    IF,
    Add,
    Affine,
    AvgPool,
    BatchNorm,
    Clamp,
    Concat,
    Conv,
    Dropout,
    LeakyReLU,
    MaxCount,
    MaxPool,
    Pad,
    Permute,
    Readout,
    ReLU,
    Reshape,
    Scale,
    Slice,
    Softmax,
    Spiking,
)
from neuro.simulate import simulate


@dataclass
class Sketch:
    """A graph drawn node by node; `at` is the newest node."""

    shape: tuple[int, ...]
    nodes: dict[str, Node] = field(default_factory=dict)
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    at: str = "x"

    def __post_init__(self) -> None:
        self.nodes["x"] = Input(self.shape)

    def put(self, node: Node, *given: str) -> str:
        name = f"{node.kind.lower()}{len(self.nodes)}"
        self.nodes[name], self.sources[name] = node, given or (self.at,)
        self.at = name
        return name

    def graph(self) -> Graph:
        return Graph(self.nodes, self.sources, "sketch")

    @property
    def now(self) -> tuple[int, ...]:
        return Graph(self.nodes, self.sources).shapes[self.at]


def conv(out: int, into: int, groups: int = 1, bias: bool = True) -> Conv:
    weight = torch.randn(out, into // groups, 3, 3) / (3 * (into / groups) ** 0.5)
    return Conv(weight, 0.2 * torch.randn(out) if bias else None, padding=(1, 1), groups=groups)


def norm(channels: int) -> BatchNorm:
    return BatchNorm(
        0.1 * torch.randn(channels), 0.5 + torch.rand(channels), 0.5 + torch.rand(channels), 0.1 * torch.randn(channels)
    )


BLOCKS = (
    "conv", "grouped", "norm", "leaky", "clamp", "hardtanh", "residual", "concat", "mean", "max", "pool_first", "pad",
    "slice", "scale", "dropout", "rows",
)  # fmt: skip


def block(sketch: Sketch, kind: str) -> None:
    """Four channels in, four channels out."""
    here, window = sketch.at, ((2, 2), (1, 1), (0, 0))
    if kind == "residual":
        sketch.put(conv(4, 4))
        sketch.put(ReLU())
        inner = sketch.put(conv(4, 4))
        sketch.put(Add(), here, inner)
    elif kind == "concat":
        sketch.put(conv(2, 4), here)
        left = sketch.put(ReLU())
        sketch.put(conv(2, 4), here)
        right = sketch.put(Clamp(0, 0.7))
        sketch.put(Concat(), left, right)
    elif kind == "norm":
        sketch.put(conv(4, 4, bias=False))
        sketch.put(norm(4))
        sketch.put(Dropout())
    elif kind == "leaky":
        sketch.put(conv(4, 4))
        sketch.put(LeakyReLU(0.3))
        return
    elif kind == "clamp":
        sketch.put(conv(4, 4))
        sketch.put(Clamp(0, 0.5))
        return
    elif kind == "hardtanh":
        sketch.put(conv(4, 4))
        sketch.put(Clamp(-0.4, 0.6))
        return
    elif kind == "mean":
        sketch.put(AvgPool(*window))
        return
    elif kind == "max":
        sketch.put(conv(4, 4))
        sketch.put(ReLU())
        sketch.put(MaxPool(*window))
        return
    elif kind == "pool_first":
        sketch.put(conv(4, 4))
        sketch.put(MaxPool(*window))
    elif kind == "pad":
        sketch.put(Pad(((0, 0), (1, 0), (0, 1))))
        return
    elif kind == "slice":
        sketch.put(Slice(1, 0, sketch.now[1] - 1))
        return
    elif kind == "scale":
        sketch.put(Scale(torch.randn(4, 1, 1), 0.1 * torch.randn(4, 1, 1)))
    elif kind == "dropout":
        sketch.put(Dropout())
        return
    elif kind == "rows":
        size = sketch.now[-1]
        sketch.put(Affine(torch.randn(size, size) / size**0.5, 0.1 * torch.randn(size)))
    else:
        sketch.put(conv(4, 4, 4 if kind == "grouped" else 1))
    sketch.put(ReLU())


def drawn(kinds: list[str], seed: int) -> Graph:
    torch.manual_seed(seed)
    sketch = Sketch((2, 6, 6))
    sketch.put(conv(4, 2))
    sketch.put(ReLU())
    for kind in kinds:
        block(sketch, kind)
    sketch.put(Permute((1, 2, 0)))
    size = int(np.prod(sketch.now))
    sketch.put(Reshape((size,)))
    sketch.put(Affine(torch.randn(6, size) / size**0.5, torch.randn(6)))
    sketch.put(ReLU())
    sketch.put(Affine(torch.randn(3, 6), torch.randn(3)))
    return sketch.graph()


def error(spiking: Graph, graph: Graph, x: torch.Tensor, steps: int) -> float:
    return float((simulate(spiking, x, steps=steps, count=False).outputs - evaluate(graph, x)).abs().max())


def converges(graph: Graph, recipe: object, bound: float = 0.05) -> Graph:
    """The error of the logits at 512 steps is small, and smaller than at 16 steps."""
    x = torch.rand(4, *graph.shapes[graph.inputs[0]])
    spiking = convert(graph, recipe, x)
    scale = float(evaluate(graph, x).abs().max())
    late = error(spiking, graph, x, 512)
    assert late < bound * scale
    assert late < max(0.4 * error(spiking, graph, x, 16), 0.005 * scale)
    return spiking


@settings(max_examples=10)
@given(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3), st.booleans(), st.integers(0, 10**6))
def test_random_networks_converge(kinds: list[str], per_channel: bool, seed: int) -> None:
    graph = drawn(kinds, seed)
    spiking = converges(graph, RateCode(100, per_channel))
    replaced, all_of_them = activations_replaced(spiking)
    wanted = sum(isinstance(node, ReLU | Clamp) for node in legalise(graph).nodes.values())
    assert replaced == all_of_them == wanted == sum(isinstance(node, Spiking) for node in spiking.nodes.values())


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_block_converges(kind: str) -> None:
    converges(drawn([kind], 3), RateCode(100))


@pytest.mark.parametrize("v0", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("start", [0, 64])
def test_initial_potential_and_late_readout_change_the_start_only(v0: float, start: int) -> None:
    converges(drawn(["residual"], 4), RateCode(100, v0=v0, readout_start=start))


def test_the_first_layer_is_exact_to_one_spike() -> None:
    """Half a threshold at the start rounds: the rate of a constant current is off by half a spike at most."""
    sketch = Sketch((3,))
    sketch.put(Affine(torch.randn(5, 3)))
    sketch.put(ReLU())
    sketch.put(Affine(torch.eye(5)))
    x, graph = torch.rand(50, 3), sketch.graph()
    spiking = convert(graph, RateCode(100), x)
    theta = spiking.nodes["relu2"].theta.flatten()  # type: ignore[attr-defined]
    for steps in (1, 7, 32):
        gap = (simulate(spiking, x, steps=steps).outputs - evaluate(graph, x)).abs()
        assert bool((gap <= theta / (2 * steps) * (1 + 1e-3)).all())


def test_thresholds_are_percentiles_of_channels() -> None:
    graph = drawn([], 0)
    x = torch.rand(40, 2, 6, 6)
    kept = activations(legalise(graph), x, lambda name, value: value)
    spiking = convert(graph, RateCode(90.0, True), x)
    layer = convert(graph, RateCode(90.0, False), x)
    for name, value in kept.items():
        expected = np.percentile(value.transpose(0, 1).flatten(1).numpy(), 90, axis=1, method="inverted_cdf")
        got = spiking.nodes[name].theta.flatten()  # type: ignore[attr-defined]
        silent = expected == 0
        np.testing.assert_allclose(got[~silent], expected[~silent])
        assert bool((got[silent] == float(expected.max())).all())
        whole = np.percentile(value.numpy(), 90, method="inverted_cdf")
        np.testing.assert_allclose(layer.nodes[name].theta.flatten(), whole)  # type: ignore[attr-defined]


@given(st.integers(1, 300), st.sampled_from([0.1, 1.0, 50.0, 99.0, 99.9, 100.0]), st.integers(0, 100))
def test_percentile(count: int, percent: float, seed: int) -> None:
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, count)))
    got = percentile(values, percent)
    share = (values <= got[:, None]).double().mean(1)
    assert bool((share >= percent / 100 - 1e-9).all())
    assert bool(((values < got[:, None]).double().mean(1) < percent / 100 + 1e-9).all())


def test_layers_with_percentiles_of_their_own() -> None:
    graph = legalise(drawn(BLOCKS[:2], 3))
    x = torch.rand(300, *graph.shapes[graph.inputs[0]], generator=torch.Generator().manual_seed(0))
    low, high = percentiles(graph, x, 80.0), percentiles(graph, x, 99.0)
    first, *others = low
    mixed = percentiles(graph, x, 99.0, layers={first: 80.0})
    assert torch.equal(mixed[first], low[first])
    assert not torch.equal(low[first], high[first])
    assert all(torch.equal(mixed[name], high[name]) for name in others)
    snn = convert(graph, RateCode(99.0, layers={first: 80.0}), x)
    plain = convert(graph, RateCode(99.0), x)
    thetas = [{name: node.theta for name, node in g.nodes.items() if isinstance(node, IF)} for g in (snn, plain)]
    assert [name for name in thetas[0] if not torch.equal(thetas[0][name], thetas[1][name])] == [first]
    with pytest.raises(ParameterError, match="no activation 'nothing'"):
        convert(graph, RateCode(layers={"nothing": 99.0}), x)
    with pytest.raises(ParameterError, match="percentile of 'relu'"):
        RateCode(layers={"relu": 0.0})


def test_percentiles_over_batches_are_those_of_all_values() -> None:
    """The largest values kept from batch to batch are enough."""
    graph, x = legalise(drawn(["concat"], 0)), torch.rand(2 * BATCH + 9, 2, 6, 6)
    whole = activations(graph, x, lambda name, value: value)
    for percent in (0.1, 50.0, 99.0, 100.0):
        for per_channel in (True, False):
            for name, theta in percentiles(graph, x, percent, per_channel).items():
                assert torch.equal(theta, percentile(by_channel(whole[name], per_channel), percent))


def test_samples_of_channels_come_from_everywhere() -> None:
    graph, x = legalise(drawn([], 0)), torch.rand(BATCH + 44, 2, 6, 6)
    whole = activations(graph, x, lambda name, value: value)
    kept = sampled(graph, x, places=500)
    for name, values in kept.items():
        rows = by_channel(whole[name], True)
        assert values.shape[0] == rows.shape[0]
        assert values.shape[1] == 501 if rows.shape[1] > 500 else rows.shape[1]
        assert all(set(some.tolist()) <= set(row.tolist()) for some, row in zip(values, rows, strict=True))
    assert all(torch.equal(kept[name], sampled(graph, x, places=500)[name]) for name in kept)


@given(st.integers(1, 16), st.sampled_from([0.3, 0.5]), st.integers(0, 10**6))
def test_mmse_is_the_best_share_of_the_largest(steps: int, v0: float, seed: int) -> None:
    values = np.random.default_rng(seed).exponential(size=(3, 50)) * [[1.0], [7.0], [0.0]]
    theta = mmse(torch.from_numpy(values), steps, v0).numpy()
    for row, got in zip(values[:2], theta, strict=False):
        tried = row.max() * (1 - 0.01 * np.arange(95))
        counts = np.clip(np.floor(row * steps / tried[:, None] + v0), 0, steps)
        errors = ((counts * tried[:, None] / steps - row) ** 2).sum(1)
        assert errors[np.abs(tried - got).argmin()] <= errors.min() * (1 + 1e-6)
        assert np.abs(tried - got).min() < 1e-6
    assert theta[2] == 0


def test_mmse_fits_few_steps_better_than_percentiles() -> None:
    graph, x = drawn(["conv", "residual"], 6), torch.rand(64, 2, 6, 6)
    few, many = (convert(graph, RateCode(thresholds="mmse", steps=steps), x) for steps in (2, 64))
    largest = convert(graph, RateCode(100), x)
    populations = [name for name, node in few.nodes.items() if isinstance(node, IF)]
    thetas = [[float(each.nodes[name].theta.mean()) for name in populations] for each in (few, many, largest)]  # type: ignore[attr-defined]
    assert all(a < b <= c * (1 + 1e-6) for a, b, c in zip(*thetas, strict=True))
    errors = [
        float((simulate(each, x, steps=2).outputs - evaluate(graph, x)).square().mean()) for each in (few, largest)
    ]
    assert errors[0] < errors[1]


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 40), st.integers(0, 10**6))
def test_the_rate_of_one_layer_is_off_by_half_a_spike(inputs: int, neurons: int, steps: int, seed: int) -> None:
    """IF under constant input: |theta * rate - relu| <= theta / (2 T) from v0 = theta / 2, theta / T from any v0."""
    torch.manual_seed(seed)
    sketch = Sketch((inputs,))
    sketch.put(Affine(torch.randn(neurons, inputs), torch.randn(neurons)))
    relu = sketch.put(ReLU())
    sketch.put(Affine(torch.eye(neurons)))
    graph, x = sketch.graph(), torch.rand(20, inputs)
    for v0, share in ((0.5, 0.5), (0.0, 1.0), (0.9, 1.0)):
        spiking = convert(graph, RateCode(100, v0=v0), x)
        theta = spiking.nodes[relu].theta  # type: ignore[attr-defined]
        gap = (simulate(spiking, x, steps=steps).outputs - evaluate(graph, x)).abs()
        assert bool((gap <= theta * share / steps * (1 + 1e-4) + 1e-5).all())


def test_by_channel() -> None:
    value = torch.arange(24.0).reshape(2, 3, 4)
    assert by_channel(value, True).shape == (3, 8)
    assert by_channel(value, True)[1].tolist() == [4, 5, 6, 7, 16, 17, 18, 19]
    assert by_channel(value, False).shape == (1, 24)


def test_a_channel_that_never_fires_and_a_clamp_bound_the_threshold() -> None:
    sketch = Sketch((2,))
    sketch.put(Affine(torch.tensor([[1.0, 0], [-1, 0], [0, 3]])))
    sketch.put(Clamp(0, 2))
    sketch.put(Affine(torch.ones(1, 3)))
    spiking = convert(sketch.graph(), RateCode(100), torch.tensor([[0.5, 0.25], [0.25, 0.5]]))
    assert spiking.nodes["clamp2"].theta.tolist() == [0.5, 1.5, 1.5]  # type: ignore[attr-defined]
    clipped = convert(sketch.graph(), RateCode(100), torch.tensor([[9.0, 9.0]]))
    assert clipped.nodes["clamp2"].theta.tolist() == [2, 2, 2]  # type: ignore[attr-defined]


def kinds_of(graph: Graph) -> list[str]:
    return [node.kind for node in graph.nodes.values()]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_scales_of_channels_go_into_the_next_convolution(groups: int) -> None:
    sketch = Sketch((2, 5, 5))
    sketch.put(conv(4, 2))
    sketch.put(ReLU())
    weight = sketch.put(conv(8, 4, groups))
    sketch.put(ReLU())
    sketch.put(Reshape((200,)))
    matrix = sketch.put(Affine(torch.randn(3, 200) / 14))
    spiking = convert(sketch.graph(), RateCode(100), torch.rand(9, 2, 5, 5))
    assert kinds_of(spiking) == ["Input", "Conv", "IF", "Conv", "IF", "Reshape", "Affine", "Readout"]
    theta = spiking.nodes["relu2"].theta.flatten()  # type: ignore[attr-defined]
    assert theta.unique().numel() == 4
    old, new = sketch.nodes[weight].weight, spiking.nodes[weight].weight  # type: ignore[attr-defined]
    for out in range(8):
        for into in range(4 // groups):
            channel = out // (8 // groups) * (4 // groups) + into
            torch.testing.assert_close(new[out, into], old[out, into] * theta[channel])
    spread = spiking.nodes["relu4"].theta.expand(8, 5, 5).flatten()  # type: ignore[attr-defined]
    torch.testing.assert_close(
        spiking.nodes[matrix].weight,  # type: ignore[attr-defined]
        sketch.nodes[matrix].weight * spread,  # type: ignore[attr-defined]
    )


def test_residual_branches_meet_on_one_scale() -> None:
    spiking = convert(drawn(["residual"], 0), RateCode(100), torch.rand(9, 2, 6, 6))
    scales = [name for name, node in spiking.nodes.items() if isinstance(node, Scale)]
    assert len(scales) == 1
    assert all(isinstance(spiking.nodes[target], Add) for target in spiking.targets[scales[0]])


def test_max_pools_become_counters() -> None:
    spiking = convert(drawn(["max", "pool_first"], 0), RateCode(100), torch.rand(9, 2, 6, 6))
    assert sum(isinstance(node, MaxCount) for node in spiking.nodes.values()) == 2
    assert not any(isinstance(node, MaxPool) for node in spiking.nodes.values())


def test_concatenated_spikes_are_pooled_by_counters() -> None:
    sketch = Sketch((2, 6, 6))
    entry = sketch.put(conv(4, 2))
    left = sketch.put(ReLU())
    sketch.put(conv(2, 2), "x")
    right = sketch.put(Clamp(0, 0.7))
    sketch.put(Concat(), left, right)
    sketch.put(MaxPool((2, 2), (2, 2), (0, 0)))
    sketch.put(Reshape((54,)))
    sketch.put(Affine(torch.randn(3, 54)))
    assert sketch.sources[left] == (entry,)
    assert "MaxCount" in kinds_of(converges(sketch.graph(), RateCode(100)))


def test_a_max_pool_of_changing_sums_becomes_relus() -> None:
    sketch = Sketch((2, 6, 6))
    sketch.put(conv(4, 2))
    sketch.put(ReLU())
    sketch.put(AvgPool((2, 2), (1, 1), (0, 0)))
    sketch.put(MaxPool((2, 2), (1, 1), (0, 0)))
    sketch.put(conv(2, 4))
    spiking = converges(sketch.graph(), RateCode(100))
    assert not any(isinstance(node, MaxPool | MaxCount) for node in spiking.nodes.values())
    assert sum(isinstance(node, IF) for node in spiking.nodes.values()) == 3


def test_a_max_pool_of_the_constant_input_stays() -> None:
    sketch = Sketch((2, 6, 6))
    sketch.put(MaxPool((2, 2), (2, 2), (0, 0)))
    sketch.put(conv(4, 2))
    sketch.put(ReLU())
    sketch.put(conv(1, 4))
    assert "MaxPool" in kinds_of(converges(sketch.graph(), RateCode(100)))


def test_history_of_fourteen_activations() -> None:
    graph = drawn(["conv", "norm", "grouped", "residual", "leaky", "clamp", "max", "concat"], 1)
    spiking = convert(graph, RateCode(), torch.rand(4, 2, 6, 6))
    assert activations_replaced(spiking) == (14, 14)
    assert activations_replaced(legalise(graph)) == (0, 14)
    said = [change for change in spiking.history if change.why == "activation replaced by neurons"]
    assert len(said) == 14
    assert {change.became for change in said} == {"IF"}
    assert spiking.name == "sketch, spiking"


def test_names_already_taken_do_no_harm() -> None:
    for name in ("readout", "relu.scale", "x.scaled"):
        nodes = {"x": Input((3,)), "fc": Affine(torch.randn(4, 3)), "relu": ReLU(), name: Affine(torch.randn(2, 4))}
        graph = Graph(nodes, {"fc": ("x",), "relu": ("fc",), name: ("relu",)})
        spiking = converges(graph, RateCode(100))
        assert isinstance(spiking.nodes[spiking.output], Readout)


def test_the_same_input_gives_the_same_network() -> None:
    graph, x = drawn(["concat", "grouped"], 5), torch.rand(9, 2, 6, 6)
    before = [tensor.clone() for node in graph.nodes.values() for _, tensor in node.tensors()]
    first, second = (convert(graph, RateCode(), x) for _ in range(2))
    assert list(first.nodes) == list(second.nodes)
    assert first.history == second.history
    for a, b in zip(first.nodes.values(), second.nodes.values(), strict=True):
        assert all(torch.equal(p, q) for (_, p), (_, q) in zip(a.tensors(), b.tensors(), strict=True))
    after = [tensor for node in graph.nodes.values() for _, tensor in node.tensors()]
    assert all(torch.equal(p, q) for p, q in zip(before, after, strict=True))


data = torch.rand(3, 2, 6, 6)


@pytest.mark.parametrize(
    ("recipe", "calibration", "kind", "message"),
    [
        (RateCode(), None, ParameterError, "sets thresholds from data; pass calibration=x"),
        (RateCode(), data[:, :1], ShapeError, r"calibration data must be \(samples, 2, 6, 6\), got \(3, 1, 6, 6\)"),
        (RateCode(), data[:0], DataError, "hold no samples"),
        (RateCode(), data / 0, DataError, "NaN or infinite"),
        (RateCode, data, ParameterError, r"pass a recipe value, not its class: RateCode\(\)"),
        ("rate", data, ParameterError, "'rate' is no recipe"),
    ],
)  # fmt: skip
def test_refusals(recipe: object, calibration: torch.Tensor | None, kind: type[NeuroError], message: str) -> None:
    with pytest.raises(kind, match=message):
        convert(drawn([], 0), recipe, calibration)


def test_all_nodes_that_cannot_be_converted_are_named_at_once() -> None:
    sketch = Sketch((4,))
    sketch.put(Softmax())
    sketch.put(ReLU())
    sketch.put(IF(torch.tensor(1.0), torch.tensor(0.0)))
    sketch.put(Affine(torch.ones(2, 4)))
    with pytest.raises(UnsupportedNode, match=r"(?s)2 node\(s\).*'softmax1': Softmax.*'if3': IF"):
        convert(sketch.graph(), RateCode(), torch.rand(2, 4))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"percentile": 0}, "percentile must lie in"),
        ({"percentile": 100.1}, "percentile must lie in"),
        ({"percentile": float("nan")}, "percentile must lie in"),
        ({"v0": 1.0}, "v0 must lie in"),
        ({"v0": -0.1}, "v0 must lie in"),
        ({"reset": "none"}, "reset must be"),
        ({"readout_start": -1}, "readout_start must be"),
        ({"thresholds": "best"}, "thresholds must be 'percentile' or 'mmse'"),
        ({"steps": 0}, "steps must be >= 1"),
    ],
)  # fmt: skip
def test_bad_recipes(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        RateCode(**fields)  # type: ignore[arg-type]
