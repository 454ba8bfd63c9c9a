"""Rows of a comparison become a terminal table, an offline HTML page, plots and sentences."""

from neuro.report import plots
from neuro.report.conclusions import conclusions
from neuro.report.page import Section, page, write_page
from neuro.report.row import Provenance, Row
from neuro.report.table import table, text

__all__ = ["Provenance", "Row", "Section", "conclusions", "page", "plots", "table", "text", "write_page"]
