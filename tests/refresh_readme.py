"""Write the README's table of models anew from the cards of the bundled hub: python tests/refresh_readme.py."""

import io
import os
import re
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

from zoo.cli import run

README = Path(__file__).parents[1] / "README.md"
COMMAND = "zoo list --models"


def refreshed(readme: str) -> str:
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
