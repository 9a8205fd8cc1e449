"""Accuracy over the radius of an attack."""

from collections.abc import Sequence

from zoo.attacks import format_eps
from zoo.report.cases import Attack, accuracies, all_keys, clean, curves
from zoo.report.cells import run_cell
from zoo.report.chart import Axis, Chart, Series
from zoo.report.figures import RunFigures
from zoo.report.page import Details, Gallery, Section, Text
from zoo.report.table import Cell, Column, Table, number, percent


def robustness(runs: Sequence[RunFigures]) -> Section:
    """Return a curve per attack and norm, and a table of every accuracy."""
    drawn = curves(runs)
    labels = [attack.label for attack in drawn]
    charts = [_chart(runs, attack, i, labels.count(attack.label) > 1) for i, attack in enumerate(drawn)]
    images = sorted({e.n for run in runs for e in run.card.evaluations})
    count = f"{images[0]:,}" if len(set(images)) == 1 else f"{images[0]:,} to {images[-1]:,}" if images else "no"
    text = (
        f"Accuracy on {count} test images under attacks that change each image by at most eps, in pixel units; "
        "in L0, eps is the number of changed pixels. Compare runs under the same attack: a weaker one leaves more."
    )
    keys = all_keys(runs)
    columns = [Column("run"), Column("images\n(fewest)", "test images, the fewest of any figure in the row")]
    for attack, eps in keys:
        columns.append(Column(f"{attack.label}\n{format_eps(eps) if attack.norm else ''}", attack.options, "high"))
    rows = [_row(run, keys) for run in runs]
    table = Table(columns, rows, "accuracy in %; hover over a heading for the attack's settings")
    return Section("robustness", "Robustness", [Text(text), Gallery(charts), Details("All accuracies", [table])])


def _row(run: RunFigures, keys: Sequence[tuple[Attack, float]]) -> list[Cell]:
    found = accuracies(run.card)
    cells = [percent(found[key].accuracy if key in found else None) for key in keys]
    return [run_cell(run), number(min((e.n for e in run.card.evaluations), default=None), "{:,}"), *cells]


def _chart(runs: Sequence[RunFigures], attack: Attack, i: int, is_ambiguous: bool) -> Chart:
    """Return the curves of an attack; if another has the same label, its settings stand below."""
    series = []
    for run in runs:
        start = clean(run.card)
        points = [(eps, e.accuracy) for (a, eps), e in accuracies(run.card).items() if a == attack and eps > 0]
        if points:
            first = [] if start is None else [(0.0, start)]
            series.append(Series(run.name, tuple(sorted(first + points)), run.style))
    missing = [run.name for run in runs if run.name not in {s.name for s in series}]
    notes = [f"Settings: {attack.options}."] if is_ambiguous else []
    notes += [f"Not measured: {', '.join(missing)}."] if missing else []
    return Chart(
        f"robustness-{i + 1}-{attack.name}-{attack.norm.lower()}",
        attack.label,
        Axis("pixels changed" if attack.norm == "L0" else "eps", limits=(0.0, None)),
        Axis("", percent=True, limits=(0.0, 1.0)),
        tuple(series),
        note=" ".join(notes),
    )
