"""Serve an exported classifier over HTTP with ONNX Runtime, NumPy and Pillow alone: POST an image, get JSON.

Usage: python serve.py MODEL.onnx [--port 8000] [--host 127.0.0.1] [--threads 2]

POST / takes an image as the body or as a file of a form; GET /health and GET /metrics (Prometheus) watch the server.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image

MAX_BYTES = 32 * 2**20
PATIENCE = 60.0
"""Seconds that a client may take to send its announced body."""
ORIENTATION = 0x0112
"""EXIF's tag for how the camera was held."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
with contextlib.suppress(ImportError):  # if it is installed, HEIC images are read too
    importlib.import_module("pillow_heif").register_heif_opener()
HEALTH, METRICS, CLASSIFY = ("/", "/health"), "/metrics", ("/", "/predict")
"""Paths of GET and HEAD, and of POST."""
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper ends of the histogram of answering times, in seconds."""


class NotAnImage(Exception):
    """Bytes that cannot be decoded."""


def eight_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey pixels at 8 bits, which Pillow's conversion would clip to white, and other pixels unchanged.

    Raises:
        ValueError: the pixels have 32 bits, so the value of white is unknown.
    """
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits, whose white is not known")
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))


def upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF orientation says; one whose EXIF data cannot be read stays as it is."""
    image.load()  # turns TIFF, and finds EXIF data behind the pixels of a PNG
    try:
        turn = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF data raise whatever their reader stumbles over; the pixels are intact
        turn = 1
    return image.transpose(TURNS[turn]) if turn in TURNS else image


def on_white(image: Image.Image) -> Image.Image:
    """Return an image whose transparent parts, whose colour nobody sees, are white."""
    if not image.has_transparency_data:
        return image
    seen = image.convert("RGBA")
    white = Image.new("RGBA", seen.size, "white")
    white.alpha_composite(seen)
    return white.convert("RGB")


def pixels(data: bytes, channels: int) -> np.ndarray:
    """Decode an image, upright and on white: uint8 (height, width, channels).

    Raises:
        NotAnImage: the bytes are not an image, or a damaged one.
    """
    try:
        image = on_white(eight_bits(upright(Image.open(io.BytesIO(data))))).convert("L" if channels == 1 else "RGB")
    except Exception as error:  # decoders of damaged files raise whatever they stumble over
        raise NotAnImage(str(error) or type(error).__name__) from None
    return np.asarray(image).reshape(image.height, image.width, channels)


def fitted(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut out the largest central part of the model's aspect ratio and resize it, as zoo does before it evaluates.

    Args:
        image: uint8 (height, width, channels), any size.
        height, width: that the model takes.

    Returns:
        float32 (channels, height, width) in [0, 1].
    """
    h, w, channels = image.shape
    part_h, part_w = max(1, min(h, w * height // width)), max(1, min(w, h * width // height))
    top, left = (h - part_h) // 2, (w - part_w) // 2
    cut = image[top : top + part_h, left : left + part_w]
    part = Image.fromarray(cut[..., 0] if channels == 1 else cut)
    resized = np.asarray(part.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    return resized.reshape(height, width, channels).transpose(2, 0, 1) / 255


def classifier(path: str, threads: int) -> Callable[[bytes], dict[str, Any]]:
    """Return a function from an encoded image's bytes to its class name and the probabilities of all classes.

    Everything else it needs (image shape, class names) is in the model's own metadata. A graph that preprocesses uint8
    images gets the decoded pixels.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise SystemExit(f"ONNX Runtime cannot open {path}: {error}") from None
    metadata = session.get_modelmeta().custom_metadata_map
    if not {"class_names", "image_shape"} <= metadata.keys():
        raise SystemExit(f"{path} was not written by `zoo export`: it does not name its classes")
    try:
        names, shape = json.loads(metadata["class_names"]), json.loads(metadata["image_shape"])
    except (ValueError, RecursionError):
        names = shape = None
    if not _is_list(names, str) or not _is_list(shape, int) or len(shape) != 3 or min(shape) < 1:
        raise SystemExit(f"{path} was not written by `zoo export`: its classes or its image shape cannot be read")
    channels, height, width = shape
    preprocesses = session.get_inputs()[0].type == "tensor(uint8)"
    answers, taken = session.get_outputs()[0].shape[-1], session.get_inputs()[0].shape[1:]
    if isinstance(answers, int) and answers != len(names):
        raise SystemExit(f"{path} names {len(names)} classes and answers with {answers} logits: export it again")
    if not preprocesses and taken != shape and all(isinstance(side, int) for side in taken):
        raise SystemExit(f"{path} says that it takes images of {shape}, but it takes {taken}: export it again")

    def classify(data: bytes) -> dict[str, Any]:
        image = pixels(data, channels)
        images = (image if preprocesses else fitted(image, height, width))[None]
        logits = session.run(["logits"], {"images": images})[0][0].astype(np.float64)
        weights = np.exp(logits - logits.max())
        probabilities = dict(zip(names, (weights / weights.sum()).round(6).tolist(), strict=True))
        return {"class": names[int(logits.argmax())], "probabilities": probabilities}

    return classify


def _is_list(value: Any, of: type) -> bool:
    return isinstance(value, list) and bool(value) and all(type(x) is of for x in value)


def uploaded(body: bytes, content_type: str) -> bytes:
    """Return the image of a request: the body, or the one file of a form (multipart/form-data).

    Raises:
        NotAnImage: a form without a file, or with several.
    """
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() != "multipart/form-data":
        return body
    boundary = str(header.get_param("boundary", "")).encode("latin-1", "replace")
    files = []
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        if boundary and b"filename" in head.lower():
            files.append(content)
    if len(files) != 1:
        raise NotAnImage(f"the form has {len(files)} files, send one, as by curl -F image=@photo.jpg")
    return files[0]


class Metrics:
    """Counts of answers by status, and a histogram of the time that each took, in the text format of Prometheus."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[int] = Counter()
        self._within = [0] * len(BUCKETS)
        self._seconds = 0.0

    def add(self, status: int, seconds: float) -> None:
        """Count an answer to an upload."""
        with self._lock:
            self._answers[status] += 1
            self._seconds += seconds
            for i, end in enumerate(BUCKETS):
                self._within[i] += seconds <= end

    def text(self) -> str:
        """Return all figures."""
        with self._lock:
            counts, within, seconds = dict(self._answers), list(self._within), self._seconds
        name, total = "zoo_request_duration_seconds", sum(counts.values())
        lines = ["# HELP zoo_requests_total Answers to uploads, by HTTP status.", "# TYPE zoo_requests_total counter"]
        lines += [f'zoo_requests_total{{code="{status}"}} {count}' for status, count in sorted(counts.items())]
        lines += [f"# HELP {name} Time from the end of an upload to its answer.", f"# TYPE {name} histogram"]
        lines += [f'{name}_bucket{{le="{end}"}} {count}' for end, count in zip(BUCKETS, within, strict=True)]
        lines += [f'{name}_bucket{{le="+Inf"}} {total}', f"{name}_sum {seconds:.6f}", f"{name}_count {total}"]
        return "\n".join(lines) + "\n"


def handler(classify: Callable[[bytes], dict[str, Any]], quiet: bool = False) -> type[BaseHTTPRequestHandler]:
    """Return the request handler, see the routes above; ``quiet`` leaves the log of requests out."""
    metrics = Metrics()

    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE

        def log_request(self, *args: Any) -> None:
            if not quiet:
                super().log_request(*args)

        def _send(self, status: int, text: str, kind: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":  # which wants the headers alone
                self.wfile.write(data)

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            self._send(status, json.dumps(body), "application/json")

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == METRICS:
                self._send(200, metrics.text(), "text/plain; version=0.0.4")
            elif path in HEALTH:
                self._answer(200, {"status": "ok"})
            else:
                self._answer(404, {"error": f"GET {' or '.join(HEALTH)} for health, {METRICS} for metrics"})

        do_HEAD = do_GET

        def do_POST(self) -> None:
            said = self.headers.get("Content-Length", "")
            length = int(said[:20]) if said.isdecimal() else 0  # Python refuses to read numbers of thousands of digits
            if not 0 < length <= MAX_BYTES:
                self._answer(413 if length else 411, {"error": f"send an image of 1 to {MAX_BYTES} bytes"})
                return
            body = self.rfile.read(length)
            if len(body) < length:  # the client has gone
                return
            if self.path.partition("?")[0] not in CLASSIFY:
                self._answer(404, {"error": f"POST an image to {' or '.join(CLASSIFY)}"})
                return
            start = time.perf_counter()
            status, answer = self._classified(body)
            metrics.add(status, time.perf_counter() - start)
            self._answer(status, answer)

        def _classified(self, body: bytes) -> tuple[int, dict[str, Any]]:
            try:
                return 200, classify(uploaded(body, self.headers.get("Content-Type", "")))
            except NotAnImage as error:
                return 400, {"error": f"the body is not an image: {error}"}
            except Exception as error:  # ONNX Runtime's exceptions share no base of their own
                self.log_error("%s", error)
                return 500, {"error": "the model failed on this image"}

    return Handler


def listen(path: str, host: str, port: int, threads: int, *, name: str = "", quiet: bool = False) -> None:
    """Serve a file until interrupted; print the address once it listens.

    Args:
        path: an exported file.
        host, port: where to listen; port 0 takes a free one.
        threads: of one operator.
        name: of the model, in the line that is printed; the path if empty.
        quiet: print no line for each request.

    Raises:
        SystemExit: the file cannot be served, or the port is taken; with the message.
    """
    handle = handler(classifier(path, threads), quiet)
    try:
        server = ThreadingHTTPServer((host, port), handle)
    except (OSError, OverflowError) as error:
        raise SystemExit(f"cannot listen at {host}:{port}: {error}") from None
    # As the first process of a container it would not hear SIGTERM, which asks it to stop.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), server:
        print(f"serving {name or path} at http://{host}:{server.server_address[1]}", flush=True)
        server.serve_forever()
    signal.signal(signal.SIGTERM, before)


def default_threads() -> int:
    """Return 2, or 1 where this process may use one processor only."""
    return min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def main() -> None:
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--quiet", action="store_true", help="no line for each request")
    options = parser.parse_args()
    listen(options.model, options.host, options.port, options.threads, quiet=options.quiet)


if __name__ == "__main__":
    main()
