"""A page for each notebook of examples/, with the outputs that are stored in it."""

import json
from pathlib import Path
from typing import Any

from links import with_site_links

EXAMPLES = Path(__file__).parents[2] / "examples"


def notebook_pages() -> dict[str, str]:
    """Return the pages by their path on the site; each begins with its notebook's heading."""
    pages = {f"examples/{path.stem}.md": _page(path) for path in sorted(EXAMPLES.glob("*.ipynb"))}
    titles = {name: page.partition("\n")[0].removeprefix("# ") for name, page in pages.items()}
    links = "\n".join(f"- [{title}]({name.removeprefix('examples/')})" for name, title in titles.items())
    intro = "# Examples\n\nNotebooks that run in seconds on the digits, which come with scikit-learn.\n\n"
    return pages | {"examples/index.md": f"{intro}{links}\n"}


def _page(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    head, *rest = [part for cell in cells for part in _parts(cell)]
    title, _, text = head.partition("\n")
    note = f"The notebook is `examples/{path.name}` in the repository."
    page = "\n\n".join([title, note, text.strip(), *rest]) + "\n"
    return with_site_links(page, f"examples/{path.name}")


def _parts(cell: dict[str, Any]) -> list[str]:
    source = "".join(cell["source"]).strip()
    if cell["cell_type"] == "markdown":
        return [source]
    printed = "".join(_text(output) for output in cell["outputs"]).rstrip()
    return [f"```python\n{source}\n```", *([f"```text\n{printed}\n```"] if printed else [])]


def _text(output: dict[str, Any]) -> str:
    text = output["text"] if output["output_type"] == "stream" else output.get("data", {}).get("text/plain", "")
    return "".join(text)
