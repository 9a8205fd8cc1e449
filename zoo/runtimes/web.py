"""onnxruntime-web, which runs ONNX files in browsers: WebAssembly on the CPU, in headless Chromium."""

import base64
import importlib.util
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import UserError, first_line
from zoo.runtimes._base import Runtime, Session
from zoo.runtimes._browser import browser, browser_file, browser_version
from zoo.runtimes._onnxruntime_web import ONNXRUNTIME_WEB, onnxruntime_web
from zoo.screen import note

LARGEST = 1 << 24
"""Bytes of images that pass to the page at once."""


class Web(Runtime):
    """onnxruntime-web (WebAssembly) in headless Chromium, timed by the page's own clock."""

    library = "playwright"
    distributions = ("playwright",)
    install = "pip install 'robust-zoo[web]', apt install chromium (or playwright install chromium), and npm"

    def version(self) -> str:
        """Return the versions of onnxruntime-web and of the browser."""
        file = browser_file()
        wanted = {"playwright": importlib.util.find_spec("playwright"), "Chromium": file}
        missing = [name for name, there in wanted.items() if not there]
        if missing or file is None:
            raise UserError(f"the runtime web is not installed, it lacks {', '.join(missing)}: {self.install}")
        return f"{ONNXRUNTIME_WEB} in Chromium {browser_version(file)}"

    def open(self, file: Path, threads: int) -> Session:
        """Open an ONNX file in a page of its own."""
        self.version()
        chromium = browser_file()
        assert chromium is not None
        host = browser(onnxruntime_web(), chromium)
        page, address = host.page(file)
        try:
            there = page.evaluate("([url, threads]) => openModel(url, threads)", [address, threads])
        except Exception as error:  # what onnxruntime-web throws, by way of Playwright
            page.close()
            raise UserError(f"web cannot open {file}: {_reason(error)}") from None
        if there < threads:
            note(f"web: this browser has no threads for WebAssembly, so that one is used and not {threads}")
        return _Page(page, host.unused)

    def times(self, session: Session, images: NDArray[np.float32], seconds: float) -> list[float]:
        """Time runs in the page."""
        assert isinstance(session, _Page)
        return session.times(images, seconds)


class _Page:
    def __init__(self, page: Any, unused: list[Any]) -> None:
        self._page, self._sent = page, b""
        weakref.finalize(self, unused.append, page)

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        at_once = max(1, LARGEST // max(1, images[0].nbytes))
        parts = [self._logits(images[i : i + at_once]) for i in range(0, len(images), at_once)]
        return np.concatenate(parts)

    def _logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            self._send(images)
            found = self._page.evaluate("logits()")
        except Exception as error:
            raise UserError(f"web cannot run a batch of {len(images)} images: {_reason(error)}") from None
        data = base64.b64decode(found["data"])
        return np.frombuffer(data, np.float32).reshape(found["shape"]).copy()

    def times(self, images: NDArray[np.float32], seconds: float) -> list[float]:
        try:
            self._send(images)
            return self._page.evaluate("(seconds) => times(seconds)", seconds)
        except Exception as error:
            raise UserError(f"web cannot run a batch of {len(images)} images: {_reason(error)}") from None

    def _send(self, images: NDArray[np.float32]) -> None:
        data = np.ascontiguousarray(images, dtype=np.float32).tobytes()
        if data != self._sent:
            text = base64.b64encode(data).decode()
            self._page.evaluate("([text, shape]) => setImages(text, shape)", [text, list(images.shape)])
            self._sent = data


def _reason(error: Exception) -> str:
    """Return what the page says, without the name of the call."""
    return first_line(error).removeprefix("Page.evaluate: ").removeprefix("Error: ")[:300]
