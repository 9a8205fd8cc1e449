"""The command line: one file of this package is one command."""

import importlib
import os
import pkgutil
import shutil
import sys
import textwrap
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

from zoo._version import __version__
from zoo.errors import UserError, printable, unknown_name
from zoo.runtime.processors import keep_to_quota
from zoo.screen import quieted

TASKS = {
    "train": "train",
    "measure": "measure",
    "deploy": "deploy",
    "share": "share and find models",
    "compare": "compare",
    "": "more",
}
"""Titles of the overview, by the ``TASK`` of the commands under them."""
QUIET_HELP = "--quiet: show results and errors only, no progress."


def command_named(name: str) -> ModuleType:
    """Import the module of a command."""
    return importlib.import_module(f"zoo.cli.{name}")


def command_names() -> list[str]:
    """Return the names of all commands."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def _overview() -> str:
    """Return the commands by task; their files are parsed, not imported, which would take seconds."""
    from zoo.cli._source import docstring_and_constant

    found = {name: docstring_and_constant(Path(__path__[0]) / f"{name}.py", "TASK") for name in command_names()}
    lines, width = ["usage: zoo COMMAND [--help] ..."], max(38, min(shutil.get_terminal_size().columns, 100))
    for task, title in TASKS.items():
        # The command that gives a task its name comes first.
        names = sorted((name for name, (_, its) in found.items() if its == task), key=lambda name: (name != task, name))
        lines += [f"\n{title}:"] if names else []
        for name in names:
            lines += textwrap.wrap(found[name][0], width, initial_indent=f"  {name:12}", subsequent_indent=" " * 14)
    foot = textwrap.wrap("how to use one: zoo COMMAND --help; the version: zoo --version", width)
    return "\n".join([*lines, "", *foot])


def run(argv: list[str]) -> None:
    """Run one command line, without the program's name; raise `UserError` for the user's mistakes."""
    argv, is_quiet = _without_quiet(argv)
    with quieted() if is_quiet else nullcontext():
        _dispatch(argv)


def _dispatch(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return
    if argv[0] == "--version":
        print(f"zoo {__version__}")
        return
    if argv[0] not in command_names():
        raise unknown_name("command", argv[0], command_names())
    command = command_named(argv[0])

    from zoo.cli._parser import Parser  # after the command, so that an overview does not need the parser

    parser = Parser(prog=f"zoo {argv[0]}", description=command.__doc__, epilog=QUIET_HELP)
    command.main(parser, argv[1:])


def _without_quiet(argv: list[str]) -> tuple[list[str], bool]:
    """Take ``--quiet`` out of a command line; what follows ``--`` is meant for another command."""
    own = argv[: argv.index("--")] if "--" in argv else argv
    return [word for word in own if word != "--quiet"] + argv[len(own) :], "--quiet" in own


def main() -> None:
    """Run ``sys.argv``; user errors end in one line and exit code 2, an interruption in 130."""
    if not sys.warnoptions:
        warnings.filterwarnings("ignore")
    keep_to_quota(os.environ)
    try:
        run(sys.argv[1:])
    except UserError as error:
        print(f"zoo: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        what = f"{error.filename or 'a file'} cannot be read or written: {error.strerror or error}"
        print(f"zoo: {what}; look at the path, its permissions and the space on the disk", file=sys.stderr)
        sys.exit(1)
