"""neuro cost: what computing costs on processors, and where a spiking network breaks even."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hardware_targets.break_even import BreakEven, break_even, dense_counts, spiking_counts
from hardware_targets.cost_of_ai import KILOWATT_HOUR, SURVEY, Computing, Inference, correction
from hardware_targets.devices import devices
from hardware_targets.price import load_table
from neuro.cli.arguments import Json, console, print_json
from neuro.errors import ParameterError


def cost(
    macs: Annotated[int | None, typer.Option(help="Multiply-accumulates of one inference (dense).", min=1)] = None,
    precision: Annotated[str, typer.Option(help="Number format of the dense network: float32, int8.")] = "float32",
    gflops_per_watt: Annotated[float | None, typer.Option(help="Efficiency of a machine [GFLOPS/W].")] = None,
    utilisation: Annotated[
        float | None, typer.Option(help="Share of that peak in use, in (0, 1]; 1 where none is given.")
    ] = None,
    petaflops: Annotated[float | None, typer.Option(help="A rate of computing: what power?")] = None,
    petaflops_days: Annotated[float | None, typer.Option(help="An amount of computing: what energy?")] = None,
    against: Annotated[
        bool,
        typer.Option("--break-even", help="Spikes per synapse at which a spiking network costs as --macs do."),
    ] = False,
    accumulates: Annotated[
        int | None, typer.Option(help="Break-even: accumulates of one inference of the spiking network.", min=1)
    ] = None,
    updates: Annotated[int, typer.Option(help="Break-even: neuron updates (neurons x steps).", min=0)] = 0,
    analogue_macs: Annotated[int, typer.Option(help="Break-even: MACs of its layers that see no spikes.", min=0)] = 0,
    spikes: Annotated[int, typer.Option(help="Break-even: spikes of one inference.", min=0)] = 0,
    steps: Annotated[int, typer.Option("--steps", "-T", help="Break-even: time steps.", min=1)] = 16,
    spiking_precision: Annotated[
        str | None,
        typer.Option(help="Break-even: number format of the spiking network, else the dense one's."),
    ] = None,
    words: Annotated[
        int | None, typer.Option(help="Break-even: numbers each network stores; the MACs of the dense one if none.")
    ] = None,
    show: Annotated[str | None, typer.Option(help="A processor or device: every price of it, with its source.")] = None,
    as_json: Json = False,
) -> None:
    """Joules of an inference on processors, power and energy of computing, break-even of a spiking network.

    Examples:

    `neuro cost --macs 266200`

    `neuro cost --petaflops 1 --petaflops-days 1 --gflops-per-watt 65`

    `neuro cost --break-even --macs 266200 --precision int8 --accumulates 150000 --updates 6560 --steps 16`

    `neuro cost --show a100`
    """
    if show is not None:
        _prices(show, as_json)
        return
    if against:
        if macs is None or accumulates is None:
            raise ParameterError("--break-even needs --macs of the dense network and --accumulates of the spiking one")
        stored = macs if words is None else words
        dense = dense_counts(macs, precision)
        spiking = spiking_counts(
            accumulates, updates, steps, spiking_precision or precision, analogue_macs=analogue_macs, spikes=spikes
        )
        found = break_even(dense, spiking, dense_words=stored, spiking_words=stored, known="given")
        if as_json:
            print_json(_break_even(found))
        else:
            console().print(found)
        return
    if accumulates is not None:
        raise ParameterError("--accumulates is for --break-even; add it")
    if utilisation is not None and gflops_per_watt is None and macs is not None:
        raise ParameterError("--utilisation is of the machine of --gflops-per-watt; add it (processors have their own)")
    used = 1.0 if utilisation is None else utilisation
    asked: list[tuple[Any, dict[str, Any]]] = []
    if petaflops is not None or petaflops_days is not None or macs is None:
        rate = SURVEY if gflops_per_watt is None else gflops_per_watt
        if petaflops is None and petaflops_days is None:
            petaflops = petaflops_days = 1.0
        computing = Computing(rate, used, petaflops, petaflops_days)
        asked.append((computing, _computing(computing)))
    if macs is not None:
        inference = Inference(macs, precision, gflops_per_watt, used)
        asked.append((inference, _inference(inference)))
    if as_json:
        print_json({key: value for _, plain in asked for key, value in plain.items()})
    else:
        for value, _ in asked:
            console().print(value)


def _prices(name: str, as_json: bool) -> None:
    table = load_table(name)
    if isinstance(table, tuple):
        raise ParameterError(f"--show {name}: prices of operations are no device; known: {', '.join(devices())}")
    if as_json:
        title, headings, rows, notes = table.sheet()
        listed = [dict(zip((heading or "section" for heading in headings), row, strict=True)) for row in rows]
        print_json({"name": name, "title": title, "rows": listed, "notes": list(notes)})
    else:
        console().print(table)


def _computing(found: Computing) -> dict[str, Any]:
    return {
        "gflops_per_watt": found.gflops_per_watt,
        "utilisation": found.utilisation,
        "power_W": found.watts,
        "energy_J": found.joules,
        "energy_kWh": None if found.joules is None else found.joules / KILOWATT_HOUR,
        "correction": correction(),
    }


def _inference(found: Inference) -> dict[str, Any]:
    listed = found.bills
    return {
        "macs": found.macs,
        "precision": found.precision,
        "energy_given_J": found.given,
        "processors": {
            name: {"refused": bill}
            if isinstance(bill, str)
            else {"energy_J": bill.per_sample, "low_J": bill.range[0], "high_J": bill.range[1], "status": bill.status}
            for name, bill in listed.items()
        },
        "correction": correction(),
    }


def _break_even(found: BreakEven) -> dict[str, Any]:
    return {
        "spikes_per_synapse": found.rate,
        "synapses": found.synapses,
        "points": [
            {
                "model": point.model,
                "dense_J": point.dense,
                "without_spikes_J": point.fixed,
                "with_spikes_J": point.moving,
                "break_even": point.break_even,
                "low": point.range[0],
                "high": point.range[1],
                "spiking_wins": point.wins,
            }
            for point in found.points
        ],
        "refused": dict(found.refused),
    }
