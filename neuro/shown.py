"""Values that show themselves as a titled table with notes: in a terminal and in a notebook, from one description."""

from __future__ import annotations

import html
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

WIDTH = 120
"""Columns of `str(value)`, whatever the terminal."""

Sheet = tuple[str, Sequence[str], Sequence[Sequence[str]], Sequence[str]]


def many(count: int, thing: str) -> str:
    """A number of things.

    >>> many(1, "core"), many(1200, "core")
    ('1 core', '1,200 cores')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def without_empty_columns(sheet: Sheet) -> Sheet:
    """The same less the columns that are empty in every row."""
    title, headings, rows, notes = sheet
    full = [number for number in range(len(headings)) if not rows or any(row[number] for row in rows)]
    return title, [headings[number] for number in full], [[row[number] for number in full] for row in rows], notes


class Shown(ABC):
    """Anything with a title, headings, rows and notes. Every text is shown as it is, markup escaped, and columns that
    are empty in every row are left out."""

    @abstractmethod
    def sheet(self) -> Sheet:
        """Title, headings, rows and notes."""

    def _repr_html_(self) -> str:
        title, headings, rows, notes = without_empty_columns(self.sheet())
        head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        below = "<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>" if notes else ""
        caption = f"<caption>{html.escape(title)}</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"

    def __str__(self) -> str:
        from rich.console import Console

        page = Console(file=io.StringIO(), width=WIDTH, color_system=None)
        page.print(self)
        return page.file.getvalue().rstrip()  # type: ignore[attr-defined]

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Column, Table
        from rich.text import Text

        title, headings, rows, notes = without_empty_columns(self.sheet())
        table = Table(*(Column(heading, overflow="fold") for heading in headings), title=Text(title))
        for row in rows:
            table.add_row(*map(Text, row))
        return Group(table, *(Text(f"- {note}") for note in notes))
