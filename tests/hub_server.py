"""A hub on a real local HTTP server that misbehaves on purpose."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from zoo.hub._base import RetryPolicy
from zoo.hub.download import digest
from zoo.hub.index import Entry, Index, Summary
from zoo.hub.web import WebHub

IMPATIENT = RetryPolicy(attempts=3, delay=0.001, timeout=0.4, slowest=1000.0)
FAULTS = (
    "none", "truncated", "corrupted", "html", "html as 200", "500", "503", "dropped", "reset", "wrong length",
    "grown", "shrunk", "stall", "no ranges", "wrong range", "redirect to file", "redirect loop", "404",
)  # fmt: skip
SUMMARY = Summary(
    arch="test_resnet", method="dense", data="digits", image_shape=(1, 8, 8), params=10, dense_params=10, macs=10,
    clean=0.5, n=10, robust=(), threat=None, latency_ms=None, gradient_masking=False, licence=None,
)  # fmt: skip


def make_hub(folder: Path, sizes: dict[str, int], seed: int = 0, name: str = "test_resnet.x") -> Entry:
    """Write a hub with one model of random bytes and return its entry."""
    source = random.Random(seed)
    contents = {file: source.randbytes(size) for file, size in sizes.items()}
    (folder / name).mkdir(parents=True)
    for file, content in contents.items():
        (folder / name / file).write_bytes(content)
    entry = Entry(files={file: digest(content) for file, content in contents.items()}, summary=SUMMARY)
    (folder / "index.json").write_bytes(Index(models={name: entry}).to_json())
    return entry


@dataclass
class FaultyServer:
    """Serves a folder; ``fault(path)`` says what goes wrong with a request.

    Attributes:
        requests: (path, range header) of each request.
    """

    folder: Path
    fault: Callable[[str], str] = lambda path: "none"
    seed: int = 0
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""

    @contextmanager
    def running(self) -> Iterator[WebHub]:
        """Serve, and give the hub as a client sees it."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        self.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield WebHub(self.address, IMPATIENT)
        finally:
            server.shutdown()
            server.server_close()


def _handler(owner: FaultyServer) -> type[BaseHTTPRequestHandler]:
    source = random.Random(owner.seed)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            pass

        def end_headers(self) -> None:
            self.send_header("Connection", "close")
            super().end_headers()

        def do_GET(self) -> None:
            self.close_connection = True
            asked = self.headers.get("Range")
            owner.requests.append((self.path, asked))
            fault = owner.fault(self.path)
            with suppress(OSError):  # the client gave up
                self.answer(fault, asked)

        def answer(self, fault: str, asked: str | None) -> None:
            file = owner.folder / self.path.lstrip("/")
            if fault in ("500", "503", "404") or not file.is_file():
                self.send_error(int(fault) if fault.isdigit() else 404)
                return
            if fault.startswith("redirect"):
                self.send_response(302)
                self.send_header("Location", "file:///etc/passwd" if "file" in fault else self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = self.content(fault, file.read_bytes())
            start, partial, whole = 0, False, len(content)
            if asked and fault not in ("no ranges", "html", "html as 200"):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start, partial = min(int(first), whole), first != "0" or last != ""
                content = content[: int(last) + 1] if last else content
                if fault == "wrong range":
                    start = max(0, start - 1)
            body = content[start:]
            length = len(body) + (100 if fault == "wrong length" else 0)
            self.send_response(206 if partial else 200)
            if partial:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{whole}")
            self.send_header("Content-Type", "text/html" if fault == "html" else "application/octet-stream")
            self.send_header("Content-Length", str(length))
            if fault == "gzip":
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.send_body(fault, body)

        def content(self, fault: str, content: bytes) -> bytes:
            if fault == "corrupted":
                at = source.randrange(len(content))
                return content[:at] + bytes([content[at] ^ (1 << source.randrange(8))]) + content[at + 1 :]
            if fault.startswith("html"):
                return b"<!doctype html><title>Sign in</title>" * 40
            if fault == "grown":
                return content + source.randbytes(source.randrange(1, 500))
            if fault == "shrunk":
                return content[: source.randrange(len(content))]
            return content

        def send_body(self, fault: str, body: bytes) -> None:
            cut = source.randrange(len(body) + 1)
            if fault in ("truncated", "dropped"):
                self.wfile.write(body[:cut])
            elif fault == "reset":
                self.connection.close()
            elif fault == "stall":
                self.wfile.write(body[:cut])
                self.wfile.flush()
                time.sleep(0.2)  # short of the timeout
                self.wfile.write(body[cut:])
            elif fault == "drip":
                for i in range(40):
                    self.wfile.write(body[i : i + 1])
                    self.wfile.flush()
                    time.sleep(0.03)
            elif fault == "hang":
                self.wfile.write(body[:cut])
                self.wfile.flush()
                time.sleep(2)
            else:
                self.wfile.write(body)

    return Handler
