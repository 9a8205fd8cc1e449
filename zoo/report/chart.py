"""Charts as data, independent of the drawing. `zoo.report.svg` and `zoo.report.png` draw them."""

from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: its quantity, with the unit.
        log: whether its scale is logarithmic; values <= 0 are then left out.
        percent: whether values in 0..1 are written as percentages.
        limits: the first and last value; None: those of the data.
        whole: whether its labels are whole numbers only.
    """

    label: str = ""
    log: bool = False
    percent: bool = False
    limits: tuple[float | None, float | None] = (None, None)
    whole: bool = False


@dataclass(frozen=True)
class Style:
    """The style of one series, the same in every chart of a page.

    Attributes:
        color: index into the page's colours; None: neutral, for lines that all series share.
        marker: index into `MARKERS`.
        dashed: whether its line is.
    """

    color: int | None = 0
    marker: int = 0
    dashed: bool = False


MARKERS = ("circle", "square", "triangle", "diamond", "pentagon")
COLORS = 8
"""The number of colours of a page."""


@dataclass(frozen=True)
class Series:
    """Named points, joined by a line or separate.

    Attributes:
        name: for the legend and the points' tooltips.
        points: (x, y), in the order in which a line joins them.
        kind: ``line`` with markers, ``plain`` line without, ``points`` alone, or ``front``: the steps of a
            Pareto front, in the background.
    """

    name: str
    points: tuple[Point, ...]
    style: Style = Style()
    kind: Literal["line", "plain", "points", "front"] = "line"


@dataclass(frozen=True)
class Chart:
    """Series on two axes.

    Attributes:
        name: of its picture's file, without ending.
        title: in a few words.
        series: to draw.
        note: what a reader must know to read it, or ``""``.
    """

    name: str
    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    note: str = ""


@dataclass(frozen=True)
class Heatmap:
    """A value for every pair of a row and a column, as a colour.

    Attributes:
        name, title, note: see `Chart`.
        rows: their names, from the top.
        columns: their names, from the left.
        values: one list per row; None: nothing there.
        log: whether colours follow the logarithm.
        column_label: name of the columns' quantity.
    """

    name: str
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    log: bool = False
    column_label: str = ""
    note: str = ""

    def extent(self) -> tuple[float, float]:
        """Return the smallest and the largest value on the scale (without values: those of an empty scale)."""
        found = [
            v for row in self.values for v in row if v is not None and v < float("inf") and (v > 0 or not self.log)
        ]
        return (min(found), max(found)) if found else (1.0, 10.0) if self.log else (0.0, 1.0)
