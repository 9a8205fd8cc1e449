"""Look at every page of the built site in Chromium, 360 pixels wide, light and dark. Minutes.

    just site && python tests/acceptance/site_in_a_browser.py [PAGE.html ...] [--shots DIR]

needs playwright (pip) and Chromium (the package chromium of Debian, or --chromium). A page fails if it scrolls
sideways, ignores the preferred colours, logs an error or asks for anything outside the site.
"""

import argparse
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Browser, Page, Route, sync_playwright

SITE = Path(__file__).parents[2] / "build/site"
WIDTH = 360
SCHEMES = {"light": "default", "dark": "slate"}
"""What the theme calls each scheme that a browser prefers."""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main() -> None:
    """Visit every page under both schemes, and print what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="such as usage.html; without: every page")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--shots", type=Path, help="folder for a picture of each page")
    options = parser.parse_args()
    pages = options.pages or sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        faults = [x for scheme in SCHEMES for x in visit(browser, scheme, server.server_port, pages, options.shots)]
    print("\n".join(faults) or f"{len(pages)} pages hold at {WIDTH} pixels, light and dark")
    sys.exit(bool(faults) or not pages)


def visit(browser: Browser, scheme: str, port: int, pages: list[str], shots: Path | None) -> list[str]:
    """Return what is wrong with each page."""
    page = browser.new_context(viewport={"width": WIDTH, "height": 740}, color_scheme=scheme).new_page()
    address, wrong, faults = f"http://127.0.0.1:{port}/", [], []

    def inside_only(route: Route) -> None:
        if route.request.url.startswith((address, "data:")):
            route.continue_()
        else:
            wrong.append(f"asks for {route.request.url}")
            route.abort()

    page.route("**/*", inside_only)
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    for name in pages:
        answer = page.goto(address + name, timeout=120_000)
        if answer is None or not answer.ok:
            wrong.append("is missing")
        faults += [f"{scheme} {name}: {fault}" for fault in (*wrong, *looks(page, scheme))]
        wrong.clear()
        if shots:
            page.screenshot(path=shots / f"{scheme}-{name.replace('/', '_')}.png")
    return faults


def looks(page: Page, scheme: str) -> list[str]:
    """Return what can be seen to be wrong with a page."""
    width = page.evaluate("document.documentElement.scrollWidth")
    shown = page.evaluate("document.body.getAttribute('data-md-color-scheme')")
    scrolls = [f"is {width} pixels wide"] if width > WIDTH else []
    return scrolls + ([f"shows the scheme {shown}"] if shown != SCHEMES[scheme] else [])


if __name__ == "__main__":
    main()
