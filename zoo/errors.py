"""Mistakes that a user can correct, reported in one line."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the user's input: the message says what is wrong, where, and what to do next.

    The command line prints it without a traceback and exits with ``exit_code``.
    """

    exit_code = 2


class Interrupted(UserError):
    """The user, or the system, ended a command: the message says how to go on from there.

    Args:
        message: one line.
        signal: that ended it; the exit code is 128 more, as shells have it.
    """

    def __init__(self, message: str, signal: int = 2) -> None:
        super().__init__(message)
        self.signal, self.exit_code = signal, 128 + signal


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def printable(text: str) -> str:
    """Return a foreign text, safe for a terminal: control characters become question marks."""
    return "".join(c if c.isprintable() else "?" for c in text)


def unknown_name(kind: str, name: str, known: Iterable[str], listed_by: str = "zoo list") -> UserError:
    """Return the error for a name that is not known, with the nearest names that are.

    Args:
        kind: of the things named, such as ``"method"``.
        name: the unknown one.
        known: every valid name.
        listed_by: the command that shows them all.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if not near and len(known) <= 20:
        return UserError(f"unknown {kind} {name!r}: choose from {', '.join(known)}")
    hint = f"did you mean {' or '.join(near)}?" if near else f"see `{listed_by}` for all {len(known)}"
    return UserError(f"unknown {kind} {name!r}: {hint}")
