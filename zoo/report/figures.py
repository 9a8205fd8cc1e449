"""All data of one run for a report, gathered from its folder."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zoo.report.chart import COLORS, MARKERS, Point, Style
from zoo.report.export_forms import LayerForm, read_forms
from zoo.report.history import LayerState, layer_states, metric_curves
from zoo.report.latencies import BENCH, Timing, read_timings
from zoo.report.spectra import Spectrum, spectra
from zoo.runs.card import Card
from zoo.runs.run import Run

ONNX = "model.onnx"
"""The exported file in a RUN folder."""


@dataclass(frozen=True)
class RunFigures:
    """The figures of one run.

    Attributes:
        name: unique among the runs of a report.
        style: of its points in every chart.
        card: with its description and measurements.
        curves: (step, value) of the metrics logged by its training, by name.
        layers: its factorized layers epoch by epoch.
        spectra: singular values of each layer before and after training.
        no_start: why the spectra before training are missing, or ``""``.
        timing: its latency, if `zoo bench` measured it.
        forms: of each layer in the exported file, if it states them.
    """

    name: str
    style: Style
    card: Card
    curves: dict[str, list[Point]] = field(default_factory=dict)
    layers: list[LayerState] = field(default_factory=list)
    spectra: dict[str, Spectrum] = field(default_factory=dict)
    no_start: str = ""
    timing: Timing | None = None
    forms: dict[str, LayerForm] = field(default_factory=dict)


def gather(
    folders: Sequence[Path], bench: Sequence[Path] = (), say: Callable[[str], None] = lambda text: None
) -> list[RunFigures]:
    """Read runs; nothing is measured again, but the weights before training are rebuilt.

    Args:
        folders: of finished runs; one given twice counts once.
        bench: further files of `zoo bench`, besides those in the folders.
        say: called with a line on each stage.

    Raises:
        UserError: a folder is not a finished run, or a file in it is damaged.
    """
    runs = [Run(folder) for folder in {folder.resolve(): folder for folder in folders}.values()]
    own = [run.folder / BENCH for run in runs if (run.folder / BENCH).is_file()]
    timings = read_timings([*own, *bench])
    names = unique_names([run.folder for run in runs])
    architectures = list(dict.fromkeys(run.card.arch for run in runs))
    figures = []
    for i, (run, name) in enumerate(zip(runs, names, strict=True)):
        say(f"reading {name} ({i + 1} of {len(runs)})")
        found, reason = spectra(run)
        figures.append(
            RunFigures(
                name=name,
                style=Style(i % COLORS, architectures.index(run.card.arch) % len(MARKERS), dashed=i >= COLORS),
                card=run.card,
                curves=metric_curves(run.folder),
                layers=layer_states(run.folder),
                spectra=found,
                no_start=reason,
                timing=timings.get(run.card.weights.sha256),
                forms=read_forms(run.folder / ONNX, run.card.weights.sha256),
            )
        )
    return figures


def unique_names(folders: Sequence[Path]) -> list[str]:
    """Name folders by their last part, with as many parts before it as make equal names distinct."""
    parts = [folder.resolve().parts for folder in folders]
    lengths = [1] * len(parts)
    while True:
        names = ["/".join(p[-n:]) for p, n in zip(parts, lengths, strict=True)]
        counts = Counter(names)
        again = [i for i, name in enumerate(names) if counts[name] > 1 and lengths[i] < len(parts[i])]
        if not again:
            return names
        for i in again:
            lengths[i] += 1
