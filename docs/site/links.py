"""Links between files of the repository, as links between pages of the site."""

import posixpath
import re

PAGES = (
    (r"README\.md", "index.md"),
    (r"(CONTRIBUTING|CHANGELOG)\.md", lambda found: f"{found[1].lower()}.md"),
    (r"(?:zoo/)?configs(?:/.*)?", "recipes.md"),
    (r"docs/cards|zoo/hub/bundled", "models/index.md"),
    (r"docs/cards/(.+)\.json", r"models/\1.md"),
    (r"zoo/hub/bundled/([^/]+)(?:/.*)?", r"models/\1.md"),
    (r"zoo/methods", "methods/index.md"),
    (r"zoo/methods/([a-z]\w*)\.py", r"methods/\1.md"),
    (r"examples", "examples/index.md"),
    (r"examples/(.+)\.ipynb", r"examples/\1.md"),
    (r"examples/clusters/.+", r"\g<0>"),
    (r"docs/(.+)", r"\1"),
    (r"LICENSE|CITATION\.cff", r"\g<0>"),
)
"""Files of the repository, as patterns, and the page of the site that shows each."""
CODE_OR_LINK = re.compile(r"^```.*?^```|`[^`\n]*`|\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)", re.DOTALL | re.MULTILINE)


def page_of(file: str) -> str | None:
    """Return the page of the site that shows a file of the repository, or None."""
    for pattern, page in PAGES:
        if found := re.fullmatch(pattern, file):
            return page(found) if callable(page) else found.expand(page)
    return None


def with_site_links(text: str, file: str) -> str:
    """Return the Markdown of a file with links that hold on the site.

    Args:
        text: of the file.
        file: its path in the repository, from which its relative links lead.

    Raises:
        SystemExit: a link leads to a file that the site does not show.
    """
    page = page_of(file)
    assert page is not None, f"no page shows {file}"

    def moved(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(file), found[1]))
        shown = page_of(target)
        if shown is None:
            raise SystemExit(f"{file} links to {target}, which no page of the site shows: see PAGES in links.py")
        return f"]({posixpath.relpath(shown, posixpath.dirname(page) or '.')}{found[2] or ''})"

    return CODE_OR_LINK.sub(moved, text)
