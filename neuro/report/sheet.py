"""The content of the comparison table, once, for the terminal and for the page: headings, cells, footnotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neuro.report.row import Row

NOTHING = "–"

HEADINGS = {
    "accuracy": ("accuracy", "%"),
    "parameters_stored": ("parameters", "stored"),
    "parameters_active": ("parameters", "active"),
    "macs": ("MACs", "dense"),
    "accumulates": ("accumu-", "lates"),
    "spikes": ("spikes", ""),
    "energy_operations_J": ("energy A", "operations"),
    "energy_memory_J": ("energy B", "with memory"),
    "energy_chip_J": ("energy C", "chip"),
    "latency_ticks": ("latency", "ticks"),
}

LEGEND = (
    "Counts, energies and ticks are per inference. Energy A prices operations, B operations and memory traffic, "
    "C uses constants of a chip: three models, never added or compared with each other. "
    f"{NOTHING} means that a column does not apply or is not known."
)

_PREFIXES = (
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "µ"),
    (1e-9, "n"),
    (1e-12, "p"),
)


def engineering(value: float, unit: str = "") -> str:
    """Three significant digits and a prefix.

    >>> engineering(6.12e-8, "J"), engineering(266200), engineering(12), engineering(999_960)
    ('61.2 nJ', '266 k', '12', '1.00 M')
    """
    if value == 0 or (not unit and value == int(value) and value < 1000):
        return f"{value:.0f} {unit}".strip()
    scale, prefix = next((pair for pair in _PREFIXES if value >= 0.9995 * pair[0]), (0.0, ""))
    if not scale or value >= 9995 * scale:
        return f"{value:.2e} {unit}".strip()
    scaled = value / scale
    digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    return f"{scaled:.{digits}f} {prefix}{unit}".strip()


@dataclass(frozen=True)
class Cell:
    """Text, the numbers of its footnotes, and the exact value for those who point at it."""

    text: str
    marks: tuple[int, ...] = ()
    exact: str = ""


@dataclass(frozen=True)
class Sheet:
    """`headings` and each row of `cells` start with the model; `footnotes[i]` is footnote i + 1."""

    columns: tuple[str, ...]
    headings: tuple[Cell, ...]
    cells: tuple[tuple[Cell, ...], ...]
    footnotes: tuple[str, ...]


def sheet(rows: Sequence[Row]) -> Sheet:
    """The table of `rows`. A provenance all rows share marks the heading, another one marks its cell."""
    footnotes: dict[str, int] = {}

    def mark(text: str) -> tuple[int, ...]:
        return (footnotes.setdefault(text, len(footnotes) + 1),)

    headings = [Cell("model")]
    shared: set[str] = set()
    for column, title in HEADINGS.items():
        known = {row.provenance.get(column) for row in rows if getattr(row, column) is not None}
        common = known.pop() if len(known) == 1 else None
        if common is not None:
            shared.add(column)
        headings.append(Cell("\n".join(title), mark(str(common)) if common is not None else ()))
    cells = []
    for row in rows:
        line = [Cell(row.model, sum((mark(note) for note in row.notes), ()))]
        for column in HEADINGS:
            known_here = row.provenance.get(column) if getattr(row, column) is not None else None
            marks = mark(str(known_here)) if known_here is not None and column not in shared else ()
            spread = row.provenance.get("accuracy_sd") if column == "accuracy" and row.accuracy_sd is not None else None
            if spread is not None and spread != known_here:
                marks += mark(f"the deviation is {spread}")
            line.append(Cell(_text(row, column), marks, _exact(row, column)))
        cells.append(tuple(line))
    return Sheet(tuple(HEADINGS), tuple(headings), tuple(cells), tuple(footnotes))


def _text(row: Row, column: str) -> str:
    value = getattr(row, column)
    if value is None:
        return NOTHING
    if column == "accuracy":
        spread = "" if row.accuracy_sd is None else f" ± {100 * row.accuracy_sd:.2f}"
        return f"{100 * value:.2f}{spread}"
    return engineering(value, "J" if column.startswith("energy") else "")


def _exact(row: Row, column: str) -> str:
    value = getattr(row, column)
    if value is None:
        return ""
    if column.startswith("energy"):
        return f"{value:.6g} J"
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}"
