"""The progress of an evaluation: a bar on a terminal, lines in the log of a job."""

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from zoo.screen import is_quiet

LONG = 60.0
"""Seconds after which a search gets a line if no bar is visible."""


def progress_bar(shown: bool, *counts: ProgressColumn) -> Progress:
    """Return a bar with columns ``counts`` on standard error, visible if it is shown on a terminal."""
    console = Console(stderr=True, quiet=is_quiet() or not shown)
    columns = (TextColumn("{task.description:18}"), BarColumn(), *counts, TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=console.quiet or not console.is_terminal)


def note(bar: Progress, done: str, accuracy: float) -> None:
    """Print a line after a long search if no bar is visible, as in the log of a job."""
    seconds = bar.tasks[-1].elapsed or 0.0
    if bar.disable and seconds >= LONG:
        line = f"{done} in {seconds / 60:.0f} min, accuracy at most {accuracy:.1%}"
        bar.console.print(line, highlight=False, soft_wrap=True)
