"""Accuracy when weights move, under corruptions, and certified."""

from collections.abc import Sequence

from zoo.attacks import format_eps
from zoo.report.cells import run_cell
from zoo.report.chart import Axis, Chart, Point, Series
from zoo.report.figures import RunFigures
from zoo.report.page import Block, Details, Gallery, Section, Text
from zoo.report.table import Column, Table, percent
from zoo.runs.records import Finding

TITLES = {
    "weights": "Weight perturbations, relative radius",
    "joint": "Perturbations of images and weights, relative radius of the weights",
    "corruptions": "Mean over all corruptions, severity",
    "interval": "Certified by interval bound propagation, eps",
    "lipschitz": "Certified by the Lipschitz product bound, eps",
    "smoothing": "Certified by randomised smoothing, eps",
}
NAMED = {
    "corruptions": ("corruption", "Accuracy under each corruption", "accuracy in %, mean over the severities"),
    "transforms": (
        "transform",
        "Images classified correctly under random transforms",
        "share of the images, in %, that are correct and that a random transform changes with probability below 0.1 %",
    ),
}
"""Probes whose cases have names, so that they are shown as tables: the name's key, the table's title and caption.

A probe that is not here and whose cases end in a name has a table of plain words.
"""
Curves = dict[tuple[str, str], dict[str, list[Point]]]
"""Maps (probe, fixed values of the curve) to the points of each run."""


def probes(runs: Sequence[RunFigures]) -> Section:
    """Return a curve per probe and case, and a table of each probe whose cases have names."""
    found = [finding for run in runs for finding in run.card.findings]
    if not found:
        text = "No probes were run: zoo evaluate RUN --probes all runs them."
        return Section("probes", "Weight perturbations, corruptions, certificates", [Text(text)])
    charts = [_chart(runs, probe, fixed, lines) for (probe, fixed), lines in _curves(runs).items()]
    missing = [run.name for run in runs if not run.card.findings]
    skipped = [f"{r.name}, {f.probe}: {f.note}" for r in runs for f in r.card.findings if f.accuracy is None]
    blocks: list[Block] = [
        Text(
            "Weights of the deployed network are perturbed within a radius relative to each tensor's norm, at random "
            "(mean of several draws) or in the worst direction found. Certificates are lower bounds on robust accuracy."
        )
    ]
    if missing:
        blocks.append(Text(f"Not measured: {', '.join(missing)}."))
    if skipped:
        blocks.append(Text(f"Not applicable: {'; '.join(skipped)}."))
    blocks += [Gallery(charts), *_named(runs)]
    return Section("probes", "Weight perturbations, corruptions, certificates", blocks)


def _curves(runs: Sequence[RunFigures]) -> Curves:
    curves: Curves = {}
    for run in runs:
        for finding in run.card.findings:
            if finding.accuracy is not None and finding.case:
                *fixed, last = finding.case
                if isinstance(finding.case[last], str):
                    continue
                words = "" if finding.probe == "corruptions" else ", ".join(_words(finding, key) for key in fixed)
                lines = curves.setdefault((finding.probe, words), {})
                lines.setdefault(run.name, []).append((float(finding.case[last]), finding.accuracy))
    order = list(TITLES)
    return dict(sorted(curves.items(), key=lambda item: order.index(item[0][0]) if item[0][0] in order else len(order)))


def _words(finding: Finding, key: str) -> str:
    value = finding.case[key]
    if isinstance(value, str):
        return {"images": f"{value} images", "direction": f"{value} direction"}.get(key, value)
    return f"{key} {format_eps(value)}"


def _chart(runs: Sequence[RunFigures], probe: str, fixed: str, lines: dict[str, list[Point]]) -> Chart:
    title, _, label = TITLES.get(probe, f"{probe}, ").rpartition(", ")
    series = [Series(run.name, _mean(lines[run.name]), run.style) for run in runs if run.name in lines]
    slug = "".join(c if c.isalnum() else "-" for c in f"{probe}-{fixed}".strip("-").lower()).replace("--", "-")
    return Chart(
        f"probe-{slug}",
        f"{title}: {fixed}" if fixed else title,
        Axis(label, whole=True) if probe == "corruptions" else Axis(label, limits=(0.0, None)),
        Axis("", percent=True, limits=(0.0, 1.0)),
        tuple(series),
    )


def _mean(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the mean of the points at each x."""
    values: dict[float, list[float]] = {}
    for x, y in points:
        values.setdefault(x, []).append(y)
    return tuple((x, sum(ys) / len(ys)) for x, ys in sorted(values.items()))


def _named(runs: Sequence[RunFigures]) -> list[Details]:
    """Return a table of each probe whose cases have names."""
    found = {f.probe: f.case for run in runs for f in run.card.findings if f.accuracy is not None and f.case}
    tables = []
    for probe, case in found.items():
        last = list(case)[-1]
        if probe in NAMED or isinstance(case[last], str):
            key, title, caption = NAMED.get(probe, (last, probe.replace("_", " ").capitalize(), "accuracy in %"))
            tables.append(Details(title, [_by_name(runs, probe, key, caption)]))
    return tables


def _by_name(runs: Sequence[RunFigures], probe: str, key: str, caption: str) -> Table:
    """Return a probe's accuracies with a column per name, each the mean of all cases of that name."""
    means: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for finding in run.card.findings:
            if finding.probe == probe and finding.accuracy is not None:
                by_run = means.setdefault(str(finding.case[key]), {})
                by_run.setdefault(run.name, []).append(finding.accuracy)
    columns = [Column("run"), *(Column(name.replace("_", "\n"), best="high") for name in means)]
    rows = [
        [
            run_cell(run),
            *(percent(sum(v[run.name]) / len(v[run.name]) if run.name in v else None) for v in means.values()),
        ]
        for run in runs
    ]
    return Table(columns, rows, caption)
