"""Charts as PNG, for slides and papers: the same data as on the page, drawn by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.files import atomic
from zoo.report.chart import COLORS, MARKERS, Axis, Chart, Heatmap, Series
from zoo.report.scale import Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = ("#0072b2", "#d55e00", "#008a62", "#b3479b", "#b07a00", "#2f95d6", "#7b6650", "#5b57c8")
"""The colours of the light theme; the first are Okabe and Ito's, which colour-blind readers can distinguish."""
SHAPES = dict(zip(MARKERS, "os^Dp", strict=True))


def draw_png(chart: Chart | Heatmap, path: Path) -> None:
    """Write a chart as PNG, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = 4.0 if isinstance(chart, Chart) else 1.2 + 0.2 * len(chart.rows)
    figure = Figure(figsize=(6.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(_plain(chart.title), fontsize=11)
    if isinstance(chart, Chart):
        _chart(axes, chart)
    else:
        _heatmap(axes, chart)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=160)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # otherwise matplotlib takes it for a formula


def _chart(axes: Axes, chart: Chart) -> None:
    points = [p for series in chart.series for p in series.points]
    for direction, axis, values in (("x", chart.x, [p[0] for p in points]), ("y", chart.y, [p[1] for p in points])):
        _scale(axes, direction, axis, Scale.of(axis, values))
    for series in chart.series:
        _series(axes, series)
    axes.grid(True, color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)


def _scale(axes: Axes, direction: str, axis: Axis, scale: Scale) -> None:
    if axis.log:
        axes.set(**{f"{direction}scale": "log"})
    ticks = scale.ticks()
    target = axes.xaxis if direction == "x" else axes.yaxis
    target.set_ticks(ticks, labels=[scale.text(t) for t in ticks])
    target.set_ticks([], minor=True)
    axes.set(**{f"{direction}lim": (scale.low, scale.high), f"{direction}label": _plain(axis.label)})


def _series(axes: Axes, series: Series) -> None:
    if not series.points:
        return
    x, y = zip(*series.points, strict=True)
    if series.kind == "front":
        axes.plot(x, y, color="#999999", linewidth=1.2, linestyle="--", zorder=1)
        return
    axes.plot(
        x,
        y,
        color="#666666" if series.style.color is None else PALETTE[series.style.color % COLORS],
        linestyle="none" if series.kind == "points" else "--" if series.style.dashed else "-",
        marker=None if series.kind == "plain" else SHAPES[MARKERS[series.style.marker % len(MARKERS)]],
        markerfacecolor="white" if series.style.dashed else None,
        markersize=5.5,
        linewidth=1.8,
        label=_plain(series.name),
    )


def _heatmap(axes: Axes, chart: Heatmap) -> None:
    from matplotlib.colors import LogNorm, Normalize

    low, high = chart.extent()
    norm = (LogNorm if chart.log else Normalize)(low, max(high, low * 1.0001 + 1e-12))
    values = [[float("nan") if v is None else v for v in row] for row in chart.values]
    image = axes.imshow(values, aspect="auto", cmap="Blues", norm=norm, interpolation="nearest")
    axes.set_yticks(range(len(chart.rows)), labels=[_plain(name) for name in chart.rows], fontsize=7)
    every = max(1, -(-len(chart.columns) // 8))
    axes.set_xticks(range(0, len(chart.columns), every), labels=chart.columns[::every])
    axes.set_xlabel(_plain(chart.column_label))
    assert axes.figure is not None
    axes.figure.colorbar(image, ax=axes)
