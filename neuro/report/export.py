"""Rows for other programs: CSV, JSON, JSON lines, LaTeX and HTML. Numbers keep every digit, except in print."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from neuro.atomic import replacing
from neuro.errors import ParameterError
from neuro.report.latex import to_latex
from neuro.report.page import page
from neuro.report.row import COLUMNS, ENERGIES, Row

__all__ = ["FORMATS", "FORMULA", "to_csv", "to_json", "to_json_lines", "to_latex", "write_rows"]

FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")
"""How a text starts that a spreadsheet would take for a formula (full-width signs too), and the sign against it."""


def to_csv(rows: Sequence[Row]) -> str:
    """Comma-separated values: one line of headings, one line a row, in the order given.

    Energies are in joules, accuracies fractions, ranges two columns; `provenance` and `notes` hold their parts with
    "; " between, and `provenance` says of an empty energy why it is empty. Empty means not known, never zero.
    `float(cell)` gives back every number bit for bit. A text that a spreadsheet would run as a formula has an
    apostrophe before it, and so has a text that starts with one.
    """
    lines = [_flat(row) for row in rows]
    held = io.StringIO()
    writer = csv.DictWriter(held, _flat(Row("none")), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return held.getvalue()


def to_json(rows: Sequence[Row]) -> str:
    """A JSON array with one object a row, keys as in `Row.as_dict`."""
    return "[\n" + ",\n".join(row.to_json() for row in rows) + "\n]\n" if rows else "[]\n"


def to_json_lines(rows: Sequence[Row]) -> str:
    """One JSON object a line; `Row.from_json` reads each."""
    return "".join(f"{row.to_json()}\n" for row in rows)


def write_rows(path: str | Path, rows: Sequence[Row], *, title: str = "Comparison") -> Path:
    """Write `rows` in the format of the suffix, whole or not at all: .csv, .json, .jsonl, .tex or .html.

    title: the heading of an HTML page. Raises ParameterError for another suffix, FileError where the folder refuses.
    """
    target = Path(path)
    text = _format(target)(rows, title)
    with replacing(target) as part:
        part.write_text(text, encoding="utf-8")
    return target


FORMATS: dict[str, Callable[[Sequence[Row], str], str]] = {
    ".csv": lambda rows, title: to_csv(rows),
    ".json": lambda rows, title: to_json(rows),
    ".jsonl": lambda rows, title: to_json_lines(rows),
    ".tex": lambda rows, title: to_latex(rows),
    ".html": lambda rows, title: page(rows, title=title),
}
"""What `write_rows` knows, by suffix."""


def _format(path: Path) -> Callable[[Sequence[Row], str], str]:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ParameterError(f"{path}: cannot write rows as {suffix or 'a file without suffix'!r}; use {_known()}")
    return FORMATS[suffix]


def _known() -> str:
    return ", ".join(FORMATS)


def _flat(row: Row) -> dict[str, str]:
    cells = {"model": _text(row.model), "family": _text(row.family or "")}
    cells |= {"seeds": _number(row.seeds), "samples": _number(row.samples)}
    for column in COLUMNS:
        cells[column] = _number(getattr(row, column))
        if column in ENERGIES:
            low, high = getattr(row, f"{column}_range") or (None, None)
            cells |= {f"{column}_low": _number(low), f"{column}_high": _number(high)}
    known = [f"{column}: {known}" for column, known in row.provenance.items() if getattr(row, column) is not None]
    empty = [column for column in ENERGIES if getattr(row, column) is None]
    known += [f"{column}: empty: {row.why_unpriced(column) or 'no table of prices was named'}" for column in empty]
    return cells | {"provenance": _text(_joined(known)), "notes": _text(_joined(row.notes))}


def _joined(parts: Iterable[str]) -> str:
    return "; ".join(part.removesuffix(".") for part in parts)


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def _text(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text
