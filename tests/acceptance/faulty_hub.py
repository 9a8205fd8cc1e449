"""Serve a hub that goes wrong: ``python faulty_hub.py HUB PORT``, then ``--hub http://127.0.0.1:PORT/FAULT``.

FAULT is one of `hub_server.FAULTS` with ``_`` for a space. It strikes the weights, or with ``index-`` before it the
index.
"""

import sys
import tempfile
from http.server import ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from hub_server import FAULTS, FaultyServer, _handler


def fault(path: str) -> str:
    """Say what goes wrong with the request of a path."""
    where, _, file = path.lstrip("/").partition("/")
    name = where.removeprefix("index-").replace("_", " ")
    struck = file == "index.json" if where.startswith("index-") else file.endswith(".safetensors")
    return name if struck else "none"


def main(hub: str, port: str) -> None:
    """Serve until killed."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (*FAULTS, "drip", "hang"):
            for where in (name, f"index-{name}"):
                (Path(folder) / where.replace(" ", "_")).symlink_to(Path(hub).resolve())
        ThreadingHTTPServer(("127.0.0.1", int(port)), _handler(FaultyServer(Path(folder), fault))).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
