"""neuro train: a spiking network from data, ready for simulate, check and deploy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer

from neuro import datasets
from neuro.atomic import replacing
from neuro.cli.arguments import Json, Root, Seed, check_out, check_steps, console, print_json, say
from neuro.datasets import Split
from neuro.errors import ParameterError
from neuro.files import save
from neuro.network import Network
from neuro.report import Section, page
from neuro.report.curves import accuracies, losses, spike_rates
from neuro.training import History, JsonLines, Log, TensorBoard, accuracy, fabric_for, fit
from neuro.training.devices import Precision
from neuro.training.first_spike_tasks import FirstSpikeCoding, first_spike_task
from neuro.training.tasks import NETWORKS, SURROGATES, TASKS, Plan, Task, planned


def train(
    name: Annotated[str | None, typer.Argument(metavar="TASK", help=f"One of {', '.join(TASKS)}.")] = None,
    task: Annotated[str | None, typer.Option(help="The same as an option.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the trained network here; TASK.h5 if left out.")] = None,
    network: Annotated[str | None, typer.Option(help=f"{', '.join(NETWORKS)}; default: that of the task.")] = None,
    coding: Annotated[
        Literal["steps", "first-spike"], typer.Option(help="first-spike: neurons fire once, times are exact, no steps.")
    ] = "steps",
    hidden: Annotated[int, typer.Option(help="Hidden neurons of first-spike coding.", min=1)] = 120,
    delays: Annotated[
        Literal["none", "axonal", "synaptic"], typer.Option(help="Delays that learn, of first-spike coding.")
    ] = "none",
    steps: Annotated[int | None, typer.Option("--steps", "-T", help="Time steps a sample is shown for.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="How numbers become a series: constant, rate, latency, log-latency.")
    ] = None,
    surrogate: Annotated[
        str | None,
        typer.Option(help=f"Slope of a spike: {', '.join(SURROGATES)}."),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="What is read: readout (mean current), membrane, max-over-time, or spikes: rate, mse-count."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training samples.", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per update and process.", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Its peak; it rises and falls in one cycle.")] = None,
    most_fired: Annotated[
        float | None, typer.Option(help="Hidden neurons pay for firing more, in spikes per step.", min=0, max=1)
    ] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many epochs without a better one.", min=1)] = None,
    samples: Annotated[int | None, typer.Option(help="Learn from the first so many training samples.", min=1)] = None,
    seed: Seed = 0,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: cuda where there is one.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="bf16-mixed: products in bfloat16.")] = "32-true",
    threads: Annotated[
        int | None, typer.Option(help="Threads of the CPU; default: as many as torch takes.", min=1)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted training stopped.")] = False,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Keep the training after so many updates, not only after epochs.", min=1)
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Write one line of JSON per epoch here.")] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Write curves for TensorBoard into this folder.")] = None,
    curves: Annotated[Path | None, typer.Option(help="Write the curves as a page here (.html).")] = None,
    data_root: Root = None,
    as_json: Json = False,
) -> None:
    """Train a spiking network with surrogate gradients; the best epoch on validation samples is kept.

    The file is a network like any other: `neuro simulate`, `check` and `deploy` take it as it is. While it runs, the
    training is kept beside it (OUT with .training.safetensors); Ctrl-C keeps it too, and `--resume` goes on to the same
    bytes.

    Examples: `neuro train mnist-5k`,
    `neuro train --task yin-yang --coding first-spike --hidden 120 --json`,
    `neuro train fashion-mnist --network cnn -T 8 --epochs 10 --data-root data --out net.h5 --curves net.html`,
    `torchrun --nproc-per-node 2 --no-python neuro train mnist --data-root data --out net.h5`
    """
    if (name is None) == (task is None):
        raise ParameterError(
            f"give one task, {', '.join(TASKS)}: `neuro train mnist-5k` or `neuro train --task mnist-5k`"
        )
    task = name or task
    if task not in TASKS:
        raise ParameterError(f"there is no task {task!r}; give one of {', '.join(TASKS)}")
    out = Path(f"{task}.h5") if out is None else out
    given: dict[str, Any] = {
        "network": network, "steps": steps, "encoder": encoder, "surrogate": surrogate, "loss": loss, "epochs": epochs,
        "batch_size": batch_size, "learning_rate": learning_rate, "most_fired": most_fired,
    }  # fmt: skip
    start = TASKS[task]
    if coding == "first-spike":
        for what in ("network", "steps", "encoder", "surrogate", "loss", "most_fired"):
            if given[what] is not None:
                raise ParameterError(f"first-spike coding takes no --{what.replace('_', '-')}; leave it out")
        start = first_spike_task(start, FirstSpikeCoding(hidden, delays=delays))
    chosen = replace(start, **{what: value for what, value in given.items() if value is not None})
    if steps is not None:
        check_steps(steps)
    for path in (out, log, curves):
        check_out(path)
    kept = out.with_name(f"{out.stem}.training.safetensors")
    if kept.exists() and not resume:
        raise ParameterError(f"{kept} keeps an interrupted training: add --resume to go on with it, or delete it")
    split = datasets.load(chosen.data, data_root)
    plan = planned(chosen, split, seed)
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    fabric = fabric_for(automatic if device == "auto" else device, precision)
    first = fabric.is_global_zero
    logs: list[Log] = [*([JsonLines(log)] if log else ()), *([TensorBoard(tensorboard)] if tensorboard else ())]
    if first:
        say(f"{task}: {len(split.train_y[:samples]):,} samples, {described(chosen, split)}")
    try:
        history = fit(
            plan.network, (split.train_x[:samples], split.train_y[:samples]), epochs=chosen.epochs,
            batch_size=chosen.batch_size, learning_rate=chosen.learning_rate, seed=seed, augment=plan.augment,
            encode=plan.encode, validation=validation_of(split), loss=plan.loss, after_step=plan.after_step,
            patience=patience, resume=kept, checkpoint_every=checkpoint_every, logs=logs, fabric=fabric,
            threads=threads, progress=True,
        )  # fmt: skip
    except KeyboardInterrupt:
        if first:
            say(f"stopped; kept in {kept}: the same command with --resume goes on" if kept.exists() else "stopped")
        raise typer.Exit(130) from None
    if not first:
        return
    result = measured(chosen, plan, split, history, seed)
    if coding == "first-spike":
        result |= {"encoder": "first-spike", "surrogate": None, "loss": "first-spike cross-entropy"}
    assert isinstance(plan.network, Network)
    save(plan.network.cpu().graph, out)
    if curves is not None:
        with replacing(curves) as part:
            part.write_text(drawn(task, described(chosen, split), history, result), encoding="utf-8")
    kept.unlink(missing_ok=True)
    result = {"task": task, **result, "out": str(out)}
    if as_json:
        print_json(result)
        return
    show(result, history)


def described(task: Task, split: Split) -> str:
    """What is trained, in a line."""
    if isinstance(task.plan, FirstSpikeCoding):
        return str(task.plan)
    steps = split.features[0] if task.steps is None else task.steps
    shown = "spikes as recorded" if task.steps is None else f"{task.encoder} coding"
    return f"network {task.network}, T = {steps}, {shown}, surrogate {task.surrogate}, loss {task.loss}"


def validation_of(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """The samples that choose the epoch; ParameterError where there are none."""
    if not len(split.validation_y):
        raise ParameterError(f"{split.name} has no validation samples to choose the best epoch by")
    return split.validation_x, split.validation_y


def measured(task: Task, plan: Plan, split: Split, history: History, seed: int) -> dict[str, Any]:
    """What came of the training, with the one look at the test samples."""
    x, y = split.test_x, split.test_y
    found = accuracy(plan.network, x, y, batch_size=task.batch_size, loss=plan.loss, encode=plan.encode, seed=seed)
    best = history.best
    return {
        "network": str(task.plan) if isinstance(task.plan, FirstSpikeCoding) else task.network,
        "steps": split.features[0] if task.steps is None else task.steps,
        "encoder": None if task.steps is None else task.encoder,
        "surrogate": task.surrogate,
        "loss": task.loss,
        "seed": seed,
        "epochs": len(history.epochs),
        "kept_epoch": history.kept,
        "accuracy_validation": best.validation_accuracy,
        "accuracy_test": found,
        "test_samples": len(split.test_y),
        "spikes_per_neuron_and_step": dict(best.spike_rates),
        "seconds": round(history.seconds, 3),
    }


def drawn(task: str, about: str, history: History, result: dict[str, Any]) -> str:
    """The curves as a page."""
    text = (
        f"Epoch {history.kept} of {len(history.epochs)} was the best on the validation samples and is kept. It answers "
        f"{100 * result['accuracy_test']:.2f} % of {result['test_samples']:,} test samples rightly."
    )
    sections = [
        Section("Accuracy", text, accuracies(history.epochs)),
        Section("Loss", f"{about}.", losses(history.epochs)),
        Section("Activity", "Spikes per neuron and step on the validation samples.", spike_rates(history.epochs)),
    ]
    return page([], title=f"Training: {task}", sections=sections)


def show(result: dict[str, Any], history: History) -> None:
    printer = console()
    for name, rate in result["spikes_per_neuron_and_step"].items():
        printer.print(f"  {name}: {rate:.4f} spikes per neuron and step", markup=False, highlight=False)
    validation = history.best.validation_accuracy or 0.0
    printer.print(
        f"epoch {history.kept} of {len(history.epochs)} kept, {100 * validation:.2f} % on validation samples, "
        f"in {history.seconds:.1f} s",
        highlight=False,
    )
    printer.print(
        f"accuracy on {result['test_samples']:,} test samples: {100 * result['accuracy_test']:.2f} %", highlight=False
    )
    printer.print(f"written: {result['out']}", markup=False, highlight=False)
