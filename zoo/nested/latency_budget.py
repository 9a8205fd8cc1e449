"""Find the largest network inside a nested run that answers within a time on this machine."""

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from zoo.errors import UserError
from zoo.export.exporter import export_model
from zoo.export.settings import ExportSettings
from zoo.latency.measure import measure
from zoo.nested.cut import Cut, cut, trained_sizes
from zoo.runs.file_metadata import Metadata
from zoo.runs.run import Run

ROUNDS, SECONDS = 5, 0.1


def parse_latency(text: str) -> float:
    """Return milliseconds from a text such as ``1.5ms``.

    Raises:
        UserError: it is no time.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*ms\s*", text)
    if found is None or not float(found[1]) > 0:
        raise UserError(f"latency {text} is not a time: give milliseconds for one image, such as 1.5ms")
    return float(found[1])


def median_ms(found: Cut, settings: ExportSettings) -> float:
    """Return the time of one image in ONNX Runtime on this machine, in milliseconds: the median.

    Args:
        found: the network; it is exported with forms that need no measurement.
        settings: threads, and the device cpu or cuda.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_model(found.model, Metadata.of(found.card), path)
        device = "cuda" if settings.target == "cuda" else "cpu"
        options = {"device": device, "threads": settings.threads, "rounds": ROUNDS, "seconds": SECONDS}
        return measure([path], batches=(1,), **options)[0].latency[1].median_ms  # type: ignore[arg-type]


def cut_for_latency(
    run: Run, milliseconds: float, settings: ExportSettings, say: Callable[[str], None] = lambda text: None
) -> tuple[Cut, float]:
    """Return the largest of a nested run's trained sizes that takes at most a time for one image, and its time.

    Sizes are timed on this machine by bisection; a trained size needs no images.

    Args:
        run: nested.
        milliseconds: to take at most.
        settings: of the export.
        say: told what is timed.

    Raises:
        UserError: the run is not nested, or even its smallest network takes longer.
    """
    sizes = trained_sizes(run)
    low, high = 0, len(sizes) - 1
    best: tuple[Cut, float] | None = None
    while low <= high:  # a smaller network is faster, but for the noise of the clock
        middle = (low + high) // 2
        say(f"timing the network at {sizes[middle]:.3g}")
        candidate = cut(run, sizes[middle])
        time = median_ms(candidate, settings)
        if time <= milliseconds:
            best, high = (candidate, time), middle - 1
        else:
            low, shortest = middle + 1, time
    if best is None:
        raise UserError(
            f"the smallest network in {run.name}, {sizes[-1]:.3g} of the parameters removed, takes {shortest:.2f} ms "
            f"here: give a latency of {shortest * 1.1:.2g}ms or more"
        )
    return best
