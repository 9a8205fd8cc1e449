"""List methods, adversaries, regularizers, finishers, attacks, probes, data sets, recipes or architectures."""

from typing import Any

from zoo.cli._parser import Parser
from zoo.plugins import Plugins

KINDS = {
    "methods": "The methods.",
    "adversaries": "What can be trained against.",
    "regularizers": "What can be added to the loss.",
    "finishers": "What can be done to a trained network.",
    "attacks": "The attacks of an evaluation.",
    "probes": "What an evaluation can look at besides attacks.",
    "data": "The data sets.",
    "recipes": "The configurations that come with zoo.",
}


def main(parser: Parser, argv: list[str]) -> None:
    """Print what is asked for; without options, all but the architectures."""
    for kind, text in KINDS.items():
        parser.add_argument(f"--{kind}", action="store_true", help=text)
    parser.add_argument(
        "--archs", metavar="PATTERN", nargs="?", const="*", help="timm's architectures, such as 'resnet*'."
    )
    options = parser.parse_args(argv)

    from rich.console import Console

    console = Console()
    chosen = [kind for kind in KINDS if options[kind]] or ([] if options.archs else list(KINDS))
    for kind in chosen:
        title, rows = _described(kind)
        console.print(_table(title, rows))
    if options.archs:
        print("\n".join(_architectures(options.archs)))


def _described(kind: str) -> tuple[str, dict[str, str]]:
    """Return what one thing of a kind is called, and the first line on each, by name."""
    from zoo.adversaries import ADVERSARIES
    from zoo.attacks import ATTACKS
    from zoo.data import DATA
    from zoo.finishers import FINISHERS
    from zoo.methods import METHODS
    from zoo.probes import PROBES
    from zoo.recipes import FOLDER, recipe_names
    from zoo.regularizers import REGULARIZERS

    if kind == "recipes":
        files = {name: FOLDER / f"{name}.yaml" for name in recipe_names()}
        return "recipe", {name: file.read_text().splitlines()[0].lstrip("# ") for name, file in files.items()}
    plugins: dict[str, Plugins[Any]] = {
        "methods": METHODS,
        "adversaries": ADVERSARIES,
        "regularizers": REGULARIZERS,
        "finishers": FINISHERS,
        "attacks": ATTACKS,
        "probes": PROBES,
        "data": DATA,
    }
    return plugins[kind].kind, plugins[kind].describe()


def _architectures(pattern: str) -> list[str]:
    import timm

    from zoo.errors import UserError, unknown_name

    found: list[str] = timm.list_models(pattern)
    if not found:
        if any(c in pattern for c in "*?["):
            raise UserError(f"no architecture matches {pattern!r}: try a wider pattern, such as 'resnet*'")
        raise unknown_name("architecture", pattern, timm.list_models())
    return found


def _table(kind: str, rows: dict[str, str]) -> object:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    table.add_column(kind, min_width=max(map(len, rows), default=0))  # a name is for copying: never cut
    table.add_column("")
    for name, text in rows.items():
        table.add_row(name, text)
    return table
