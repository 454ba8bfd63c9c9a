"""neuro data: which data sets are known, where each was found, and what is in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from neuro import datasets
from neuro.datasets.split import Split


def data(
    name: Annotated[str | None, typer.Argument(help="A known data set, or a path; none: list what is known.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder that holds mnist/, fashion-mnist/, ...")] = None,
    download: Annotated[bool, typer.Option("--download", help="Allow the network for a set found nowhere.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """List the known data sets with where each was found or what to do, or show one of them."""
    if name is None:
        rows = listing(data_root)
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
        else:
            Console().print(_listing_table(rows))
        return
    summary = describe(datasets.load(name, data_root, download=download))
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        _print_summary(summary)


def listing(data_root: Path | None) -> list[dict[str, Any]]:
    """One row per known data set: name, about, found (where, or None), advice (what to do, or None)."""
    rows = []
    for name, source in datasets.SOURCES.items():
        found = source.find(data_root)
        advice = None if found else source.advice(data_root)
        rows.append({"name": name, "about": source.about, "found": found, "advice": advice})
    return rows


def describe(split: Split) -> dict[str, Any]:
    """What is in a data set, as plain values: shapes, sizes and label counts of its parts, classes, provenance."""
    return {
        "name": split.name,
        "sample_shape": list(split.features),
        "classes": list(split.classes),
        "parts": {
            part: {"samples": len(y), "shape": list(x.shape), "label_counts": split.label_counts(part)}
            for part, (x, y) in split.parts.items()
        },
        "provenance": split.provenance,
    }


def _listing_table(rows: list[dict[str, Any]]) -> Table:
    where_column = Column("where, or what to do", overflow="fold")
    table = Table(Column("name", no_wrap=True), "what it is", where_column, title="Data sets", show_lines=True)
    for row in rows:
        where = (
            f"[green]{_plain(row['found'])}[/]" if row["found"] else f"[yellow]not found:[/] {_plain(row['advice'])}"
        )
        table.add_row(row["name"], row["about"], where)
    return table


def _print_summary(summary: dict[str, Any]) -> None:
    table = Table(
        "class", *summary["parts"], title=f"{_plain(summary['name'])}: samples {tuple(summary['sample_shape'])}"
    )
    for index, label in enumerate(summary["classes"]):
        table.add_row(_plain(label), *(f"{part['label_counts'][index]:,}" for part in summary["parts"].values()))
    table.add_section()
    table.add_row("all", *(f"{part['samples']:,}" for part in summary["parts"].values()))
    console = Console()
    console.print(table)
    console.print(summary["provenance"], markup=False, highlight=False)


def _plain(text: str) -> str:
    """Text that rich prints as it is, whatever brackets a path or class name holds."""
    return text.replace("[", r"\[")
