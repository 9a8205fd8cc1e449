"""Serve an exported classifier over HTTP with ONNX Runtime, NumPy and Pillow alone: POST an image, get JSON.

Usage: python serve.py MODEL.onnx [--port 8000] [--host 127.0.0.1] [--threads 2]
"""

import argparse
import io
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image, UnidentifiedImageError

MAX_BYTES = 32 * 2**20


def classifier(path: str, threads: int) -> Callable[[bytes], dict[str, Any]]:
    """Return a function from an encoded image's bytes to its class name and the probabilities of all classes.

    Everything else it needs (image shape, class names) is in the model's own metadata.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    names = json.loads(metadata["class_names"])
    channels, height, width = json.loads(metadata["image_shape"])

    def classify(data: bytes) -> dict[str, Any]:
        image = Image.open(io.BytesIO(data)).convert("L" if channels == 1 else "RGB").resize((width, height))
        pixels = np.asarray(image, dtype=np.float32).reshape(height, width, channels) / 255
        logits = session.run(["logits"], {"images": pixels.transpose(2, 0, 1)[None]})[0][0].astype(np.float64)
        weights = np.exp(logits - logits.max())
        probabilities = dict(zip(names, (weights / weights.sum()).round(6).tolist(), strict=True))
        return {"class": names[int(logits.argmax())], "probabilities": probabilities}

    return classify


def handler(classify: Callable[[bytes], dict[str, Any]]) -> type[BaseHTTPRequestHandler]:
    """Return the request handler: GET answers ``ok`` (health check), POST classifies the body."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._answer(200, {"status": "ok"})

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 < length <= MAX_BYTES:
                self._answer(413 if length else 411, {"error": f"send an image of 1 to {MAX_BYTES} bytes"})
                return
            try:
                self._answer(200, classify(self.rfile.read(length)))
            except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
                self._answer(400, {"error": f"the body is not an image: {error}"})

    return Handler


def main() -> None:
    """Serve until interrupted; prints the address once it listens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    server = ThreadingHTTPServer((options.host, options.port), handler(classifier(options.model, options.threads)))
    print(f"serving {options.model} at http://{options.host}:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
