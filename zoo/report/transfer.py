"""The matrix of how attacks transfer between models, on the screen and as a page."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as ScreenTable

from zoo._version import __version__
from zoo.attacks import format_eps
from zoo.evaluation.transfer import TransferMatrix
from zoo.files import atomic, user_path
from zoo.report.chart import Heatmap
from zoo.report.page import Block, Gallery, Page, Section, Text, render
from zoo.report.table import Cell, Column, Table, percent, text
from zoo.screen import compacted

SCHEMA = 1
"""Version of the JSON file's schema."""
EXPLANATION = (
    "Each row is the model that the adversarial images were made on, each column a model that answers them. The "
    "diagonal is the attack on the model itself. Attacks by gradients take all their steps, so the diagonal is not the "
    "robust accuracy of an evaluation. A row with low figures is a good substitute for the others; a column with high "
    "ones withstands attacks made elsewhere, which says nothing about attacks made on itself."
)


@dataclass(frozen=True)
class WrittenTransfer:
    """The files of a transfer matrix."""

    page: Path
    data: Path


def subject(found: TransferMatrix, data: str) -> str:
    """Return what was measured, in words."""
    steps = f"-{found.options['steps']}" if "steps" in found.options else ""
    radius = f"{found.norm} {format_eps(found.eps)}"
    return f"{found.attack}{steps} at {radius}, {found.n:,} test images of {data}, seed {found.seed}"


def print_transfer(found: TransferMatrix, data: str, console: Console | None = None) -> None:
    """Print the matrix; columns are the models' numbers."""
    console = console or Console(highlight=False)
    console.print("[bold]accuracy on images attacked on another model[/]")
    console.print(subject(found, data), markup=False)
    table = ScreenTable("", "attacked on", box=box.SIMPLE_HEAD, header_style="bold")
    for j in range(len(found.models)):
        table.add_column(f"{j + 1}", justify="right", no_wrap=True)
    table.add_row("", "nothing (clean)", *_shares(found.clean))
    for i, (name, row) in enumerate(zip(found.models, found.accuracy, strict=True), 1):
        table.add_row(f"{i}", name, *_shares(row))
    console.print(compacted(table, console))


def _shares(row: Sequence[float]) -> list[str]:
    return [f"{accuracy:.1%}" for accuracy in row]


def write_transfer(found: TransferMatrix, data: str, output: Path) -> WrittenTransfer:
    """Write the page, and the matrix as JSON beside it."""
    output = user_path(output)
    figures = output.with_suffix(".json")
    content = {"schema_version": SCHEMA, "zoo": __version__, "data": data, **asdict(found)}
    with atomic(figures) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with atomic(output) as temporary:
        temporary.write_text(render(_page(found, data)), encoding="utf-8")
    return WrittenTransfer(output, figures)


def _page(found: TransferMatrix, data: str) -> Page:
    numbers = tuple(f"{j + 1}" for j in range(len(found.models)))
    rows = ("clean", *(f"{i} {name}" for i, name in zip(numbers, found.models, strict=True)))
    heatmap = Heatmap(
        "transfer", "Accuracy", rows, numbers, (found.clean, *found.accuracy), column_label="model that answers"
    )
    columns = [Column("attacked on"), *map(Column, numbers, found.models)]
    cells: list[list[Cell]] = [
        [text(name), *map(percent, row)] for name, row in zip(rows, (found.clean, *found.accuracy), strict=True)
    ]
    table = Table(columns, cells, "accuracy in %; hover over a number for the model's name")
    blocks: list[Block] = [Text(f"{subject(found, data)}. {EXPLANATION}"), Gallery([heatmap]), table]
    return Page("How attacks transfer", subject(found, data), [Section("transfer", "Transfer", blocks)])
