"""Files in other runtimes: the same answers, or an error that says how far off."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from make_run import make_run
from onnx import numpy_helper
from torch import nn

from zoo import cli
from zoo.attacks.fgsm import FGSM
from zoo.bench import in_runtimes
from zoo.bench.in_runtimes import choose_runtimes, open_in
from zoo.bench.replay import check_replay
from zoo.cli.bench import open_target
from zoo.errors import UserError
from zoo.evaluation.sweeps import Sweep
from zoo.export.accuracy import Accuracy, adversarial_accuracies
from zoo.export.kept_examples import KeptExamples
from zoo.latency.measure import Program, measure
from zoo.latency.session import OnnxModel, open_session
from zoo.runs.run import Run
from zoo.runtimes import DEFAULT, RUNTIMES, TIMING, Runtime, Session, Source
from zoo.runtimes._places import operators_in, unknown_operators

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
    try:
        runtime.version()
    except UserError as error:
        pytest.skip(str(error))
    return runtime


@pytest.mark.parametrize("name", RUNTIMES.names())
def test_any_batch_gets_the_same_logits(name: str, run: Run, file: Path, tmp_path: Path) -> None:
    runtime, reference = installed(name), OnnxModel(file, "cpu", 1)
    session = runtime.open(runtime.convert(open_target(run.folder, threads=1).source(), tmp_path), 1)
    for batch in (1, 7, 2, 7):
        images = np.random.default_rng(batch).random((batch, *reference.metadata.image_shape), dtype=np.float32)
        first = session.logits(images)
        assert abs(first - reference.logits(images)).max() <= 1e-5 * abs(first).max()
        session.logits(1 - images)
        np.testing.assert_array_equal(first, session.logits(images), "an answer is not the next one's memory")


@pytest.mark.parametrize("name", [name for name in OTHERS if RUNTIMES.get(name).suffix == ".onnx"])
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


class Doubled(Runtime):
    """A runtime that reads one layer's weights doubled."""

    library, distributions, install = "numpy", ("numpy",), "pip install numpy"

    def __init__(self, weight: str) -> None:
        self.weight = weight

    def convert(self, source: Source, folder: Path) -> Path:
        proto, path = onnx.load(source.file), folder / "doubled.onnx"
        for tensor in proto.graph.initializer:
            if tensor.name == self.weight:
                tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
        onnx.save(proto, path)
        return path

    def open(self, file: Path, threads: int) -> Session:
        class Plain:
            session = open_session(file, "cpu", threads)

            def logits(self, images: np.ndarray) -> np.ndarray:
                return self.session.run(None, {self.session.get_inputs()[0].name: images})[0]

        return Plain()


@pytest.mark.parametrize("place", [1, -2], ids=["an early layer", "a late one"])
def test_the_first_layer_where_answers_part_is_named(place: int, file: Path, tmp_path: Path) -> None:
    convolutions = [node for node in onnx.load(file).graph.node if node.op_type == "Conv"]
    node, metadata = convolutions[place], OnnxModel(file, "cpu", 1).metadata
    with pytest.raises(UserError, match=rf"first at {node.name} \(Conv"):
        open_in({"doubled": Doubled(node.input[1])}, Source(file, metadata.image_shape), metadata, "cpu", 1, tmp_path)


class Shifted(Runtime):
    """A runtime of PyTorch networks that adds one to a layer's bias."""

    library, distributions, install, reads_onnx = "numpy", ("numpy",), "pip install numpy", False

    def __init__(self, layer: str) -> None:
        self.layer = layer

    def convert(self, source: Source, folder: Path) -> Path:
        network = copy.deepcopy(source.network("shifted"))
        for name, module in network.named_modules():
            if name.removeprefix("network.") == self.layer:
                module.bias.data += 1
        torch.save(network, folder / "network.pt")
        return folder / "network.pt"

    def open(self, file: Path, threads: int) -> Session:
        class Torch:
            network = torch.load(file, weights_only=False)

            @torch.no_grad()
            def logits(self, images: np.ndarray) -> np.ndarray:
                return self.network(torch.from_numpy(images)).numpy()

        return Torch()


def test_the_first_layer_is_found_in_networks_too(run: Run, tmp_path: Path) -> None:
    target = open_target(run.folder, threads=1)
    network = target.source().network("shifted")
    biased = [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    layer = biased[len(biased) // 2]
    with pytest.raises(UserError, match=rf"first at {layer};"):
        open_in({"shifted": Shifted(layer)}, target.source(), target.metadata, "cpu", 1, tmp_path)


def test_a_network_is_asked_for_where_only_a_file_is(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"shifted converts the PyTorch network, .* give the RUN"):
        Shifted("").convert(Source(file, (1, 8, 8)), tmp_path)


def test_the_network_of_a_file_has_the_forms_of_the_file(run: Run, file: Path) -> None:
    network, model = open_target(run.folder, threads=1).source().network("any"), OnnxModel(file, "cpu", 1)
    assert sum(p.numel() for p in network.parameters()) == model.metadata.graph_params
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images).numpy()
    assert abs(model.logits(images.numpy()) - expected).max() <= 1e-5 * abs(expected).max()


def test_a_precision_that_a_runtime_does_not_have_is_refused(file: Path, tmp_path: Path) -> None:
    metadata = OnnxModel(file, "cpu", 1).metadata
    runtimes = {"ncnn": RUNTIMES.get("ncnn")(), "openvino": RUNTIMES.get("openvino")()}
    with pytest.raises(UserError, match="is int8, which ncnn cannot read"):
        open_in(runtimes, Source(file, (1, 8, 8), None, "int8"), metadata, "cpu", 1, tmp_path)


def test_an_unknown_operator_is_named_with_its_layers(file: Path) -> None:
    relus = [node.name for node in onnx.load(file).graph.node if node.op_type == "Relu"]
    said = unknown_operators("some", file, operators_in("Relu-14 is not supported; Convention", file))
    assert said.startswith(f"some does not know Relu ({relus[0]}, at backbone.conv1")
    assert f"and {len(relus) - 3} more" in said
    assert "Conv " not in said


def test_another_version_than_the_files_is_said(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metadata = replace(OnnxModel(file, "cpu", 1).metadata, runtime="same", runtime_version="0.0.1")
    open_in({"same": Doubled("")}, Source(file, metadata.image_shape), metadata, "cpu", 1, tmp_path)
    said = " ".join(capsys.readouterr().err.split())
    assert f"was written for same 0.0.1, this is {np.__version__}: export it again" in said


def accuracy(there: float, n: int) -> Accuracy:
    return Accuracy("pgd", "Linf", 8 / 255, there, 0.5, n, {})


def test_a_replay_may_differ_by_an_image_or_by_two_tenths_of_a_point() -> None:
    check_replay("some", "file", [accuracy(0.49, 100), accuracy(0.502, 1000), accuracy(0.5, 10)])
    with pytest.raises(UserError, match=r"some classifies 48\.00% .* PyTorch 50\.00% .* 8/255, 100 images"):
        check_replay("some", "file", [accuracy(0.48, 100), accuracy(0.5, 100)])
    with pytest.raises(UserError, match=r"0\.2 points"):
        check_replay("some", "file", [accuracy(0.503, 1000)])


def test_kept_examples_are_replayed_and_not_made_again(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, model = Sweep(FGSM(norm="Linf"), (0.1, 0.2)), run.model()
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels, session = torch.arange(6), OnnxModel(file, "cpu", 1)
    kept = KeptExamples(tmp_path, "weights")
    first = adversarial_accuracies([session], model, sweep, images, labels, kept)
    monkeypatch.setattr(FGSM, "__call__", lambda *args: pytest.fail("attacked again"))
    assert adversarial_accuracies([session], model, sweep, images, labels, kept) == first
    (path,) = tmp_path.iterdir()
    assert KeptExamples(tmp_path, "other").get(sweep, images.float() / 255, labels) is None
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="delete it to attack anew"):
        adversarial_accuracies([session], model, sweep, images, labels, kept)


def test_one_command_measures_precisions_in_runtimes_and_draws_a_page(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = RUNTIMES.get
    monkeypatch.setattr(Wrong, "precisions", ("fp32",))
    monkeypatch.setattr(RUNTIMES, "get", lambda name: Wrong if name == "wrong" else known(name))
    quick = ["--rounds", "1", "--seconds", "0.01", "--batch-size", "4", "--threads", "1", "--n", "20"]
    files = ["--json", str(tmp_path / "b.json"), "--page", str(tmp_path / "b.html")]
    what = ["--runtime", "onnxruntime,wrong", "--precisions", "fp32,int8", "--keep-going", "true"]
    cli.run(["bench", str(run.folder), *what, *quick, *files])
    content, page = json.loads((tmp_path / "b.json").read_text()), (tmp_path / "b.html").read_text()
    rows = [(row["runtime"], row["precision"]) for row in content["rows"] if not row["dense_reference"]]
    assert ("onnxruntime", "fp32") in rows
    assert ("onnxruntime", "int8") in rows
    assert ("wrong", "fp32") not in rows
    left = [x for x in content["left_out"] if "model.onnx" in x["name"]]
    assert [x["runtime"] for x in left] == ["wrong"]
    assert "answers otherwise than ONNX Runtime" in left[0]["reason"]
    assert "left out: " in capsys.readouterr().out
    assert "Pareto front" in page
    assert "answers otherwise than ONNX Runtime" in page
    assert (run.folder / "model-int8.onnx").is_file()


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
