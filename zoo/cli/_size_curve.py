"""The part of `zoo evaluate` that measures networks inside a nested run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.evaluation import Sweep
    from zoo.nested.cut import Cut
    from zoo.runs.run import Run


def check_curve(options: Any) -> None:
    """Refuse what does not go with a curve."""
    from zoo.nested.curve import parse_compressions

    for flag in ("shard", "merge", "probes"):
        if getattr(options, flag) is not None:
            raise UserError(f"--{flag} does not go with --compression: leave one of them out")
    parse_compressions(options.compression)


def requested_cuts(run: Run, options: Any) -> list[Cut]:
    """Cut the requested networks out of a nested run; none if the run's own is measured."""
    if options.compression is None:
        return []
    from zoo.nested.curve import cut_all, parse_compressions

    return cut_all(run, parse_compressions(options.compression), options.data_dir, options.download)


def show_curve(
    run: Run,
    cuts: list[Cut],
    options: Any,
    images: Tensor,
    labels: Tensor,
    sweeps: Sequence[Sweep],
    device: str,
) -> None:
    """Measure networks inside a nested run, and show and draw their figures."""
    from zoo.evaluation import print_points
    from zoo.export.settings import ExportSettings
    from zoo.nested.curve import CURVE, draw_size_curve, measure_curve
    from zoo.nested.latency_budget import median_ms
    from zoo.runs.run import CARD

    points = measure_curve(
        run,
        cuts,
        images,
        labels,
        sweeps,
        seed=options.seed,
        batch_size=options.batch_size,
        gradients=options.gradients,
        device=device,
        time=partial(median_ms, settings=ExportSettings()) if options.time else None,
    )
    print_points(points)
    draw_size_curve(run.card, run.folder / CURVE)
    print(f"\nsaved in {run.folder / CARD}\ncurve in {run.folder / CURVE}")
