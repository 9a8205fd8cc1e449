"""A headless Chromium with pages that run onnxruntime-web, one browser to a process."""

import atexit
import shutil
import subprocess
import threading
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from zoo.errors import UserError, first_line

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""Browsers that are looked for; otherwise Playwright's own is used, if it is installed."""
PAGE = Path(__file__).with_name("_page.html")
FLAGS = ["--no-sandbox"]
"""The page is zoo's own and the address this machine's. Containers have no user namespaces for a sandbox."""


def browser_file() -> str | None:
    """Return the path of Chromium, or None; nothing is started."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        cached = Path.home() / ".cache" / "ms-playwright"
        found = next((str(path) for path in sorted(cached.glob("chromium*/*/*headless*shell"))), None)
    return found


@cache
def browser_version(file: str) -> str:
    """Return the version of a browser."""
    done = subprocess.run([file, "--version"], capture_output=True, text=True)
    words = [word for word in done.stdout.split() if word[:1].isdigit()]
    return words[0] if words else "of unknown version"


class Browser:
    """A browser, and the server of its pages on this machine.

    Args:
        package: folder of onnxruntime-web's files, see `onnxruntime_web`.
        file: of Chromium.

    Attributes:
        unused: pages to close when the next one is opened. A session that is collected cannot close its page itself:
            it may be collected within a call of Playwright, where another call would wait for ever.
    """

    def __init__(self, package: Path, file: str) -> None:
        from playwright.sync_api import sync_playwright

        self.models: dict[str, Path] = {}
        self.unused: list[Any] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(package, self.models))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            self._playwright = sync_playwright().start()
            self._browser = self._playwright.chromium.launch(executable_path=file, args=FLAGS)
        except Exception as error:  # of Playwright, or of asyncio where a loop is running
            raise UserError(f"{file} cannot be started: {first_line(error)}") from None
        atexit.register(self.close)

    def page(self, model: Path) -> tuple[Any, str]:
        """Return a new page that is ready, and the address of a model for it."""
        while self.unused:
            self.unused.pop().close()
        address = f"/model/{len(self.models)}.onnx"
        self.models[address] = model
        page = self._browser.new_page()
        page.goto(f"http://127.0.0.1:{self._server.server_port}/")
        page.wait_for_function("window.isReady")
        return page, address

    def close(self) -> None:
        """End the browser and the server."""
        self._browser.close()
        self._playwright.stop()
        self._server.shutdown()


@cache
def browser(package: Path, file: str) -> Browser:
    """Return this process's browser."""
    return Browser(package, file)


def _handler(package: Path, models: dict[str, Path]) -> type[SimpleHTTPRequestHandler]:
    class Handler(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            if path.startswith("/ort/"):
                return str(package / Path(path).name)
            return str(models.get(path, PAGE))

        def end_headers(self) -> None:
            # Browsers give threads to pages that are isolated from others only.
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    Handler.extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}
    return Handler
