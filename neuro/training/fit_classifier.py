"""Train a classifier, dense or spiking: one loop for one process or many, which can stop anywhere and go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from neuro.datasets.split import Split
from neuro.errors import ParameterError
from neuro.training.augment import Augment
from neuro.training.devices import fabric_for
from neuro.training.history import Epoch, History
from neuro.training.interrupt import asked_to_stop
from neuro.training.lesson import Keeper, Lesson, Objective
from neuro.training.logs import Log
from neuro.training.losses import Loss, cross_entropy
from neuro.training.present import Encode, TimeFirst
from neuro.training.progress import bar_of
from neuro.training.resume import Course, Position, check_resume, fingerprint, write_tensors
from neuro.training.schedules import OneCycle, Schedule
from neuro.training.scores import Samples, check_samples, device_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric


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
    schedule: Schedule = OneCycle(),  # noqa: B008 - frozen
    clip: float | None = None,
    augment: Augment | None = None,
    encode: Encode | None = None,
    validation: Samples | None = None,
    loss: Loss = cross_entropy,
    after_step: Callable[[nn.Module], None] | None = None,
    patience: int | None = None,
    checkpoint: Path | str | None = None,
    resume: Path | str | None = None,
    checkpoint_every: int | None = None,
    logs: Sequence[Log] = (),
    fabric: Fabric | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> History:
    """Train `module` in place and leave it in eval mode, with the state that did best on the validation data.

    data: a Split, whose validation part is used unless `validation` is given, or (x, y). Best is the highest accuracy,
    then the lowest loss; without validation data the last state stays. `patience`: stop after so many epochs without a
    better one. AdamW: Loshchilov and Hutter 2019; "sgd" has Nesterov momentum 0.9. Weight decay leaves biases and norms
    alone. `clip` bounds the Euclidean norm of the gradient. `schedule`: see `neuro.training.schedules`.

    Spiking networks: `encode(x, generator)` shows a batch as (time, batch, *features), e.g. Encoded(Rate(), steps=25);
    a Split that is `timed` needs none. `loss` is a criterion that reads such outputs, e.g. RateCrossEntropy(), or any
    function of network, x and y. Validation sees the same spikes in every epoch.

    `augment(x, generator)` changes the batches; `after_step(module)` runs after every update, e.g. to keep masks;
    `checkpoint` names a safetensors file that always holds the best state so far, written atomically; `resume` one that
    holds the whole training after every epoch, and after every `checkpoint_every` updates: where it exists the training
    goes on from it, to the same bytes as if it had never stopped (on CPUs). With it, SIGINT (Ctrl-C) and SIGTERM end
    the training after the present update and keep it. `loss`, `encode`, `augment` and `after_step` are known there by
    their name, or their repr if they are dataclasses; what `after_step` remembers is kept if it has `state_dict` and
    `load_state_dict`. `logs` get every epoch, see `neuro.training.logs`.

    `fabric` says device and precision (`fabric_for`); None: the device of the parameters, 32 bits. Started by torchrun,
    the processes share the work: each takes `batch_size` samples of every batch, and gradients are averaged. Losses and
    updates are those of one process with a batch as large as all theirs, up to rounding, as long as nothing is drawn
    (dropout, augmentation, random spikes: every process draws for itself) and no batch norm sees a part of the batch.

    One seed gives one result, bit for bit, on one machine with one number of `threads` (None: as many as torch uses
    now, which other libraries change). The global random state and the threads are left as they were. Raises
    ParameterError for settings outside their domain or a loss that leaves the finite numbers, ShapeError where x and y
    do not fit, FileError where a file cannot be written or `resume` holds another training.
    """
    (x, y), validation = _parts(data, validation)
    if isinstance(data, Split) and data.timed and encode is None:
        encode = TimeFirst()
    whole = {"epochs": epochs, "batch_size": batch_size, "threads": threads, "patience": patience}
    _check_counts({**whole, "checkpoint_every": checkpoint_every}, needed=("epochs", "batch_size"))
    _check_amounts({"learning_rate": learning_rate, "clip": clip}, {"weight_decay": weight_decay})
    check_samples("training data", x, y, floating=encode is None)
    if validation is not None:
        check_samples("validation data", *validation, floating=encode is None)
    elif patience is not None:
        raise ParameterError("fit: patience needs validation data to judge by")
    if checkpoint_every is not None and resume is None:
        raise ParameterError("fit: checkpoint_every needs resume, the file to write to")
    if resume is not None:
        check_resume(resume)
    updates = _optimizer(module, optimizer, learning_rate, weight_decay)
    fabric = fabric_for(device_of(module, x)) if fabric is None else fabric
    if min(len(y), len(y if validation is None else validation[1])) < fabric.world_size:
        raise ParameterError(f"fit: {fabric.world_size} processes need at least as many samples of every kind")
    started = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_seeded(seed + fabric.global_rank, fabric.device))
        stack.enter_context(_threads(threads))
        stopping = stack.enter_context(asked_to_stop(resume is not None))
        bar = stack.enter_context(bar_of(epochs * len(y), progress and fabric.is_global_zero))
        generator = torch.Generator().manual_seed(seed + fabric.global_rank)
        shown = torch.Generator(fabric.device).manual_seed(seed + fabric.global_rank)
        course = Course(module, updates, {"order": generator, "shown": shown}, fabric, after_step)
        training = ""
        if resume is not None:
            rules = (epochs, batch_size, learning_rate, weight_decay, seed, optimizer, clip, patience)
            names = tuple(_called(part) for part in (loss, encode, augment, after_step, schedule))
            samples = (x, y, *(validation or ()))
            training = fingerprint((*rules, *names, *_place(fabric), repr(module)), module.state_dict(), *samples)
        position = Position() if resume is None else course.restore(resume, training)
        steps = max(1, min(-(-len(y) // (batch_size * fabric.world_size)), len(y) // fabric.world_size))
        objective, stepper = fabric.setup(Objective(module, loss), updates)
        lesson = Lesson(
            course=course, objective=objective, updates=stepper, samples=(x, y), steps=steps, total=epochs * steps,
            batch_size=batch_size, learning_rate=learning_rate, schedule=schedule, clip=clip, loss=loss,
            augment=augment, encode=encode, seed=seed, bar=bar,
        )  # fmt: skip
        keep = Keeper(course, resume, training, checkpoint_every, stopping)
        writes = [stack.enter_context(log.open(len(position.epochs))) for log in logs if fabric.is_global_zero]
        bar.advance(len(position.epochs) * len(y), "resumed")
        while len(position.epochs) < epochs and not _settled(position, patience):
            began = time.perf_counter()
            train_loss, rate = lesson.learn(position, keep)
            epoch = Epoch(len(position.epochs) + 1, train_loss, rate, seconds=time.perf_counter() - began)
            if validation is not None:
                seen = lesson.judge(validation)
                epoch = replace(
                    epoch, validation_loss=seen.cost / seen.samples, validation_accuracy=seen.correct / seen.samples,
                    spike_rate=seen.spike_rate, spike_rates=seen.spike_rates,
                )  # fmt: skip
            best = position.best
            if validation is None or best is None or _score(epoch) > _score(position.epochs[best[0] - 1]):
                best = (epoch.number, {name: tensor.detach().clone() for name, tensor in module.state_dict().items()})
                if checkpoint is not None and fabric.is_global_zero:
                    write_tensors(checkpoint, best[1])
            position = Position((*position.epochs, epoch), best)
            for write in writes:
                write(epoch)
            keep.now(position)
            keep.stop_if_asked()
        fabric.barrier()
    assert position.best is not None
    module.load_state_dict(position.best[1])
    module.eval()
    return History(position.epochs, position.best[0], time.perf_counter() - started)


def _place(fabric: Fabric) -> tuple[object, ...]:
    """What of the machine has a say in the bits of a result."""
    return (torch.get_num_threads(), fabric.world_size, fabric.device.type, fabric.strategy.precision.precision)


def _settled(position: Position, patience: int | None) -> bool:
    """Whether `patience` epochs have not been better than the best."""
    return patience is not None and position.best is not None and len(position.epochs) - position.best[0] >= patience


def _score(epoch: Epoch) -> tuple[float, float]:
    return epoch.validation_accuracy or 0.0, -(epoch.validation_loss or 0.0)


def _called(function: object) -> str:
    """What a function is called, without its address in memory."""
    return repr(function) if is_dataclass(function) else getattr(function, "__qualname__", type(function).__qualname__)


def _parts(data: Split | Samples, validation: Samples | None) -> tuple[Samples, Samples | None]:
    if not isinstance(data, Split):
        return data, validation
    if validation is None and len(data.validation_y):
        validation = (data.validation_x, data.validation_y)
    return (data.train_x, data.train_y), validation


def _check_counts(counts: dict[str, int | None], needed: tuple[str, ...]) -> None:
    for name, count in counts.items():
        whole = isinstance(count, int) and not isinstance(count, bool) and count >= 1
        if not whole and (count is not None or name in needed):
            raise ParameterError(f"fit: {name} must be a whole number >= 1, got {count!r}")


def _check_amounts(positive: dict[str, float | None], other: dict[str, float]) -> None:
    for name, amount in positive.items():
        if amount is not None and not (math.isfinite(amount) and amount > 0):
            raise ParameterError(f"fit: {name} must be finite and > 0, got {amount}")
    for name, amount in other.items():
        if not (math.isfinite(amount) and amount >= 0):
            raise ParameterError(f"fit: {name} must be finite and >= 0, got {amount}")


def _optimizer(module: nn.Module, name: str, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    if name not in ("adamw", "sgd"):
        raise ParameterError(f"fit: optimizer must be 'adamw' or 'sgd', got {name!r}")
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
