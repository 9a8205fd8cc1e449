"""Charts as inline SVG: text stays text, and colours are the page's own, so they follow its light or dark theme."""

import math
from dataclasses import dataclass

from markupsafe import Markup

from zoo.report.chart import COLORS, Chart, Heatmap, Point, Series, Style
from zoo.report.scale import Scale, short


@dataclass(frozen=True)
class Size:
    """A drawing's size and the margins of its plot, in pixels at scale 1: the width of a phone."""

    width: float = 380
    height: float = 250
    left: float = 48
    right: float = 14
    top: float = 10
    bottom: float = 40
    ticks: int = 5
    radius: float = 4.5

    def at(self, x: float, y: float) -> Point:
        """Return the place of a point of the plot, whose corners are (0, 0) and (1, 1)."""
        return (
            self.left + x * (self.width - self.left - self.right),
            self.height - self.bottom - y * (self.height - self.top - self.bottom),
        )


FULL = Size()
SMALL = Size(width=176, height=110, left=30, right=6, top=6, bottom=18, ticks=3, radius=1.6)
ROW, LABELS = 15.0, 126.0
"""Height of a heatmap's row, width of its rows' names."""


def draw(chart: Chart | Heatmap, size: Size = FULL) -> Markup:
    """Return a chart as one ``svg`` element; every text in it is escaped."""
    return _heatmap(chart) if isinstance(chart, Heatmap) else _chart(chart, size)


def swatch(style: Style, line: bool = True) -> Markup:
    """Return the sample of a series for a legend."""
    stroke = _path([(1, 7), (25, 7)], f"line {_color(style)}{' dashed' if style.dashed else ''}") if line else ""
    return Markup(
        '<svg class="swatch" viewBox="0 0 26 14" width="26" height="14" aria-hidden="true">{}{}</svg>'
    ).format(stroke, _marker(13, 7, 4, style, ""))


def _chart(chart: Chart, size: Size) -> Markup:
    points = [p for series in chart.series for p in series.points]
    x, y = Scale.of(chart.x, [p[0] for p in points]), Scale.of(chart.y, [p[1] for p in points])
    order = sorted(chart.series, key=lambda s: s.kind != "front")
    parts = [_axes(chart, x, y, size), *(_series(series, x, y, size) for series in order)]
    return _svg(size.width, size.height, chart.title, parts)


def _svg(width: float, height: float, title: str, parts: list[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>').format(
        width, height, title, Markup("").join(parts)
    )


def _axes(chart: Chart, x: Scale, y: Scale, size: Size) -> Markup:
    parts = []
    for value in x.ticks(size.ticks):
        place = size.at(x.place(value) or 0.0, 0)
        parts.append(_path([place, (place[0], size.top)], "grid"))
        parts.append(_text(place[0], place[1] + 14, x.text(value), "middle", "tick"))
    for value in y.ticks(size.ticks):
        place = size.at(0, y.place(value) or 0.0)
        parts.append(_path([place, (size.width - size.right, place[1])], "grid"))
        parts.append(_text(place[0] - 5, place[1] + 3.5, y.text(value), "end", "tick"))
    parts.append(_path([size.at(0, 0), size.at(1, 0)], "axis"))
    if chart.x.label:
        parts.append(_text(size.at(0.5, 0)[0], size.height - 6, chart.x.label, "middle", "label"))
    return Markup("").join(parts)


def _series(series: Series, x: Scale, y: Scale, size: Size) -> Markup:
    places: list[tuple[Point, Point]] = []
    for point in series.points:
        at = x.place(point[0]), y.place(point[1])
        if at[0] is not None and at[1] is not None:
            places.append((point, size.at(at[0], at[1])))
    color = _color(series.style)
    parts = []
    if series.kind == "front":
        return _path([place for _, place in places], "front")
    if series.kind in ("line", "plain") and len(places) > 1:
        parts.append(_path([place for _, place in places], f"line {color}{' dashed' if series.style.dashed else ''}"))
    if series.kind != "plain":
        for point, place in places:
            tip = f"{series.name}: {x.text(point[0])}, {_precise(y, point[1])}"
            radius = 1.25 * size.radius if series.kind == "points" else size.radius
            parts.append(_marker(*place, radius, series.style, tip))
    return Markup("").join(parts)


def _precise(scale: Scale, value: float) -> str:
    return f"{100 * value:.2f}%" if scale.axis.percent else f"{value:.5g}"


def _color(style: Style) -> str:
    return "plain" if style.color is None else f"c{style.color % COLORS}"


def _path(points: list[Point], css: str) -> Markup:
    steps = " ".join(f"{'L' if i else 'M'}{px:.1f} {py:.1f}" for i, (px, py) in enumerate(points))
    return Markup('<path class="{}" d="{}"/>').format(css, steps)


def _text(x: float, y: float, text: str, anchor: str, css: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(css, x, y, anchor, text)


def _marker(x: float, y: float, radius: float, style: Style, tip: str) -> Markup:
    title = Markup("<title>{}</title>").format(tip) if tip else ""
    css = f"mark {_color(style)}{' hollow' if style.dashed else ''}"
    if style.marker == 0:
        return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:g}">{}</circle>').format(
            css, x, y, radius, title
        )
    corners, turn = {1: (4, 45), 2: (3, 0), 3: (4, 0), 4: (5, 0)}[style.marker % 5 or 1]
    angles = [math.radians(turn + 360 * i / corners) for i in range(corners)]
    points = " ".join(f"{x + 1.25 * radius * math.sin(a):.1f},{y - 1.25 * radius * math.cos(a):.1f}" for a in angles)
    return Markup('<polygon class="{}" points="{}">{}</polygon>').format(css, points, title)


def _heatmap(chart: Heatmap) -> Markup:
    width = FULL.width
    cell = (width - LABELS - 6) / max(1, len(chart.columns))
    parts = []
    for i, (name, values) in enumerate(zip(chart.rows, chart.values, strict=True)):
        shown = name if len(name) <= 22 else f"…{name[-21:]}"
        parts.append(_text(LABELS - 6, ROW * i + 11, shown, "end", "tick"))
        for j, value in enumerate(values):
            if value is not None:
                tip = f"{name}, {chart.column_label} {chart.columns[j]}: {value:.5g}"
                parts.append(_cell(LABELS + cell * j, ROW * i, cell, share(chart, value), tip))
    bottom = ROW * len(chart.rows)
    every = max(1, math.ceil(len(chart.columns) / 8))
    for j in range(0, len(chart.columns), every):
        parts.append(_text(LABELS + cell * (j + 0.5), bottom + 13, chart.columns[j], "middle", "tick"))
    low, high = chart.extent()
    legend = f"{chart.column_label} · colour from {short(low)} to {short(high)}{', logarithmic' if chart.log else ''}"
    parts.append(_text((LABELS + width) / 2, bottom + 30, legend, "middle", "label"))
    return _svg(width, bottom + 36, chart.title, parts)


def share(chart: Heatmap, value: float) -> float:
    """Return the position of a value on the colour scale of a heatmap, 0 to 1."""
    low, high = chart.extent()
    value = min(max(value, low), high)
    if chart.log and low > 0:
        return math.log(value / low) / math.log(high / low) if high > low else 0.0
    return (value - low) / (high - low) if high > low else 0.0


def _cell(x: float, y: float, width: float, share: float, tip: str) -> Markup:
    return Markup(
        '<rect class="cell" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:g}" style="--share:{:.0f}%">'
        "<title>{}</title></rect>"
    ).format(x, y + 1, max(width - 1, 0.5), ROW - 2, 8 + 92 * share, tip)
