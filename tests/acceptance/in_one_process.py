"""Run zoo's commands in one process, which spares each the seconds that its imports take, and check what they say.

Reads lines from standard input: `works | WORDS | COMMAND` must end well and say WORDS (a regular expression, in one
line of what it prints), `refused | WORDS | COMMAND` must end in one line with them, as a mistake of the user's.
"""

import contextlib
import io
import re
import shlex
import sys

from zoo.cli import run
from zoo.errors import UserError


def outcome(command: str) -> tuple[str, str]:
    """Return what a command prints, and the line of the mistake that it reports."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            run(shlex.split(command)[1:])
        except UserError as error:
            return said.getvalue(), str(error)
    return said.getvalue(), ""


for line in filter(str.strip, sys.stdin):
    wanted, words, command = (part.strip() for part in line.split(" | ", 2))
    print(f"\n$ {command}", flush=True)
    said, mistake = outcome(command)
    print(f"zoo: {mistake}" if mistake else said.rstrip(), flush=True)
    if (wanted == "refused") != bool(mistake) or "\n" in mistake:
        sys.exit(f"FAILED: it is not {wanted}")
    if not re.search(words, mistake or said):
        sys.exit(f"FAILED: it does not say: {words}")
