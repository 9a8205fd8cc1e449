"""A report on finished runs: one self-contained HTML page, its charts as PNG, its figures as JSON."""

from zoo.report.page import STYLE, Details, Gallery, Page, Section, Text, render
from zoo.report.table import Cell, Column, Table
from zoo.report.write import Written, write_report

__all__ = [
    "STYLE",
    "Cell",
    "Column",
    "Details",
    "Gallery",
    "Page",
    "Section",
    "Table",
    "Text",
    "Written",
    "render",
    "write_report",
]
