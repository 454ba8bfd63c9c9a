"""Where the numbers of a training go while it runs: lines of JSON, TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from neuro.atomic import replacing
from neuro.errors import BackendMissing, FileError, ParameterError
from neuro.training.history import Epoch

Write = Callable[[Epoch], None]


class Log(Protocol):
    """Something that keeps epochs."""

    def open(self, done: int) -> AbstractContextManager[Write]:
        """A function that takes every epoch once it is over. Of earlier runs the first `done` epochs stay."""


@dataclass(frozen=True)
class JsonLines:
    """One epoch a line, as a JSON object with the fields of `Epoch`. The file is whole at any moment."""

    path: Path | str

    @contextmanager
    def open(self, done: int) -> Iterator[Write]:
        lines = [line for line in self._lines() if json.loads(line)["number"] <= done]

        def write(epoch: Epoch) -> None:
            lines.append(json.dumps(asdict(epoch), allow_nan=False))
            with replacing(self.path) as part:
                part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

        yield write

    def _lines(self) -> list[str]:
        """What is there already; FileError where it is no such log, which is not overwritten."""
        if not Path(self.path).exists():
            return []
        try:
            lines = Path(self.path).read_text(encoding="utf-8").splitlines()
            if all(isinstance(json.loads(line)["number"], int) for line in lines):
                return lines
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise FileError(f"{self.path}: is no log of a training; give another name") from error
        raise FileError(f"{self.path}: is no log of a training; give another name")


@dataclass(frozen=True)
class TensorBoard:
    """Curves for TensorBoard in a folder, one value per epoch. BackendMissing where no writer is installed."""

    folder: Path | str

    def __post_init__(self) -> None:
        if Path(self.folder).exists() and not Path(self.folder).is_dir():
            raise ParameterError(f"TensorBoard: {self.folder} is no folder")
        _writer()

    @contextmanager
    def open(self, done: int) -> Iterator[Write]:
        # what an earlier run wrote from this step on is not shown
        with _writer()(str(self.folder), purge_step=done + 1) as board:

            def write(epoch: Epoch) -> None:
                for name, value in _curves(epoch).items():
                    board.add_scalar(name, value, epoch.number)
                board.flush()

            yield write


def _curves(epoch: Epoch) -> dict[str, float]:
    values = {
        "loss/train": epoch.train_loss,
        "loss/validation": epoch.validation_loss,
        "accuracy/validation": epoch.validation_accuracy,
        "learning rate": epoch.learning_rate,
        "spikes per neuron and step/all": epoch.spike_rate,
        **{f"spikes per neuron and step/{name}": rate for name, rate in epoch.spike_rates.items()},
    }
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


def _writer() -> Any:
    """The class that writes TensorBoard's files: that of torch where TensorBoard is installed, or tensorboardX."""
    for module in ("torch.utils.tensorboard", "tensorboardX"):
        try:
            return import_module(module).SummaryWriter
        except ImportError:
            continue
    raise BackendMissing("TensorBoard: nothing that writes its files is installed; pip install tensorboardX")
