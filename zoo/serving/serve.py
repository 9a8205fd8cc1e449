"""Serve an exported classifier over HTTP with ONNX Runtime, NumPy and Pillow alone: POST an image, get JSON.

Usage: python serve.py MODEL.onnx [--port 8000] [--host 127.0.0.1] [--threads 2]
"""

import argparse
import contextlib
import importlib
import io
import json
import os
from collections.abc import Callable
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
        names = json.loads(metadata["class_names"])
        channels, height, width = json.loads(metadata["image_shape"])
    except (ValueError, TypeError, RecursionError):
        raise SystemExit(f"{path} was not written by `zoo export`: its classes cannot be read") from None
    preprocesses = session.get_inputs()[0].type == "tensor(uint8)"

    def classify(data: bytes) -> dict[str, Any]:
        image = pixels(data, channels)
        images = (image if preprocesses else fitted(image, height, width))[None]
        logits = session.run(["logits"], {"images": images})[0][0].astype(np.float64)
        weights = np.exp(logits - logits.max())
        probabilities = dict(zip(names, (weights / weights.sum()).round(6).tolist(), strict=True))
        return {"class": names[int(logits.argmax())], "probabilities": probabilities}

    return classify


def handler(classify: Callable[[bytes], dict[str, Any]]) -> type[BaseHTTPRequestHandler]:
    """Return the request handler: GET and HEAD answer ``ok`` (health check), POST classifies the body."""

    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":  # which wants the headers alone
                self.wfile.write(data)

        def do_GET(self) -> None:
            self._answer(200, {"status": "ok"})

        do_HEAD = do_GET

        def do_POST(self) -> None:
            said = self.headers.get("Content-Length", "")
            length = int(said) if said.isdecimal() else 0
            if not 0 < length <= MAX_BYTES:
                self._answer(413 if length else 411, {"error": f"send an image of 1 to {MAX_BYTES} bytes"})
                return
            try:
                self._answer(200, classify(self.rfile.read(length)))
            except NotAnImage as error:
                self._answer(400, {"error": f"the body is not an image: {error}"})

    return Handler


def main() -> None:
    """Serve until interrupted; print the address once it listens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--threads", type=int, default=min(2, allowed))
    options = parser.parse_args()
    handle = handler(classifier(options.model, options.threads))
    try:
        server = ThreadingHTTPServer((options.host, options.port), handle)
    except (OSError, OverflowError) as error:
        raise SystemExit(f"cannot listen at {options.host}:{options.port}: {error}") from None
    with contextlib.suppress(KeyboardInterrupt):
        print(f"serving {options.model} at http://{options.host}:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
