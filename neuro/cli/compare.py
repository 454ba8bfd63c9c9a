"""neuro compare and neuro demo: the comparison table and its page."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from hardware_targets import load_chip
from neuro import report
from neuro.baselines.rival import Plan
from neuro.cli import protocol
from neuro.cli.arguments import Json, Root, Samples, Seed, console, print_json, say
from neuro.cli.cells import ENTRIES, Task
from neuro.cli.compare_page import assumptions, sections, speeds
from neuro.cli.comparison import Priced, energy_notes, rows_at
from neuro.cli.pool import BACKENDS, Pool
from neuro.cli.protocol import MATCHES, Match, Outcome
from neuro.errors import ParameterError
from neuro.training import ShiftFlip

Out = Annotated[Path, typer.Option(help="Folder for report.html, the tables (rows.*) and cells/, the networks.")]
Jobs = Annotated[int, typer.Option(help="Processes that train at once; 0: one for each core.", min=0)]
TOLD = {"Accuracy": 3, "Energy": 6, "At equal accuracy": 8, "At equal stored parameters": 1, "Spiking networks": 4,
        "Sparse networks": 3, "Experts": 2, "Other rivals": 2}  # fmt: skip
"""How many sentences of each theme the terminal shows; the page has them all."""
SUFFIXES = ("csv", "json", "jsonl", "tex")


def heading(match: Match, ladders: bool) -> str:
    """What the rows of a table have in common."""
    if match == "parameters":
        return "At equal stored parameters"
    return "At equal accuracy" if ladders else "One size each"


def demo(out: Out = Path("out"), seed: Seed = 0, jobs: Jobs = 0, as_json: Json = False) -> None:
    """The whole road on 5,000 real digits: train, convert, put on Loihi 2, compare with the rivals, write a page.

    Every row is trained once, at its usual size; `neuro compare` looks for the size at which each is as accurate.

    Example: `neuro demo --out out`
    """
    plan = Plan(epochs=12, augment=ShiftFlip(1))
    every, pool = tuple(ENTRIES), Pool(_cores(jobs))
    _compare(Task("mnist-5k"), every, (seed,), ("accuracy",), plan, False, pool, True, out, as_json)


def compare(
    task: Annotated[str, typer.Option(help="A known data set (see `neuro data`) or a path.")] = "mnist-5k",
    data_root: Root = None,
    rows: Annotated[str, typer.Option(help="all, or names with commas: " + ", ".join(ENTRIES) + ".")] = "all",
    seeds: Annotated[int, typer.Option(help="How many trainings of each chosen row.", min=1)] = 1,
    match: Annotated[str, typer.Option(help="accuracy, parameters or both: what all rows have in common.")] = "both",
    hidden: Annotated[str, typer.Option(help="Widths of the dense network that all are measured by.")] = "300,100",
    epochs: Annotated[int, typer.Option(help="Training epochs of every row.", min=2)] = 15,
    shift: Annotated[int, typer.Option(help="Shift training images by up to so many pixels.", min=0)] = 1,
    flip: Annotated[bool, typer.Option(help="Mirror training images too (clothes, not digits).")] = False,
    chip: Annotated[str, typer.Option(help="Chip of the rows 'chip' and 'cnn-chip', or a .toml.")] = "loihi2",
    samples: Samples = None,
    quick: Annotated[bool, typer.Option("--quick", help="One size of each row, the middle of its ladder.")] = False,
    jobs: Jobs = 1,
    backend: Annotated[str, typer.Option(help="loky (processes here), dask or ray.")] = "loky",
    address: Annotated[str | None, typer.Option(help="Address of a Dask or Ray cluster; none: one is started.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what the folder already holds.")] = False,
    seed: Seed = 0,
    out: Out = Path("out"),
    as_json: Json = False,
) -> None:
    """Train every rival on one task and set them beside spiking networks, at equal accuracy and at equal storage.

    One split; sizes, thresholds and steps are chosen on validation samples with the first seed; the chosen networks are
    trained with all seeds and see the test samples once. What is trained is kept in OUT/cells: the same command goes on
    where it was stopped.

    Examples: `neuro compare --jobs 2`,
    `neuro compare --task mnist --rows all --seeds 5 --match both --epochs 20 --jobs 2 --out bill`,
    `neuro compare --task fashion-mnist --flip --rows dense,int8,switch,rate --quick`
    """
    wanted = tuple(ENTRIES) if rows == "all" else tuple(part.strip() for part in rows.split(","))
    if match not in (*MATCHES, "both"):
        raise ParameterError(f"--match must be accuracy, parameters or both, got {match!r}")
    if backend not in BACKENDS:
        raise ParameterError(f"--backend must be {', '.join(BACKENDS)}, got {backend!r}")
    try:
        widths = tuple(int(width) for width in hidden.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1:
        raise ParameterError(f"--hidden must be positive widths with commas, e.g. 300,100, got {hidden!r}")
    plan = Plan(hidden=widths, epochs=epochs, augment=ShiftFlip(shift, flip), chip=chip)
    _compare(
        Task(task, None if data_root is None else str(data_root), samples),
        wanted,
        tuple(range(seed, seed + seeds)),
        MATCHES if match == "both" else (match,),  # type: ignore[arg-type]
        plan,
        not quick,
        Pool(_cores(jobs), backend, address),  # type: ignore[arg-type]
        fresh,
        out,
        as_json,
    )


def _cores(jobs: int) -> int:
    return jobs or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else jobs or os.cpu_count() or 1


def _compare(
    task: Task,
    wanted: Sequence[str],
    seeds: Sequence[int],
    matches: Sequence[Match],
    plan: Plan,
    ladders: bool,
    pool: Pool,
    fresh: bool,
    out: Path,
    as_json: bool,
) -> None:
    began = time.perf_counter()
    load_chip(plan.chip)
    place = next(folder for folder in (out, *out.parents) if folder.exists())
    if not place.is_dir():
        raise ParameterError(f"--out {out}: {place} is a file; name a folder")
    try:
        found = protocol.compare(
            task, wanted, seeds=seeds, matches=matches, plan=plan, ladders=ladders, folder=out / "cells", fresh=fresh,
            pool=pool, say=say,
        )  # fmt: skip
    except KeyboardInterrupt:
        say(
            f"stopped; what is trained is kept in {out / 'cells'}: the same command goes on{' without --fresh' * fresh}"
        )
        raise typer.Exit(130) from None
    if found.sizeless:
        say(f"without a form of equal storage: {', '.join(found.sizeless)}")
    if found.stale:
        say(f"{found.stale} results in {out / 'cells'} are of another version of this code; --fresh measures them anew")
    tables = {match: rows_at(found, match) for match in found.lines if found.lines[match]}
    if not tables:
        reasons = "; ".join(f"{row}: {why}" for row, why in found.left_out.items())
        raise ParameterError(f"no row could be built: {reasons}")
    _show(found, tables, plan, out, as_json)
    say(f"{time.perf_counter() - began:.0f} s")
    if not as_json:
        names = " and ".join(f"{stem}.*" for stem in _stems(tables))
        typer.echo(f"Tables: {names} in {out}, as {', '.join(SUFFIXES)}\nReport: {out / 'report.html'}")


def _stems(tables: Mapping[Match, object]) -> dict[str, Match]:
    """The names of the files of tables: rows for the first, rows-MATCHING for another."""
    return {f"rows-{match}" if number else "rows": match for number, match in enumerate(tables)}


def _write(tables: Mapping[Match, list[Priced]], out: Path) -> None:
    """The tables as files; those that an earlier run left for a matching which is not among these go."""
    written = _stems(tables)
    for stem in ("rows", *(f"rows-{match}" for match in MATCHES)):
        for suffix in SUFFIXES:
            path = out / f"{stem}.{suffix}"
            if stem in written:
                report.write_rows(path, [one.row for one in tables[written[stem]]])
            else:
                path.unlink(missing_ok=True)


def _show(found: Outcome, tables: dict[Match, list[Priced]], plan: Plan, out: Path, as_json: bool) -> None:
    """Print the tables and write them and the page."""
    first, main = next(iter(tables.items()))
    rows = [one.row for one in main]
    split = found.book.task.split()
    equal = [one.row for one in tables.get("parameters", []) if tables["parameters"] is not main]
    fast = speeds(found, main)
    said = report.themes(rows, at_equal_parameters=equal, speeds=fast)
    title = f"{split.name}: spiking networks next to their rivals, {heading(first, found.ladders).lower()}"
    _write(tables, out)
    report.write_page(
        out / "report.html", rows, title=title, sections=sections(found, tables, fast), sentences=said,
        assumptions=assumptions(found, tables, plan),
        energy_notes=energy_notes(one for table in tables.values() for one in table),
    )  # fmt: skip
    if as_json:
        print_json({match: [one.row.as_dict() for one in table] for match, table in tables.items()})
        return
    printer = console()
    for match, table in tables.items():
        printer.print(heading(match, found.ladders), style="bold")
        printer.print(report.table([one.row for one in table], width=printer.width))
        printer.print()
    printer.print("What the numbers say", style="bold")
    for theme, sentences in said.items():
        for sentence in sentences[: TOLD.get(theme, 0)]:
            printer.print(f"- {sentence}", markup=False, highlight=False)
    untold = sum(max(0, len(sentences) - TOLD.get(theme, 0)) for theme, sentences in said.items())
    if untold:
        printer.print(f"{untold} more sentences are in the report.")
    for row, why in found.left_out.items():
        printer.print(f"Left out: {row}: {why}", markup=False, highlight=False)
