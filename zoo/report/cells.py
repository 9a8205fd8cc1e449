"""Cells that several tables have."""

import re

from markupsafe import Markup

from zoo.report import svg
from zoo.report.figures import RunFigures
from zoo.report.table import Cell


def run_cell(run: RunFigures, link: str = "") -> Cell:
    """Return a run's name with its colour, leading to an address if there is one."""
    sample = svg.swatch(run.style, line=False)
    parts = re.split(r"(?<=[-_/])", run.name)  # where a narrow screen may break it
    name = Markup("<wbr>").join(parts)
    if link:
        name = Markup('<a href="{}">{}</a>').format(link, name)
    return Cell(Markup('<span class="name">{}<span>{}</span></span>').format(sample, name), run.name)


def digest_cell(text: str) -> Cell:
    """Return the beginning of a digest, in a cell that never breaks."""
    return Cell(Markup("<code>{}</code>").format(text), text)


def command_cell(command: str, anchor: str = "") -> Cell:
    """Return a command line in lines of a readable length, with an anchor for links, if any."""
    name = Markup(' id="{}"').format(anchor) if anchor else ""
    words = Markup(" ").join(Markup("<span>{}</span>").format(word) for word in re.split(" (?=--)", command))
    return Cell(Markup('<code class="command"{}>{}</code>').format(name, words), command)
