"""The pages of the site are complete, and every link between them leads somewhere."""

import dataclasses
import re
from pathlib import Path

import pytest
from build_site import assemble, configuration
from links import CODE_OR_LINK, page_of, with_site_links

import zoo
from zoo.methods import METHODS
from zoo.plugins import renamed_options

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    assemble(folder)
    return folder


def test_links_lead_to_pages(pages: Path) -> None:
    broken = []
    for page in pages.rglob("*.md"):
        for found in CODE_OR_LINK.finditer(page.read_text(encoding="utf-8")):
            if found[1] and not (page.parent / found[1]).is_file():
                broken.append(f"{page.relative_to(pages)}: {found[1]}")
    assert broken == []


def test_every_page_is_in_the_navigation_once(pages: Path) -> None:
    def listed(part: object) -> list[str]:
        if isinstance(part, str):
            return [part]
        return [page for inner in (part.values() if isinstance(part, dict) else part) for page in listed(inner)]

    every = sorted(path.relative_to(pages).as_posix() for path in pages.rglob("*.md"))
    assert sorted(listed(configuration(pages)["nav"])) == every


def test_code_in_tables_shows_no_backslash(pages: Path) -> None:
    usage = (pages / "usage.md").read_text(encoding="utf-8")
    assert "`zoo evaluate RUN… [--jobs J] [--data D --data-dir DIR] [--attacks quick|reliable|" in usage


def test_links_between_files_become_links_between_pages() -> None:
    text = "[`m`](../zoo/hub/bundled/m/card.json#x) [here](#y) `[code](../gone)` [web](https://a.b/c)"
    assert with_site_links(text, "docs/usage.md") == text.replace("../zoo/hub/bundled/m/card.json", "models/m.md")
    assert with_site_links("[a](docs/hub.md)", "README.md") == "[a](hub.md)"
    assert page_of("examples/a.ipynb") == "examples/a.md"
    with pytest.raises(SystemExit, match=r"README\.md links to zoo/errors\.py"):
        with_site_links("[a](zoo/errors.py)", "README.md")


@pytest.mark.parametrize("name", METHODS.names())
def test_a_method_s_page_has_every_option_and_model(name: str, pages: Path) -> None:
    page = (pages / f"methods/{name}.md").read_text(encoding="utf-8")
    options = {field.name for field in dataclasses.fields(METHODS.get(name))}
    assert set(re.findall(r"^\| `--method\.(\w+)` \| `.+` \| .+ \|$", page, flags=re.MULTILINE)) == options
    assert not any(f"--method.{old}`" in page for old in renamed_options(METHODS.get(name)))
    cards = [path for path in pages.glob("models/*.md") if f"| method | `{name}`" in path.read_text(encoding="utf-8")]
    assert all(f"(../models/{path.name})" in page for path in cards)


def test_every_public_function_is_in_the_reference() -> None:
    reference = "".join(path.read_text() for path in (ROOT / "docs/reference").glob("*.md"))
    for name in zoo.__all__:
        assert f"::: zoo.{name}\n" in reference


def test_examples_in_docstrings_have_the_title_that_the_reference_knows() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "zoo").rglob("*.py")}
    assert [path for path, text in sources.items() if re.search(r"^ *Example:$", text, flags=re.MULTILINE)] == []


def test_a_model_without_weights_is_not_offered(pages: Path) -> None:
    page = (pages / "models/vgg16_bn.dense_c10.md").read_text(encoding="utf-8")
    assert "do not come with zoo" in page
    assert "create_model" not in page
