"""neuro convert: a trained network becomes a spiking one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from converters import Exact, FirstSpike, RateCode, activations_replaced
from converters import convert as convert_graph
from neuro.cli.arguments import (
    Data,
    Json,
    Model,
    Root,
    Samples,
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
)
from neuro.files import save
from neuro.simulate import simulate

Recipe = Literal["rate", "exact", "first-spike"]
_RECIPES: dict[str, Callable[[float, int, Literal["subtract", "zero"]], object]] = {
    "rate": lambda percentile, levels, reset: RateCode(percentile=percentile, reset=reset),
    "exact": lambda percentile, levels, reset: Exact(levels),
    "first-spike": lambda percentile, levels, reset: FirstSpike(),
}


def convert(
    model: Model,
    weights: Weights = None,
    data: Data = None,
    data_root: Root = None,
    recipe: Annotated[Recipe, typer.Option(help="How activations become spikes.")] = "rate",
    levels: Annotated[int, typer.Option(help="exact: spikes a neuron can send, steps per window.")] = 16,
    steps: Steps = 32,
    percentile: Annotated[float, typer.Option(help="Share (%) of a channel's activations below its threshold.")] = 99.9,
    reset: Annotated[Literal["subtract", "zero"], typer.Option(help="rate: what a spike leaves behind.")] = "subtract",
    calibration: Annotated[int, typer.Option(help="Training samples that set the thresholds.", min=1)] = 512,
    samples: Samples = None,
    out: Annotated[Path | None, typer.Option(help="Write the spiking network here (.h5).")] = None,
    as_json: Json = False,
) -> None:
    """Convert a trained network to a spiking one, and measure both on the test set.

    Example: `neuro convert net.py:build --weights net.safetensors --data mnist --steps 32 --out snn.h5`
    """
    check_steps(steps)
    check_out(out)
    chosen = _RECIPES[recipe](percentile, levels, reset)
    split = need_data(data, data_root, "thresholds come from training samples, accuracy from test samples")
    graph = read_model(model, weights, split, None)
    thresholds_from = split.train_x if len(split.train_x) else split.test_x
    if not len(split.train_x):
        say(f"{split.name} has no training part: thresholds are set on test samples, accuracies are optimistic")
    snn = convert_graph(graph, chosen, calibration=thresholds_from[:calibration])
    x, y = split.test_x[:samples], split.test_y[:samples]
    dense = accuracy_of(simulate(graph, x, progress=True, count=False).outputs, y)
    run = simulate(snn, x, steps=steps if recipe == "rate" else None, progress=True)
    window = {"rate": steps, "exact": levels, "first-spike": 1}[recipe]
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
        "steps": window,
        "latency_ticks": run.counts.steps,
        "spikes": run.counts.per_sample("spikes"),
        "accumulates": run.counts.per_sample("accumulates"),
        "macs": run.counts.per_sample("macs"),
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
    printer.print(f"{replaced} of {total} activations replaced by neurons", highlight=False)
    printer.print(
        f"accuracy on {len(y):,} test samples: dense {100 * dense:.2f} %, spiking {100 * spiking:.2f} % at T = {window}"
        f" ({run.counts.steps} ticks end to end)",
        highlight=False,
    )
    printer.print(
        f"per sample: {result['spikes']:,.0f} spikes in {len(neurons)} populations, "
        f"{result['accumulates']:,.0f} accumulates, {result['macs']:,.0f} MACs in the analogue first layer",
        highlight=False,
    )
    if out is not None:
        printer.print(f"written: {out}", markup=False, highlight=False)
