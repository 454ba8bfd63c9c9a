"""Rows as one HTML page that needs nothing but itself: no network, no server, no second file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import cast

import plotly.graph_objects as go
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from neuro import shown
from neuro.atomic import replacing
from neuro.errors import ShapeError
from neuro.report.conclusions import themes
from neuro.report.row import UNCONFIRMED, Row
from neuro.report.sheet import LEGEND, NOTHING, sheet
from neuro.report.style import family_colours

_AMOUNT = r"[-+]?[\d.,]+(?: ?%| [afpnµmkMGT]?[A-Za-z]{0,3})?"
_NUMBER = re.compile(rf"{NOTHING}|none|unknown|(?:(?:x )?{_AMOUNT}(?: to {_AMOUNT})?(?: \(.*\))?)?")


@dataclass(frozen=True, eq=False)
class Section:
    """A heading, what one sees (paragraphs end at blank lines), a plot, and a list that opens on demand.

    Below stand `rows`, as a second table of the form of the first, and `table`, headings and cells of any other kind.
    """

    title: str
    text: str
    figure: go.Figure | None = None
    details: tuple[str, ...] = ()
    details_title: str = "Details"
    rows: Sequence[Row] = ()
    table: shown.Sheet | shown.Shown | None = None

    @property
    def paragraphs(self) -> list[str]:
        return [" ".join(part.split()) for part in self.text.split("\n\n") if part.strip()]

    @property
    def wide(self) -> bool:
        """Whether the figure asks for the whole width."""
        return self.figure is not None and bool((self.figure.layout.meta or {}).get("wide"))

    @property
    def cells(self) -> shown.Sheet | None:
        """Title, headings, rows and notes of the table, without columns that are empty in every row.

        ShapeError where a row is not as long as the headings.
        """
        found = self.table.sheet() if isinstance(self.table, shown.Shown) else self.table
        if found is None:
            return None
        _, headings, lines, _ = found
        if any(len(line) != len(headings) for line in lines):
            raise ShapeError(
                f"section {self.title!r}: every row of its table needs {len(headings)} cells, one a heading"
            )
        return shown.without_empty_columns(found)

    @property
    def numbers(self) -> list[bool]:
        """Which columns of `cells` hold numbers."""
        if self.cells is None:
            return []
        columns = list(zip(*self.cells[2], strict=True))
        return [all(_NUMBER.fullmatch(cell) for cell in column) for column in columns]


def page(
    rows: Sequence[Row],
    *,
    title: str,
    sections: Sequence[Section] = (),
    assumptions: Sequence[str] = (),
    energy_notes: Sequence[str] = (),
    sentences: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The comparison as HTML. Equal arguments give equal bytes.

    Beside what is given, the page lists the conclusions that follow from the rows, how every number is known, and every
    number that is assumed or recalled. `sentences`: the conclusions, by theme or not, where more is known than the rows
    of the first table. All texts are escaped. A content security policy forbids any request.
    """
    more = [row for section in sections for row in section.rows]
    sheets = [sheet(section.rows) if section.rows else None for section in sections]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["prose"] = _prose
    template = environment.from_string(_read("page.html.j2"))
    return template.render(
        title=title,
        rows=rows,
        sheet=sheet(rows),
        legend=LEGEND,
        conclusions=_by_theme(themes(rows) if sentences is None else sentences),
        sections=[(section, _embedded(section.figure), below) for section, below in zip(sections, sheets, strict=True)],
        assumptions=[*assumptions, *_unconfirmed([*rows, *more], assumptions)],
        colours=family_colours([*rows, *more]),
        energy_notes=energy_notes,
        css=Markup(_read("page.css")),
        plotly=Markup(get_plotlyjs()) if any(section.figure is not None for section in sections) else None,
    )


def write_page(
    path: str | Path,
    rows: Sequence[Row],
    *,
    title: str,
    sections: Sequence[Section] = (),
    assumptions: Sequence[str] = (),
    energy_notes: Sequence[str] = (),
    sentences: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write the page to `path`, whole or not at all. Raises FileError where the folder refuses."""
    target = Path(path)
    text = page(
        rows, title=title, sections=sections, assumptions=assumptions, energy_notes=energy_notes, sentences=sentences
    )
    with replacing(target) as part:
        part.write_text(text, encoding="utf-8")
    return target


def _by_theme(sentences: Sequence[str] | Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Themes only where there is more than one."""
    if not isinstance(sentences, Mapping):
        return {"": sentences} if sentences else {}
    return dict(zip([""], sentences.values(), strict=True)) if len(sentences) == 1 else dict(sentences)


def _prose(text: str) -> Markup:
    """`text` escaped, what stands between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _embedded(figure: go.Figure | None) -> Markup | None:
    """A figure as JSON that cannot end the script element it stands in."""
    if figure is None:
        return None
    text = cast(str, figure.to_json())
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _unconfirmed(rows: Sequence[Row], said: Sequence[str]) -> list[str]:
    """The assumed and recalled sources of the rows that are not among the assumptions already."""
    found = (str(known) for row in rows for known in row.provenance.values() if known.how in UNCONFIRMED)
    return [text for text in dict.fromkeys(found) if text not in said]
