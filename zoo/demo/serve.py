"""Serve the folder of this file to browsers on this machine, so that they may use several threads.

Usage: python serve.py [--port 8000]

It needs Python alone. Any other web server does too; without these two headers, browsers allow WebAssembly one thread.
"""

import argparse
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Headers that let a page share memory between threads."""
TYPES = {
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
}


class Handler(SimpleHTTPRequestHandler):
    """Serves files with the headers of an isolated page."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    def end_headers(self) -> None:
        """Add the headers."""
        for name, value in ISOLATED.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of single requests."""


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of a folder, for this machine alone; port 0: a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(folder)))


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve this folder to browsers on this machine.")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at; 0: a free one (default: 8000)")
    port = parser.parse_args().port
    try:
        with server(Path(__file__).resolve().parent, port) as running:
            print(f"open http://127.0.0.1:{running.server_address[1]}/ (Ctrl-C ends)", flush=True)
            running.serve_forever()
    except OSError as error:
        parser.exit(2, f"port {port} cannot be used ({error.strerror}): choose another with --port\n")
    except KeyboardInterrupt:
        parser.exit(0)


if __name__ == "__main__":
    main()
