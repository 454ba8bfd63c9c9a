"""QCFS: the staircase is what the neurons count, training helps, and an interruption changes nothing."""

from __future__ import annotations

import functools
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
from converters.recipes.qcfs import Lesson, finetuned, spike_counts, staircases, with_counts, with_neurons
from converters.staircase import ClipFloorShift
from neuro import Network, trace
from neuro.dynamics import rest, step
from neuro.errors import FileError, ParameterError, ShapeError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph
from neuro.kernels import run_steps
from neuro.kernels.narrow import fire
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


def test_spikes_that_were_counted_take_the_place_of_the_staircase() -> None:
    z = torch.tensor([[0.3, 1.1]], requires_grad=True)
    value = ClipFloorShift(torch.tensor([2.0]), 4, torch.tensor([[3, 0]])).forward(z)
    assert value.tolist() == [[1.5, 0.0]]
    value.sum().backward()
    assert z.grad.tolist() == [[1.0, 1.0]]


@given(seed=st.integers(0, 2**31), steps=st.integers(1, 9))
def test_the_narrow_kernel_fires_like_the_equations(seed: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    current = (0.5 * torch.randn(steps, 2, 3, 5, generator=generator)).to(torch.bfloat16)
    theta = torch.rand(5, generator=generator) + 0.2
    neurons = IF(theta, theta / 2)
    state, spikes = rest(neurons, 2, (3, 5)), []
    for i in current.float():
        state, z = step(neurons, state, i)
        spikes.append(z)
    weighted, counts = fire(current, theta)
    assert torch.equal(counts, torch.stack(spikes).sum(0).to(torch.int16))
    assert torch.equal(weighted, (torch.stack(spikes) * theta.to(torch.bfloat16)).to(torch.bfloat16))


@settings(max_examples=15)
@given(kinds=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_training_sees_the_spikes_that_the_simulation_gives(kinds: list[str], seed: int) -> None:
    """But for ties that the order of a sum decides; the answer computed from the counts is the read-out."""
    graph = drawn(kinds, seed)
    x = torch.rand(4, *graph.shapes[graph.inputs[0]], generator=torch.Generator().manual_seed(seed))
    plain = legalise(graph)
    student = staircases(QCFS(6), plain, x)
    run = simulate(with_neurons(student), x, steps=6, record=("counts",), count=False)
    counts = spike_counts(student, x, 6)
    names = [name for name, node in student.nodes.items() if isinstance(node, ClipFloorShift)]
    assert set(counts) == set(names)
    same = all(torch.equal(counts[name].int(), run.recordings["counts"][name][0]) for name in names)
    for name in names:
        assert float((counts[name].int() != run.recordings["counts"][name][0]).float().mean()) < 0.02, name
    if same:
        found = evaluate(with_counts(student, counts), x)
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
    recipe = QCFS(4, epochs=5, spiking_epochs=3, batch_size=32, learning_rate=1e-3, threads=1, bf16=bf16)
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
            assert torch.equal(node.v0, node.theta / 2)
            assert node.reset == "subtract"


def test_epochs_with_spikes_lower_the_loss_with_spikes() -> None:
    """Distance of the answers after T = L steps to the original ones, without and with spikes in the last epochs."""
    _, graph, x, _, _, _ = digits()
    plain = legalise(graph)
    lesson = Lesson(4, False, Network(plain).eval(), spiking=True)
    distances = []
    for spiking_epochs in (0, 2):
        recipe = QCFS(4, epochs=2 + spiking_epochs, spiking_epochs=spiking_epochs, bf16=False, **FAST)
        with torch.no_grad():
            distances.append(float(lesson(Network(finetuned(recipe, plain, x)), x, x)))
    assert distances[1] < distances[0]


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
        {"batch_size": 0}, {"learning_rate": float("nan")}, {"learning_rate": 0.0}, {"checkpoint": "training.pt"},
        {"shift": -1}, {"threads": -1},
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
