"""Rows as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from neuro.report.row import Row
from neuro.report.sheet import LEGEND, Cell, Sheet, sheet

WIDE = 112
"""From this many characters on, every column stands alone; below, related columns share one, one above the other."""

ROOMY = 160
"""From this many characters on, the ranges of energies stand beside them."""

_PAIRS = (
    ("accuracy",),
    ("parameters_stored", "parameters_active"),
    ("macs", "accumulates"),
    ("spikes", "latency_ticks"),
    ("energy_operations_J", "energy_memory_J"),
    ("energy_chip_J",),
)
_SHORT = {
    "accuracy": "accuracy %",
    "parameters_stored": "stored par.",
    "parameters_active": "active par.",
    "macs": "MACs",
    "accumulates": "accumulates",
    "spikes": "spikes",
    "latency_ticks": "ticks",
    "energy_operations_J": "energy A",
    "energy_memory_J": "energy B",
    "energy_chip_J": "energy C",
}
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def table(rows: Sequence[Row], *, width: int = 120) -> Table:
    """A rich table with footnotes for notes and provenance; `width` in characters is what the terminal offers.

    Names are shown as they are: nothing in them is read as markup.
    """
    content = sheet(rows)
    drawn = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        min_width=min(width, 80),  # notes below are no wider than the table
        caption=_caption(content, width < ROOMY),
        caption_justify="left",
        caption_style="",
        header_style="bold",
    )
    drawn.add_column(Text("model"), justify="left", overflow="fold", min_width=12)
    place = {column: index for index, column in enumerate(content.columns, start=1)}
    pairs = ([column for column in pair if column in place] for pair in _PAIRS)
    groups = [[column] for column in content.columns] if width >= WIDE else list(filter(None, pairs))
    for group in groups:
        head = (
            content.headings[place[group[0]]]
            if width >= WIDE
            else Cell("\n".join(_SHORT[column] + _raised(content.headings[place[column]].marks) for column in group))
        )
        drawn.add_column(_styled(head), justify="right", no_wrap=True)
    ranges = width >= ROOMY
    for family, lines in content.groups:
        if family:
            drawn.add_row(Text(family, style="bold"))
        for cells in lines:
            stacked = [_stack([cells[place[column]] for column in group], ranges) for group in groups]
            drawn.add_row(_styled(cells[0]), *stacked, end_section=width < WIDE or cells is lines[-1])
    return drawn


def text(rows: Sequence[Row], *, width: int = 120) -> str:
    """The table as plain text, without colours."""
    console = Console(file=StringIO(), width=width, color_system=None, legacy_windows=False, emoji=False)
    with console.capture() as captured:
        console.print(table(rows, width=width))
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def _raised(marks: Sequence[int]) -> str:
    return "·".join(str(mark).translate(_RAISED) for mark in marks)


def _styled(cell: Cell, ranges: bool = False) -> Text:
    shown = Text(cell.text).append(_raised(cell.marks), style="dim")
    return shown.append(f" ({cell.range})", style="dim") if ranges and cell.range else shown


def _stack(cells: Sequence[Cell], ranges: bool) -> Text:
    return Text("\n").join(_styled(cell, ranges) for cell in cells)


def _caption(content: Sheet, narrow: bool) -> Text:
    hidden = narrow and any(cell.range for line in content.cells for cell in line)
    legend = f"{LEGEND} Ranges of energies show from {ROOMY} columns on." if hidden else LEGEND
    notes = (f"{_raised((number,))} {note}" for number, note in enumerate(content.footnotes, start=1))
    return Text("\n".join((legend, *notes)), style="dim")
