"""The command line: one file of this package is one command."""

import importlib
import pkgutil
import sys
import warnings
from types import ModuleType

from zoo._version import __version__
from zoo.cli._parser import Parser
from zoo.errors import UserError, printable, unknown_name


def _command(name: str) -> ModuleType:
    return importlib.import_module(f"zoo.cli.{name}")


def _names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def _overview() -> str:
    lines = [f"  {name:10} {(_command(name).__doc__ or '').splitlines()[0]}" for name in _names()]
    return "usage: zoo COMMAND [--help] ...\n\ncommands:\n" + "\n".join(lines)


def run(argv: list[str]) -> None:
    """Run one command line, without the program's name; raises `UserError` for the user's mistakes."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return
    if argv[0] == "--version":
        print(f"zoo {__version__}")
        return
    if argv[0] not in _names():
        raise unknown_name("command", argv[0], _names())
    command = _command(argv[0])
    parser = Parser(prog=f"zoo {argv[0]}", description=command.__doc__)
    command.main(parser, argv[1:])


def main() -> None:
    """Run ``sys.argv``; mistakes of the user end in one line and exit code 2."""
    if not sys.warnoptions:
        warnings.filterwarnings("ignore")
    try:
        run(sys.argv[1:])
    except UserError as error:
        print(f"zoo: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        what = f"{error.filename or 'a file'} cannot be read or written: {error.strerror or error}"
        print(f"zoo: {what}; look at the path, its permissions and the space on the disk", file=sys.stderr)
        sys.exit(1)
