"""What a command shows while it works: on standard error, in motion only on a terminal, and nothing if asked so.

Results go to standard output, so that ``zoo COMMAND > FILE`` holds them alone, without escape codes.
"""

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

QUIET = "ZOO_QUIET"
"""The environment variable behind ``--quiet``: processes that a command starts inherit it."""
EVERY = 10.0
"""Seconds between two lines on the progress of a stage where nothing can move, as in the log of a job."""
NARROW = 60
"""Columns of a screen below which a name stands above what belongs to it, not beside it."""


def is_quiet() -> bool:
    """Return whether only results and errors are to be shown."""
    return os.environ.get(QUIET, "") not in ("", "0")


@contextmanager
def quieted() -> Iterator[None]:
    """Show results and errors only, for a time."""
    before = os.environ.get(QUIET)
    os.environ[QUIET] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[QUIET]
        else:
            os.environ[QUIET] = before


def progress_console() -> "Console":
    """Return the console of bars and notes: standard error, or nothing."""
    from rich.console import Console  # which takes a while, and most commands show no progress

    return Console(stderr=True, quiet=is_quiet(), highlight=False)


def shows_bars() -> bool:
    """Return whether bars are shown: standard error is a terminal, and nobody asked for silence."""
    return not is_quiet() and progress_console().is_terminal


def compacted(table: "Table", console: "Console") -> "Table":
    """Return a table, in place, with one space between its columns if it would be wider than the screen."""
    endless = console.options.update(max_width=10_000)  # otherwise a measure would end at the screen's width
    if console.measure(table, options=endless).maximum > console.width:
        table.padding, table.collapse_padding, table.pad_edge = (0, 1), True, False
    return table


def wrapped(text: str) -> list[str]:
    """Return a line as several if the terminal that shows it is narrower; elsewhere, as in a file, as it is."""
    if not sys.stdout.isatty():
        return [text]
    width = shutil.get_terminal_size().columns
    return textwrap.wrap(text, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def note(text: str) -> None:
    """Print a line on standard error, unless asked not to."""
    progress_console().print(text, markup=False, soft_wrap=True)


@contextmanager
def stages(first: str, every: float = EVERY) -> Iterator[Callable[[str], None]]:
    """Yield a function that is told each stage of a long command: a line that changes, or a line now and then.

    Args:
        first: the first stage.
        every: seconds between two lines where standard error is no terminal.
    """
    if shows_bars():
        with progress_console().status(first) as status:
            yield status.update
        return
    last = time.monotonic()

    def say(stage: str) -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            note(stage)

    yield say
