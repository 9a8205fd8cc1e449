"""The server of the small image answers as the exported graph does, from the model file alone."""

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from make_run import CLASSES, make_run
from onnx import TensorProto, helper
from PIL import Image

from zoo.export.exporter import export_model
from zoo.runs.file_metadata import Metadata
from zoo.runs.run import Run
from zoo.serving.preprocessing import embed_preprocessing
from zoo.serving.serve import classifier, main


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("serve")
    run = make_run(folder / "run", class_names=CLASSES)
    path = export_model(run.model(), Metadata.of(run.card), folder / "model.onnx").path
    script = Path(__file__).parents[2] / "zoo/serving/serve.py"
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


def test_a_health_check_by_head_gets_the_headers_alone(server: tuple[str, Path]) -> None:
    url, _ = server
    got, headers = {}, {}
    for method in ("GET", "HEAD"):
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=20) as answer:
            assert answer.status == 200
            got[method], headers[method] = answer.read(), dict(answer.headers)
    assert json.loads(got["GET"]) == {"status": "ok"}
    assert got["HEAD"] == b""
    for name in ("Content-Length", "Content-Type"):
        assert headers["HEAD"][name] == headers["GET"][name]


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


def test_an_image_of_another_shape_is_cut_as_before_evaluation(server: tuple[str, Path]) -> None:
    """Not squeezed: the model was evaluated on the central part."""
    url, path = server
    pixels = np.random.default_rng(0).integers(0, 256, (30, 14), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    part = Image.fromarray(pixels[8:22]).resize((8, 8), Image.Resampling.BICUBIC)
    logits = ort.InferenceSession(path).run(None, {"images": np.asarray(part, np.float32)[None, None] / 255})[0][0]
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(list(post(url, file.getvalue())[1]["probabilities"].values()), expected, atol=1e-5)


def test_grey_pixels_of_16_bits_keep_their_shades(server: tuple[str, Path]) -> None:
    url, _ = server
    shades = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    answers = []
    for image in (Image.fromarray(shades), Image.fromarray(shades.astype(np.uint16) * 257)):
        file = io.BytesIO()
        image.save(file, "PNG")
        answers.append(post(url, file.getvalue()))
    assert answers[0] == answers[1]
    file = io.BytesIO()
    Image.fromarray(shades.astype(np.float32)).save(file, "TIFF")
    status, answer = post(url, file.getvalue())
    assert (status, "32 bits" in answer["error"]) == (400, True)


def test_a_graph_that_preprocesses_gets_images_as_they_are_decoded(server: tuple[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    shutil.copy(server[1], path)
    run = Run(server[1].parent / "run")
    embed_preprocessing(path, run.model(), Metadata.of(run.card))
    pixels = np.random.default_rng(0).integers(0, 256, (30, 14), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    logits = ort.InferenceSession(path).run(None, {"images": pixels[None, ..., None]})[0][0]
    assert classifier(str(path), 1)(file.getvalue())["class"] == CLASSES[int(logits.argmax())]


@pytest.mark.parametrize(
    ("entry", "text", "said"),
    [
        ("class_names", "3", "its classes or its image shape cannot be read"),
        ("class_names", "[1, 2]", "its classes or its image shape cannot be read"),
        ("class_names", '["a"]', "names 1 classes and answers with"),
        ("image_shape", '["a", 1, 2]', "its classes or its image shape cannot be read"),
        ("image_shape", "[0, 1, 2]", "its classes or its image shape cannot be read"),
        ("image_shape", "[1, 99, 99]", r"says that it takes images of \[1, 99, 99\], but it takes"),
    ],
)
def test_a_file_whose_metadata_is_not_its_graph_s_is_not_served(
    entry: str, text: str, said: str, server: tuple[str, Path], tmp_path: Path
) -> None:
    proto = onnx.load(server[1])
    next(x for x in proto.metadata_props if x.key == entry).value = text
    onnx.save(proto, tmp_path / "a.onnx")
    with pytest.raises(SystemExit, match=said):
        classifier(str(tmp_path / "a.onnx"), 1)


def test_a_file_that_is_not_ours_is_not_served(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 2]) for name in ("images", "logits")]
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["logits"])], "g", values[:1], values[1:])
    path = tmp_path / "a.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    with pytest.raises(SystemExit, match="was not written by `zoo export`"):
        classifier(str(path), 1)
    path.write_bytes(b"<html>")
    with pytest.raises(SystemExit, match="ONNX Runtime cannot open"):
        classifier(str(path), 1)


def test_a_port_that_is_taken_is_told_in_one_line(server: tuple[str, Path]) -> None:
    url, path = server
    script, port = Path(__file__).parents[2] / "zoo/serving/serve.py", url.rpartition(":")[2]
    found = subprocess.run([sys.executable, str(script), str(path), "--port", port], capture_output=True, text=True)
    assert found.returncode == 1
    assert re.fullmatch(r"cannot listen at 127.0.0.1:\d+: .*\n", found.stderr)


def test_ctrl_c_ends_the_server_quietly(server: tuple[str, Path]) -> None:
    script = Path(__file__).parents[2] / "zoo/serving/serve.py"
    command = [sys.executable, str(script), str(server[1]), "--port", "0"]

    def listen() -> None:  # in the background a shell lets it be ignored, which is inherited
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1] == ""
    assert process.returncode == 0


def test_ctrl_c_as_soon_as_it_listens_is_no_traceback(server: tuple[str, Path], monkeypatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.argv", ["serve.py", str(server[1]), "--port", "0"])
    monkeypatch.setattr("builtins.print", interrupted)
    main()


def test_bad_bodies_are_answered_and_the_server_lives_on(server: tuple[str, Path]) -> None:
    url, _ = server
    assert post(url, b"<html>")[0] == 400
    file = io.BytesIO()
    Image.new("L", (64, 64)).save(file, "PNG")
    for at in range(8, len(file.getvalue()) - 4, 5):  # whichever part of a file is damaged
        damaged = file.getvalue()[:at] + b"\xff\xff\xff\xff" + file.getvalue()[at + 4 :]
        assert post(url, damaged)[0] in (200, 400)
    assert post(url, b"")[0] == 411
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert json.load(answer) == {"status": "ok"}
