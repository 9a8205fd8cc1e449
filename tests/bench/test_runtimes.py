"""Files in other runtimes: the same answers, or an error that says how far off."""

import json
from pathlib import Path

import numpy as np
import pytest
from make_run import make_run

from zoo import cli
from zoo.bench import in_runtimes
from zoo.bench.in_runtimes import choose_runtimes, open_in
from zoo.errors import UserError
from zoo.latency.measure import Program, measure
from zoo.latency.session import OnnxModel
from zoo.runs.run import Run
from zoo.cli.bench import open_target
from zoo.runtimes import DEFAULT, RUNTIMES, TIMING, Runtime, Session, Source

OTHERS = [name for name in RUNTIMES.names() if name != DEFAULT]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("runs") / "run", compression=0.7)
    cli.run(["export", str(run.folder), "--target", "generic"])
    return run


@pytest.fixture
def file(run: Run) -> Path:
    return run.folder / "model.onnx"


def installed(name: str) -> Runtime:
    runtime = RUNTIMES.get(name)()
    pytest.importorskip(runtime.library)
    return runtime


@pytest.mark.parametrize("name", RUNTIMES.names())
def test_any_batch_gets_the_same_logits(name: str, run: Run, file: Path, tmp_path: Path) -> None:
    runtime, reference = installed(name), OnnxModel(file, "cpu", 1)
    session = runtime.open(runtime.convert(source(run), tmp_path), 1)
    for batch in (1, 7, 2, 7):
        images = np.random.default_rng(batch).random((batch, *reference.metadata.image_shape), dtype=np.float32)
        first = session.logits(images)
        assert abs(first - reference.logits(images)).max() <= 1e-5 * abs(first).max()
        session.logits(1 - images)
        np.testing.assert_array_equal(first, session.logits(images), "an answer is not the next one's memory")


@pytest.mark.parametrize("name", OTHERS)
def test_a_runtime_is_timed_in_a_process_of_its_own(name: str, file: Path) -> None:
    installed(name)
    spec = {"runtime": name, "file": str(file), "image_shape": OnnxModel(file, "cpu", 1).metadata.image_shape}
    program = Program(TIMING, json.dumps(spec))
    (timing,) = measure([program], device="cpu", threads=1, batches=(1, 4), rounds=1, seconds=0.01)
    assert timing.start_ms > 0
    assert all(latency.median_ms > 0 for latency in timing.latency.values())


@pytest.mark.parametrize("name", OTHERS)
def test_a_damaged_file_is_one_line(name: str, tmp_path: Path) -> None:
    runtime, damaged = installed(name), tmp_path / "model.onnx"
    damaged.write_bytes(b"\x08\x0anothing of the kind")
    with pytest.raises(UserError, match=r"cannot open .*model\.onnx") as caught:
        runtime.open(damaged, 1)
    assert "\n" not in str(caught.value)


class Wrong(Runtime):
    """A runtime whose 17th picture of a batch is of another class."""

    library, distributions, install = "numpy", ("numpy",), "pip install numpy"

    def open(self, file: Path, threads: int) -> Session:
        class Shifted:
            def __init__(self) -> None:
                self.model = OnnxModel(file, "cpu", threads)

            def logits(self, images: np.ndarray) -> np.ndarray:
                found = self.model.logits(images).copy()
                if len(found) > 17:
                    found[16] = found[16, ::-1]
                return found

        return Shifted()


def test_wrong_answers_are_an_error(file: Path, tmp_path: Path) -> None:
    metadata = OnnxModel(file, "cpu", 1).metadata
    with pytest.raises(UserError, match=r"answers otherwise than ONNX Runtime .* differ by .* the limit is 1e-04"):
        open_in({"wrong": Wrong()}, Source(file, metadata.image_shape), metadata, "cpu", 1, tmp_path)


class Missing(Wrong):
    """A runtime that nobody has."""

    library, install = "no_such_library", "pip install no-such-library"


def test_every_runtime_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_runtimes.RUNTIMES, "get", lambda name: Missing)
    with pytest.raises(UserError, match=r"no_such_library is not installed: pip install \S+; .*pip install"):
        choose_runtimes(["one", "other"], "cpu")


def test_an_unknown_runtime_is_refused(file: Path) -> None:
    with pytest.raises(UserError, match="unknown runtime 'opnvino': did you mean openvino"):
        cli.run(["bench", str(file), "--runtime", "opnvino", "--n", "0"])


def test_another_runtime_on_a_gpu_is_refused() -> None:
    with pytest.raises(UserError, match=r"openvino: runs on the CPU here: give --device cpu"):
        choose_runtimes([DEFAULT, "openvino"], "cuda")


def test_bench_replays_the_same_examples_in_each(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installed("openvino")
    quick = ["--rounds", "1", "--seconds", "0.01", "--batch-size", "4", "--threads", "1", "--n", "40"]
    output = tmp_path / "bench.json"
    cli.run(["bench", str(run.folder), "--runtime", "onnxruntime,openvino", *quick, "--json", str(output)])
    content = json.loads(output.read_text())
    assert list(content["runtimes"]) == ["onnxruntime", "openvino"]
    rows = content["rows"]
    assert [(row["runtime"], row["dense_reference"]) for row in rows] == [
        ("onnxruntime", True), ("onnxruntime", False), ("openvino", True), ("openvino", False),
    ]  # fmt: skip
    assert rows[0]["parity"] is None
    assert 0 <= rows[3]["parity"] <= 1e-4
    assert rows[0]["latency"][0]["ratio_to_dense"] == rows[2]["latency"][0]["ratio_to_dense"] == 1
    here, there = ([x["accuracy"] for x in rows[i]["accuracies"]] for i in (1, 3))
    assert here == there
    assert len(here) == 4
    printed = capsys.readouterr().out
    assert "difference from ONNX Runtime" in printed


def test_the_list_tells_versions_and_how_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(RUNTIMES.get("tract"), "library", "no_such_library")
    cli.run(["list", "--runtimes"])
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Installed: {RUNTIMES.get(DEFAULT)().version()}." in printed
    assert "Not installed: pip install 'robust-zoo[tract]'" in printed
