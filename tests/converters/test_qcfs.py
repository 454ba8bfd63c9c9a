"""QCFS: the staircase is what the neurons count, training helps, and an interruption changes nothing."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from test_convert_rate import BLOCKS, drawn
from torch import Tensor, nn

from converters import QCFS, RateCode, activations_replaced, convert
from converters.calibrate import mmse
from converters.legalise import legalise
from converters.recipes.qcfs import Lesson, staircases, with_neurons
from converters.staircase import ClipFloorShift, as_rows, in_time
from neuro import trace
from neuro.dynamics import rest
from neuro.errors import FileError, ParameterError, ShapeError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph
from neuro.kernels import run_steps
from neuro.kernels.if_through_time import fire
from neuro.nodes import IF
from neuro.simulate import simulate
from neuro.training import accuracy, fit, outputs


@given(levels=st.integers(1, 16), seed=st.integers(0, 2**31))
def test_the_staircase_is_the_rate_of_the_neuron_under_constant_current(levels: int, seed: int) -> None:
    """lambda is a power of two and z a multiple of 1/64 of a step, so that no sum is rounded."""
    generator = torch.Generator().manual_seed(seed)
    ceiling = 2.0 ** torch.randint(-3, 4, (5, 1), generator=generator)
    z = torch.randint(-64, 96, (3, 5, 40), generator=generator) * ceiling / 64
    neurons = IF(ceiling, ceiling / 2)
    _, spikes, _ = run_steps(neurons, rest(neurons, 3, (5, 40)), z[None], levels, kernel="reference")
    assert torch.equal(ClipFloorShift(ceiling, levels).forward(z), spikes.sum(0) * (ceiling / levels))


def test_gradients_pass_the_floor_and_reach_lambda() -> None:
    """dh/dz is 1 within (0, lambda); dh/dlambda is n/L - z/lambda there, 1 above and 0 below it."""
    z = torch.tensor([[-1.0, 0.3, 1.1, 3.0]], requires_grad=True)
    ceiling = torch.tensor([2.0], requires_grad=True)
    value = ClipFloorShift(ceiling, 4).forward(z)
    assert value.tolist() == [[0.0, 0.5, 1.0, 2.0]]
    value.sum().backward()
    assert z.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]
    assert float(ceiling.grad) == pytest.approx((1 / 4 - 0.15) + (2 / 4 - 0.55) + 1)


def written_out(current: Tensor, theta: Tensor, v0: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes of IF neurons, and a value whose gradient is the one that `fire` promises, in plain autograd."""
    v, spikes, soft = v0.expand(current.shape[1:]), [], []
    for i in current:
        u = v + i
        near = ((u - theta).abs() < theta / 2).to(u.dtype).detach()
        z = (u >= theta).to(u.dtype).detach()
        smooth = near * u / theta
        z = z + (smooth - smooth.detach())
        v = u - theta * z
        spikes.append(z.detach())
        soft.append(z)
    return torch.stack(spikes), torch.stack(soft)


@given(seed=st.integers(0, 2**31), steps=st.integers(1, 9), dtype=st.sampled_from([torch.bfloat16, torch.float32]))
def test_spikes_and_gradients_through_time(seed: int, steps: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    current = (0.5 * torch.randn(steps, 2, 3, 5, generator=generator)).to(dtype)
    theta, v0 = torch.rand(5, generator=generator) + 0.2, 0.1 * torch.rand(3, 1, generator=generator)
    weights = torch.randn(steps, 2, 3, 5, generator=generator).to(dtype)
    mine, plain = current.clone().requires_grad_(), current.float().requires_grad_()
    own, other = v0.clone().requires_grad_(), v0.clone().requires_grad_()
    found = fire(mine, theta, own)
    (found * weights).sum().backward()
    spikes, soft = written_out(plain, theta, other)
    (soft * weights.float()).sum().backward()
    assert found.dtype == dtype
    assert torch.equal(found.float(), spikes)
    close = {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(mine.grad.float(), plain.grad, **close)
    torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_charge_counts_once() -> None:
    """However long it waits in the membrane, d(number of spikes)/d(charge) is 1/theta or 0."""
    generator = torch.Generator().manual_seed(0)
    current = (0.3 * torch.rand(20, 1, 400, generator=generator)).requires_grad_()
    fire(current, torch.tensor(2.0), torch.tensor(1.0)).sum().backward()
    assert sorted(current.grad.unique().tolist()) == [0.0, 0.5]


@settings(max_examples=15)
@given(kinds=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_training_sees_the_spikes_that_the_simulation_gives(kinds: list[str], seed: int) -> None:
    """But for ties that the order of a sum decides."""
    graph = drawn(kinds, seed)
    x = torch.rand(4, *graph.shapes[graph.inputs[0]], generator=torch.Generator().manual_seed(seed))
    snn = with_neurons(staircases(QCFS(6), legalise(graph), x))
    rows = as_rows(snn, 6)
    back = in_time(rows)
    assert [(name, node.kind) for name, node in back.nodes.items()] == [(n, node.kind) for n, node in snn.nodes.items()]
    run = simulate(snn, x, steps=6, record=("spikes",), count=False)
    seen: dict[str, Tensor] = {}
    found = evaluate(rows, x.repeat(6, 1, 1, 1), observe=seen.__setitem__)
    differ = {name: (seen[name].unflatten(0, (6, -1)) != spikes) for name, spikes in run.recordings["spikes"].items()}
    assert differ
    for name, places in differ.items():
        assert float(places.float().mean()) < 0.02, name
    if not any(places.any() for places in differ.values()):
        torch.testing.assert_close(found, run.outputs, rtol=1e-3, atol=1e-4)


def test_lambda_begins_at_the_least_squared_error() -> None:
    graph = drawn(["residual"], 3)
    x = torch.rand(16, *graph.shapes[graph.inputs[0]])
    plain = legalise(graph)
    seen: dict[str, Tensor] = {}
    evaluate(plain, x, observe=seen.__setitem__)
    for name, node in staircases(QCFS(4, per_channel=False), plain, x).nodes.items():
        if isinstance(node, ClipFloorShift):
            assert node.ceiling.numel() == 1
            assert float(node.ceiling) == pytest.approx(float(mmse(seen[name].reshape(1, -1), 4)))


@functools.cache
def digits() -> tuple[nn.Module, Graph, Tensor, Tensor, Tensor, Tensor]:
    """A small convolutional network on scikit-learn's 8x8 digits, with its training and held-out samples."""
    data = load_digits()
    x, y = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    fit(module, (x[:1200], y[:1200]), epochs=5, learning_rate=1e-2, threads=1)
    return module, trace(module, x[:2]), x[:1200], y[:1200], x[1200:], y[1200:]


FAST = {"batch_size": 64, "learning_rate": 1e-3, "threads": 1}


def spiking_accuracy(snn: Graph, x: Tensor, y: Tensor, steps: int) -> float:
    return float((simulate(snn, x, steps=steps, count=False).outputs.argmax(1) == y).double().mean())


def distance(snn: Graph, graph: Graph, x: Tensor, steps: int) -> float:
    """KL divergence of the answers after `steps` from those of the original network [nat]."""
    found, wanted = (
        F.log_softmax(logits, 1) for logits in (simulate(snn, x, steps=steps, count=False).outputs, outputs(graph, x))
    )
    return float(F.kl_div(found, wanted, log_target=True, reduction="batchmean"))


@pytest.mark.parametrize("bf16", [False, True])
def test_fine_tuning_beats_conversion_at_few_steps(bf16: bool) -> None:
    _, graph, x, _, held_x, held_y = digits()
    recipe = QCFS(4, epochs=4, spiking_epochs=1, batch_size=32, threads=1, bf16=bf16)
    snn, rate = convert(graph, recipe, calibration=x), convert(graph, RateCode(), calibration=x)
    untuned = with_neurons(staircases(recipe, legalise(graph), x[:256]))
    tuned = spiking_accuracy(snn, held_x, held_y, 4)
    assert tuned > spiking_accuracy(rate, held_x, held_y, 4)
    assert tuned > accuracy(graph, held_x, held_y) - 0.02
    reached = distance(snn, graph, x, 4)
    assert reached < 0.8 * distance(untuned, graph, x, 4)
    assert reached < 0.5 * distance(rate, graph, x, 4)
    assert activations_replaced(snn) == (5, 5)
    for node in snn.nodes.values():
        if isinstance(node, IF):
            assert node.reset == "subtract"


def test_epochs_with_spikes_bring_the_answers_nearer() -> None:
    """Distance of the answers after T = L steps to the original ones: staircases alone, calibrated, with spikes."""
    _, graph, x, _, _, _ = digits()
    bare = QCFS(4, epochs=2, spiking_epochs=0, calibrate=False, bf16=False, **FAST)
    recipes = (bare, replace(bare, calibrate=True), replace(bare, calibrate=True, epochs=4, spiking_epochs=2))
    distances = [distance(convert(graph, recipe, calibration=x), graph, x, 4) for recipe in recipes]
    assert min(distances[:2]) > distances[2]
    for node in convert(graph, bare, calibration=x).nodes.values():
        if isinstance(node, IF):
            assert torch.equal(node.v0, node.theta / 2)


def bytes_of(graph: Graph) -> bytes:
    return b"".join(tensor.numpy().tobytes() for node in graph.nodes.values() for _, tensor in node.tensors())


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("calls", [5, 13])
def test_an_interrupted_conversion_goes_on_to_the_same_bytes(
    calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four batches an epoch, the third and fourth with spikes; stopped in the second or the fourth, and run again."""
    _, graph, x, _, _, _ = digits()
    x, settings = x[:256], {"epochs": 4, "spiking_epochs": 2, "shift": 1, "flip": True, **FAST}
    whole = bytes_of(convert(graph, QCFS(2, **settings), calibration=x))
    recipe = QCFS(2, checkpoint=tmp_path / "training.safetensors", **settings)
    done: list[int] = []
    answer = Lesson.__call__

    def stopping(self: Lesson, network: nn.Module, a: Tensor, b: Tensor) -> Tensor:
        if len(done) == calls:
            raise Interrupted
        done.append(1)
        return answer(self, network, a, b)

    monkeypatch.setattr(Lesson, "__call__", stopping)
    with pytest.raises(Interrupted):
        convert(graph, recipe, calibration=x)
    monkeypatch.setattr(Lesson, "__call__", answer)
    assert (tmp_path / "training.safetensors").exists()
    assert bytes_of(convert(graph, recipe, calibration=x)) == whole
    monkeypatch.setattr(Lesson, "__call__", stopping)
    assert bytes_of(convert(graph, recipe, calibration=x)) == whole, "finished trainings are read, not repeated"


def test_a_checkpoint_of_something_else_is_refused_in_one_line(tmp_path: Path) -> None:
    _, graph, x, _, _, _ = digits()
    path = tmp_path / "training.safetensors"
    settings = {"epochs": 1, "spiking_epochs": 0, "checkpoint": path, **FAST}
    convert(graph, QCFS(4, **settings), calibration=x[:64])
    other = trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)), x[:2])
    for wrong_graph, levels, data in ((graph, 5, x[:64]), (graph, 4, x[:65]), (other, 4, x[:64])):
        with pytest.raises(FileError, match="another network, data or settings") as caught:
            convert(wrong_graph, QCFS(levels, **settings), calibration=data)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(FileError, match=r"training\.safetensors"):
        convert(graph, QCFS(4, **settings), calibration=x[:64])


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": 0}, {"levels": 2.5}, {"epochs": 0}, {"epochs": 2, "spiking_epochs": 3}, {"spiking_epochs": -1},
        {"batch_size": 0}, {"learning_rate": float("nan")}, {"spiking_learning_rate": 0.0},
        {"checkpoint": "training.pt"}, {"shift": -1}, {"threads": -1},
    ],
)  # fmt: skip
def test_settings_outside_their_domain_are_refused(wrong: dict) -> None:
    with pytest.raises(ParameterError) as caught:
        QCFS(**wrong)
    assert "\n" not in str(caught.value)


def test_refusals_come_before_the_work() -> None:
    _, graph, x, _, _, _ = digits()
    with pytest.raises(ParameterError, match="calibration="):
        convert(graph, QCFS())
    flat = trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.rand(2, 4))
    with pytest.raises(ShapeError, match="images"):
        convert(flat, QCFS(flip=True), calibration=torch.rand(8, 4))
    with pytest.raises(UnsupportedNode, match="spiking already"):
        convert(with_neurons(staircases(QCFS(4), legalise(graph), x[:64])), QCFS(), calibration=x)
