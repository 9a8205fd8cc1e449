"""Accuracy along the curve of nested networks, beside networks of one size."""

from collections.abc import Callable, Sequence

from zoo.report.cases import Attack, Key, accuracies, key_text
from zoo.report.chart import Axis, Chart, Point, Series
from zoo.report.figures import RunFigures
from zoo.report.page import Block, Gallery, Text
from zoo.runs.records import CurvePoint

Position = Callable[[CurvePoint], float | None]


def size_curve_blocks(runs: Sequence[RunFigures]) -> list[Block]:
    """Return a chart of each accuracy against multiply-accumulates, and against milliseconds where measured.

    Networks of one size are single points in the charts of multiply-accumulates. Without a curve there is no block.
    """
    keys = sorted({(Attack.of(e), e.eps) for run in runs for point in run.card.curve for e in point.evaluations})
    if not keys:
        return []
    charts = [_chart(runs, key, i, "macs", "millions of multiply-accumulates", _macs) for i, key in enumerate(keys)]
    if any(point.latency_ms is not None for run in runs for point in run.card.curve):
        charts += [_chart(runs, key, i, "ms", "milliseconds, one image", _ms) for i, key in enumerate(keys)]
    text = (
        "A line joins the networks cut out of one nested network, without further training; single points are networks "
        "of one size."
    )
    return [Text(text), Gallery(charts)]


def _macs(point: CurvePoint) -> float:
    return point.macs / 1e6


def _ms(point: CurvePoint) -> float | None:
    return point.latency_ms


def _chart(runs: Sequence[RunFigures], key: Key, i: int, name: str, label: str, position: Position) -> Chart:
    series = []
    for run in runs:
        points: list[Point] = []
        for point in run.card.curve:
            x = position(point)
            points += [(x, e.accuracy) for e in point.evaluations if x is not None and (Attack.of(e), e.eps) == key]
        own = accuracies(run.card).get(key)
        if points:
            series.append(Series(run.name, tuple(sorted(points)), run.style))
        elif own is not None and name == "macs":
            series.append(Series(run.name, ((run.card.macs / 1e6, own.accuracy),), run.style, "points"))
    title = key_text(key) if key[0].norm else "clean accuracy"
    return Chart(
        f"sizes-{i + 1}-{name}", f"{title} of nested networks", Axis(label), Axis("", percent=True), tuple(series)
    )
