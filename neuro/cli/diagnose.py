"""neuro diagnose: where a converted network loses, why, and what would help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from torch import Tensor

from converters import Diagnosis, Exact, FirstSpike, RateCode
from converters import convert as convert_graph
from converters import diagnose as diagnose_graph
from neuro import report
from neuro.cli.arguments import (
    Data,
    Factor,
    Json,
    Model,
    Root,
    Steps,
    Weights,
    accuracy_of,
    check_out,
    check_steps,
    console,
    need_data,
    print_json,
    read_model,
    say,
    warn_near_chance,
)
from neuro.files import load
from neuro.flow import has_neurons
from neuro.graph import Graph
from neuro.report import Row, Section
from neuro.simulate import simulate
from neuro.windows import duration

Recipe = Literal["rate", "exact", "first-spike"]
_RECIPES: dict[str, Callable[[float, int], object]] = {
    "rate": lambda percentile, levels: RateCode(percentile=percentile),
    "exact": lambda percentile, levels: Exact(levels),
    "first-spike": lambda percentile, levels: FirstSpike(),
}


def diagnose(
    model: Model,
    weights: Weights = None,
    data: Data = None,
    data_root: Root = None,
    scale: Factor = None,
    snn: Annotated[Path | None, typer.Option(help="The spiking network (.h5), where it was converted already.")] = None,
    recipe: Annotated[Recipe, typer.Option(help="How activations become spikes, where --snn is not given.")] = "rate",
    levels: Annotated[int, typer.Option(help="exact: spikes a neuron can send, steps per window.")] = 16,
    steps: Steps = 32,
    percentile: Annotated[float, typer.Option(help="rate: share (%) of a channel's activations to cover.")] = 99.9,
    calibration: Annotated[int, typer.Option(help="Training samples that set the thresholds.", min=1)] = 512,
    samples: Annotated[int, typer.Option(help="Use the first so many validation samples.", min=1)] = 256,
    out: Annotated[Path | None, typer.Option(help="Write a page with the picture here (.html).")] = None,
    as_json: Json = False,
) -> None:
    """Say per layer how much a converted network loses to which cause, the costliest first, and what would help.

    Example: `neuro diagnose net.py:build --weights net.safetensors --data mnist --steps 16 --out losses.html`
    """
    check_steps(steps)
    check_out(out)
    chosen = _RECIPES[recipe](percentile, levels)
    spiking = None if snn is None else load(snn)
    split = need_data(data, data_root, "losses are measured on samples")
    graph = read_model(model, weights, split, None, scale=scale)
    if spiking is None:
        seen = split.train_x if len(split.train_x) else split.test_x
        spiking = convert_graph(graph, chosen, calibration=seen[:calibration])
    x, y = split.validation_x[:samples], split.validation_y[:samples]
    if not len(x):
        say(f"{split.name} has no validation part: test samples are looked at; measure accuracies on others")
        x, y = split.test_x[:samples], split.test_y[:samples]
    warn_near_chance(accuracy_of(simulate(graph, x, count=False).outputs, y), y, scale)
    needed = steps if has_neurons(spiking) and duration(spiking) is None else None
    found = diagnose_graph(graph, spiking, x, needed)
    if out is not None:
        report.write_page(
            out, _rows(graph, spiking, x, y, needed), title=f"{found.name}: losses", sections=[_section(found)]
        )
    if as_json:
        worst = None if found.worst is None else found.worst.layer
        print_json({**asdict(found), "worst": worst, "out": None if out is None else str(out)})
        return
    printer = console()
    printer.print(found.table())
    for line in (found.summary, *found.lines()):
        printer.print(line, markup=False, highlight=False)
    if out is not None:
        printer.print(f"written: {out}", markup=False, highlight=False)


def _rows(graph: Graph, spiking: Graph, x: Tensor, y: Tensor, steps: int | None) -> list[Row]:
    """Both networks on the samples that were looked at."""
    rows = []
    for name, network, time in (("original", graph, None), ("spiking", spiking, steps)):
        run = simulate(network, x, steps=time, progress=True)
        done = {what: run.counts.per_sample(what) for what in ("macs", "accumulates", "spikes")}
        note = f"accuracy on the {len(y):,} samples of the diagnosis"
        rows.append(
            Row(name, accuracy_of(run.outputs, y), latency_ticks=run.counts.steps, notes=(note,), **done)  # type: ignore[arg-type]
        )
    return rows


def _section(found: Diagnosis) -> Section:
    """The picture, with what it shows and every finding."""
    text = (
        "Each bar is the error that a layer adds to its own activation, on the input that it really received, cut by "
        "cause in proportion to the squares. Beside it: how far the logits of the original network move when this "
        f"layer alone is converted.\n\n{found.summary}."
    )
    findings = tuple(found.lines(len(found.findings)))
    return Section("Where it loses", text, found.picture(), findings, "What would help")
