"""neuro chips: the chips that are known, and every number of one with its source."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from hardware_targets import chip as chip_room
from neuro.cli.arguments import Json, console, print_json


def chips(
    show: Annotated[str | None, typer.Option(help="Name of a chip, or a path to a .toml file.")] = None,
    as_json: Json = False,
) -> None:
    """List the chips, or show every number of one with its unit, status and source.

    Example: `neuro chips --show loihi2`
    """
    if show is not None:
        chip = chip_room.load_chip(show)
        keys = ("section", "quantity", "value", "status", "source")
        if as_json:
            print_json(
                {
                    "name": chip.name,
                    "title": chip.title,
                    "rows": [dict(zip(keys, row, strict=True)) for row in chip.rows()],
                    "notes": [*chip.notes, chip.sureness],
                }
            )
        else:
            console().print(chip)
        return
    found = [chip_room.load_chip(name) for name in chip_room.chips()]
    if as_json:
        print_json([{"name": chip.name, "title": chip.title, "family": chip.family} for chip in found])
        return
    table = Table("name", "family", "what it is", title="Chips")
    for chip in found:
        table.add_row(chip.name, chip.family, chip.title)
    console().print(table)
