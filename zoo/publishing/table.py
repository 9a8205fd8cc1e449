"""Tables with the checks of a published model."""

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from zoo.errors import printable
from zoo.publishing.verify import Check

SIGNS = {True: "[green]ok[/]", False: "[bold red]failed[/]", None: "[dim]-[/]"}


def checks_table(title: str, checks: Sequence[Check]) -> Table:
    """Lay out the checks of one model."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, header_style="bold")
    for column in ("figure", "card", "found", ""):
        table.add_column(column, overflow="fold")
    for check in checks:
        words = (escape(printable(text)) for text in (check.figure, check.stated, check.found))
        table.add_row(*words, SIGNS[check.agrees])
    return table
