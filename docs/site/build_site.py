"""Build the documentation site into build/site: python docs/site/build_site.py. Broken links are errors.

The pages are put together in build/pages: those of docs/, README, CONTRIBUTING and CHANGELOG, and a page for each
method, model and notebook. MkDocs then builds them under the configuration docs/site/mkdocs.yml, in whose navigation a
folder stands for its pages. Nothing but that configuration depends on MkDocs.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from links import page_of, with_site_links
from method_pages import method_pages
from model_pages import model_pages
from notebook_pages import notebook_pages
from recipe_page import recipe_page

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
CODE = re.compile(r"`[^`\n]+`")
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def main() -> None:
    """Put the pages together and build them."""
    pages = BUILD / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    assemble(pages)
    config = BUILD / "mkdocs.yml"
    config.write_text(yaml.safe_dump(configuration(pages), sort_keys=False, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config)]
    sys.exit(subprocess.run(command, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}).returncode)


def assemble(pages: Path) -> None:
    """Write every page of the site, and the pictures and data that they link to, into an empty folder."""
    generated = method_pages() | model_pages() | notebook_pages() | recipe_page()
    written = {name: path.read_text(encoding="utf-8") for name, path in _written().items()}
    texts = {page_of(file): with_site_links(text, file) for file, text in written.items()}
    for page, text in (generated | texts).items():
        path = pages / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_in_its_dialect(text), encoding="utf-8")
    data = [file for file in (ROOT / "docs").glob("*.*") if file.suffix != ".md"]
    for file in (*data, ROOT / "LICENSE", ROOT / "CITATION.cff"):
        shutil.copy(file, pages)
    shutil.copytree(ROOT / "examples" / "clusters", pages / "examples" / "clusters")


def _in_its_dialect(text: str) -> str:
    """Return the text without comments, and without backslashes before pipes in code, which Python-Markdown shows."""
    text = re.sub(r"^<!--.*?-->\n", "", text, flags=re.MULTILINE)
    return re.sub(
        r"^\|.*", lambda row: CODE.sub(lambda code: code[0].replace(r"\|", "|"), row[0]), text, flags=re.MULTILINE
    )


def _written() -> dict[str, Path]:
    """Return the pages that people write, by their path in the repository."""
    found = [*(ROOT / name for name in TOP), *(ROOT / "docs").rglob("*.md")]
    return {path.relative_to(ROOT).as_posix(): path for path in found}


def configuration(pages: Path) -> dict[str, Any]:
    """Return the configuration for these pages, with every folder of its navigation replaced by the pages in it."""
    config: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("mkdocs.yml").read_text(encoding="utf-8"))
    return config | {"docs_dir": pages.name, "site_dir": "site", "nav": _filled(config["nav"], pages)}


def _filled(nav: Any, pages: Path) -> Any:
    if isinstance(nav, dict):
        return {title: _filled(part, pages) for title, part in nav.items()}
    if isinstance(nav, list):
        return [_filled(part, pages) for part in nav]
    if not nav.endswith("/"):
        return nav
    inside = sorted(path.name for path in (pages / nav).glob("*.md"))
    return [nav + name for name in sorted(inside, key=lambda name: name != "index.md")]


if __name__ == "__main__":
    main()
