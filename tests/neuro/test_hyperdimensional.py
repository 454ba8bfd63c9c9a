"""Hypervectors: the algebra, encoders and class vectors as torch-hd has them, what they cost, and the five rivals."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuro import datasets
from neuro.baselines.class_vectors import bound_graph, class_vectors, encoded, share_right
from neuro.baselines.compressed import stored_words
from neuro.baselines.hyperdimensional import ROWS, id_level, sinusoid_graph, sinusoids
from neuro.baselines.level_search import dominated, random_ids, search_levels
from neuro.baselines.rival import Plan, Trained
from neuro.baselines.standardise import Standardise
from neuro.baselines.trained_encoder import TrainedEncoder, bipolar, encoder_graph
from neuro.datasets import Split
from neuro.errors import BackendMissing, ParameterError, ShapeError
from neuro.evaluate import evaluate
from neuro.files import load, save
from neuro.graph import Graph, Input
from neuro.nodes import Affine, IDLevel, Sign, Sine
from neuro.simulate import simulate
from neuro.training import accuracy, fit, outputs

PLAN = Plan(hidden=(48, 24), epochs=6, dimensions=128)
DIMENSIONS = {"hd-vanilla": 256, "hd-adapt": 256, "hd-online": 256, "hd-trained": 32, "hd-levels": 64}


@pytest.fixture(scope="module")
def torchhd() -> ModuleType:
    return pytest.importorskip("torchhd", reason="torch-hd is not installed: pip install 'neuro-snn[hyperdimensional]'")


@pytest.fixture(scope="module")
def digits() -> Split:
    return datasets.load("digits")


@pytest.fixture(scope="module")
def trained(torchhd: ModuleType, digits: Split) -> dict[str, Trained]:
    return {name: row.build(digits, 0, replace(PLAN, dimensions=DIMENSIONS[name])) for name, row in ROWS.items()}


def bipolar_vectors(count: int, dimensions: int, seed: int) -> Tensor:
    return random_ids(count, dimensions, torch.Generator().manual_seed(seed)).float()


@given(st.integers(0, 1000), st.integers(2, 300))
def test_binding_is_its_own_inverse(torchhd: ModuleType, seed: int, dimensions: int) -> None:
    a, b = (torchhd.ensure_vsa_tensor(row, "MAP") for row in bipolar_vectors(2, dimensions, seed))
    assert torch.equal(torchhd.bind(torchhd.bind(a, b), b), a)
    assert torch.equal(torchhd.permute(torchhd.permute(a, shifts=3), shifts=-3), a)
    node = IDLevel(a[None].as_subclass(Tensor).to(torch.int8), torch.stack([b, -b]).as_subclass(Tensor).to(torch.int8))
    bound = node.forward(torch.zeros(1, 1))[0]
    assert torch.equal(bound * b, a), "one place and one value: the bundle is the bind"


@pytest.mark.parametrize("dimensions", [256, 10_000])
def test_random_hypervectors_are_nearly_orthogonal(torchhd: ModuleType, dimensions: int) -> None:
    """cos of two random bipolar vectors has mean 0 and deviation 1 / sqrt(D)."""
    vectors = torchhd.ensure_vsa_tensor(bipolar_vectors(80, dimensions, 1), "MAP")
    cosines = torchhd.cosine_similarity(vectors, vectors)[tuple(torch.triu_indices(80, 80, 1))].as_subclass(Tensor)
    scaled = cosines * math.sqrt(dimensions)
    assert abs(float(scaled.std()) - 1) < 0.06
    assert abs(float(scaled.abs().mean()) - math.sqrt(2 / math.pi)) < 0.05


@pytest.mark.parametrize("count", [3, 9, 25])
def test_a_bundle_resembles_each_of_its_members_and_nothing_else(torchhd: ModuleType, count: int) -> None:
    """cos(sum of n, one of them) = 1 / sqrt(n), up to 1 / sqrt(D)."""
    vectors = torchhd.ensure_vsa_tensor(bipolar_vectors(count + 1, 10_000, count), "MAP")
    cosines = torchhd.cosine_similarity(torchhd.multiset(vectors[:count]), vectors).as_subclass(Tensor)
    assert float((cosines[:count] - 1 / math.sqrt(count)).abs().max()) < 0.04
    assert float(cosines[count].abs()) < 0.04


@given(st.integers(2, 40), st.integers(1, 30), st.floats(0, 1), st.integers(0, 100))
def test_the_encoder_is_torch_hds(
    torchhd: ModuleType, levels: int, features: int, randomness: float, seed: int
) -> None:
    """A hash table of ids and levels, whatever the levels are; values beyond the ends take the last level."""
    torch.manual_seed(seed)
    keys = torchhd.random(features, 50)
    values = torchhd.embeddings.Level(levels, 50, low=-0.5, high=1.5, randomness=randomness)
    x = 4 * torch.rand(20, features) - 1.5
    expected = torchhd.hash_table(keys, values(x)).as_subclass(Tensor)
    ids, rows = (part.detach().as_subclass(Tensor).to(torch.int8) for part in (keys, values.weight))
    assert torch.equal(IDLevel(ids, rows, -0.5, 1.5).forward(x), expected.to(torch.int32))


@pytest.mark.parametrize(("kind", "update"), [("Vanilla", "add"), ("AdaptHD", "add_adapt")])
def test_bound_graphs_decide_as_torch_hd(torchhd: ModuleType, digits: Split, kind: str, update: str) -> None:
    encoder = id_level(64, 256, 32, seed=3)
    x, y = digits.train_x[:500].flatten(1), digits.train_y[:500]
    torch.manual_seed(3)
    more = {} if kind == "Vanilla" else {"epochs": 1, "lr": 0.035}
    peer = getattr(torchhd.classifiers, kind)(64, 256, 10, n_levels=32, min_level=0, max_level=1, **more)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(7)).split(100)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The norm of a vector is nearly zero")
        peer.fit([(x[part], y[part]) for part in order])
    validation = encoded(encoder, digits.validation_x), digits.validation_y
    vectors, right = class_vectors((encoded(encoder, x), y), validation, 10, update, seed=7)  # type: ignore[arg-type]
    assert vectors.abs().max() <= 127, "8 bits hold them"
    graph = bound_graph("peer", (1, 8, 8), encoder, vectors)
    found = simulate(graph, digits.test_x).outputs
    expected = peer(digits.test_x.flatten(1)).as_subclass(Tensor)
    lengths = encoded(encoder, digits.test_x).float().norm(dim=1, keepdim=True)
    assert float((found / lengths - expected).abs().max()) < 1e-5
    assert torch.equal(found.argmax(1), expected.argmax(1))
    assert right == accuracy(graph, digits.validation_x, digits.validation_y)


@given(largest=st.integers(1, 10**6), seed=st.integers(0, 100))
def test_class_vectors_fit_into_the_bits_that_are_counted(largest: int, seed: int) -> None:
    """Small whole numbers stay as they are; larger ones lose less than half a step of 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randint(-largest, largest + 1, (3, 50), generator=generator).float()
    ids, rows = (bipolar_vectors(count, 50, seed).to(torch.int8) for count in (4, 2))
    node = bound_graph("bound", (4,), IDLevel(ids, rows), vectors).nodes["similarity"]
    assert isinstance(node, Affine)
    assert int(node.weight.abs().max()) <= 127
    if largest <= 127:
        assert torch.equal(node.weight.float(), vectors)
    steps = vectors.abs().amax(1, keepdim=True) / node.weight.abs().amax(1, keepdim=True).clamp(min=1)
    assert bool(((node.weight * steps - vectors).abs() <= steps * 0.51).all())


def test_sinusoid_graphs_decide_as_torch_hd(torchhd: ModuleType, digits: Split) -> None:
    torch.manual_seed(0)
    peer = torchhd.classifiers.OnlineHD(64, 256, 10, epochs=1)
    entry = Standardise.of(digits.train_x)
    seen, y = 0.7 * entry(digits.train_x).flatten(1), digits.train_y
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(7)).split(100)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The norm of a vector is nearly zero")
        peer.fit([(seen[part], y[part]) for part in order])
    weight, phase = (part.detach().as_subclass(Tensor) for part in (peer.encoder.weight, peer.encoder.bias[0]))
    projection = sinusoids(weight, phase, entry, 0.7)
    h = (projection.forward(digits.train_x.flatten(1)).sin() - phase.sin()) / 2
    assert torch.allclose(h, peer.encoder(seen).as_subclass(Tensor), atol=1e-5)
    vectors, _ = class_vectors((h, y), (h, y), 10, "add_online", seed=7)
    assert torch.allclose(vectors, peer.model.weight.data / 0.035, atol=1e-3), "torch-hd's rate only scales"
    graph = sinusoid_graph("peer", (1, 8, 8), projection, phase, peer.model.weight.data)
    found = simulate(graph, digits.test_x).outputs
    tests = peer.encoder(0.7 * entry(digits.test_x).flatten(1))
    expected = peer.model(tests).as_subclass(Tensor)
    assert torch.allclose(found / tests.as_subclass(Tensor).norm(dim=1, keepdim=True), expected, atol=1e-5)
    assert torch.equal(found.argmax(1), expected.argmax(1))


def test_encoding_an_image_costs_millions_of_additions() -> None:
    """Check 10: D = 10,000 on 784 pixels binds and adds 7.84 million times, 29 times the dense network's 266,200."""
    generator = torch.Generator().manual_seed(0)
    encoder = IDLevel(random_ids(784, 10_000, generator), random_ids(2, 10_000, generator))
    graph = Graph({"x": Input((784,)), "h": encoder}, {"h": ("x",)})
    counts = simulate(graph, torch.rand(3, 784)).counts
    assert counts.per_sample("additions") == 7_840_000
    assert round(counts.per_sample("additions") / 266_200) == 29
    assert counts.per_sample("weight_words") == 2 * 7_840_000 / 8, "an id and a level are bits"
    assert counts.per_sample("activation_words") == 784 + 10_000
    assert counts.precision == "int8"
    assert graph.parameters == 786 * 10_000
    assert stored_words(graph) == 786 * 10_000 / 8


def test_projections_cost_products_and_sines(trained: dict[str, Trained], digits: Split) -> None:
    counts = simulate(trained["hd-online"].graph, digits.test_x).counts
    assert counts.per_sample("macs") == 256 * (64 + 10)
    assert counts.per_sample("exponentials") == 256
    assert counts.precision == "float32"


def test_every_row_learns_and_says_how_well(trained: dict[str, Trained], digits: Split) -> None:
    floors = {"hd-vanilla": 0.75, "hd-adapt": 0.8, "hd-online": 0.93, "hd-trained": 0.85, "hd-levels": 0.6}
    for name, found in trained.items():
        right = accuracy(found.graph, digits.validation_x, digits.validation_y)
        assert right == found.validation_accuracy > floors[name], name
        assert found.graph.name == ROWS[name].title
        assert found.facts["dimensions"] <= DIMENSIONS[name]
        assert found.facts["numbers_stored"] == found.graph.parameters
        assert all("\n" not in note for note in found.notes)


def test_rows_are_files_and_depend_on_their_seed_alone(
    trained: dict[str, Trained], digits: Split, tmp_path: Path
) -> None:
    x = digits.test_x[:50]
    for name, found in trained.items():
        save(found.graph, tmp_path / "graph.h5")
        assert torch.equal(evaluate(load(tmp_path / "graph.h5"), x), evaluate(found.graph, x)), name
    for name in ("hd-online", "hd-levels"):
        plan = replace(PLAN, dimensions=DIMENSIONS[name])
        again, other = (ROWS[name].build(digits, seed, plan) for seed in (0, 1))
        assert torch.equal(evaluate(again.graph, x), evaluate(trained[name].graph, x)), name
        assert not torch.equal(evaluate(other.graph, x), evaluate(trained[name].graph, x)), name


def test_equal_plans_store_what_the_dense_network_does(trained: dict[str, Trained], digits: Split) -> None:
    dense = (64 + 1) * 48 + (48 + 1) * 24 + (24 + 1) * 10
    for name, row in ROWS.items():
        plan = row.equal(digits, PLAN)
        assert plan is not None
        per_dimension = (stored_words(trained[name].graph) - 10) / trained[name].facts["dimensions"]
        assert abs(per_dimension * plan.dimensions + 10 - dense) < 0.03 * dense, name
        rungs = [step.dimensions for step in row.ladder(digits, PLAN)]
        assert rungs == sorted(set(rungs))


def test_online_hd_reads_digits(torchhd: ModuleType, digits: Split) -> None:
    """At least 97 % of the test part with 1,024 dimensions, mean of three seeds; all is chosen on validation."""
    plan = Plan(dimensions=1024, epochs=20)
    graphs = [ROWS["hd-online"].build(digits, seed, plan).graph for seed in (0, 1, 2)]
    assert sum(accuracy(graph, digits.test_x, digits.test_y) for graph in graphs) / 3 >= 0.97


def test_the_integer_graph_is_the_trained_encoder(digits: Split) -> None:
    module = TrainedEncoder(64, 24, 10, Standardise.of(digits.train_x))
    fit(module, digits, epochs=6, batch_size=50, learning_rate=1e-2)
    graph = encoder_graph(module, (1, 8, 8))
    found, expected = evaluate(graph, digits.test_x), outputs(module, digits.test_x)
    differ = (found - expected).abs().amax(1) > 1e-4  # a sum within half a unit of its threshold
    assert float(differ.double().mean()) < 0.02
    counts = simulate(graph, digits.test_x).counts
    used = sum(int((node.weight != 0).sum()) for node in graph.nodes.values() if isinstance(node, Affine))
    assert counts.precision == "int8"
    assert counts.per_sample("macs") == used
    assert 0.97 * 24 * 74 < used <= 24 * 74


def test_bipolar_passes_gradients_inside_its_range() -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], requires_grad=True)
    y = bipolar(x)
    assert y.tolist() == [-1, -1, 0, 1, 1]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_the_search_returns_a_front(digits: Split) -> None:
    ids = random_ids(64, 48, torch.Generator().manual_seed(0))
    x, y = digits.train_x[:600], digits.train_y[:600]
    first = search_levels(x, y, ids, levels=8, trials=1)
    front = search_levels(x, y, ids, levels=8, trials=120)
    again = search_levels(x, y, ids, levels=8, trials=120)
    assert [one.accuracy for one in front] == [one.accuracy for one in again]
    assert front[-1].accuracy > first[0].accuracy
    for one, next_one in pairwise(front):
        assert one.dimensions < next_one.dimensions
        assert one.accuracy < next_one.accuracy
    for one in front:
        assert not dominated(one, [other for other in front if other is not one])
        h = encoded(one.encoder(ids, 8), x)
        sums = torch.zeros(10, one.dimensions).index_add_(0, y, h.float())
        assert share_right(sums, h, y) == one.accuracy
        assert len(one.kept.unique()) == one.dimensions


def test_without_torch_hd_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, digits: Split) -> None:
    monkeypatch.setitem(sys.modules, "torchhd", None)
    for name in ("hd-vanilla", "hd-adapt", "hd-online", "hd-levels"):
        with pytest.raises(BackendMissing, match=r"neuro-snn\[hyperdimensional\]"):
            ROWS[name].build(digits, 0, PLAN)


def test_refusals() -> None:
    ids, levels = random_ids(4, 8, torch.Generator()), random_ids(3, 8, torch.Generator())
    for bad in (ids.float(), 2 * ids, ids[0]):
        with pytest.raises(ParameterError, match="ids must be"):
            IDLevel(bad, levels)
    for bad in (levels[:1], levels[:, :7]):
        with pytest.raises(ParameterError, match="two levels or more"):
            IDLevel(ids, bad)
    with pytest.raises(ParameterError, match="low must be below high"):
        IDLevel(ids, levels, 1.0, 1.0)
    with pytest.raises(ShapeError, match="flatten"):
        Graph({"x": Input((2, 2)), "h": IDLevel(ids, levels)}, {"h": ("x",)})
    with pytest.raises(ParameterError, match="2 levels and 1 trial"):
        search_levels(torch.rand(5, 4), torch.arange(5), ids, trials=0)
    with pytest.raises(ParameterError, match="TrainedEncoder"):
        TrainedEncoder(4, 0, 2, Standardise(0.0, 1.0))


def test_signs_and_sines_are_counted_once_per_element() -> None:
    graph = Graph({"x": Input((5,)), "a": Sine(), "b": Sign()}, {"a": ("x",), "b": ("a",)})
    x = torch.tensor([[-2.0, -1.0, 0.0, 1.0, 4.0]])
    run = simulate(graph, x)
    assert torch.equal(run.outputs, x.sin().sign())
    assert (run.counts.total.exponentials, run.counts.total.comparisons) == (5, 5)
