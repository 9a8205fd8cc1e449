"""The frame of a page: one self-contained HTML file with its style, its script and nothing from elsewhere.

A page is sections of blocks; a block is a text, a gallery of charts, a table, or blocks that unfold. The templates
escape every text in them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from markupsafe import Markup

from zoo._version import __version__
from zoo.report import svg
from zoo.report.chart import Chart, Heatmap, Series, Style
from zoo.report.table import Table

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
STYLE = TEMPLATES / "style.css"
"""The style of every page, light and dark."""


@dataclass(frozen=True)
class Text:
    """A paragraph; ``warning`` sets it apart."""

    template: ClassVar[str] = "text.html"
    text: str
    warning: bool = False


@dataclass(frozen=True)
class Gallery:
    """Charts side by side, as many as the screen is wide for, under one legend of their series.

    Attributes:
        charts: to draw.
        small: many little ones, without axis labels.
    """

    template: ClassVar[str] = "gallery.html"
    charts: Sequence[Chart | Heatmap]
    small: bool = False

    @property
    def drawn(self) -> list[tuple[Chart | Heatmap, Markup]]:
        """Each chart with its picture."""
        return [(chart, svg.draw(chart, svg.SMALL if self.small else svg.FULL)) for chart in self.charts]

    @property
    def legend(self) -> list[tuple[str, Markup]]:
        """The name and sample of every series, once; a series whose colour varies has a neutral sample."""
        found: dict[str, list[Series]] = {}
        for series in self._series():
            found.setdefault(series.name, []).append(series)
        samples = []
        for name, same in found.items():
            style, line = same[0].style, any(series.kind != "points" for series in same)
            shared = len({series.style.color for series in same}) > 1
            samples.append((name, svg.swatch(Style(None, 0, style.dashed) if shared else style, line)))
        return samples

    def _series(self) -> Iterator[Series]:
        for chart in self.charts:
            if isinstance(chart, Chart):
                yield from (series for series in chart.series if series.kind != "front")


@dataclass(frozen=True)
class Details:
    """Blocks that unfold under a summary."""

    template: ClassVar[str] = "details.html"
    summary: str
    blocks: Sequence["Block"]
    is_open: bool = False


Block = Text | Gallery | Table | Details


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and a link to it in the page's menu.

    Attributes:
        anchor: letters and hyphens, unique on the page.
        title: the heading.
        blocks: its content.
    """

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    subtitle: str
    sections: Sequence[Section]

    def charts(self) -> Iterator[Chart | Heatmap]:
        """Yield every full-size chart, to be written to its own file."""
        for section in self.sections:
            yield from _charts(section.blocks)


def _charts(blocks: Sequence[Block]) -> Iterator[Chart | Heatmap]:
    for block in blocks:
        if isinstance(block, Details):
            yield from _charts(block.blocks)
        elif isinstance(block, Gallery) and not block.small:
            yield from block.charts


def render(page: Page) -> str:
    """Return a page as HTML."""
    return _environment().get_template("page.html").render(page=page, version=__version__)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
