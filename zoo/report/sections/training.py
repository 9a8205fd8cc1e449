"""The course of the trainings: accuracy, loss, and every layer's rank and condition number."""

from collections.abc import Sequence
from itertools import pairwise

from zoo.report.chart import Axis, Chart, Heatmap, Point, Series
from zoo.report.figures import RunFigures
from zoo.report.page import Block, Details, Gallery, Section, Text

CURVES = (
    ("val_accuracy", "Validation accuracy", True, False),
    ("val_pgd_accuracy", "Validation accuracy under PGD", True, False),
    ("val_cr_accuracy", "Validation accuracy under CR", True, False),
    ("loss", "Training loss", False, False),
    ("condition", "Largest condition number of a layer", False, True),
)
"""Name in metrics.csv, title, whether in percent, whether on a logarithmic scale."""
POINTS = 150
"""Most points of a curve; a longer one is averaged down."""


def training(runs: Sequence[RunFigures]) -> Section:
    """Return the curves of all runs, and for each run a map of its layers over the epochs."""
    charts = [_chart(runs, *curve) for curve in CURVES if any(curve[0] in run.curves for run in runs)]
    blocks: list[Block] = [Gallery(charts)] if charts else [Text("There are no training logs.")]
    for run in runs:
        maps = _maps(run)
        if maps:
            blocks.append(Details(f"{run.name}: layers by epoch", [Gallery(maps)]))
    without = [run.name for run in runs if run.card.ranks and not run.layers]
    if without:
        blocks.append(Text(f"No history of the layers (layers.csv): {', '.join(without)}."))
    return Section("training", "Training", blocks)


def _chart(runs: Sequence[RunFigures], name: str, title: str, percent: bool, log: bool) -> Chart:
    series = tuple(
        Series(run.name, thinned(run.curves[name]), run.style, "line" if len(run.curves[name]) <= 20 else "plain")
        for run in runs
        if name in run.curves
    )
    return Chart(
        f"training-{name.replace('_', '-')}",
        title,
        Axis("step", whole=True),
        Axis("", log=log, percent=percent),
        series,
    )


def thinned(points: Sequence[Point], limit: int = POINTS) -> tuple[Point, ...]:
    """Return at most ``limit`` points: means over equal stretches of a longer curve."""
    if len(points) <= limit:
        return tuple(points)
    edges = [round(i * len(points) / limit) for i in range(limit + 1)]
    parts = [points[a:b] for a, b in pairwise(edges)]
    return tuple((sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts)


def _maps(run: RunFigures) -> list[Heatmap]:
    """Return the condition numbers over the epochs, and the ranks if they changed."""
    if not run.layers:
        return []
    names = tuple(dict.fromkeys(state.layer for state in run.layers))
    epochs = sorted({state.epoch for state in run.layers})
    states = {(state.layer, state.epoch): state for state in run.layers}
    columns = tuple(map(str, epochs))
    slug = "".join(c if c.isalnum() else "-" for c in run.name)

    def values(field: str) -> tuple[tuple[float | None, ...], ...]:
        return tuple(tuple(getattr(states.get((n, e)), field, None) for e in epochs) for n in names)

    conditions, ranks = values("condition_number"), values("rank")
    maps = [Heatmap(f"condition-{slug}", "Condition number", names, columns, conditions, True, "epoch")]
    if any(len(set(row)) > 1 for row in ranks):
        maps.append(Heatmap(f"ranks-{slug}", "Rank", names, columns, ranks, True, "epoch"))
    return maps
