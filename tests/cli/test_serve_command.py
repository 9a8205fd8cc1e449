"""`zoo serve` serves a file without PyTorch, and a run or a published model by a file that it exports."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from make_run import make_run
from PIL import Image

from zoo.cli import run as run_command
from zoo.cli.serve import served_file
from zoo.errors import UserError
from zoo.export.exporter import export_model
from zoo.latency.session import OnnxModel
from zoo.runs.file_metadata import Metadata
from zoo.runs.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("serve") / "run")
    export_model(run.model(), Metadata.of(run.card), run.folder / "model.onnx")
    return run


@contextmanager
def serving(*argv: str) -> Iterator[tuple[str, subprocess.Popen]]:
    code = (
        "import signal, sys; sys.modules['torch'] = None; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from zoo.cli import main; sys.argv[0] = 'zoo'; main()"
    )
    command = [sys.executable, "-c", code, "serve", *argv, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1], process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_file_is_served_without_pytorch_until_interrupted(run: Run, end: int) -> None:
    file = BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file, "PNG")
    with serving(str(run.folder / "model.onnx"), "--quiet") as (url, process):
        with urllib.request.urlopen(urllib.request.Request(url, data=file.getvalue()), timeout=30) as answer:
            assert json.load(answer)["class"] in run.card.class_names
        process.send_signal(end)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 0


def test_a_run_is_served_by_its_file(run: Run) -> None:
    with served_file(str(run.folder), None) as file:
        assert file == run.folder / "model.onnx"


def test_what_has_no_file_is_exported_for_the_time_of_serving(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with served_file(str(run.folder), None) as file:
        assert OnnxModel(file, "cpu").metadata.weights_sha256 == run.card.weights.sha256
    assert not file.exists()
    assert not (run.folder / "model.onnx").exists()


def test_a_file_of_other_weights_is_not_served(run: Run, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", compression=0.3)
    (other.folder / "model.onnx").write_bytes((run.folder / "model.onnx").read_bytes())
    with pytest.raises(UserError, match="has other weights than the run has now: `zoo export"):
        run_command(["serve", str(other.folder)])


def test_mistakes_are_told_in_one_line(run: Run, tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    for argv, told in (
        ([str(text)], "ONNX Runtime cannot open"),
        ([str(tmp_path / "none.onnx")], "no ONNX file at"),
        ([str(run.folder), "--threads", "0"], "--threads must be at least 1"),
        ([str(run.folder / "model.onnx"), "--port", "99999"], "cannot listen at 127.0.0.1:99999"),
    ):
        with pytest.raises(UserError, match=re.escape(told)):
            run_command(["serve", *argv])
