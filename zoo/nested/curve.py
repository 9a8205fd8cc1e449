"""Accuracy along the curve of a nested run: networks of several sizes, measured one by one."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from zoo.attacks import Gradients, format_eps
from zoo.backbone.folded import folded
from zoo.errors import UserError
from zoo.evaluation import Origin, Outcomes, Sweep, evaluate
from zoo.evaluation.curve import draw_panels
from zoo.nested.cut import Cut, cut, trained_sizes
from zoo.runs.card import Card
from zoo.runs.provenance import cpu_name
from zoo.runs.records import CurvePoint, Evaluation
from zoo.runs.run import Run

CURVE = "curve.png"


def parse_compressions(text: str) -> list[float]:
    """Return the numbers of a list such as ``0.5,0.8,0.9``, ascending.

    Raises:
        UserError: an entry is no share between 0 and 1.
    """
    try:
        found = sorted({float(word) for word in text.split(",") if word.strip()})
    except ValueError:
        found = []
    if not found or not all(0 < x < 1 for x in found):
        raise UserError(f"--compression {text}: give shares to remove, between 0 and 1, such as 0.5,0.8,0.9")
    return found


def cut_all(run: Run, compressions: Sequence[float], data_dir: Path | None, download: bool) -> list[Cut]:
    """Cut every network before any is measured, so that a mistake shows at once; see `zoo.nested.cut.cut`."""
    trained_sizes(run)
    return [cut(run, compression, data_dir, download) for compression in compressions]


def measure_curve(
    run: Run,
    cuts: Sequence[Cut],
    images: Tensor,
    labels: Tensor,
    sweeps: Sequence[Sweep],
    *,
    seed: int,
    batch_size: int,
    gradients: Gradients,
    device: str,
    time: Callable[[Cut], float] | None = None,
) -> list[CurvePoint]:
    """Evaluate networks that were cut out of a run, and add their figures to the run's card, one after the other.

    Verdicts per image are kept in RUN/outcomes-COMPRESSION.npz, so that an interrupted evaluation resumes.

    Args:
        run: nested.
        cuts: its networks.
        images, labels: of the test split.
        sweeps, batch_size, gradients, device: see `zoo.evaluation.evaluate`.
        seed: of the choice of images.
        time: returns the milliseconds that one image takes; None: no time is measured.
    """
    points = []
    for found in cuts:
        origin = Origin.of(f"{run.card.weights.sha256} cut to {found.card.params}", run.card.data, seed, images, labels)
        outcomes = Outcomes(run.folder / f"outcomes-{found.compression:g}.npz", origin.owner)
        measure = partial(evaluate, batch_size=batch_size, gradients=gradients, device=device, outcomes=outcomes)
        measured = measure(folded(found.model, run.card.image_shape), images, labels, sweeps)
        point = CurvePoint(
            compression=found.compression,
            params=found.card.params,
            macs=found.card.macs,
            evaluations=tuple(e.model_copy(update={"seed": seed}) for e in measured),
            latency_ms=time(found) if time is not None else None,
            hardware=cpu_name() if time is not None else "",
        )
        run.save_card(run.card.with_curve_point(point))
        points.append(point)
    return points


def draw_size_curve(card: Card, path: Path) -> None:
    """Write accuracy over multiply-accumulates, and over milliseconds where they were measured, as PNG.

    Args:
        card: with a curve.
        path: of the PNG, written whole or not at all.
    """
    panels = {"millions of multiply-accumulates": _lines(card.curve, lambda point: point.macs / 1e6)}
    timed = [point for point in card.curve if point.latency_ms is not None]
    if timed:
        panels["milliseconds for one image"] = _lines(timed, lambda point: point.latency_ms or 0.0)
    n = min((e.n for point in card.curve for e in point.evaluations), default=0)
    draw_panels(panels, path, f"{card.arch} {card.method}, {card.data}, {n:,} test images")


def _lines(
    points: Sequence[CurvePoint], position: Callable[[CurvePoint], float]
) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        for e in point.evaluations:
            lines.setdefault(label_of(e), []).append((position(point), e.accuracy))
    return {name: sorted(line) for name, line in lines.items()}


def label_of(e: Evaluation) -> str:
    """Return the name of an evaluation, such as ``pgd Linf 8/255``."""
    return e.attack if e.norm is None else f"{e.attack} {e.norm} {format_eps(e.eps)}"
