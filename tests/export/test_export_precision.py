"""Less precise files: what they hold, what they cost, and that the cost is watched."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from make_run import make_run
from torch import nn

from zoo import cli
from zoo.errors import UserError
from zoo.export import exporter
from zoo.export.accuracy import Accuracy
from zoo.export.exporter import export_model
from zoo.export.precision import to_fp16
from zoo.export.precision_cost import AccuracyChange, calibration_images, check_drop
from zoo.export.settings import ExportSettings
from zoo.latency.session import OnnxModel
from zoo.runs.file_metadata import Metadata
from zoo.runs.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


def tiny() -> nn.Module:
    """A classifier of digits that is exported in no time."""
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 64, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 10)).eval()


INT8 = ExportSettings(target="generic", precision="int8", calibration=40, n=40, max_drop=100)


def change(before: float, after: float) -> AccuracyChange:
    return AccuracyChange(*(Accuracy("pgd", "Linf", 0.004, value, 0.5, 100, {}) for value in (before, after)))


def test_the_largest_drop_decides() -> None:
    check_drop([change(0.5, 0.49), change(0.4, 0.6)], 1.0001, "int8")
    with pytest.raises(UserError, match=r"int8 costs 3.00 points .*pgd Linf 0.004: 50.00% to 47.00% on 100 images"):
        check_drop([change(0.5, 0.6), change(0.5, 0.47)], 1, "int8")


def test_int8_with_preprocessing_inside(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "int8.onnx"
    options = ["--target", "generic", "--precision", "int8", "--calibration", "40", "--n", "40", "--max-drop", "100"]
    cli.run(["export", str(run.folder), "-o", str(path), "--embed-preprocessing", "true", *options])
    assert "with preprocessing inside, by size of the images: " in capsys.readouterr().out
    images = np.zeros((2, 41, 30, run.card.image_shape[0]), dtype=np.uint8)
    assert ort.InferenceSession(path).run(["logits"], {"images": images})[0].shape == (2, len(run.card.class_names))


def test_int8_from_the_command_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = run.folder / "int8.onnx"
    options = ["--target", "generic", "--precision", "int8", "--calibration", "40", "--n", "40", "--max-drop", "100"]
    cli.run(["export", str(run.folder), "-o", str(path), *options])
    printed = capsys.readouterr().out
    assert "clean: " in printed
    assert "pgd Linf 0.004: " in printed
    assert "in int8, " in printed

    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    made_by = {node.output[0]: node for node in proto.graph.node}
    products = [node for node in proto.graph.node if node.op_type == "Conv"]
    assert products
    for node in products:
        weight = made_by[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert constants[weight.input[0]].data_type == onnx.TensorProto.INT8
        assert constants[weight.input[1]].dims[0] == constants[weight.input[0]].dims[0], "one scale per output channel"
        values = onnx.numpy_helper.to_array(constants[weight.input[0]]).astype(int)
        assert 32 < abs(values).max() <= 64, "seven bits, for no processor to saturate"

    model = OnnxModel(path, "cpu")
    assert model.metadata.precision == "int8"
    assert model.metadata.weights_sha256 == run.card.weights.sha256
    report = json.loads(path.with_name("int8.onnx.json").read_text())
    assert [x["name"] for x in report["accuracies"]] == ["clean", "pgd Linf 0.002", "pgd Linf 0.004", "pgd Linf 0.006"]
    assert all(x["int8"]["n"] == x["fp32"]["n"] == 40 for x in report["accuracies"])


def test_calibration_images_are_training_images_of_every_class(run: Run) -> None:
    images = calibration_images(Metadata.of(run.card), INT8)
    assert images.shape == (40, *run.card.image_shape)
    assert images.dtype == np.float32
    assert 0 <= images.min() < images.max() <= 1


def test_a_drop_above_the_limit_leaves_the_older_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"older")
    monkeypatch.setattr(exporter, "accuracy_changes", lambda *_: [change(0.5, 0.4)])
    with pytest.raises(UserError, match=r"int8 costs 10\.00 points"):
        export_model(tiny(), Metadata.of(run.card), path, ExportSettings("generic", "int8", calibration=20))
    assert path.read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_half_precision_keeps_images_and_logits_as_they_are(run: Run, tmp_path: Path) -> None:
    full, half = tmp_path / "full.onnx", tmp_path / "half.onnx"
    export_model(tiny(), Metadata.of(run.card), full)
    to_fp16(full, half)
    graph = onnx.load(half).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert types == {"images": onnx.TensorProto.FLOAT, "logits": onnx.TensorProto.FLOAT}
    big = [tensor for tensor in graph.initializer if len(tensor.dims) == 4]
    assert {tensor.data_type for tensor in big} == {onnx.TensorProto.FLOAT16}
    assert half.stat().st_size < 0.7 * full.stat().st_size
    images = np.random.default_rng(0).random((3, *run.card.image_shape), dtype=np.float32)
    logits, expected = (OnnxModel(path, "cpu").logits(images) for path in (half, full))
    assert abs(logits - expected).max() < 1e-2 * abs(expected).max()
    assert OnnxModel(half, "cpu").metadata == OnnxModel(full, "cpu").metadata
