"""Whether confidences can be believed, and how accurate the most confident answers are."""

from collections.abc import Sequence

from zoo.report.cells import run_cell
from zoo.report.chart import Axis, Chart, Point, Series, Style
from zoo.report.figures import RunFigures
from zoo.report.page import Block, Gallery, Section, Text
from zoo.report.table import Cell, Column, Table, number, percent, text
from zoo.runs.calibration import Calibration

SHARES = (0.5, 0.8, 0.9)
"""Coverages in the table."""


def calibration(runs: Sequence[RunFigures]) -> Section:
    """Return the reliability diagram, the accuracy at coverage, and the expected calibration error of each run."""
    measured = [(run, run.card.calibration) for run in runs if run.card.calibration is not None]
    if not measured:
        missing = Text("Calibration was not measured: zoo evaluate RUN measures it.")
        return Section("calibration", "Calibration", [missing])
    blocks: list[Block] = [
        Text(
            "A network is calibrated if it is right as often as it is confident: on the diagonal of the reliability "
            "diagram. Below it, the network is overconfident. The expected calibration error is the mean distance from "
            "the diagonal over the images. At coverage c, only the share c of the images with the highest confidence "
            "is answered."
        )
    ]
    blocks += [Gallery([_reliability(measured), _coverage(measured)]), _table(runs), *_detection(runs)]
    return Section("calibration", "Calibration", blocks)


def _reliability(measured: Sequence[tuple[RunFigures, Calibration]]) -> Chart:
    series = [Series("calibrated", ((0.0, 0.0), (1.0, 1.0)), Style(None, 0, dashed=True), "plain")]
    for run, found in measured:
        points: list[Point] = [(x.confidence, x.accuracy) for x in found.bins]
        series.append(Series(run.name, tuple(points), run.style))
    limits = (0.0, 1.0)
    return Chart(
        "reliability",
        "Reliability diagram",
        Axis("confidence", percent=True, limits=limits),
        Axis("accuracy", percent=True, limits=limits),
        tuple(series),
    )


def _coverage(measured: Sequence[tuple[RunFigures, Calibration]]) -> Chart:
    series = [Series(run.name, found.coverage, run.style) for run, found in measured]
    return Chart(
        "coverage",
        "Accuracy at coverage",
        Axis("coverage", percent=True),
        Axis("accuracy", percent=True),
        tuple(series),
    )


def _table(runs: Sequence[RunFigures]) -> Table:
    columns = [
        *(Column("run"), Column("images")),
        Column("expected calibration\nerror, %", "15 bins of equal width, on clean test images", "low"),
        *(Column(f"accuracy at\n{share:.0%} coverage", "in %", "high") for share in SHARES),
    ]
    return Table(columns, [_row(run, run.card.calibration) for run in runs])


def _detection(runs: Sequence[RunFigures]) -> list[Block]:
    """Return a table of how well confidences tell other data sets' images from the runs' own, if it was measured."""
    found = [(run, one) for run in runs for one in run.card.detection]
    if not found:
        return []
    columns = [
        *(Column("run"), Column("other images"), Column("score"), Column("images"), Column("other\nimages")),
        Column("AUROC, %", "probability that one of the run's images has the larger score", "high"),
        Column("FPR95, %", "other images above the score that 95 % of the run's images reach", "low"),
    ]
    rows = [
        [
            *(run_cell(run), text(one.data), text(one.score), number(one.n, "{:,}"), number(one.n_other, "{:,}")),
            *(percent(one.auroc), percent(one.fpr95)),
        ]
        for run, one in found
    ]
    caption = "out-of-distribution detection by the maximum softmax probability (msp) and by the energy of the logits"
    return [Table(columns, rows, caption)]


def _row(run: RunFigures, found: Calibration | None) -> list[Cell]:
    if found is None:
        return [run_cell(run), *[Cell("–")] * (2 + len(SHARES))]
    accuracy = dict(found.coverage)
    return [
        *(run_cell(run), number(found.n, "{:,}"), percent(found.ece, 2)),
        *(percent(accuracy.get(share)) for share in SHARES),
    ]
