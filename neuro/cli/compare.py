"""neuro compare and neuro demo: the comparison table and its page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from hardware_targets import Program, load_chip
from neuro import datasets, report
from neuro.atomic import replacing
from neuro.cli.arguments import Json, Root, Samples, Seed, console, print_json, say
from neuro.cli.comparison import ROWS, Study, check_study, study
from neuro.errors import ParameterError
from neuro.report import Section, plots

Out = Annotated[Path, typer.Option(help="Folder for report.html and rows.jsonl.")]


def demo(out: Out = Path("out"), seed: Seed = 0, as_json: Json = False) -> None:
    """The whole road on 5,000 real digits: train, convert, put on Loihi 2, compare with the rivals, write a page.

    Example: `neuro demo --out out`
    """
    _compare("mnist-5k", None, ROWS, (16, 64), "loihi2", None, 15, seed, out, as_json)


def compare(
    task: Annotated[str, typer.Option(help="A known data set (see `neuro data`) or a path.")] = "mnist-5k",
    data_root: Root = None,
    rows: Annotated[str, typer.Option(help=f"Rows with commas, or all: {', '.join(ROWS)}.")] = "all",
    steps: Annotated[str, typer.Option("--steps", "-T", help="Two numbers of time steps, with a comma.")] = "16,64",
    chip: Annotated[str, typer.Option(help="Chip of the row 'chip'.")] = "loihi2",
    samples: Samples = None,
    epochs: Annotated[int, typer.Option(help="Training epochs of the dense network.", min=1)] = 15,
    seed: Seed = 0,
    out: Out = Path("out"),
    as_json: Json = False,
) -> None:
    """Train a small convolutional network on a task and set it beside its rivals: int8, pruned, experts, spiking, chip.

    Example: `neuro compare --task fashion-mnist --rows dense,int8,spiking --steps 8,32`
    """
    try:
        short, long = (int(part) for part in steps.split(","))
    except ValueError:
        raise ParameterError(f"--steps must be two integers with a comma, e.g. 16,64, got {steps!r}") from None
    if not 1 <= short < long <= 256:
        raise ParameterError(f"--steps must be two growing numbers within 1..256, got {steps!r}")
    wanted = ROWS if rows == "all" else tuple(part.strip() for part in rows.split(","))
    _compare(task, data_root, wanted, (short, long), chip, samples, epochs, seed, out, as_json)


def _compare(
    task: str,
    root: Path | None,
    wanted: tuple[str, ...],
    steps: tuple[int, int],
    chip: str,
    samples: int | None,
    epochs: int,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    started = time.perf_counter()
    target = load_chip(chip)
    split = datasets.load(task, root)
    check_study(split, wanted, steps)
    out.mkdir(parents=True, exist_ok=True)
    found = study(split, target, wanted=wanted, steps=steps, seed=seed, samples=samples, epochs=epochs, say=say)
    lines = "\n".join(row.to_json() for row in found.rows)
    _write(out / "rows.jsonl", lines + "\n")
    title = f"{split.name}: a spiking network next to its rivals"
    page = report.write_page(
        out / "report.html",
        found.rows,
        title=title,
        sections=sections(found, steps),
        assumptions=found.assumptions,
        energy_notes=_energy_notes(found),
    )
    if as_json:
        print_json([row.as_dict() for row in found.rows])
    else:
        printer = console()
        for sentence in report.conclusions(found.rows):
            printer.print(f"- {sentence}", markup=False, highlight=False)
        printer.print(report.table(found.rows, width=printer.width))
    say(f"{time.perf_counter() - started:.0f} s; rows: {out / 'rows.jsonl'}")
    if not as_json:
        typer.echo(f"Report: {page}")


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def _energy_notes(found: Study) -> list[str]:
    """Every price that was used, once."""
    notes: dict[str, None] = {}
    for bills in found.bills.values():
        for letter, bill in bills.items():
            for cause, joules in bill.joules.items():
                if joules > 0:
                    price = bill.provenance[cause]
                    notes[f"{letter}, {bill.table}, {cause}: {price} ({price.status}; {price.source})"] = None
    return list(notes)


def sections(found: Study, steps: tuple[int, int]) -> list[Section]:
    """The plots of a comparison, each with a sentence on what one sees."""
    looks = plots.styles([row.model for row in found.rows])
    dense = {row.model: row.accuracy for row in found.rows if row.model == "dense fp32" and row.accuracy is not None}
    parts = [
        Section(
            "Accuracy against time steps",
            "The spiking network's answer after each number of steps, and the dense network that it came from. Few "
            "steps leave the firing rates coarse.",
            plots.accuracy_against_time(found.curves, dense=dense, looks=looks),
        )
    ]
    for column, letter, what in (
        ("energy_operations_J", "A (operations)", "arithmetic alone"),
        ("energy_memory_J", "B (operations and memory)", "arithmetic and the words moved to and from memory"),
    ):
        points = [
            (row.model, getattr(row, column), row.accuracy)
            for row in found.rows
            if getattr(row, column) is not None and row.accuracy is not None
        ]
        parts.append(
            Section(
                f"Accuracy against energy, model {letter}",
                f"Each row of the table under the model that prices {what}. Up and to the left is better; rows on the "
                "dotted line are beaten by no other row under this model.",
                plots.accuracy_against_energy(points, model=letter, looks=looks),
            )
        )
    parts.append(_raster(found, steps[0]))
    parts.append(_activity(found, steps[0]))
    if found.program is not None:
        parts += _chip_sections(found, found.program)
    return parts


def _raster(found: Study, steps: int) -> Section:
    layer, spikes = min(found.spiking.recordings["spikes"].items(), key=lambda item: item[1][0, 0].numel())
    first = spikes[:, 0].flatten(1).numpy()
    times, neurons = np.nonzero(first)
    return Section(
        "Spikes of one image",
        f"Every dot is a spike of one of the {first.shape[1]:,} neurons of layer {layer!r}, the smallest, while the "
        "network looks at the first test image.",
        plots.spike_raster(times, neurons, steps=steps, population=first.shape[1], layer=layer),
    )


def _activity(found: Study, steps: int) -> Section:
    measured = {layer: float(spikes.float().mean()) for layer, spikes in found.spiking.recordings["spikes"].items()}
    return Section(
        "Activity of each layer",
        "Spikes per neuron and step, mean over all test images. Every spike costs one accumulate for each synapse it "
        "meets.",
        plots.activity_per_layer({f"spiking, T={steps}": measured}),
    )


def _chip_sections(found: Study, program: Program) -> list[Section]:
    placement, chip = program.placement, program.chip
    per_tile = chip.limit("cores_per_tile")
    across = int(np.ceil(np.sqrt(per_tile)))
    tiles = placement.tiles
    inside = np.array([core.number for core in placement.cores]) % per_tile
    limit = chip.limit("synapse_memory_bits")
    load = [core.used["memory_bits"] / limit for core in placement.cores]
    labels = [row[1] for row in placement.rows()]
    width, height = chip.limit("mesh_width") * across, chip.limit("mesh_height") * (-(-per_tile // across))
    model = f"on {chip.name}"
    return [
        Section(
            f"Cores of {chip.title}",
            f"Cores in use: {len(placement.cores)}. Colour shows how much of a core's synapse memory is taken; point "
            "at a core to see its neurons.",
            plots.core_loads(
                (tiles[:, 0] * across + inside % across).tolist(),
                (tiles[:, 1] * (-(-per_tile // across)) + inside // across).tolist(),
                load, labels, mesh=(width, height), resource="synapse memory",
            ),
            details=tuple(f"core {row[0]}: {row[1]}" for row in placement.rows()),
            details_title="Which neurons live where",
        ),
        Section(
            "Error of the chip's integers",
            "Root mean square error of the weights of each layer, relative to their size, after quantising to the "
            "chip's format.",
            plots.quantisation_error({model: {error.layer: 100 * error.weight for error in program.errors}}),
        ),
    ]  # fmt: skip
