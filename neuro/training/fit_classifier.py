"""Train a classifier: cross-entropy, one-cycle learning rate, the state that did best on validation data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.datasets.split import Split
from neuro.errors import ParameterError, ShapeError
from neuro.evaluate import evaluate
from neuro.graph import Graph
from neuro.progress import shown
from neuro.training.augment import Augment
from neuro.training.resume import Best, Course, fingerprint, write_tensors

Samples = tuple[Tensor, Tensor]
"""x (N, *features), floating point, and y (N,), integer class numbers."""

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Network in training mode, x and y of one batch in; the mean loss, a scalar, out."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data. Losses are means per sample [nat]; accuracies lie in [0, 1]."""

    number: int
    train_loss: float
    learning_rate: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


@dataclass(frozen=True)
class History:
    """How a training went: every epoch, the number of the one whose state was kept, and the wall-clock seconds."""

    epochs: tuple[Epoch, ...]
    kept: int
    seconds: float = field(compare=False)

    @property
    def best(self) -> Epoch:
        """The epoch whose state the network has now."""
        return self.epochs[self.kept - 1]


def cross_entropy(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """-log softmax(network(x))[y], mean over the batch."""
    return F.cross_entropy(network(x), y)


def fit(
    module: nn.Module,
    data: Split | Samples,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.0,
    seed: int = 0,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    augment: Augment | None = None,
    validation: Samples | None = None,
    loss: Loss = cross_entropy,
    after_step: Callable[[nn.Module], None] | None = None,
    checkpoint: Path | str | None = None,
    resume: Path | str | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> History:
    """Train `module` in place and leave it in eval mode, with the state that did best on the validation data.

    data: a Split, whose validation part is used unless `validation` is given, or (x, y). Best is the highest accuracy,
    then the lowest loss; without validation data the last state stays. The learning rate follows one cycle: a quarter
    of the steps up to `learning_rate`, a cosine down to almost zero (Smith and Topin 2017, arXiv 1708.07120). AdamW:
    Loshchilov and Hutter 2019; "sgd" has Nesterov momentum 0.9. Weight decay leaves biases and norms alone.

    `augment(x, generator)` changes the batches; `after_step(module)` runs after every update, e.g. to keep masks;
    `checkpoint` names a safetensors file that always holds the best state so far, written atomically; `resume` one that
    holds the whole training after every epoch: where it exists the training goes on from it, to the same bytes as if it
    had never stopped. `loss` and `augment` are known there by their name, or their repr if they are dataclasses.

    One seed gives one result, bit for bit, on one machine with one number of `threads` (None: as many as torch uses
    now, which other libraries change). The global random state and the threads are left as they were. Raises
    ParameterError for settings outside their domain or a loss that leaves the finite numbers, ShapeError where x and y
    do not fit, FileError where a file cannot be written or `resume` holds another training.
    """
    (x, y), validation = _parts(data, validation)
    _check_settings(epochs, batch_size, learning_rate, weight_decay, optimizer, threads)
    _check_samples("training data", x, y)
    if validation is not None:
        _check_samples("validation data", *validation)
    device = next(module.parameters()).device
    x, y = x.to(device), y.to(device)
    steps = -(-len(y) // batch_size)
    updates = _optimizer(module, optimizer, learning_rate, weight_decay)
    # betas stay as they are: cycled momentum is for SGD, and Adam's first steps suffer from it
    planned = epochs * steps + 1
    rise = max(0.25, 2 / planned)  # the first phase needs a step of its own, however short the training
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        updates, learning_rate, total_steps=planned, pct_start=rise, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(seed)
    started = time.perf_counter()
    record: list[Epoch] = []
    best: Best | None = None
    with torch.enable_grad(), _seeded(seed, device), _threads(threads), _bar(epochs * steps, progress) as advance:
        course = Course(module, updates, cycle, generator, device)
        training = ""
        if resume is not None:
            settings = (epochs, batch_size, learning_rate, weight_decay, seed, optimizer, torch.get_num_threads())
            names = (_called(loss), _called(augment), _called(after_step), repr(module))
            samples = (x, y, *(validation or ()))
            training = fingerprint(settings, names, module.state_dict(), *samples)
            done, best = course.restore(resume, training)
            record = [Epoch(**epoch) for epoch in done]
            advance(f"epoch {len(record)}/{epochs}", len(record) * steps)
        for number in range(len(record) + 1, epochs + 1):
            module.train()
            total = 0.0
            rate = 0.0
            # equal parts: no last batch of one sample, which batch norm could not take
            for rows in torch.randperm(len(y), generator=generator).tensor_split(steps):
                batch = x[rows]
                batch = batch if augment is None else augment(batch, generator)
                updates.zero_grad(set_to_none=True)
                cost = loss(module, batch, y[rows])
                cost.backward()
                rate = float(cycle.get_last_lr()[0])
                updates.step()
                cycle.step()
                if after_step is not None:
                    after_step(module)
                total += float(cost.detach()) * len(rows)
                advance(f"epoch {number}/{epochs}  loss {float(cost.detach()):.3f}")
            if not math.isfinite(total):
                raise ParameterError(
                    f"fit: the loss of epoch {number} is {total}; lower learning_rate ({learning_rate:g})"
                )
            if validation is None:
                record.append(Epoch(number, total / len(y), rate))
            else:
                record.append(Epoch(number, total / len(y), rate, *_validate(module, *validation)))
            if validation is None or best is None or _score(record[-1]) > _score(record[best[0] - 1]):
                best = (number, {name: tensor.detach().clone() for name, tensor in module.state_dict().items()})
                if checkpoint is not None:
                    write_tensors(checkpoint, best[1])
            if resume is not None:
                course.write(resume, training, [asdict(epoch) for epoch in record], best)
    assert best is not None
    module.load_state_dict(best[1])
    module.eval()
    return History(tuple(record), best[0], time.perf_counter() - started)


def _score(epoch: Epoch) -> tuple[float, float]:
    return epoch.validation_accuracy or 0.0, -(epoch.validation_loss or 0.0)


def _called(function: object) -> str:
    """What a function is called, without its address in memory."""
    return repr(function) if is_dataclass(function) else getattr(function, "__qualname__", type(function).__qualname__)


def accuracy(network: nn.Module | Graph, x: Tensor, y: Tensor, *, batch_size: int = 500) -> float:
    """Share of the samples whose largest output is their class, in [0, 1]. A module is run in eval mode.

    x (N, *features), y (N,). Raises ShapeError where they do not fit, ParameterError where a Graph needs time steps.
    """
    _check_samples("data", x, y)
    return float((outputs(network, x, batch_size=batch_size).argmax(1) == y).double().mean())


def outputs(network: nn.Module | Graph, x: Tensor, *, batch_size: int = 500) -> Tensor:
    """What the network gives for x (N, *features), without gradients, in parts of `batch_size`, on the CPU."""
    with torch.no_grad():
        if isinstance(network, Graph):
            return torch.cat([evaluate(network, part) for part in x.split(batch_size)]).cpu()
        device = next((tensor.device for tensor in network.parameters()), x.device)
        training = {part: part.training for part in network.modules()}
        network.eval()
        try:
            return torch.cat([network(part.to(device)) for part in x.split(batch_size)]).cpu()
        finally:
            for part, mode in training.items():
                part.training = mode


def _validate(module: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    scores, y = outputs(module, x).double(), y.cpu()
    return float(F.cross_entropy(scores, y)), float((scores.argmax(1) == y).double().mean())


def _parts(data: Split | Samples, validation: Samples | None) -> tuple[Samples, Samples | None]:
    if not isinstance(data, Split):
        return data, validation
    if validation is None and len(data.validation_y):
        validation = (data.validation_x, data.validation_y)
    return (data.train_x, data.train_y), validation


def _check_settings(
    epochs: int, batch_size: int, learning_rate: float, weight_decay: float, optimizer: str, threads: int | None
) -> None:
    whole = {"epochs": epochs, "batch_size": batch_size, "threads": 1 if threads is None else threads}
    for name, count in whole.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ParameterError(f"fit: {name} must be a whole number >= 1, got {count!r}")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ParameterError(f"fit: learning_rate must be finite and > 0, got {learning_rate}")
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ParameterError(f"fit: weight_decay must be finite and >= 0, got {weight_decay}")
    if optimizer not in ("adamw", "sgd"):
        raise ParameterError(f"fit: optimizer must be 'adamw' or 'sgd', got {optimizer!r}")


def _check_samples(what: str, x: Tensor, y: Tensor) -> None:
    if y.ndim != 1 or x.ndim < 2 or len(x) != len(y) or not len(y):
        raise ShapeError(
            f"{what}: needs x (N, *features) and y (N,) with N >= 1, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if y.is_floating_point() or not x.is_floating_point():
        raise ShapeError(f"{what}: needs floating-point x and integer y, got {x.dtype} and {y.dtype}")
    if not bool(torch.isfinite(x).all()):
        raise ParameterError(f"{what}: x holds NaN or infinite values; repair the data")


def _optimizer(module: nn.Module, name: str, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    trained = [tensor for tensor in module.parameters() if tensor.requires_grad]
    if not trained:
        raise ParameterError(f"fit: {type(module).__name__} has no parameter that requires a gradient")
    groups = [
        {"params": [tensor for tensor in trained if tensor.ndim > 1], "weight_decay": weight_decay},
        {"params": [tensor for tensor in trained if tensor.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=learning_rate)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout and the like draw from the global generator: seeded inside, as it was outside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.random.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before if count is None else count)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _bar(total: int, progress: bool) -> Iterator[Callable[..., None]]:
    if not shown(progress):
        yield lambda text, steps=1: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("train", total=total)
        yield lambda text, steps=1: bar.update(task, advance=steps, description=text)
