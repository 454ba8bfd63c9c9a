"""The registry of rivals: every row trains, ends as a Graph, and costs what its budget says; the quantised network."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from neuro.baselines.experts import mixture_of_mlps
from neuro.baselines.networks import mlp
from neuro.baselines.quantised import LearnedStep, QuantisedMLP, bits_for, integers_of, quantised_weight
from neuro.baselines.rows import ROWS, Plan, Trained, macs_of, widest
from neuro.baselines.standardise import Standardise
from neuro.counts import active_parameters
from neuro.datasets import Split
from neuro.errors import ParameterError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.nodes import Affine, Experts, Requantise
from neuro.simulate import simulate
from neuro.trace import trace
from neuro.training import accuracy, fit, outputs

PLAN = Plan(hidden=(48, 24), density=0.2, experts=4, epochs=8, batch_size=20)


def bright_quarters(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy 8x8 pictures; the class is the quarter that is brighter."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 4
    x = 0.4 * torch.rand(count, 1, 8, 8, generator=generator)
    for sample, quarter in enumerate(y.tolist()):
        row, column = divmod(quarter, 2)
        x[sample, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 0.3
    return x, y


@pytest.fixture(scope="module")
def data() -> Split:
    parts = [part for seed, count in enumerate((300, 80, 80)) for part in bright_quarters(count, seed)]
    return Split("quarters", *parts, ("0", "1", "2", "3"), "made for this test")


def plan_of(name: str, data: Split) -> Plan:
    """The largest of the ladder for mixtures, whose width follows from their router; else the plan itself."""
    return ROWS[name].ladder(data, PLAN)[-1] if ROWS[name].family == "experts" else PLAN


@pytest.fixture(scope="module")
def trained(data: Split) -> dict[str, Trained]:
    return {name: rival.build(data, 1, plan_of(name, data)) for name, rival in ROWS.items()}


def macs(found: Trained, data: Split) -> float:
    return simulate(found.graph, data.test_x).counts.per_sample("macs")


def test_every_row_learns_and_says_how_well(trained: dict[str, Trained], data: Split) -> None:
    for name, found in trained.items():
        right = accuracy(found.graph, data.validation_x, data.validation_y)
        assert right == found.validation_accuracy, name
        floor = 0.6 if name.startswith(("static", "random")) else 0.85  # the controls
        assert right > floor, name
        assert found.graph.name == ROWS[name].title
        assert all("\n" not in note for note in found.notes)


def test_a_row_depends_on_its_seed_alone(trained: dict[str, Trained], data: Split) -> None:
    for name in ("sparse-momentum", "noisy"):
        again, other = (ROWS[name].build(data, seed, plan_of(name, data)) for seed in (1, 2))
        x = data.test_x
        assert torch.equal(evaluate(again.graph, x), evaluate(trained[name].graph, x)), name
        assert not torch.equal(evaluate(other.graph, x), evaluate(trained[name].graph, x)), name


def test_the_budgets_hold(trained: dict[str, Trained], data: Split) -> None:
    dense = macs_of((64, 48, 24, 4))
    assert macs(trained["dense"], data) == dense
    for name in ("int8", "quantised"):
        assert 0.9 * dense < macs(trained[name], data) <= dense
    for name in ("set", "rigl", "rigl-uniform", "sparse-momentum", "static", "static-uniform", "pruned", "gradual"):
        assert 0.14 * dense < macs(trained[name], data) <= 0.2 * dense + 2, name
    assert macs(trained["2:4"], data) == dense / 2
    assert 0.1 * dense < macs(trained["small"], data) <= 0.2 * dense
    assert macs(trained["logistic"], data) == 64 * 4
    for name in ("switch", "noisy", "bias", "random-routing"):
        assert 0.5 * dense < macs(trained[name], data) <= dense, name
        assert trained[name].graph.parameters > 1.5 * trained["dense"].graph.parameters
    equal = trained["switch-parameters"].graph
    assert 0.5 * dense < equal.parameters < 1.2 * dense
    assert active_parameters(equal) < 0.5 * dense


def test_mixtures_report_their_routing(trained: dict[str, Trained], data: Split) -> None:
    for name in ("switch", "noisy", "bias", "switch-parameters", "random-routing"):
        found = trained[name]
        assert any(isinstance(node, Experts) for node in found.graph.nodes.values())
        assert 1 <= found.facts["unevenness"] <= 4
        assert 0 <= found.facts["overflow"] < 1
        assert "load max/mean" in found.notes[0]


@pytest.mark.parametrize("name", [name for name, rival in ROWS.items() if rival.family == "experts"])
def test_experts_are_as_wide_as_their_plan_says(name: str, data: Split, trained: dict[str, Trained]) -> None:
    """The plan, by which a row is labelled, the note and the network agree; and no expert could be wider."""
    plan = plan_of(name, data)
    (mixture,) = (node for node in trained[name].graph.nodes.values() if isinstance(node, Experts))
    built = [node.weight.shape[0] for node in mixture.experts[0].nodes.values() if isinstance(node, Affine)]
    assert tuple(built[:-1]) == plan.hidden
    assert f"experts {'-'.join(map(str, plan.sizes(data)))}, all stored" in trained[name].notes[0]
    routing = sum(node.weight.numel() for node in mixture.router.nodes.values() if isinstance(node, Affine))
    at_once = plan.experts if name == "switch-parameters" else mixture.k
    wider = plan.sizes(data)[:1] + tuple(width + 1 for width in plan.hidden) + plan.sizes(data)[-1:]
    dense = macs_of(PLAN.sizes(data))
    assert at_once * macs_of(plan.sizes(data)) + routing <= dense < at_once * macs_of(wider) + routing


def test_quantised_rows_are_graphs_of_few_integers(trained: dict[str, Trained], data: Split) -> None:
    for name, bits in (("int8", 8), ("quantised", 4)):
        graph = trained[name].graph
        assert simulate(graph, data.test_x).counts.precision == "int8"
        tops = [node.high for node in graph.nodes.values() if isinstance(node, Requantise)]
        assert tops == [2**bits - 1] * 2
        weights = [node.weight for node in graph.nodes.values() if isinstance(node, Affine)]
        assert all(int(weight.abs().max()) == 127 for weight in weights)


@given(st.integers(1, 300))
def test_bits_tell_the_spike_counts_apart(steps: int) -> None:
    assert 2 ** bits_for(steps) >= steps + 1 > 2 ** (bits_for(steps) - 1)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_integer_graph_is_the_trained_network(bits: int, data: Split) -> None:
    torch.manual_seed(0)
    module = QuantisedMLP((64, 16, 8, 4), bits, entry=Standardise.of(data.train_x))
    fit(module, data, epochs=6, batch_size=20, learning_rate=1e-2)
    graph = integers_of(module, (1, 8, 8))
    found, expected = evaluate(graph, data.test_x), outputs(module, data.test_x)
    # a sum on the border of two levels may fall on either side
    same = (found - expected).abs().amax(1) < 1e-2
    assert same.double().mean() > 0.9
    module_right = float((expected.argmax(1) == data.test_y).double().mean())
    assert accuracy(graph, data.test_x, data.test_y) == pytest.approx(module_right, abs=0.03)
    assert module_right > 0.7


@given(mean=st.floats(-2, 2), deviation=st.floats(0.1, 3), seed=st.integers(0, 100))
def test_standardising_moves_into_the_first_sums(mean: float, deviation: float, seed: int) -> None:
    torch.manual_seed(seed)
    entry, x = Standardise(mean, deviation), torch.rand(4, 6)
    for network in (mlp((6, 5, 3)), mlp((6, 3), bias=False), mixture_of_mlps((6, 4, 3), 3, k=2)):
        with torch.no_grad():
            graph = entry.into(trace(network, x))
            torch.testing.assert_close(evaluate(graph, x), network(entry(x)), rtol=1e-4, atol=1e-4)
    with pytest.raises(UnsupportedNode, match="ReLU"):
        entry.into(trace(nn.ReLU(), x))


@given(bits=st.integers(1, 8), seed=st.integers(0, 100))
def test_the_learned_step_has_its_levels_and_gradients(bits: int, seed: int) -> None:
    """Esser et al. 2020, eq. 1-3: dy/ds is round(x/s) - x/s inside, 0 below and Q above, times 1/sqrt(NQ)."""
    torch.manual_seed(seed)
    activation, x = LearnedStep(bits), 3 * torch.randn(5, 7)
    with torch.no_grad():
        activation.step.fill_(0.3)
        activation.started.fill_(True)
    x.requires_grad_()
    y = activation(x)
    top = 2**bits - 1
    torch.testing.assert_close(y, 0.3 * (x / 0.3).round().clamp(0, top))
    y.sum().backward()
    scaled = (x / 0.3).detach()
    inside = (scaled >= 0) & (scaled <= top)
    assert torch.equal(x.grad, inside.float())
    expected = torch.where(inside, scaled.round() - scaled, torch.where(scaled > top, float(top), 0.0)).sum()
    torch.testing.assert_close(activation.step.grad, expected / (7 * top) ** 0.5, rtol=1e-3, atol=1e-4)


@given(bits=st.integers(2, 8), seed=st.integers(0, 100))
def test_weights_are_whole_within_their_bits(bits: int, seed: int) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(5, 7) * torch.tensor([1.0, 1e-3, 1e3, 1.0, 0.0])[:, None]
    whole, step = quantised_weight(weight, bits)
    top = 2 ** (bits - 1) - 1
    assert torch.equal(whole, whole.round())
    assert whole.abs().max() <= top
    assert bool(((whole * step[:, None] - weight).abs() <= step[:, None] / 2 * 1.001).all())


@given(limit=st.integers(900, 200_000))
def test_the_widest_network_fits_and_the_next_does_not(limit: int) -> None:
    sizes = widest((784, 300, 100, 10), lambda wanted: macs_of(wanted) <= limit)
    assert macs_of(sizes) <= limit
    assert macs_of((784, sizes[1] + 1, sizes[2] + 1, 10)) > limit


def test_what_fits_as_it_is_stays_as_it_is() -> None:
    assert widest((784, 300, 100, 10), lambda wanted: True) == (784, 300, 100, 10)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: Plan(hidden=()), "hidden"),
        (lambda: Standardise(0.0, 0.0), "deviation"),
        (lambda: Plan(epochs=1), "epochs"),
        (lambda: Plan(density=1.0), "density"),
        (lambda: Plan(experts=1), "experts"),
        (lambda: Plan(optimizer="adam"), "optimizer"),
        (lambda: bits_for(0), "steps"),
        (lambda: LearnedStep(9), "bits"),
        (lambda: QuantisedMLP((4, 3, 2), 4, weight_bits=1), "weight_bits"),
        (lambda: widest((784, 300, 10), lambda wanted: False), "not even"),
    ],
)
def test_refusals_are_one_line(act: object, words: str) -> None:
    with pytest.raises(ParameterError, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)
