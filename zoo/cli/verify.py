"""Hash and measure published models again, and say where they differ from their cards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zoo.cli._jobs import add_jobs, check_jobs, side_by_side
from zoo.cli._parser import Parser
from zoo.cli._run import add_hub
from zoo.errors import UserError, printable

if TYPE_CHECKING:
    from rich.console import Console

    from zoo.hub.search import Found
    from zoo.publishing.verify import Check

TASK = "share"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, check model after model, and fail if a figure differs."""
    add = parser.add_argument
    add("name", nargs="?", type=str, metavar="NAME", help="A model's name, see `zoo list`.")
    add("--all", type=bool, nargs="?", const=True, default=False, help="Every model of the hubs.")
    add("--n", type=int | Literal["all"], default=200, help="Test images for the figures under attack, or all.")
    add("--data-dir", type=Path | None, default=None, help="Where the data sets' files are.")
    add("--download", type=bool, default=False, help="Fetch the data sets' files if they are missing.")
    add_jobs(parser)
    add_hub(parser)
    options = parser.parse_args(argv)
    if (options.name is None) != options.all:
        raise UserError("give either one NAME or --all true")
    if options.n != "all" and options.n < 1:
        raise UserError("--n must be at least 1")

    check_jobs(options.jobs)

    from rich.console import Console

    from zoo.hub.search import find, published

    models = list(published(options.hub).values()) if options.all else [find(options.name, options.hub)]
    how = (options.n, options.data_dir, options.download)
    failed: list[str] = []
    left: dict[str, list[str]] = {}
    for name, found in _checked(models, options.jobs, options.hub, how, Console(highlight=False)):
        failed += [f"{name}: {check.figure}" for check in found if check.agrees is False]
        for check in found:
            if check.agrees is None:
                left.setdefault(check.figure, []).append(name)
    if failed:
        checks = "1 check" if len(failed) == 1 else f"{len(failed)} checks"
        raise UserError(f"{checks} failed: {'; '.join(failed)}")
    agree = "1 model agrees with its card" if len(models) == 1 else f"{len(models)} models agree with their cards"
    print(printable(agree))
    for figure, names in left.items():
        of = f"all {len(models)}" if len(names) == len(models) > 1 else ", ".join(names)
        print(printable(f"not measured: {figure}, of {of}"))


How = tuple[int | Literal["all"], Path | None, bool]
"""Images, the data sets' folder, and whether to fetch them: the arguments of `zoo.publishing.verify.verify`."""


def _checked(
    models: Sequence[Found], jobs: int, hub: str | None, how: How, console: Console
) -> Iterator[tuple[str, list[Check]]]:
    """Yield each model's name and checks, once they are on the screen."""
    from rich.live import Live

    from zoo.publishing.table import checks_table
    from zoo.publishing.verify import verify
    from zoo.screen import compacted

    if jobs > 1 and len(models) > 1:
        names = [model.name for model in models]
        for name, found in zip(names, side_by_side(partial(_checks, hub=hub, how=how), names, jobs), strict=True):
            console.print(compacted(checks_table(name, found), console))
            yield name, found
        return
    for model in models:
        found = []
        with Live(compacted(checks_table(model.name, found), console), console=console, auto_refresh=False) as live:
            for check in verify(model, *how):
                found.append(check)
                live.update(compacted(checks_table(model.name, found), console), refresh=console.is_terminal)
        console.print()
        yield model.name, found


def _checks(name: str, hub: str | None, how: How) -> list[Check]:
    """Check one model, in a process of its own."""
    from zoo.hub.search import find
    from zoo.publishing.verify import verify

    return list(verify(find(name, hub), *how))
