"""Print a script that completes commands, options and names in bash, zsh or fish.

Write it once where the shell looks for it, and again after an update of zoo: zoo completion bash >
~/.local/share/bash-completion/completions/zoo; zoo completion zsh > a folder of $fpath, as _zoo; zoo completion fish >
~/.config/fish/completions/zoo.fish.
"""

import argparse
from typing import Any, Literal, NoReturn, get_args, get_origin

from zoo.cli._parser import Parser

TASK = ""


class _Collected(Exception):
    """Ends a command once its arguments are known."""


class _Collector(Parser):
    """Gathers the arguments of a command that is run on it, which then ends."""

    def parse_args(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise _Collected


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, and print the script."""
    parser.add_argument("shell", type=Literal["bash", "zsh", "fish"], metavar="SHELL", help="bash, zsh or fish.")
    options = parser.parse_args(argv)

    import shtab

    print(shtab.complete(described(), options.shell))


def described() -> argparse.ArgumentParser:
    """Return all commands and their arguments as the plain parser that shtab reads."""
    from zoo.cli import command_named, command_names

    parser = argparse.ArgumentParser(prog="zoo", description="Compressed, robust image classifiers.")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers()
    for name in command_names():
        module = command_named(name)
        summary = _plain((module.__doc__ or "").partition("\n")[0])
        own = commands.add_parser(name, help=summary, description=summary)
        own.add_argument("--quiet", action="store_true", help="results and errors only, no progress")
        for action in _arguments(name, module):
            if not action.dest.endswith(".name"):  # --method is short for --method.name
                _copy(action, own)
    return parser


def _arguments(name: str, module: Any) -> list[argparse.Action]:
    collector = _Collector(prog=f"zoo {name}")
    try:
        module.main(collector, [])
    except _Collected:
        return [action for action in collector._actions if action.dest != "help"]
    raise LookupError(f"zoo {name} parses no arguments")


def _copy(action: argparse.Action, parser: argparse.ArgumentParser) -> None:
    """Add an argument of the same names, values and help."""
    import shtab

    from zoo.cli._plugin_flags import FLAGS

    text = f"Name of the {action.dest}" if action.dest in FLAGS else _plain(action.help or "").partition(". ")[0]
    values, is_path = _values(action)
    if action.option_strings:
        takes: dict[str, Any] = (
            {"action": "store_true"} if action.nargs == 0 else {"choices": values, "nargs": action.nargs}
        )
        own = parser.add_argument(*action.option_strings, help=text, **takes)
        is_path = is_path or action.dest in ("init", "teacher")
    else:
        own = parser.add_argument(action.dest, nargs=action.nargs, choices=values, help=text)
        is_path = not values  # a RUN, a file, an image
    if is_path:
        own.complete = shtab.FILE  # type: ignore[attr-defined]


def _values(action: argparse.Action) -> tuple[list[str] | None, bool]:
    """Return the values that an argument can take, if they are few, and whether it takes a path."""
    from pathlib import Path

    from zoo.cli._plugin_flags import FLAGS
    from zoo.plugins import plugin_modules
    from zoo.runs.recipes import recipe_names

    flag = action.dest
    if flag in FLAGS:
        return FLAGS[flag].names(), False
    named = {"data": lambda: sorted(plugin_modules("zoo.data")), "config": recipe_names}
    if flag in named and action.option_strings:
        return list(named[flag]()), False
    kinds = _kinds(getattr(action, "_typehint", action.type))
    values = [str(value) for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
    if bool in kinds:
        values += ["true", "false"]
    return (None if int in kinds else values or None), Path in kinds


def _kinds(hint: Any) -> list[Any]:
    """Return the types of a union, also inside a list."""
    if get_origin(hint) is Literal or not get_args(hint):
        return [hint]
    return [kind for inner in get_args(hint) for kind in _kinds(inner)]


def _plain(text: str) -> str:
    """Return a help text on one line, for argparse, which formats it by %."""
    return " ".join(text.split()).rstrip(".").replace("%", "%%")
