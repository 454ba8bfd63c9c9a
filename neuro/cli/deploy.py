"""neuro check and neuro deploy: does a network fit a chip, and what does it do there?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from hardware_targets import check as check_graph
from hardware_targets import compile as compile_graph
from hardware_targets import load_chip, price
from hardware_targets import run as run_program
from hardware_targets.bill import Bill
from hardware_targets.compile import Backend, ChipRun, Program, SoftReset, spike_rates, weight_width
from hardware_targets.lava.side_by_side import Agreement
from hardware_targets.lava.via_lava import lava_python
from hardware_targets.measurements import keyword_spotting, published_mnist
from hardware_targets.pace import NEEDED, pace
from hardware_targets.picture import mesh
from hardware_targets.truenorth.program import CoreProgram, as_bits, draw_at_work
from neuro.atomic import replacing
from neuro.cli.arguments import (
    Data,
    Json,
    Model,
    Root,
    Samples,
    Seed,
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
    say,
)
from neuro.errors import ParameterError
from neuro.files import save
from neuro.flow import has_neurons
from neuro.report.sheet import engineering
from neuro.simulate import simulate
from neuro.training.on_grid import fine_tuned
from neuro.windows import duration

MNIST = ("mnist", "mnist-5k")
"""Data sets whose images are those that chips were measured with."""

THIS = "this network"
LAVA_SAMPLES = 20
PICTURED = 100

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
    weight_bits: Annotated[
        int | None, typer.Option(help="Bits per weight, sign included; default: the most that the chip has.")
    ] = None,
    qat: Annotated[
        int, typer.Option(help="First learn for so many epochs with weights rounded as on the chip.", min=0)
    ] = 0,
    tuned: Annotated[Path | None, typer.Option(help="Write the network that --qat made here (.h5).")] = None,
    soft_reset: Annotated[
        SoftReset, typer.Option(help="Where a chip resets to zero alone. current: the current becomes the membrane.")
    ] = "refuse",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write the result as JSON here.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the cores and links of the chip into this HTML.")] = None,
    backend: Annotated[
        Backend, typer.Option(help="lava: also in lava-nc, compared spike for spike; board: Loihi 2, never tested.")
    ] = "simulator",
    timeout: Annotated[float, typer.Option(help="Seconds that Lava may take.", min=1)] = 600.0,
    as_json: Json = False,
) -> None:
    """Put a spiking network on a chip: quantise, place, run on the chip's arithmetic, and bill it.

    Samples with a time of their own, such as mnist-dvs, run for as many steps as they have. With another backend than
    the simulator 20 samples are run unless --samples says otherwise, and the exit code is 1 where anything differs.

    Networks that count in windows or speak by first spikes take their data once and as many ticks as they need.

    Examples: `neuro deploy snn.h5 --chip loihi2 --data mnist-5k --steps 16 --backend lava --samples 20`,
    `neuro deploy snn.h5 --chip loihi2 --data mnist-5k --steps 16 --weight-bits 4 --qat 5 --tuned snn4.h5`
    (quantisation-aware fine-tuning), `neuro deploy snn.h5 --chip loihi1 --soft-reset current --data mnist-5k`
    """
    check_steps(steps)
    for path in (out, picture, tuned):
        check_out(path)
    if tuned is not None and not qat:
        raise ParameterError("--tuned writes what --qat made: say how many epochs, e.g. --qat 5")
    target = load_chip(chip)
    if backend != "simulator":
        lava_python()
        samples = LAVA_SAMPLES if samples is None else samples
    split = need_data(data, data_root, "there is nothing to run on")
    graph = read_model(model, None, split, None)
    if qat:
        graph, history = fine_tuned(
            graph, split, bits=weight_width(target, weight_bits), steps=steps, epochs=qat, seed=seed, progress=True
        )
        say(f"fine-tuned for {qat} epochs, the best is number {history.kept}")
        if tuned is not None:
            save(graph, tuned)
    streams = has_neurons(graph) and duration(graph) is None
    seen, x, y = split.train_x[:512], split.test_x[:samples], split.test_y[:samples]
    if split.timed:
        seen, x, steps = seen.flatten(0, 1), x.transpose(0, 1), split.features[0]
    program = compile_graph(
        graph,
        target,
        calibration=seen if len(seen) else None,
        weight_bits=weight_bits,
        soft_reset=soft_reset,
        seed=seed,
    )
    if isinstance(program, CoreProgram):
        x = as_bits(program, x, steps)
    chip_run = run_program(program, x, steps=steps if streams else None, backend=backend, timeout=timeout)
    agreement = chip_run.agreement if isinstance(chip_run, ChipRun) else None
    float_run = simulate(graph, x, steps=steps if streams else None, count=False, progress=True)
    rates, busy = None, None
    if isinstance(program, Program):
        unseen = x.flatten(0, 1) if split.timed else x
        rates = spike_rates(program, seen if len(seen) else unseen)
        if all(name in target.energy for name in NEEDED):
            busy = pace(program.integers, program.placement, rates)
    bill = price(chip_run.counts, target, least_tick=0.0 if busy is None else busy.tick)
    counts = chip_run.counts
    same = float((chip_run.outputs.argmax(1) == float_run.outputs.argmax(1)).float().mean())
    result: dict[str, Any] = {
        "model": graph.name,
        "chip": target.name,
        "steps": steps if streams else None,
        "weight_bits": weight_bits,
        "qat_epochs": qat,
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
        "causes": _by_cause(bill),
        "latency_s": bill.seconds,
        "least_tick_s": None if busy is None else busy.tick,
        "balance_of_cores": None if busy is None else busy.balance,
        "separate_J": {name: joules if joules is None else joules / len(y) for name, joules in bill.separate.items()},
        "quantisation": [
            {"layer": e.layer, "weight": e.weight, "bias": e.bias, "threshold": e.threshold, "clipped": e.clipped}
            for e in program.errors
        ],
        "saturated": dict(chip_run.saturated),
        "backend": backend,
        "agreement": None if agreement is None else asdict(agreement),
    }
    if rates is not None and isinstance(program, Program) and picture is not None:
        with replacing(picture) as part:
            mesh(program.placement, rates).write_html(part, include_plotlyjs=True)
    if isinstance(program, CoreProgram) and picture is not None:
        draw_at_work(program, x[:, :PICTURED], picture)
    if out is not None:
        with replacing(out) as part:
            part.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if as_json:
        print_json(result)
        _exit_unless_equal(agreement)
        return
    printer = console()
    table = Table("layer", "weights", "bias", "threshold", "saturated", title="Relative error of the chip's integers")
    for error in program.errors:
        table.add_row(
            error.layer, f"{100 * error.weight:.2f} %", f"{100 * error.bias:.3f} %", f"{100 * error.threshold:.3f} %",
            f"{chip_run.saturated.get(error.layer, 0):,}",
        )  # fmt: skip
    if program.errors:
        printer.print(table)
    printer.print(program.placement)
    time = f"at T = {steps}" if streams else f"in {counts.steps} ticks"
    printer.print(
        f"accuracy on {len(y):,} test samples {time}: {100 * result['accuracy_chip']:.2f} % on "
        f"{target.name}'s integers, {100 * result['accuracy_float']:.2f} % in floating point; "
        f"same class on {100 * same:.2f} %",
        highlight=False,
    )
    printer.print(bill)
    if busy is not None:
        several = len(program.placement.cores) > 1
        mean = f"; the mean core is busy for {100 * busy.balance:.0f} % of that" if several else ""
        printer.print(
            f"the {'busiest ' if several else ''}core needs {engineering(busy.tick, 's')} per tick, barrier included "
            f"({busy.status}){mean}",
            highlight=False,
        )
    if split.name in MNIST:
        printer.print(published_mnist({THIS: bill}, {THIS: result["accuracy_chip"]}))
    else:
        printer.print(keyword_spotting(bill))
    if agreement is not None:
        printer.print(str(agreement), highlight=False)
    _exit_unless_equal(agreement)


def _exit_unless_equal(agreement: Agreement | None) -> None:
    if agreement is not None and not agreement.exact:
        raise typer.Exit(1)


def _by_cause(bill: Bill) -> dict[str, dict[str, float | None]]:
    """Events, joules and seconds of work of one sample."""
    return {
        cause: {
            "events": bill.events[cause] / bill.samples,
            "energy_J": bill.joules[cause] / bill.samples if cause in bill.joules else None,
            "core_time_s": bill.time_of(cause),
        }
        for cause in dict.fromkeys((*bill.joules, *bill.work))
    }
