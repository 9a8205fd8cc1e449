"""Hash and measure published models again, and say where they differ from their cards."""

from pathlib import Path
from typing import Literal

from zoo.cli._parser import Parser
from zoo.cli._run import add_hub
from zoo.errors import UserError, printable

TASK = "share"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, check model after model, and fail if a figure differs."""
    add = parser.add_argument
    add("name", nargs="?", type=str, metavar="NAME", help="A model's name, see `zoo list`.")
    add("--all", type=bool, nargs="?", const=True, default=False, help="Every model of the hubs.")
    add("--n", type=int | Literal["all"], default=200, help="Test images for the figures under attack, or all.")
    add("--data-dir", type=Path | None, default=None, help="Where the data sets' files are.")
    add("--download", type=bool, default=False, help="Fetch the data sets' files if they are missing.")
    add_hub(parser)
    options = parser.parse_args(argv)
    if (options.name is None) != options.all:
        raise UserError("give either one NAME or --all true")
    if options.n != "all" and options.n < 1:
        raise UserError("--n must be at least 1")

    from rich.console import Console
    from rich.live import Live

    from zoo.hub.search import find, published
    from zoo.publishing.table import checks_table
    from zoo.publishing.verify import Check, verify
    from zoo.screen import compacted

    models = list(published(options.hub).values()) if options.all else [find(options.name, options.hub)]
    console = Console(highlight=False)
    failed: list[str] = []
    left: dict[str, list[str]] = {}
    for model in models:
        found: list[Check] = []
        with Live(compacted(checks_table(model.name, found), console), console=console, auto_refresh=False) as live:
            for check in verify(model, options.n, options.data_dir, options.download):
                found.append(check)
                live.update(compacted(checks_table(model.name, found), console), refresh=console.is_terminal)
        console.print()
        failed += [f"{model.name}: {check.figure}" for check in found if check.agrees is False]
        for check in found:
            if check.agrees is None:
                left.setdefault(check.figure, []).append(model.name)
    if failed:
        checks = "1 check" if len(failed) == 1 else f"{len(failed)} checks"
        raise UserError(f"{checks} failed: {'; '.join(failed)}")
    agree = "1 model agrees with its card" if len(models) == 1 else f"{len(models)} models agree with their cards"
    print(printable(agree))
    for figure, names in left.items():
        of = f"all {len(models)}" if len(names) == len(models) > 1 else ", ".join(names)
        print(printable(f"not measured: {figure}, of {of}"))
