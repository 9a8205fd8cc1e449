"""Write the README's tables of models anew from their cards: python tests/refresh_readme.py."""

import io
import os
import re
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

from refresh_published import curve, curve_cells, line, link, measured, table, with_table

from zoo.cli import run
from zoo.runs.card import Card

README = Path(__file__).parents[1] / "README.md"
COMMAND = "zoo list --models"


def refreshed(readme: str) -> str:
    """Return the README with the models that come with zoo, and the CIFAR-10 models that knew no adversary."""
    return with_table(with_list(readme), "standard training", standard_table(measured()))


def standard_table(cards: list[Card]) -> str:
    """Lay out accuracies over the CondLR paper's radii, by architecture and by what is removed."""
    rows = []
    for card in cards:
        if card.data == "cifar10" and (accuracies := curve(card)):
            printed = [f"{100 * e.accuracy:.1f}" for e in accuracies]
            cells = (f"{card.compression:.0%}", *curve_cells(printed))
            condition, made = _condition(card.max_condition_number), card.provenance
            how = (f"{accuracies[0].n:,}", str(card.training.get("epochs", "-")), str(made.seed), made.hardware)
            text = line(link(card, README.parent), *cells, condition, *how)
            rows.append((card.arch, card.compression, text))
    columns = "model|removed|clean|FGSM .002 / .004 / .006|L2-PGD .1 / .2 / .3|largest condition number"
    return table(f"{columns}|images|epochs|seed|trained on", rows)


def _condition(number: float | None) -> str:
    return "-" if number is None else f"{number:.{2 if number < 10 else 0}f}"


def with_list(readme: str) -> str:
    """Return the README with what the command prints now."""
    printed = io.StringIO()
    with patch.dict(os.environ, {"ZOO_HUB": "", "COLUMNS": "120"}), redirect_stdout(printed):
        run(COMMAND.split()[1:])
    lines = "\n".join(line.rstrip() for line in printed.getvalue().strip("\n").splitlines())
    block = f"```console\n$ {COMMAND}\n{lines}\n```"
    text, count = re.subn(rf"```console\n\$ {COMMAND}\n.*?\n```", lambda _: block, readme, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{README.name} has {count} blocks that begin with `$ {COMMAND}`, and should have one")
    return text


if __name__ == "__main__":
    README.write_text(refreshed(README.read_text()))
