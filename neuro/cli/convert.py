"""neuro convert: a trained network becomes a spiking one."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from torch import Tensor

from converters import Goal, activations_replaced, tune
from converters import convert as convert_graph
from converters.tuning import brief
from neuro.cli.arguments import (
    Data,
    Factor,
    Json,
    Model,
    Root,
    Samples,
    Seed,
    Steps,
    Weights,
    accuracy_of,
    check_out,
    check_steps,
    console,
    latency,
    need_data,
    print_json,
    read_model,
    say,
    warn_near_chance,
)
from neuro.cli.recipes import Name, Settings, build
from neuro.datasets import Split
from neuro.errors import ParameterError
from neuro.files import save
from neuro.flow import bits_per_event, has_neurons
from neuro.graph import Graph
from neuro.simulate import simulate
from neuro.windows import duration


def convert(
    model: Model,
    weights: Weights = None,
    data: Data = None,
    data_root: Root = None,
    scale: Factor = None,
    recipe: Annotated[Name, typer.Option(help="How activations become spikes; see `neuro recipes`.")] = "rate",
    steps: Steps = 32,
    levels: Annotated[int | None, typer.Option(help="exact, qcfs, graded: spikes or values a neuron can send.")] = None,
    percentile: Annotated[
        float, typer.Option(help="rate, offset, residual: share (%) of a channel's activations to cover.")
    ] = 99.9,
    reset: Annotated[Literal["subtract", "zero"], typer.Option(help="rate: what a spike leaves behind.")] = "subtract",
    time_bits: Annotated[int | None, typer.Option(help="first-spike: bits of a time; continuous without.")] = None,
    method: Annotated[
        Literal["light", "advanced"], typer.Option(help="calibrated: biases, or weights too.")
    ] = "advanced",
    warmup: Annotated[int, typer.Option(help="offset, residual: steps before the answer counts.")] = 4,
    epochs: Annotated[int, typer.Option(help="qcfs: passes over the training samples.")] = 10,
    checkpoint: Annotated[Path | None, typer.Option(help="qcfs: kept here, and resumed from here.")] = None,
    weight_bits: Annotated[int, typer.Option(help="exact: bits of a weight, sign included.")] = 8,
    input_bits: Annotated[int, typer.Option(help="exact: bits of a value of the input.")] = 8,
    potential_bits: Annotated[
        int | None, typer.Option(help="exact: bits of a membrane that no input may overflow; 18 for Loihi.")
    ] = None,
    max_loss: Annotated[float, typer.Option(help="auto: points that may be lost on validation samples.")] = 0.5,
    calibration: Annotated[int, typer.Option(help="Training samples that set the thresholds.", min=1)] = 512,
    samples: Samples = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write the spiking network here (.h5).")] = None,
    as_json: Json = False,
) -> None:
    """Convert a trained network to a spiking one, and measure both on the test set.

    Examples: `neuro convert net.py:build --weights net.safetensors --data mnist --steps 32 --out snn.h5`,
    `neuro convert net.py:build --weights net.safetensors --data mnist --recipe exact --levels 16`,
    the same for a Loihi: `--recipe exact --levels 8 --potential-bits 18`,
    `neuro convert net.py:build --weights net.safetensors --data mnist --recipe auto --max-loss 0.5`,
    `neuro convert resnet8.h5 --data cifar10 --scale 255 --recipe first-spike --out snn.h5` (a Keras file that learnt
    raw pixels)
    """
    check_steps(steps)
    check_out(out)
    settings = Settings(levels, steps, percentile, reset, time_bits, method, warmup, epochs, checkpoint, seed)
    settings = replace(settings, weight_bits=weight_bits, input_bits=input_bits, potential_bits=potential_bits)
    chosen = None if recipe == "auto" else build(recipe, settings)
    split = need_data(data, data_root, "thresholds come from training samples, accuracy from test samples")
    graph = read_model(model, weights, split, None, scale=scale)
    seen = split.train_x if len(split.train_x) else split.test_x
    if not len(split.train_x):
        say(f"{split.name} has no training part: thresholds are set on test samples, accuracies are optimistic")
    few = seen[:calibration]
    if chosen is None:
        chosen, steps = choose(graph, split, few, max_loss / 100)
    started = time.perf_counter()
    snn = convert_graph(graph, chosen, calibration=seen if recipe == "qcfs" else few)
    seconds = time.perf_counter() - started
    x, y = split.test_x[:samples], split.test_y[:samples]
    dense = accuracy_of(simulate(graph, x, progress=True, count=False).outputs, y)
    warn_near_chance(dense, y, scale)
    timed = has_neurons(snn) and duration(snn) is None
    run = simulate(snn, x, steps=steps if timed else None, progress=True)
    spiking = accuracy_of(run.outputs, y)
    replaced, total = activations_replaced(snn)
    neurons = {name: tally for name, tally in run.counts.nodes.items() if tally.spikes}
    result = {
        "model": graph.name,
        "recipe": repr(chosen),
        "activations_replaced": replaced,
        "activations": total,
        "test_samples": len(y),
        "accuracy_dense": dense,
        "accuracy_spiking": spiking,
        "steps": steps if timed else None,
        "latency_ticks": run.counts.steps,
        "bits_per_event": bits_per_event(snn),
        "spikes": run.counts.per_sample("spikes"),
        "accumulates": run.counts.per_sample("accumulates"),
        "macs": run.counts.per_sample("macs"),
        "seconds": round(seconds, 3),
        "out": None if out is None else str(out),
    }
    if out is not None:
        save(snn, out)
    if as_json:
        print_json(result)
        return
    printer = console()
    for change in snn.history:
        printer.print(f"  {change}", markup=False, highlight=False)
    printer.print(f"{replaced} of {total} activations replaced by neurons, in {seconds:.1f} s", highlight=False)
    after = f"{f'at T = {steps} ' if timed else ''}({latency(snn, run.counts.steps)})"
    printer.print(f"recipe: {brief(chosen)}", markup=False, highlight=False)
    printer.print(
        f"accuracy on {len(y):,} test samples: dense {100 * dense:.2f} %, spiking {100 * spiking:.2f} % {after}",
        highlight=False,
    )
    printer.print(
        f"per sample: {result['spikes']:,.0f} spikes in {len(neurons)} populations, "
        f"{result['accumulates']:,.0f} accumulates, {result['macs']:,.0f} MACs where what arrives is no single spike",
        highlight=False,
    )
    if out is not None:
        printer.print(f"written: {out}", markup=False, highlight=False)


def choose(graph: Graph, split: Split, calibration: Tensor, max_loss: float) -> tuple[object, int]:
    """The recipe, and its steps, that `tune` finds on at most 1,000 validation samples: the fewest ticks."""
    if not len(split.validation_y):
        raise ParameterError(f"--recipe auto chooses on validation samples and {split.name} has none; name a recipe")
    x, y = split.validation_x[:1000], split.validation_y[:1000]
    tuned = tune(graph, Goal(max_loss, "ticks"), calibration=calibration, validation=(x, y), progress=True)
    typer.echo(str(tuned), err=True)
    if tuned.best is None:
        raise ParameterError(f"no recipe loses at most {100 * max_loss:g} points on validation samples; allow more")
    return tuned.recipe, tuned.best.steps or 1
