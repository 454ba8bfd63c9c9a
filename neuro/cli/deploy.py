"""neuro check and neuro deploy: does a network fit a chip, and what does it do there?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from hardware_targets import check as check_graph
from hardware_targets import compile as compile_graph
from hardware_targets import load_chip, price
from hardware_targets import run as run_program
from neuro.atomic import replacing
from neuro.cli.arguments import (
    Data,
    Json,
    Model,
    Root,
    Samples,
    Shape,
    Steps,
    Weights,
    accuracy_of,
    check_out,
    check_steps,
    console,
    need_data,
    print_json,
    read_data,
    read_model,
)
from neuro.simulate import simulate

ChipName = Annotated[str, typer.Option("--chip", help="Name of a chip (see `neuro chips`) or a path to a .toml file.")]


def check(
    model: Model,
    chip: ChipName = "loihi2",
    weights: Weights = None,
    data: Data = None,
    data_root: Root = None,
    shape: Shape = None,
    as_json: Json = False,
) -> None:
    """Does a network fit a chip? Works before training: only shapes count. Exit code 2 where it does not fit.

    Example: `neuro check net.py:build --shape 1,28,28 --chip loihi1`
    """
    target = load_chip(chip)
    graph = read_model(model, weights, read_data(data, data_root), shape, shapes_only=True)
    fit = check_graph(graph, target)
    if as_json:
        print_json(
            {
                "network": fit.network,
                "chip": target.name,
                "ok": fit.ok,
                "tightest": fit.tightest,
                "cores": fit.cores,
                "resources": [
                    {"name": r.name, "used": r.used, "available": r.available, "where": r.where} for r in fit.resources
                ],
                "violations": [str(violation) for violation in fit.violations],
            }
        )
    else:
        console().print(fit)
    if not fit.ok:
        raise typer.Exit(2)


def deploy(
    model: Model,
    chip: ChipName = "loihi2",
    data: Data = None,
    data_root: Root = None,
    steps: Steps = 16,
    samples: Samples = None,
    out: Annotated[Path | None, typer.Option(help="Write the result as JSON here.")] = None,
    as_json: Json = False,
) -> None:
    """Put a spiking network on a chip: quantise, place, run on the chip's arithmetic, and bill it.

    Samples with a time of their own, such as mnist-dvs, run for as many steps as they have.

    Example: `neuro deploy snn.h5 --chip loihi2 --data mnist-5k --steps 16`
    """
    check_steps(steps)
    check_out(out)
    target = load_chip(chip)
    split = need_data(data, data_root, "there is nothing to run on")
    graph = read_model(model, None, split, None)
    seen, x, y = split.train_x[:512], split.test_x[:samples], split.test_y[:samples]
    if split.timed:
        seen, x, steps = seen.flatten(0, 1), x.transpose(0, 1), split.features[0]
    program = compile_graph(graph, target, calibration=seen if len(seen) else None)
    chip_run = run_program(program, x, steps=steps)
    float_run = simulate(graph, x, steps=steps, count=False, progress=True)
    bill = price(chip_run.counts, target)
    counts = chip_run.counts
    same = float((chip_run.outputs.argmax(1) == float_run.outputs.argmax(1)).float().mean())
    result: dict[str, Any] = {
        "model": graph.name,
        "chip": target.name,
        "steps": steps,
        "latency_ticks": counts.steps,
        "test_samples": len(y),
        "accuracy_chip": accuracy_of(chip_run.outputs, y),
        "accuracy_float": accuracy_of(float_run.outputs, y),
        "same_class": same,
        "cores": len(program.placement.cores),
        "spikes": counts.per_sample("spikes"),
        "synaptic_events": counts.per_sample("accumulates"),
        "packets": counts.per_sample("packets"),
        "hops": counts.per_sample("hops"),
        "energy_chip_J": bill.per_sample,
        "energy_status": bill.status,
        "quantisation": [
            {"layer": e.layer, "weight": e.weight, "bias": e.bias, "threshold": e.threshold, "clipped": e.clipped}
            for e in program.errors
        ],
        "saturated": dict(chip_run.saturated),
    }
    if out is not None:
        with replacing(out) as part:
            part.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if as_json:
        print_json(result)
        return
    printer = console()
    table = Table("layer", "weights", "bias", "threshold", "saturated", title="Relative error of the chip's integers")
    for error in program.errors:
        table.add_row(
            error.layer, f"{100 * error.weight:.2f} %", f"{100 * error.bias:.3f} %", f"{100 * error.threshold:.3f} %",
            f"{chip_run.saturated.get(error.layer, 0):,}",
        )  # fmt: skip
    printer.print(table)
    printer.print(program.placement)
    printer.print(
        f"accuracy on {len(y):,} test samples at T = {steps}: {100 * result['accuracy_chip']:.2f} % on "
        f"{target.name}'s integers, {100 * result['accuracy_float']:.2f} % in floating point; "
        f"same class on {100 * same:.2f} %",
        highlight=False,
    )
    printer.print(bill)
