"""What shows itself as a table: everything as it is, and no column without anything in it."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from neuro.shown import Sheet, Shown, without_empty_columns


@dataclass(frozen=True)
class Page(Shown):
    rows: tuple[tuple[str, ...], ...]

    def sheet(self) -> Sheet:
        return "title", ("what", "range", "source"), self.rows, ("a note",)


@given(st.lists(st.tuples(*[st.sampled_from(["", "x", "y"])] * 3), min_size=1))
def test_a_column_stays_where_any_row_has_something(rows: list[tuple[str, ...]]) -> None:
    title, headings, cells, notes = without_empty_columns(Page(tuple(rows)).sheet())
    for number, heading in enumerate(("what", "range", "source")):
        column = [row[number] for row in rows]
        assert (heading in headings) == any(column)
        if heading in headings:
            assert [row[list(headings).index(heading)] for row in cells] == column
    assert (title, notes) == ("title", ("a note",))


def test_terminal_and_notebook_leave_it_out() -> None:
    page = Page((("a100", "", "[b]datasheet[/b]"),))
    for shown in (str(page), page._repr_html_()):
        assert "range" not in shown
        assert "[b]datasheet[/b]" in shown
    assert "range" in str(Page(())), "a table without rows keeps its headings"
