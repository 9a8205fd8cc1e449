"""The server of the small image answers as the exported graph does, from the model file alone."""

import io
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from make_run import CLASSES, make_run
from PIL import Image

from zoo.export.exporter import export_model
from zoo.export.metadata import Metadata


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("serve")
    run = make_run(folder / "run")
    path = export_model(run.model(), Metadata.of(run.card), folder / "model.onnx").path
    script = Path(__file__).parents[1] / "export/serve.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(path), "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=folder
    )
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1], path
    process.terminate()
    process.wait()


def post(url: str, body: bytes) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_an_image_is_answered_as_by_the_graph(server: tuple[str, Path]) -> None:
    url, path = server
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    status, answer = post(url, file.getvalue())
    logits = ort.InferenceSession(path).run(None, {"images": pixels[None, None].astype(np.float32) / 255})[0][0]
    assert status == 200
    assert answer["class"] == CLASSES[int(logits.argmax())]
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(list(answer["probabilities"].values()), expected, atol=1e-5)


def test_bad_bodies_are_answered_and_the_server_lives_on(server: tuple[str, Path]) -> None:
    url, _ = server
    assert post(url, b"<html>")[0] == 400
    assert post(url, b"")[0] == 411
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert json.load(answer) == {"status": "ok"}
