"""Run what stands in pages and notebooks, in the current folder.

Of a page the ``python`` and ``bash`` blocks are run; those of other languages (``sh``, ``text``) are for reading.
"""

import json
import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from zoo.cli import run as run_command

BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FIGURE = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?")


def run_page(page: Path) -> dict[str, Any]:
    """Run a page's blocks in order, commands of zoo in this process; return the names that Python has then."""
    names: dict[str, Any] = {}
    for language, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(code, page.name, "exec"), names)
            continue
        for line in code.splitlines():
            program, *words = shlex.split(line, comments=True)
            assert program == "zoo", f"{page.name} runs {program}"
            run_command(words)
    return names


def run_notebook(notebook: Path) -> list[tuple[str, str]]:
    """Run a notebook's cells; return the output stored with each, and what it prints now."""
    names: dict[str, Any] = {}
    outputs = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            with redirect_stdout(StringIO()) as printed:
                exec(compile("".join(cell["source"]), notebook.name, "exec"), names)
            stored = "".join("".join(output.get("text", "")) for output in cell["outputs"])
            outputs.append((stored, printed.getvalue()))
    return outputs


def shape(text: str) -> list[str]:
    """Return the lines that are not empty, with every figure written as ``#``: figures differ between machines."""
    lines = (" ".join(FIGURE.sub("#", line).split()) for line in text.splitlines())
    return [line for line in lines if line]
