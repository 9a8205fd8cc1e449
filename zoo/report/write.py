"""Compose a report and write its files."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from zoo._version import __version__
from zoo.errors import UserError
from zoo.files import atomic, user_path
from zoo.report.figures import RunFigures, gather
from zoo.report.page import Page, render
from zoo.report.png import draw_png
from zoo.report.sections import SECTIONS

SCHEMA = 1
"""Version of the JSON file's schema."""


@dataclass(frozen=True)
class Written:
    """The files of a report."""

    page: Path
    data: Path
    pictures: tuple[Path, ...]


def write_report(
    folders: Sequence[Path],
    output: Path,
    *,
    bench: Sequence[Path] = (),
    say: Callable[[str], None] = lambda text: None,
) -> Written:
    """Write a report on runs: the page, ``NAME.json`` beside it, and the charts in the folder ``NAME``.

    Args:
        folders: of finished runs.
        output: the page, such as ``report.html``; older files of the same names are replaced.
        bench: files of `zoo bench`, besides those in the runs' folders.
        say: called with a line on each stage.

    Raises:
        UserError: a folder is not a finished run, a file in it is damaged, or ``output`` is not named ``*.html``.
    """
    output = user_path(output)
    if output.suffix not in (".html", ".htm") or output.is_dir():
        raise UserError(f"{output} is not a page: give a file name that ends in .html, such as --out report.html")
    runs = gather([user_path(folder) for folder in folders], [user_path(file) for file in bench], say)
    page = compose(runs)
    data = output.with_suffix(".json")
    pictures: list[Path] = []
    for chart in page.charts():
        say(f"drawing {chart.name}")
        pictures.append(_free(output.with_suffix("") / f"{chart.name}.png", pictures))
        draw_png(chart, pictures[-1])
    with atomic(data) as temporary:
        temporary.write_text(json.dumps(as_data(runs), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with atomic(output) as temporary:
        temporary.write_text(render(page), encoding="utf-8")
    return Written(output, data, tuple(pictures))


def _free(path: Path, taken: Sequence[Path]) -> Path:
    """Return a path that is not taken yet: runs named a/b and a-b would have charts of one name."""
    others = (path.with_stem(f"{path.stem}-{i}") for i in count(2))
    return path if path not in taken else next(other for other in others if other not in taken)


def compose(runs: Sequence[RunFigures]) -> Page:
    """Return the page of some runs."""
    data = ", ".join(dict.fromkeys(run.card.data for run in runs))
    architectures = ", ".join(dict.fromkeys(run.card.arch for run in runs))
    title = f"{len(runs)} runs on {data}" if len(runs) > 1 else f"{runs[0].name} on {data}"
    return Page(
        title, f"{architectures}: accuracy, robustness, size, speed and conditioning", [s(runs) for s in SECTIONS]
    )


def as_data(runs: Sequence[RunFigures]) -> dict[str, Any]:
    """Return everything in a report as plain data; numbers that JSON lacks are null."""
    return {"schema_version": SCHEMA, "zoo": __version__, "runs": [_finite(_run(run)) for run in runs]}


def _run(run: RunFigures) -> dict[str, Any]:
    return {
        "name": run.name,
        "card": json.loads(run.card.model_dump_json()),
        "latency": asdict(run.timing) if run.timing else None,
        "training": {name: [list(p) for p in points] for name, points in run.curves.items()},
        "layers": [asdict(state) for state in run.layers],
        "singular_values": {name: asdict(spectrum) for name, spectrum in run.spectra.items()},
        "export_forms": {name: asdict(form) for name, form in run.forms.items()},
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
