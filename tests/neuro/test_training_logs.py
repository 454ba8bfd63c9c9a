"""What a training writes down: lines of JSON and TensorBoard's files, also where it was interrupted."""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from neuro.errors import BackendMissing, FileError, ParameterError
from neuro.training import History, JsonLines, TensorBoard, fit

X = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
Y = X.argmax(1)


def trained(*logs: JsonLines | TensorBoard, epochs: int = 3, breaks: int | None = None, **more) -> History:
    torch.manual_seed(0)
    seen: list[int] = []

    def count(module: nn.Module) -> None:
        seen.append(1)
        if len(seen) == breaks:
            raise KeyError

    return fit(
        nn.Linear(4, 4), (X, Y), validation=(X[:20], Y[:20]), epochs=epochs, batch_size=20, logs=logs, after_step=count,
        **more,
    )  # fmt: skip


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_epoch_is_a_line_of_json(tmp_path: Path) -> None:
    history = trained(JsonLines(tmp_path / "log.jsonl"))
    assert lines(tmp_path / "log.jsonl") == [asdict(epoch) for epoch in history.epochs]
    assert all(epoch.seconds > 0 for epoch in history.epochs)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_new_training_starts_a_new_log_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    log, kept = JsonLines(tmp_path / "log.jsonl"), tmp_path / "kept.safetensors"
    trained(log, epochs=5)
    with pytest.raises(KeyError):
        trained(log, breaks=8, resume=kept)
    done = lines(log.path)
    assert [line["number"] for line in done] == [1, 2]
    with Path(log.path).open("a") as file:  # an epoch that the file with the training does not know of
        file.write(json.dumps({**done[1], "number": 3, "train_loss": -1.0}) + "\n")
    history = trained(log, resume=kept)
    found = lines(log.path)
    assert found[:2] == done
    assert [line["train_loss"] for line in found] == [epoch.train_loss for epoch in history.epochs]


@pytest.mark.parametrize("text", ["no json\n", "[1]\n", '{"epoch": 1}\n', '{"number": "one"}\n'])
def test_a_file_that_is_no_log_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "precious.txt"
    path.write_text(text)
    with pytest.raises(FileError, match="no log"):
        trained(JsonLines(path))
    assert path.read_text() == text


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Values by name and step in the event files of a folder, read record by record."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            event = event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            place += 16 + length
    return found


def test_tensorboard_gets_every_value_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    history = trained(TensorBoard(tmp_path / "board"))
    found = scalars(tmp_path / "board")

    def expected(values: list[float | None]) -> dict[int, float]:
        single = torch.tensor(values, dtype=torch.float64).float().tolist()
        return dict(enumerate(single, 1))

    names = {name.lower().replace(" ", "_"): name for name in found}
    assert found[names["loss/train"]] == expected([epoch.train_loss for epoch in history.epochs])
    assert found[names["loss/validation"]] == expected([epoch.validation_loss for epoch in history.epochs])
    assert found[names["accuracy/validation"]] == expected([epoch.validation_accuracy for epoch in history.epochs])
    assert found[names["learning_rate"]] == expected([epoch.learning_rate for epoch in history.epochs])
    assert len(found) == 4


def test_tensorboard_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ParameterError, match="no folder"):
        TensorBoard(tmp_path / "file")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(BackendMissing, match="pip install tensorboardX"):
        TensorBoard(tmp_path / "board")


def test_losses_of_the_log_are_means_per_sample(tmp_path: Path) -> None:
    """With a learning rate of almost nothing the training loss is the loss of the untrained network."""
    torch.manual_seed(0)
    network = nn.Linear(4, 4)
    expected = float(nn.functional.cross_entropy(network(X), Y).detach())

    def last(x: Tensor, generator: torch.Generator) -> Tensor:
        return x

    history = fit(network, (X[:59], Y[:59]), epochs=1, batch_size=20, learning_rate=1e-12, augment=last)
    expected = float(nn.functional.cross_entropy(network(X[:59]), Y[:59]).detach())
    assert history.epochs[0].train_loss == pytest.approx(expected, abs=1e-6)
