"""Rows of a comparison become a terminal table, an offline HTML page, plots and sentences."""

from neuro.report import plots
from neuro.report.conclusions import conclusions, themes
from neuro.report.export import to_csv, to_json, to_latex, write_rows
from neuro.report.page import Section, page, write_page
from neuro.report.rivalry import Speed
from neuro.report.row import Provenance, Row
from neuro.report.table import table, text

__all__ = [
    "Provenance",
    "Row",
    "Section",
    "Speed",
    "conclusions",
    "page",
    "plots",
    "table",
    "text",
    "themes",
    "to_csv",
    "to_json",
    "to_latex",
    "write_page",
    "write_rows",
]
