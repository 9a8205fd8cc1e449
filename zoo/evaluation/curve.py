"""Accuracy over the radius of a perturbation, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.files import atomic
from zoo.runs.records import Evaluation, Finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "p"))
"""Colours (Okabe and Ito's, which colour-blind readers can distinguish) and markers, one pair per attack."""

AXES: dict[str, str] = {
    "Linf": "eps (Linf, pixels in [0, 1])",
    "L2": "eps (L2, pixels in [0, 1])",
    "L1": "eps (L1, pixels in [0, 1])",
    "L0": "pixels changed (L0)",
}
"""Labels of the panels, by norm."""

Points = list[tuple[float, float]]


def draw_curve(evaluations: Sequence[Evaluation], path: Path, title: str) -> None:
    """Write accuracy over eps as PNG: a panel per norm, a line per attack, from clean accuracy on.

    Args:
        evaluations: of one network; the clean one is the point at eps 0.
        path: of the PNG, written whole or not at all.
        title: of the picture.
    """
    panels = {label: _lines(evaluations, norm) for norm, label in AXES.items()}
    panels = {label: lines for label, lines in panels.items() if lines} or {AXES["Linf"]: {}}
    draw_panels(panels, path, title)


def draw_weight_curve(findings: Sequence[Finding], path: Path, title: str) -> None:
    """Write accuracy over the relative radius of the weights as PNG: a panel per kind of images, a line per direction.

    Args:
        findings: of the probe ``weights``.
        path, title: see `draw_curve`.
    """
    panels: dict[str, dict[str, Points]] = {}
    for finding in findings:
        images, direction, radius = (finding.case[key] for key in ("images", "direction", "radius"))
        lines = panels.setdefault(f"relative radius of the weights ({images} images)", {})
        lines.setdefault(f"{direction} direction", []).append((float(radius), finding.accuracy or 0.0))
    draw_panels(panels, path, title)


def draw_panels(panels: dict[str, dict[str, Points]], path: Path, title: str) -> None:
    """Draw lines by name, in panels by the label of their axis; a name has one colour and marker in all of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = sorted({name for lines in panels.values() for name in lines})
    figure = Figure(figsize=(4.2 * len(panels) + 0.4, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (label, lines) in zip(grid, panels.items(), strict=True):
        for name, points in lines.items():
            _draw(axes, name, points, names.index(name))
        _decorate(axes, label)
    grid[0].set_ylabel("accuracy on test images")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=160)


def _lines(evaluations: Sequence[Evaluation], norm: str) -> dict[str, Points]:
    """Return (eps, accuracy) per attack, ascending; attacks of one name are distinguished by their options."""
    start = [(0.0, e.accuracy) for e in evaluations if e.attack == "clean"][:1]
    lines: dict[tuple[str, str], Points] = {}
    for e in evaluations:
        if e.norm == norm and e.eps > 0:
            options = " ".join(f"{key}={value}" for key, value in e.options.items())
            lines.setdefault((e.attack, options), []).append((e.eps, e.accuracy))
    attacks = [attack for attack, _ in lines]
    return {
        attack.upper() if attacks.count(attack) == 1 else f"{attack.upper()} {options}": sorted(start + points)
        for (attack, options), points in lines.items()
    }


def _draw(axes: Axes, name: str, points: Points, index: int) -> None:
    color, marker = STYLES[index % len(STYLES)]
    eps, accuracy = zip(*points, strict=True)
    axes.plot(eps, accuracy, color=color, marker=marker, markersize=5, linewidth=1.8, label=name, clip_on=False)


def _decorate(axes: Axes, label: str) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes.set(xlabel=label, ylim=(0, 1), xlim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(True, color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
