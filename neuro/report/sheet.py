"""The content of the comparison table, once, for the terminal and for the page: headings, cells, footnotes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from neuro.report.row import ENERGIES, Row

NOTHING = "–"
WITHOUT_FAMILY = "other"

HEADINGS = {
    "accuracy": ("accuracy", "%"),
    "parameters_stored": ("parameters", "stored"),
    "parameters_active": ("parameters", "active"),
    "macs": ("MACs", "dense"),
    "accumulates": ("accumu-", "lates"),
    "spikes": ("spikes", ""),
    "energy_operations_J": ("energy A", "operations"),
    "energy_memory_J": ("energy B", "with memory"),
    "energy_chip_J": ("energy C", "device"),
    "latency_ticks": ("latency", "ticks"),
}

LEGEND = (
    "Counts, energies and ticks are per inference. Energy A prices operations, B operations and memory traffic, "
    "C uses constants of a device: three models, never added or compared with each other. Of two rows one needs less "
    "where it does so for all prices within their ranges, a shared price being the same in both; else it is undecided. "
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
    (1e-15, "f"),
    (1e-18, "a"),
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


def significant(value: float) -> str:
    """Three significant digits of a plain number, such as a ratio.

    >>> significant(5840.0), significant(17), significant(0.2149), significant(0.0000576), significant(2.56e7)
    ('5,840', '17', '0.215', '0.0000576', '25.6 M')
    """
    rounded = float(f"{value:.3g}")
    if not 1e-6 <= abs(rounded) < 1e6:
        return engineering(rounded)
    digits = max(0, 2 - math.floor(math.log10(abs(rounded))))
    text = f"{rounded:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def span(low: float, high: float, unit: str = "") -> str:
    """A range, its unit once where both ends share it.

    >>> span(4e-8, 9.1e-8, "J"), span(4e-8, 2e-6, "J")
    ('40.0–91.0 nJ', '40.0 nJ–2.00 µJ')
    """
    ends = [engineering(end, unit) for end in (low, high)]
    (first, *prefix), (_, *other) = (end.split(" ") for end in ends)
    return f"{first if prefix == other else ends[0]}–{ends[1]}"


@dataclass(frozen=True)
class Cell:
    """Text, the numbers of its footnotes, the exact value for those who point at it, and its range."""

    text: str
    marks: tuple[int, ...] = ()
    exact: str = ""
    range: str = ""


@dataclass(frozen=True)
class Sheet:
    """`headings` and each row of `cells` start with the model; `footnotes[i]` is footnote i + 1.

    `families[i]` is the family of the row cells[i]; rows of one family follow each other. Empty where no row has one.
    """

    columns: tuple[str, ...]
    headings: tuple[Cell, ...]
    cells: tuple[tuple[Cell, ...], ...]
    footnotes: tuple[str, ...]
    families: tuple[str, ...] = ()

    @property
    def groups(self) -> list[tuple[str, list[tuple[Cell, ...]]]]:
        """(family, its rows) in order; one nameless group where rows have no families."""
        found: dict[str, list[tuple[Cell, ...]]] = {}
        for family, line in zip(self.families or [""] * len(self.cells), self.cells, strict=True):
            found.setdefault(family, []).append(line)
        return list(found.items())


def family_of(row: Row) -> str:
    return row.family or WITHOUT_FAMILY


def by_family(rows: Sequence[Row]) -> list[Row]:
    """Rows of one family together, families and rows in the order in which they first come."""
    order = list(dict.fromkeys(map(family_of, rows)))
    return sorted(rows, key=lambda row: order.index(family_of(row)))


def sheet(rows: Sequence[Row]) -> Sheet:
    """The table of `rows`, family by family. A provenance all rows share marks the heading, another one its cell.

    Columns of which no row knows anything are left out.
    """
    rows = by_family(rows)
    footnotes: dict[str, int] = {}

    def mark(text: str) -> tuple[int, ...]:
        return (footnotes.setdefault(text, len(footnotes) + 1),)

    told = [column for column in HEADINGS if not rows or any(_text(row, column) != NOTHING for row in rows)]
    headings = [Cell("model")]
    shared: set[str] = set()
    for column in told:
        known = {row.provenance.get(column) for row in rows if getattr(row, column) is not None}
        common = known.pop() if len(known) == 1 else None
        if common is not None:
            shared.add(column)
        headings.append(Cell("\n".join(HEADINGS[column]), mark(str(common)) if common is not None else ()))
    cells = []
    for row in rows:
        line = [Cell(row.model, sum((mark(note) for note in row.notes), ()))]
        for column in told:
            known_here = row.provenance.get(column) if getattr(row, column) is not None else None
            marks = mark(str(known_here)) if known_here is not None and column not in shared else ()
            spread = row.provenance.get("accuracy_sd") if column == "accuracy" and row.accuracy_sd is not None else None
            if spread is not None and spread != known_here:
                marks += mark(f"the deviation is {spread}")
            reason = row.why_unpriced(column) if column in ENERGIES else None
            if reason is not None:
                marks += mark(f"n/a ({reason})")
            line.append(Cell(_text(row, column), marks, _exact(row, column), _range(row, column)))
        cells.append(tuple(line))
    families = tuple(map(family_of, rows)) if any(row.family for row in rows) else ()
    return Sheet(tuple(told), tuple(headings), tuple(cells), tuple(footnotes), families)


def _range(row: Row, column: str) -> str:
    ends = row.range_of(column) if column in ENERGIES else None
    shown = ends is not None and engineering(ends[0], "J") != engineering(ends[1], "J")
    return span(*ends, "J") if ends is not None and shown else ""


def _text(row: Row, column: str) -> str:
    value = getattr(row, column)
    if value is None:
        return NOTHING if column not in ENERGIES or row.why_unpriced(column) is None else "n/a"
    if column == "accuracy":
        spread = "" if row.accuracy_sd is None else f" ± {100 * row.accuracy_sd:.2f}"
        return f"{100 * value:.2f}{spread}"
    return engineering(value, "J" if column.startswith("energy") else "")


def _exact(row: Row, column: str) -> str:
    value = getattr(row, column)
    if value is None:
        return ""
    if column.startswith("energy"):
        ends = _range(row, column)
        return f"{value:.6g} J" + (f", {ends}" if ends else "")
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}"
