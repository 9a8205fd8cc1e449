"""Singular values and condition numbers before and after training."""

from collections.abc import Sequence
from dataclasses import replace

from zoo.report.chart import Axis, Chart, Point, Series
from zoo.report.figures import RunFigures
from zoo.report.page import Block, Details, Gallery, Section, Text
from zoo.report.spectra import Spectrum

VALUES = 32
"""Singular values drawn of one layer."""
AFTER, BEFORE = "after training", "at initialisation"


def conditioning(runs: Sequence[RunFigures]) -> Section:
    """Return for each run the condition number of every layer, and its singular values, before and after."""
    blocks: list[Block] = [
        Text(
            "The condition number of a layer's weight is its largest over its smallest singular value (of a factorized "
            "layer, over those of its rank). The product over the layers bounds how much a relative change of the "
            "input can grow."
        ),
        Gallery([_conditions(run) for run in runs]),
    ]
    if reasons := list(dict.fromkeys(run.no_start for run in runs if run.no_start)):
        blocks.append(Text(f"Singular values before training are not shown: {'; '.join(reasons)}."))
    for run in runs:
        charts = [_spectrum(run, name, spectrum) for name, spectrum in run.spectra.items()]
        note = Text(
            "Singular values relative to the largest, in descending order; horizontally, the index from 0 to 1."
        )
        blocks.append(
            Details(f"{run.name}: singular values of {len(charts)} layers", [note, Gallery(charts, small=True)])
        )
    return Section("conditioning", "Singular values before and after training", blocks)


def condition(values: Sequence[float]) -> float:
    """Return the largest over the smallest of descending singular values; inf for a singular matrix."""
    return values[0] / values[-1] if values[-1] > 0 else float("inf")


def _conditions(run: RunFigures) -> Chart:
    after = [(i + 1.0, condition(s.after)) for i, s in enumerate(run.spectra.values())]
    before = [(i + 1.0, condition(s.before)) for i, s in enumerate(run.spectra.values()) if s.before]
    style = replace(run.style, dashed=False)
    series = [Series(BEFORE, tuple(before), replace(style, dashed=True))] if before else []
    slug = "".join(c if c.isalnum() else "-" for c in run.name)
    return Chart(
        f"conditioning-{slug}",
        run.name,
        Axis("layer, in order from the input", whole=True),
        Axis("condition number", log=True),
        (*series, Series(AFTER, tuple(after), style)),
    )


def _spectrum(run: RunFigures, name: str, spectrum: Spectrum) -> Chart:
    style = replace(run.style, dashed=False)
    series = [Series(AFTER, _relative(spectrum.after), style, "plain")]
    if spectrum.before:
        series.insert(0, Series(BEFORE, _relative(spectrum.before), replace(style, dashed=True), "plain"))
    floor = min(y for s in series for _, y in s.points)
    return Chart(
        name, name, Axis(limits=(0.0, 1.0)), Axis(log=True, limits=(min(floor * 0.8, 0.5), 1.2)), tuple(series)
    )


def _relative(values: Sequence[float]) -> tuple[Point, ...]:
    """Return (place, value over the largest), thinned; singular values of zero are left out of the logarithm."""
    count, largest = len(values), values[0] or 1.0
    chosen = sorted({round(i * (count - 1) / (VALUES - 1)) for i in range(VALUES)}) if count > VALUES else range(count)
    points = tuple((i / max(1, count - 1), values[i] / largest) for i in chosen if values[i] > 1e-8 * largest)
    return points if len(points) > 1 else ((0.0, 1.0), (1.0, 1.0))
