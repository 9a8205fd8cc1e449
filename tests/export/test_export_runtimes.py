"""Exports for a runtime: layers timed in it, its own file beside the ONNX file, its answers checked."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from make_run import make_run

from zoo import cli
from zoo.errors import UserError
from zoo.export.exporter import export_model
from zoo.export.forms import DENSE, Form, Geometry, Op
from zoo.export.latency_measured import MeasuredCost
from zoo.export.layer_graph import layer_graph, layer_network
from zoo.export.layer_in_runtime import LayerInRuntime
from zoo.export.settings import ExportSettings
from zoo.latency.cache import TimeCache
from zoo.latency.session import OnnxModel, open_session
from zoo.runs.file_metadata import Metadata
from zoo.runs.run import Run
from zoo.runtimes import RUNTIMES, Runtime, Session, Source, _environment

CONV = Geometry("conv", Op(8, 16, (3, 3), (1, 1), (1, 1)), (6, 6))
LINEAR = Geometry("linear", Op(12, 20), (1, 5))


class Copied(Runtime):
    """A runtime whose own file is the ONNX file under another name, with a constant shift of its answers."""

    library, distributions, install, suffix = "numpy", ("numpy",), "pip install numpy", ".copied"
    precisions = ("fp32",)
    shift = 0.0

    def convert(self, source: Source, folder: Path) -> Path:
        shutil.copyfile(source.file, folder / "network.copied")
        return folder / "network.copied"

    def open(self, file: Path, threads: int) -> Session:
        class Plain:
            session, shift = open_session(file, "cpu", threads), self.shift

            def logits(self, images: np.ndarray) -> np.ndarray:
                return self.session.run(None, {self.session.get_inputs()[0].name: images})[0] + self.shift

        return Plain()


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> None:
    known = RUNTIMES.get
    monkeypatch.setattr(RUNTIMES, "get", lambda name: Copied if name == "copied" else known(name))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "run", compression=0.7)


@pytest.mark.parametrize(("problem", "form"), [(CONV, Form("kxk to 1x1", 4)), (CONV, DENSE), (LINEAR, DENSE)])
def test_a_layer_has_one_shape_in_both_worlds(problem: Geometry, form: Form) -> None:
    session = open_session(layer_graph(problem, form), "cpu", 1)
    images = np.random.default_rng(0).random(session.get_inputs()[0].shape, dtype=np.float32)
    (expected,) = session.run(None, {"x": images})
    found = layer_network(problem, form)(torch.from_numpy(images))
    assert found.shape == expected.shape


@pytest.mark.usefixtures("copied")
def test_layers_are_timed_in_the_runtime_and_kept_apart(tmp_path: Path) -> None:
    there = TimeCache("cpu", 1, tmp_path, "copied 1")
    measured = MeasuredCost("cpu", 1, there, runner=LayerInRuntime("copied", 1))
    times = measured(CONV, [DENSE, Form("kxk to 1x1", 4)])
    assert len(times) == 2
    assert min(times) > 0
    assert there.path.is_file()
    assert there.path != TimeCache("cpu", 1, tmp_path).path


@pytest.mark.usefixtures("copied")
def test_an_export_writes_the_runtimes_own_file(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["export", str(run.folder), "--runtime", "copied", "--target", "generic"])
    file, own = run.folder / "model.copied.onnx", run.folder / "model.copied"
    metadata = OnnxModel(file, "cpu", 1).metadata
    assert (metadata.runtime, metadata.runtime_version) == ("copied", np.__version__)
    assert onnx.load(own, format="protobuf").graph.node
    report = json.loads(file.with_name(f"{file.name}.json").read_text())
    assert report["runtime_files"] == {own.name: own.stat().st_size}
    assert report["runtime_parity"] == 0
    printed = capsys.readouterr().out
    assert f"saved in {file}, {own}" in printed
    assert "logits differ from ONNX Runtime's by 0.0e+00" in printed


@pytest.mark.usefixtures("copied")
def test_wrong_answers_there_leave_no_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Copied, "shift", 1.0)
    settings = ExportSettings(target="generic", runtime="copied")
    with pytest.raises(UserError, match=r"copied .* answers otherwise than ONNX Runtime"):
        export_model(run.model(), Metadata.of(run.card), tmp_path / "model.onnx", settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("copied")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "int8"], "is int8, which copied cannot read"),
        (["--layout", "triton"], "its server runs onnxruntime"),
        (["--embed-preprocessing", "true"], "copied does not read ONNX files"),
        (["--target", "cuda"], "copied runs on the CPU here"),
    ],
)
def test_what_a_runtime_cannot_do_is_refused(run: Run, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cli.run(["export", str(run.folder), "--runtime", "copied", *options])


def test_an_unknown_runtime_is_refused(run: Run) -> None:
    with pytest.raises(UserError, match="unknown runtime 'tracts': did you mean tract"):
        cli.run(["export", str(run.folder), "--runtime", "tracts"])


@pytest.mark.parametrize("name", ["openvino", "tract"])
def test_forms_are_chosen_by_the_runtimes_times(name: str, run: Run, tmp_path: Path) -> None:
    pytest.importorskip(RUNTIMES.get(name).library)
    settings = ExportSettings(runtime=name, threads=1, time_limit=3)
    done = export_model(run.model(), Metadata.of(run.card), tmp_path / "model.onnx", settings)
    assert done.metadata.runtime == name
    assert done.runtime_parity is not None
    assert done.runtime_parity <= 1e-4


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    python = _environment.python_environment("none", ())
    assert python.is_file()
    monkeypatch.setattr(_environment.venv, "create", lambda *args, **options: pytest.fail("made again"))
    assert _environment.python_environment("none", ()) == python


def test_an_environment_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="nothing==0 cannot be installed: no such file"):
        _environment._install(["sh", "-c", "echo no such file >&2; exit 1"], ["nothing==0"])
