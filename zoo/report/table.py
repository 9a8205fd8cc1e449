"""A table that can be sorted by any column."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from markupsafe import Markup

Value = float | int | str | None


@dataclass(frozen=True)
class Column:
    """A column's heading, a note shown on hovering, and which of its values is the best (``""``: none)."""

    title: str
    note: str = ""
    best: Literal["high", "low", ""] = ""


@dataclass(frozen=True)
class Cell:
    """The content of a cell, and its sort key.

    Attributes:
        text: shown; escaped unless it is Markup.
        value: the sort key: numbers by size, texts by alphabet, None last.
        tone: ``good``, ``bad`` or ``""``.
        is_bound: whether the true value may be worse, so that an equal exact value counts as better.
    """

    text: str | Markup
    value: Value = None
    tone: Literal["good", "bad", ""] = ""
    is_bound: bool = False

    @property
    def sort_key(self) -> str:
        """The value as the page's script reads it."""
        if self.value is None or (isinstance(self.value, float) and math.isnan(self.value)):
            return ""
        return repr(self.value) if isinstance(self.value, float | int) else self.value

    @property
    def is_number(self) -> bool:
        """Whether the cell is aligned and sorted as a number."""
        return isinstance(self.value, float | int)


def text(value: str) -> Cell:
    """Return a cell of text."""
    return Cell(value, value)


def number(value: float | None, form: str = "{:,.4g}") -> Cell:
    """Return a cell of a number, or a dash without one."""
    return Cell("–") if value is None else Cell("∞" if value == math.inf else form.format(value), value)


def percent(value: float | None, digits: int = 1) -> Cell:
    """Return a cell of a share in 0..1, or a dash without one."""
    return Cell("–") if value is None else Cell(f"{100 * value:.{digits}f}", value)


@dataclass(frozen=True)
class Table:
    """Rows under headings. The first column stays in view when the table is wider than the screen.

    Attributes:
        columns: the headings.
        rows: one cell per column.
        caption: one line above, or ``""``.
    """

    template: ClassVar[str] = "table.html"
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells under {len(self.columns)} columns")

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers."""
        return [any(row[j].is_number for row in self.rows) for j in range(len(self.columns))]

    def is_best(self, row: Sequence[Cell], column: int) -> bool:
        """Return whether a cell is the best of its column, by the column's rule, among at least two that differ."""
        direction, value = self.columns[column].best, row[column].value
        if not direction or not row[column].is_number:
            return False
        cells = [r[column] for r in self.rows if r[column].is_number]
        certain = [cell for cell in cells if not cell.is_bound] or cells
        best = (max if direction == "high" else min)(cell.value for cell in certain)  # type: ignore[type-var]
        return row[column] in certain and value == best and len({cell.value for cell in cells}) > 1
