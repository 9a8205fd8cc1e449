"""List published models, methods, adversaries, regularizers, finishers, attacks, probes, data sets, recipes, backbones.

zoo list 'resnet*' --data cifar10 --min-robust 0.4 --max-params 2M --sort latency lists models; without options it lists
everything except the architectures.
"""

import json
from typing import Any, get_args

from zoo.cli._parser import Parser
from zoo.cli._run import add_hub
from zoo.errors import UserError, unknown_name
from zoo.plugins import Plugins
from zoo.screen import NARROW

TASK = "share"
KINDS = {
    "methods": "The methods.",
    "adversaries": "What a training can defend against.",
    "regularizers": "What can be added to the loss.",
    "finishers": "What can be done to a trained network.",
    "attacks": "The attacks of an evaluation.",
    "probes": "What an evaluation can measure besides attacks.",
    "runtimes": "What exported files can be run in by zoo bench, and the versions that are installed.",
    "data": "The data sets.",
    "recipes": "The configurations that come with zoo.",
}


FILTERS = ("pattern", "min_robust", "max_params", "norm", "eps", "sort", "json")
"""Options that request models."""
ALL = "*"


def main(parser: Parser, argv: list[str]) -> None:
    """Print the requested lists; without options, all except the architectures."""
    _add_arguments(parser)
    options = parser.parse_args(argv)

    from rich.console import Console

    console = Console(highlight=False)
    chosen = [kind for kind in KINDS if kind != "data" and options[kind]] + (["data"] if options.data == ALL else [])
    if options.json and (chosen or options.archs):
        raise UserError("--json lists models with their figures: ask for the other lists without it")
    everything = not (chosen or _asks_for_models(options) or options.archs)
    if _asks_for_models(options) or everything:
        _print_models(console, options)
    for kind in list(KINDS) if everything else chosen:
        title, rows = _described(kind)
        console.print(_table(title, rows, console.width))
    if options.archs:
        print("\n".join(_architectures(options.archs)))


def _add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("pattern", nargs="?", metavar="PATTERN", help="Models by name, such as 'resnet*' or '*.robust_lowrank*'.")
    add("--models", action="store_true", help="The published models.")
    for kind, text in KINDS.items():
        if kind != "data":
            add(f"--{kind}", action="store_true", help=text)
    add("--data", metavar="NAME", nargs="?", const=ALL, help="The models of one data set; alone: the data sets.")
    add("--archs", metavar="PATTERN", nargs="?", const=ALL, help="timm's architectures, such as 'resnet*'.")
    add("--min-robust", type=float | None, default=None, help="Models of at least this accuracy under attack, in 0..1.")
    add("--max-params", type=str | None, default=None, help="Models of at most so many parameters, such as 2M.")
    add("--norm", type=str | None, default=None, help="Of --eps: Linf or L2 (default: Linf).")
    add("--eps", type=str | None, default=None, help="Radius at which to compare (default: each model's own).")
    add(
        "--sort", type=str | None, default=None, help="name, params, macs, clean, robust, latency or bytes: best first."
    )
    flag = {"type": bool, "nargs": "?", "const": True, "default": False}
    add("--json", **flag, help="Models as a JSON list of objects with every figure.")
    add_hub(parser)


def _print_models(console: Any, options: Any) -> None:
    from zoo.attacks import parse_eps
    from zoo.hub.search import published
    from zoo.hub.selection import Selection, parse_count
    from zoo.hub.table import models_table, plain
    from zoo.runs.records import Threat

    norms = get_args(Threat.model_fields["norm"].annotation)
    norm: Any = options.norm or "Linf"
    if norm not in norms:
        raise unknown_name("norm", norm, norms)
    if options.norm and options.eps is None:
        raise UserError(f"--norm {norm} is the norm of a radius: give --eps too, such as --eps 0.3")
    threat = Threat(norm=norm, eps=parse_eps(options.eps)) if options.eps is not None else None
    selection = Selection(
        options.pattern or ALL,
        None if options.data == ALL else options.data,
        options.min_robust,
        None if options.max_params is None else parse_count(options.max_params),
        threat,
        options.sort or "name",
    )
    found = published(options.hub)
    models = {name: found[name] for name in selection.of({name: x.entry for name, x in found.items()})}
    if options.json:
        print(json.dumps([plain(name, model) for name, model in models.items()], indent=2))
        return
    if models:
        console.print(models_table(models, threat, console.width))
    elif _asks_for_models(options):
        raise UserError(f"none of the {len(found)} published models is like that: try fewer conditions, or --hub")


def _asks_for_models(options: Any) -> bool:
    return options.models or options.data not in (None, ALL) or any(_is_given(options[name]) for name in FILTERS)


def _is_given(value: Any) -> bool:
    return value is not None and value is not False  # zero is a condition like any other


def _described(kind: str) -> tuple[str, dict[str, str]]:
    """Return the noun for a kind, and the description of each of its members, by name."""
    from zoo.adversaries import ADVERSARIES
    from zoo.attacks import ATTACKS
    from zoo.data import DATA
    from zoo.methods import METHODS
    from zoo.post_training import FINISHERS
    from zoo.probes import PROBES
    from zoo.regularizers import REGULARIZERS
    from zoo.runs.recipes import describe_recipe, recipe_names
    from zoo.runtimes import RUNTIMES

    if kind == "runtimes":
        return RUNTIMES.kind, {name: f"{text} {_installed(name)}" for name, text in RUNTIMES.describe().items()}
    if kind == "recipes":
        return "recipe", {name: describe_recipe(name) for name in recipe_names()}
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


def _installed(runtime: str) -> str:
    """Return the version of a runtime that is installed, or how to install it."""
    from zoo.runtimes import RUNTIMES

    found = RUNTIMES.get(runtime)()
    try:
        return f"Installed: {found.version()}."
    except UserError:
        return f"Not installed: {found.install}"


def _architectures(pattern: str) -> list[str]:
    import timm

    found: list[str] = timm.list_models(pattern)
    if not found:
        if any(c in pattern for c in "*?["):
            raise UserError(f"no architecture matches {pattern!r}: try a wider pattern, such as 'resnet*'")
        raise unknown_name("architecture", pattern, timm.list_models())
    return found


def _table(kind: str, rows: dict[str, str], width: int) -> object:
    """Lay out names and descriptions: side by side, or one below the other if long names leave no room.

    Args:
        kind: what the names are of.
        rows: descriptions by name.
        width: of the screen, in characters.
    """
    from rich import box
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    rows = {name: escape(text) for name, text in rows.items()}  # brackets are words, as in robust-zoo[openvino]
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    if width < NARROW or max(map(len, rows), default=0) > width // 2:
        table.add_column(kind, overflow="fold")
        for name, text in rows.items():
            table.add_row(name)
            table.add_row(Padding(text, (0, 0, 0, 4)))
    else:
        table.add_column(kind, no_wrap=True)  # a name is for copying: never cut
        table.add_column("", overflow="fold")
        for name, text in rows.items():
            table.add_row(name, text)
    return table
