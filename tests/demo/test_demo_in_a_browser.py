"""The page of `zoo demo` in headless Chromium: the same logits as in Python, soon after it is loaded.

It needs Chromium, playwright (`pip install playwright`) and onnxruntime-web, which npm fetches: pytest -m slow
tests/demo
"""

import io
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.cli import run as cli
from zoo.demo.serve import server
from zoo.errors import UserError
from zoo.hub.runs import read_run
from zoo.serving.preprocessing import preprocess

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
NETWORKS = ["test_resnet.robust_lowrank50_at_digits", "test_resnet.robust_lowrank50_digits"]
RADIUS = 60
ANSWERED = """() => new Promise(resolve => {
  document.addEventListener("answers", event => resolve(event.detail), { once: true });
})"""
FIRST = """async () => {
  const waits = () => !performance.getEntriesByName("first answer").length;
  for (let i = 0; i < 1200 && waits(); i++) await new Promise(go => setTimeout(go, 50));
  const [loaded] = performance.getEntriesByType("navigation");
  return performance.getEntriesByName("first answer")[0].startTime - loaded.loadEventEnd;
}"""
READY = """async () => {
  const waits = () => [...document.querySelectorAll("#costs .time")].some(cell => cell.textContent === "…");
  for (let i = 0; i < 1200 && waits(); i++) await new Promise(go => setTimeout(go, 50));
}"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "demo"
    try:
        cli(["demo", *NETWORKS, "--samples", "3", "--radius", str(RADIUS), "--out", str(folder)])
    except UserError as error:
        if "onnxruntime-web" in str(error):
            pytest.skip(str(error))
        raise
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs one of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


def serving(running: ThreadingHTTPServer) -> Iterator[str]:
    with running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}/"
        running.shutdown()


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    yield from serving(server(folder, 0))


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("requestfailed", lambda request: page.problems.append(request.url))
    page.on("request", lambda r: r.url.startswith((address, "data:", "blob:")) or page.problems.append(r.url))
    page.goto(address)
    page.evaluate(FIRST)
    page.evaluate(READY)
    yield page
    assert not page.problems
    context.close()


def drop(page: Any, name: str, content: bytes) -> None:
    """Drop a file on the page, as from the desktop."""
    page.evaluate(
        """([name, content]) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(content)], name));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [name, list(content)],
    )


def answers_to(page: Any, action: Any) -> dict[str, Any]:
    """Return the detail of the event "answers" that follows an action."""
    page.evaluate(f"() => {{ window.answered = ({ANSWERED})(); }}")
    action()
    return page.evaluate("() => window.answered")


def png(width: int, height: int) -> bytes:
    """Return a picture that is neither square nor of the networks' size."""
    rows, columns = np.mgrid[:height, :width]
    waves = [128 + 120 * np.sin(rows / (5 + k)) * np.cos(columns / (9 - k)) for k in range(3)]
    file = io.BytesIO()
    Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@torch.no_grad()
def logits_of(path: Path, name: str) -> torch.Tensor:
    """Return what the network answers to an image file in Python."""
    run = read_run(name)
    pixels = torch.from_numpy(np.array(Image.open(path).convert("L")))[None, :, :, None]
    return run.model()(preprocess(pixels, run.card.image_shape))[0]


def test_the_first_answer_comes_soon(browser: Any, address: str) -> None:
    """Within 2 s of the page's processor time: on a machine with nothing else to do it comes no later than that."""
    context = browser.new_context()
    page = context.new_page()
    metrics = context.new_cdp_session(page)
    metrics.send("Performance.enable")

    def processor_time() -> float:
        found = metrics.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in found if metric["name"] == "ProcessTime")

    page.goto(address)
    loaded = processor_time()
    page.evaluate(FIRST)
    assert processor_time() - loaded < 2
    context.close()


@pytest.mark.parametrize("size", [(8, 8), (173, 90), (640, 480)])
def test_a_dropped_picture_gets_the_logits_that_it_has_in_python(
    size: tuple[int, int], page: Any, tmp_path: Path
) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(png(*size))
    found = answers_to(page, lambda: drop(page, file.name, file.read_bytes()))
    assert [answer["name"] for answer in found["answers"]] == NETWORKS
    for answer in found["answers"]:
        expected = logits_of(file, answer["name"])
        assert (torch.tensor(answer["logits"]) - expected).abs().max() <= 1e-4 * max(1, expected.abs().max())


def test_the_slider_moves_to_the_answers_that_were_measured(page: Any, folder: Path) -> None:
    figures = json.loads((folder / "demo.json").read_text())
    for sample in range(3):
        if sample:
            page.locator("#samples input").nth(sample - 1).focus()
            assert answers_to(page, lambda: page.keyboard.press("ArrowRight"))["stop"] == 0
        page.locator("#strength").focus()
        found = answers_to(page, lambda: page.keyboard.press("End"))
        assert found["stop"] == RADIUS
        for answer, slide in zip(found["answers"], figures["samples"][sample]["slides"], strict=True):
            assert int(np.argmax(answer["logits"])) == slide["classes"][RADIUS]
            share = torch.tensor(answer["logits"]).softmax(0)[figures["samples"][sample]["label"]]
            assert float(share) == pytest.approx(slide["confidence"][RADIUS], abs=2e-4)
        assert page.locator("#stop").inner_text() == f"{RADIUS}/255"


def test_the_keyboard_reaches_everything(page: Any) -> None:
    page.locator("#samples input").first.focus()
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.id || document.activeElement.textContent"))
    assert {"file", "camera", "strength", "measure"} <= set(reached)
    assert any("uncompressed" in name for name in reached)


def test_it_fits_a_phone_in_both_schemes(page: Any) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 360


def test_what_it_cannot_decode_or_open_is_said_in_one_line(page: Any) -> None:
    drop(page, "notes.txt", b"no picture")
    status = page.locator("#status")
    playwright.expect(status).to_have_text(
        "notes.txt is not a picture that this browser can decode: give a JPEG, PNG or WebP file."
    )
    page.locator("#camera").click()
    playwright.expect(status).to_contain_text("camera")
    playwright.expect(status).to_contain_text("choose a picture")


def test_the_uncompressed_network_is_timed_when_asked(page: Any) -> None:
    page.get_by_role("button", name="uncompressed").click()
    playwright.expect(page.locator("#costs tr")).to_have_count(3)
    page.evaluate(READY)
    assert all(float(cell) > 0 for cell in page.locator("#costs .time").all_inner_texts())


def test_without_isolation_it_runs_in_one_thread_and_says_so(browser: Any, folder: Path) -> None:
    class Plain(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, format: str, *args: object) -> None: ...

    for address in serving(ThreadingHTTPServer(("127.0.0.1", 0), Plain)):
        page = browser.new_page()
        page.goto(address)
        page.evaluate(FIRST)
        words = page.locator("#threads").inner_text()
        assert "1 thread" in words
        assert "serve.py" in words
        page.close()


def test_opened_from_the_disk_it_says_how_to_serve_it(browser: Any, folder: Path) -> None:
    page = browser.new_page()
    page.goto((folder / "index.html").as_uri())
    playwright.expect(page.locator("#status")).to_contain_text("python serve.py")
    page.close()
