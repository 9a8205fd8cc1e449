"""A comparison on the screen and as a picture."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from zoo.comparison.figures import Figures
from zoo.evaluation.curve import AXES, Points, draw_panels
from zoo.screen import NARROW, compacted

COUNTS = ("parameters", "MACs")
PLAIN = ("ms, batch 1", "largest condition number", "training, minutes")


def print_comparison(contenders: Sequence[Figures], console: Console | None = None) -> None:
    """Print a table with a column per contender: means over the seeds, and standard deviations of several."""
    console = console or Console(highlight=False)
    # On a narrow screen one below the other: side by side their figures would be broken.
    for part in [[figures] for figures in contenders] if console.width < NARROW else [contenders]:
        console.print(compacted(_table(part), console))
    for figures in contenders:
        for doubt in figures.doubts:
            console.print(f"[bold red]{doubt}[/] in {figures.name}: its accuracies are not credible")


def _table(contenders: Sequence[Figures]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    table.add_column("", overflow="fold")  # folded if there are many contenders, so that no figure loses a digit
    for figures in contenders:
        table.add_column(figures.name, justify="right", overflow="fold")
    for row in dict.fromkeys(row for figures in contenders for row in figures.values):
        table.add_row(row, *(_cell(figures, row) for figures in contenders))
    return table


def _cell(figures: Figures, row: str) -> str:
    if row not in figures.values:
        return "-"
    mean, deviation = figures.mean(row), figures.deviation(row)
    if row in COUNTS:
        return f"{mean:,.0f}"
    scale, digits = (1, 2) if row in PLAIN else (100, 1)
    spread = "" if deviation is None else f" ± {scale * deviation:.{digits}f}"
    return f"{scale * mean:.{digits}f}{spread}"


def draw(contenders: Sequence[Figures], path: Path, title: str) -> None:
    """Write accuracy under attack over eps as PNG: a panel per norm and attack, a line per contender."""
    panels: dict[str, dict[str, Points]] = {}
    for figures in contenders:
        for norm, points in figures.curves.items():
            panels.setdefault(f"{AXES[norm]}, {figures.attacks[norm]}", {})[figures.name] = points
    draw_panels(panels or {"eps": {}}, path, title)
