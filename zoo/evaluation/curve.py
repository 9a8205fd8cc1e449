"""The robustness curve as a picture."""

from collections.abc import Sequence
from pathlib import Path

from zoo.card import Evaluation
from zoo.files import atomic

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, told apart by colour-blind readers."""
MARKERS = "os^Dvp"


def draw_curve(evaluations: Sequence[Evaluation], path: Path, title: str) -> None:
    """Write accuracy over eps as PNG: a panel per norm, a line per attack, from clean accuracy on.

    Args:
        evaluations: of one network; the clean one is the point at eps 0.
        path: of the PNG, written whole or not at all.
        title: of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    clean = [e.accuracy for e in evaluations if e.attack == "clean"]
    norms = sorted({e.norm for e in evaluations if e.norm}, reverse=True) or ["Linf"]
    figure = Figure(figsize=(4.2 * len(norms) + 0.4, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    for i, (norm, axes) in enumerate(zip(norms, figure.subplots(1, len(norms), squeeze=False)[0], strict=True)):
        for (name, points), color, marker in zip(_lines(evaluations, norm).items(), COLORS, MARKERS, strict=False):
            eps, accuracy = zip(*sorted([*((0.0, a) for a in clean), *points]), strict=True)
            axes.plot(
                eps,
                accuracy,
                color=color,
                marker=marker,
                markersize=5,
                linewidth=1.8,
                label=name,
                clip_on=False,
            )
        axes.set(xlabel=f"eps ({norm}, pixels in [0, 1])", ylim=(0, 1), xlim=(0, None))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(True, color="#dddddd", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        if i == 0:
            axes.set_ylabel("accuracy on test images")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=160)


def _lines(evaluations: Sequence[Evaluation], norm: str) -> dict[str, list[tuple[float, float]]]:
    """Return (eps, accuracy) per attack, attacks of one name told apart by their options."""
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for e in evaluations:
        if e.norm == norm:
            lines.setdefault((e.attack, repr(e.options)), []).append((e.eps, e.accuracy))
    named: dict[str, list[tuple[float, float]]] = {}
    for (attack, options), points in lines.items():
        alone = sum(other == attack for other, _ in lines) == 1
        named[attack.upper() if alone else f"{attack.upper()} {options}"] = points
    return named
