"""Training: what is learnt, that it is reproducible, and that it leaves nothing behind."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from neuro import Network, encode, simulate, trace
from neuro.datasets import Split
from neuro.errors import FileError, NeuroError, ParameterError, ShapeError
from neuro.graph import Graph, Input
from neuro.modules import LIF
from neuro.nodes import IF, Affine
from neuro.training import (
    Constant,
    Cosine,
    Encoded,
    OneCycle,
    RateCrossEntropy,
    TimeFirst,
    accuracy,
    fit,
    outputs,
    random_affine,
)

SETTINGS = {"epochs": 4, "batch_size": 32, "learning_rate": 1e-2}


def blobs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three well-separated Gaussian classes in eight dimensions."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    centres = 4 * torch.eye(3, 8)
    return centres[y] + torch.randn(count, 8, generator=generator), y


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


def state_bytes(module: nn.Module) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_separable_problem_is_learnt(optimizer: str) -> None:
    module, held_out = network(), blobs(300, seed=1)
    before = accuracy(module, *held_out)
    history = fit(module, blobs(300), validation=held_out, optimizer=optimizer, **SETTINGS)
    assert before < 0.7
    assert accuracy(module, *held_out) > 0.95
    assert len(history.epochs) == 4
    assert history.epochs[-1].train_loss < history.epochs[0].train_loss
    assert not module.training


def test_one_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    def trained(seed: int) -> tuple[bytes, object]:
        module = network()
        history = fit(module, blobs(100), validation=blobs(60, seed=1), seed=seed, **SETTINGS)
        return state_bytes(module), history

    assert trained(3) == trained(3)
    assert trained(3)[0] != trained(4)[0]


def test_the_global_random_state_is_left_alone_and_does_not_matter() -> None:
    results = []
    for disturbance in (1, 2):
        module = network()
        torch.manual_seed(disturbance)
        expected = torch.random.get_rng_state()
        fit(module, blobs(100), seed=5, **SETTINGS)
        assert torch.equal(torch.random.get_rng_state(), expected)
        results.append(state_bytes(module))
    assert results[0] == results[1]


def test_threads_are_set_inside_and_left_as_they_were_outside() -> None:
    inside: list[int] = []
    before = torch.get_num_threads()
    for threads in (1, 2, None):
        fit(
            network(), blobs(30), epochs=1, threads=threads, after_step=lambda _: inside.append(torch.get_num_threads())
        )
        assert torch.get_num_threads() == before
    assert inside == [1, 2, before]


def test_the_best_validation_state_is_kept() -> None:
    """Labels of the validation data are those of the untrained network, so training can only lose accuracy on them."""
    module, (x, _) = network(), blobs(90, seed=1)
    y = outputs(module, x).argmax(1)
    history = fit(module, blobs(300), validation=(x, y), epochs=6, batch_size=32, learning_rate=1e-2)
    scores = [(epoch.validation_accuracy, -epoch.validation_loss) for epoch in history.epochs]
    assert scores[history.kept - 1] == max(scores)
    assert history.kept < len(history.epochs)
    assert accuracy(module, x, y) == history.best.validation_accuracy == max(score for score, _ in scores)
    loss = nn.functional.cross_entropy(outputs(module, x).double(), y)
    assert float(loss) == pytest.approx(history.best.validation_loss, rel=1e-6)


def test_the_learning_rate_makes_one_cycle() -> None:
    module, updates = nn.Linear(8, 3), []

    def note(_: nn.Module) -> None:
        updates.append(1)

    history = fit(module, blobs(64), epochs=8, batch_size=16, learning_rate=0.02, after_step=note)
    assert len(updates) == 8 * 4
    cycle = [epoch.learning_rate for epoch in history.epochs]
    peak = cycle.index(max(cycle))
    assert cycle == sorted(cycle[: peak + 1]) + sorted(cycle[peak + 1 :], reverse=True)
    assert max(cycle) <= 0.02
    assert cycle[-1] < 0.02 / 50


@pytest.mark.parametrize("total", [1, 2, 3, 5, 8, 32, 1000])
def test_schedules_are_those_of_torch(total: int) -> None:
    """To the last bit for one cycle, to rounding for the cosine, which torch computes step from step."""

    def rates(scheduler: type, **options: object) -> list[float]:
        updates = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
        cycle, found = scheduler(updates, **options), []
        for _ in range(total):
            found.append(cycle.get_last_lr()[0])
            updates.step()
            cycle.step()
        return found

    one_cycle = torch.optim.lr_scheduler.OneCycleLR
    theirs = rates(
        one_cycle, max_lr=0.3, total_steps=total + 1, pct_start=max(0.25, 2 / (total + 1)), cycle_momentum=False
    )
    assert [OneCycle()(0.3, step, total) for step in range(total)] == theirs
    theirs = rates(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=total)
    assert [Cosine()(0.3, step, total) for step in range(total)] == pytest.approx(theirs, abs=1e-12)
    warm = [Cosine(warmup=0.5)(0.3, step, total) for step in range(total)]
    peak = warm.index(max(warm))
    assert warm == sorted(warm[: peak + 1]) + sorted(warm[peak + 1 :], reverse=True)
    assert 0 < min(warm) <= max(warm) <= 0.3
    assert {Constant()(0.3, step, total) for step in range(total)} == {0.3}


def test_the_schedule_and_the_bound_of_the_gradient_are_kept() -> None:
    """SGD without momentum moves by the learning rate times the clipped gradient."""
    module, moved = nn.Linear(8, 3), []
    last = [tensor.detach().clone() for tensor in module.parameters()]

    def note(network: nn.Module) -> None:
        moved.append(
            sum(float((p - q).detach().square().sum()) for p, q in zip(network.parameters(), last, strict=True)) ** 0.5
        )
        last[:] = [tensor.detach().clone() for tensor in network.parameters()]

    def halving(peak: float, step: int, total: int) -> float:
        return peak / 2**step

    x, y = blobs(64)
    history = fit(
        module, (100 * x, y), epochs=3, batch_size=64, learning_rate=0.5, optimizer="sgd", schedule=halving, clip=1e-3,
        after_step=note,
    )  # fmt: skip
    assert [epoch.learning_rate for epoch in history.epochs] == [0.5, 0.25, 0.125]
    # Nesterov momentum 0.9: the first step is 1.9 gradients long
    assert moved[0] == pytest.approx(0.5 * 1.9 * 1e-3, rel=1e-3)


def test_a_spiking_network_learns_and_says_what_it_fires() -> None:
    """Three classes by the largest of three numbers; rates of the history are those of the simulated graph."""
    x = torch.rand(240, 3)
    y = x.argmax(1)
    module = Network(trace(nn.Sequential(nn.Linear(3, 12), LIF(0.8), nn.Linear(12, 3), LIF(0.8)), x[:1]))
    shown: dict = {"encode": Encoded(encode.Constant(), 6), "loss": RateCrossEntropy()}
    before = accuracy(module, x[200:], y[200:], **shown)
    history = fit(
        module, (x[:200], y[:200]), validation=(x[200:], y[200:]), epochs=12, batch_size=20, learning_rate=0.03, **shown
    )
    after = accuracy(module, x[200:], y[200:], **shown)
    assert after == history.best.validation_accuracy > max(before, 0.8)
    run = simulate(module.graph, x[200:], steps=6, record=["spikes"])
    assert float((run.outputs.argmax(1) == y[200:]).double().mean()) == pytest.approx(after)
    rates = {name: float(z.double().mean()) for name, z in run.recordings["spikes"].items()}
    assert history.best.spike_rates == pytest.approx(rates, abs=1e-6)
    assert history.best.spike_rate == pytest.approx((12 * rates["1"] + 3 * rates["3"]) / 15, abs=1e-6)


def test_random_spikes_are_the_same_in_every_validation_and_others_in_every_epoch() -> None:
    seen: list[Tensor] = []

    @dataclass(frozen=True)
    class Watched:
        def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
            z = encode.Rate()(x, 4, generator)
            seen.append(z.sum())
            return z[0]

    x = torch.rand(40, 50)
    y = torch.arange(40) % 2
    fit(nn.Linear(50, 2), (x, y), validation=(x, y), epochs=3, batch_size=40, encode=Watched())
    trained, judged = seen[::2], seen[1::2]
    assert len(set(map(float, judged))) == 1
    assert len(set(map(float, trained))) == 3


def test_a_timed_split_needs_no_encoding() -> None:
    x = (torch.rand(60, 5, 3) < torch.eye(3)[torch.arange(60) % 3][:, None] * 0.8).float()
    y = torch.arange(60) % 3
    split = Split("moving", x, y, x[:30], y[:30], x[:0], y[:0], ("a", "b", "c"), "made here", timed=True)
    module = Network(trace(nn.Sequential(nn.Linear(3, 3), LIF(0.8)), x[0, :1]))
    history = fit(module, split, epochs=8, batch_size=10, learning_rate=0.05, loss=RateCrossEntropy())
    assert history.best.validation_accuracy > 0.9
    assert outputs(module, x, encode=TimeFirst(), loss=RateCrossEntropy()).shape == (60, 3)


def test_every_sample_is_seen_once_per_epoch_and_no_batch_has_one_sample() -> None:
    x, y = blobs(65)
    x[:, 0] = torch.arange(65)
    seen: list[Tensor] = []

    def note(batch: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(batch[:, 0].clone())
        return batch

    fit(network(), (x, y), epochs=2, batch_size=64, learning_rate=1e-3, augment=note)
    assert min(len(batch) for batch in seen) > 1
    first, second = torch.cat(seen[:2]), torch.cat(seen[2:])
    assert torch.equal(first.sort().values, torch.arange(65.0))
    assert torch.equal(second.sort().values, torch.arange(65.0))
    assert not torch.equal(first, second)


def test_a_checkpoint_holds_the_best_state_and_nothing_else_is_written(tmp_path: Path) -> None:
    module = network()
    fit(module, blobs(100), validation=blobs(60, seed=1), checkpoint=tmp_path / "best.safetensors", **SETTINGS)
    stored = load_file(tmp_path / "best.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]
    for name, tensor in module.state_dict().items():
        assert torch.equal(stored[name], tensor), name
    with pytest.raises(FileError, match="nowhere"):
        fit(module, blobs(100), checkpoint=tmp_path / "nowhere" / "best.safetensors", **SETTINGS)


def test_accuracy_of_modules_and_graphs_agree_and_modes_stay() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3)).train()
    module[0].eval()
    x, y = blobs(101)
    nodes = {"in": Input((8,)), "out": Affine(module[1].weight.detach(), module[1].bias.detach())}
    graph = Graph(nodes, {"out": ("in",)})
    by_hand = sum(int(module[1](row).argmax() == label) for row, label in zip(x, y, strict=True)) / 101
    assert accuracy(module, x, y, batch_size=10) == accuracy(graph, x, y, batch_size=7) == pytest.approx(by_hand)
    assert module.training
    assert not module[0].training
    spiking = Graph({**nodes, "if": IF(torch.tensor(1.0), torch.tensor(0.5))}, {"out": ("in",), "if": ("out",)})
    with pytest.raises(ParameterError, match="simulate"):
        accuracy(spiking, x, y)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"epochs": 0}, ParameterError, "epochs"),
        ({"threads": 0}, ParameterError, "threads"),
        ({"batch_size": 2.5}, ParameterError, "batch_size"),
        ({"learning_rate": math.nan}, ParameterError, "learning_rate"),
        ({"weight_decay": -1.0}, ParameterError, "weight_decay"),
        ({"clip": 0.0}, ParameterError, "clip"),
        ({"patience": 0, "validation": blobs(30)}, ParameterError, "patience"),
        ({"loss": RateCrossEntropy()}, ShapeError, "encode"),
        ({"optimizer": "magic"}, ParameterError, "optimizer"),
        ({"data": (torch.zeros(3, 8), torch.zeros(2, dtype=torch.int64))}, ShapeError, "training data"),
        ({"data": (torch.zeros(3, 8), torch.zeros(3))}, ShapeError, "integer y"),
        ({"data": (torch.full((3, 8), math.inf), torch.zeros(3, dtype=torch.int64))}, ParameterError, "NaN"),
        ({"validation": (torch.zeros(0, 8), torch.zeros(0, dtype=torch.int64))}, ShapeError, "validation data"),
        ({"learning_rate": 1e30, "optimizer": "sgd"}, ParameterError, "lower learning_rate"),
    ],
)
def test_bad_input_is_one_line(wrong: dict, error: type[NeuroError], words: str) -> None:
    settings = {"data": blobs(30), **SETTINGS, **wrong}
    with pytest.raises(error, match=words) as caught:
        fit(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), **settings)
    assert "\n" not in str(caught.value)


@given(seed=st.integers(0, 2**31))
def test_no_amount_is_the_identity_and_a_seed_gives_one_result(seed: int) -> None:
    x = torch.rand(3, 2, 9, 7)
    same = random_affine()(x, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(same, x, rtol=1e-5, atol=1e-5)
    change = random_affine(shift=2, degrees=20, scale=0.2)
    first, second = (change(x, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, x)
    assert float(first.min()) >= 0
    assert float(first.max()) <= float(x.max()) + 1e-6


def centre(x: Tensor) -> Tensor:
    """Centre of mass (row, column) of each image (batch, 1, height, width), from its middle, in pixels."""
    mass = x[:, 0] / x[:, 0].sum((1, 2), keepdim=True)
    rows = (mass.sum(2) * (torch.arange(x.shape[2]) - (x.shape[2] - 1) / 2)).sum(1)
    columns = (mass.sum(1) * (torch.arange(x.shape[3]) - (x.shape[3] - 1) / 2)).sum(1)
    return torch.stack((rows, columns), 1)


def test_amounts_are_pixels_degrees_and_factors() -> None:
    images = torch.zeros(2000, 1, 21, 31)
    generator = torch.Generator().manual_seed(0)
    images[:, :, 10, 15] = 1
    moved = centre(random_affine(shift=3)(images, generator))
    assert float(moved.abs().max()) <= 3 + 1e-4
    assert moved.abs().max(0).values.tolist() == pytest.approx([3, 3], abs=0.05)
    assert moved.mean(0).tolist() == pytest.approx([0, 0], abs=0.15)

    images = torch.zeros(2000, 1, 21, 31)
    images[:, :, 10, 23] = 1
    turned = centre(random_affine(degrees=30)(images, generator))
    radius = turned.norm(dim=1)
    angle = torch.rad2deg(torch.atan2(turned[:, 0], turned[:, 1]))
    assert radius.tolist() == pytest.approx([8.0] * 2000, abs=0.4)
    assert float(angle.abs().max()) == pytest.approx(30, abs=1.5)

    zoomed = centre(random_affine(scale=0.25)(images, generator))[:, 1]
    assert float(zoomed.max()) == pytest.approx(8 * 1.25, abs=0.3)
    assert float(zoomed.min()) == pytest.approx(8 * 0.75, abs=0.3)
    assert float(zoomed.mean()) == pytest.approx(8, abs=0.1)


@pytest.mark.parametrize("wrong", [{"shift": -1.0}, {"degrees": math.nan}, {"scale": 1.0}])
def test_augmentation_refuses(wrong: dict) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        random_affine(**wrong)
    with pytest.raises(ShapeError, match="channels"):
        random_affine()(torch.zeros(3, 8), torch.Generator())


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_the_shortest_trainings_run(steps: int) -> None:
    torch.manual_seed(0)
    history = fit(nn.Linear(3, 2), (torch.rand(4 * steps, 3), torch.arange(4 * steps) % 2), epochs=1, batch_size=4)
    assert len(history.epochs) == 1
