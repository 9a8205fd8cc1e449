"""What is exported for serving: valid for the servers, true to PyTorch, and usable with nothing of this project."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import yaml
from google.protobuf import text_format
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from make_run import CLASSES, make_run
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import functional as tv

from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.runs.file_metadata import Metadata
from zoo.runs.run import Run
from zoo.serving.bundle import Packaging, export_packed
from zoo.serving.layouts import Layout, kserve_files, model_name
from zoo.serving.preprocessing import preprocess

ROOT = Path(__file__).parents[2]
SHAPE = (3, 32, 24)
FOLDER = "my_run-d33e7609"
"""The folder of a model of the run ``my run``: the name as servers take it, and a hash, since ``my_run`` is another."""
METADATA = Metadata("0", "a", "dense", "digits", SHAPE, CLASSES, (0.5,) * 3, (0.5,) * 3, 1, 1, 1, 1, {}, "0", "", "")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose images are not square, packed in every way into its own folder; tracing it once is enough."""
    run = make_run(tmp_path_factory.mktemp("serving") / "my run", image_shape=SHAPE, class_names=CLASSES)
    zoo(["export", str(run.folder), "--target", "generic"])
    for how in (Packaging("onnx", True), Packaging("triton"), Packaging("kserve", True)):
        pack(run, how.default_output(run.folder), how)
    return run


def pack(run: Run, output: Path, how: Packaging, limit: float = 1e-4) -> None:
    export_packed(
        lambda path: shutil.copy(run.folder / "model.onnx", path),
        run.model(),
        Metadata.of(run.card),
        run.name,
        output,
        how,
        limit,
    )


def pixels(n: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, SHAPE[0]), dtype=np.uint8)


@pytest.mark.parametrize("layout", ["triton", "kserve"])
def test_the_configuration_is_valid_triton_protobuf_and_that_of_the_graph(run: Run, layout: str) -> None:
    config_pb2 = pytest.importorskip("tritonclient.grpc", reason="needs tritonclient and grpcio").model_config_pb2
    (folder,) = (p for p in (run.folder / layout).iterdir() if p.is_dir())
    config = text_format.Parse((folder / "config.pbtxt").read_text(), config_pb2.ModelConfig())
    assert (config.name, config.platform) == (folder.name, "onnxruntime_onnx")
    assert config.max_batch_size > 1
    assert config.HasField("dynamic_batching")
    session = ort.InferenceSession(folder / "1/model.onnx")
    types = {"tensor(uint8)": config_pb2.TYPE_UINT8, "tensor(float)": config_pb2.TYPE_FP32}
    for declared, actual in zip(
        (*config.input, *config.output), (*session.get_inputs(), *session.get_outputs()), strict=True
    ):
        assert declared.name == actual.name
        assert declared.data_type == types[actual.type]
        assert list(declared.dims) == [d if isinstance(d, int) else -1 for d in actual.shape[1:]]
    assert config.output[0].label_filename == "labels.txt"
    assert (folder / "labels.txt").read_text(encoding="utf-8").splitlines() == list(CLASSES)


def test_kserve_gets_a_repository_beside_a_manifest_of_the_v2_protocol(run: Run) -> None:
    manifest = yaml.safe_load((run.folder / "kserve/inference-service.yaml").read_text())
    model = manifest["spec"]["predictor"]["model"]
    assert manifest["kind"] == "InferenceService"
    assert (model["protocolVersion"], model["modelFormat"]["name"]) == ("v2", "onnx")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", manifest["metadata"]["name"])
    assert {p.name for p in (run.folder / "kserve").iterdir()} == {FOLDER, "inference-service.yaml"}


def test_the_graph_with_preprocessing_passes_the_strict_checks(run: Run) -> None:
    proto = onnx.load(run.folder / "model-uint8.onnx")
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    known = {v.name: v.type.tensor_type.shape.dim for v in inferred.graph.value_info}
    assert [d.dim_value for d in known["preprocessing/images"]][1:] == list(SHAPE)
    assert inferred.graph.output[0].type.tensor_type.shape.dim[1].dim_value == len(CLASSES)


@pytest.fixture(scope="module")
def opened(run: Run) -> tuple[nn.Module, ort.InferenceSession]:
    return run.model(), ort.InferenceSession(run.folder / "model-uint8.onnx")


@examples(max_examples=25)
@given(height=st.integers(1, 90), width=st.integers(1, 90), n=st.integers(1, 3), seed=st.integers(0, 99))
def test_logits_are_those_of_the_same_preprocessing_in_pytorch(
    opened: tuple[nn.Module, ort.InferenceSession], height: int, width: int, n: int, seed: int
) -> None:
    model, session = opened
    images = pixels(n, height, width, seed)
    with torch.no_grad():
        expected = model(preprocess(torch.from_numpy(images), SHAPE)).numpy()
    found = session.run(None, {"images": images})[0]
    assert abs(found - expected).max() <= 1e-4 * abs(expected).max()


@pytest.mark.parametrize("size", [(32, 24), (61, 83), (200, 20), (9, 11)])
def test_openvino_answers_the_same(
    run: Run, opened: tuple[nn.Module, ort.InferenceSession], size: tuple[int, int]
) -> None:
    core = pytest.importorskip("openvino").Core()
    file = run.folder / "model-uint8.onnx"
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = pixels(2, *size)
    expected = opened[1].run(None, {"images": images})[0]
    assert abs(compiled(images)[0] - expected).max() <= 1e-4 * abs(expected).max()


def test_images_of_the_model_s_size_pass_unchanged(run: Run) -> None:
    images = pixels(2, *SHAPE[1:])
    plain = ort.InferenceSession(run.folder / "model.onnx")
    expected = plain.run(None, {"images": images.transpose(0, 3, 1, 2).astype(np.float32) / 255})[0]
    found = ort.InferenceSession(run.folder / "model-uint8.onnx").run(None, {"images": images})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("size", [(64, 64), (50, 71), (97, 20), (17, 23)])
def test_preprocessing_is_torchvision_s_and_pillow_s(size: tuple[int, int]) -> None:
    """The reference crops the centre in whole pixels and resizes: torchvision on floats, Pillow on rounded levels."""
    # Levels away from the ends: Pillow clips between its two passes, where a float has room to overshoot.
    images, side = torch.from_numpy(pixels(1, *size) // 2 + 64), min(size)
    found = preprocess(images, (3, 32, 32))
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    part = tv.crop(images.permute(0, 3, 1, 2), top, left, side, side)
    resized = tv.resize(part.float(), [32, 32], interpolation=tv.InterpolationMode.BICUBIC, antialias=True)
    torch.testing.assert_close(found, resized.clamp(0, 255) / 255)
    box = (left, top, left + side, top + side)
    pillow = np.asarray(Image.fromarray(images[0].numpy()).crop(box).resize((32, 32), Image.Resampling.BICUBIC))
    assert abs(found[0].permute(1, 2, 0).numpy() * 255 - pillow).max() < 1.5


def test_the_ten_lines_in_the_documents_run_without_this_project(run: Run, tmp_path: Path) -> None:
    page = (ROOT / "docs/serving.md").read_text()
    code = re.search(r"## ONNX Runtime\n+```python\n(.*?)```", page, flags=re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line]) <= 10
    shutil.copy(run.folder / "model-uint8.onnx", tmp_path)
    Image.fromarray(pixels(1, 61, 83)[0]).save(tmp_path / "photo.jpg", quality=95)
    (tmp_path / "client.py").write_text(code + "\nimport sys\nassert not {'zoo', 'torch'} & set(sys.modules)\n")
    done = subprocess.run([sys.executable, "client.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    decoded = torch.from_numpy(np.array(Image.open(tmp_path / "photo.jpg")))[None]
    with torch.no_grad():
        best = run.model()(preprocess(decoded, SHAPE)).argmax().item()
    assert done.stdout.strip() == CLASSES[best]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("layout", get_args(Layout))
def test_a_failed_export_leaves_everything_as_it_was(run: Run, layout: Layout) -> None:
    before = contents(run.folder)
    with pytest.raises(UserError, match="do not use the file"):
        pack(run, Packaging(layout, True).default_output(run.folder), Packaging(layout, True), limit=-1.0)
    assert contents(run.folder) == before


def test_other_models_in_a_repository_stay(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "models/other/config.pbtxt"
    other.parent.mkdir(parents=True)
    other.write_text("name: 'other'")
    stale = tmp_path / "models" / FOLDER / "7/model.onnx"
    stale.parent.mkdir(parents=True)
    stale.write_text("old")
    pack(run, tmp_path / "models", Packaging("triton"))
    assert other.is_file()
    assert not stale.exists()
    assert {p.name for p in (tmp_path / "models").iterdir()} == {"other", FOLDER}
    onnx.checker.check_model(onnx.load(tmp_path / "models" / FOLDER / "1/model.onnx"))


@pytest.mark.slow
def test_the_command_writes_a_repository_with_preprocessing(run: Run, tmp_path: Path, capsys) -> None:
    options = ["--layout", "triton", "--embed-preprocessing", "true", "-o", str(tmp_path / "models")]
    zoo(["export", str(run.folder), "--target", "generic", *options])
    printed = capsys.readouterr().out
    assert "with preprocessing inside, by size of the images: " in printed
    assert ort.InferenceSession(tmp_path / "models" / FOLDER / "1/model.onnx").get_inputs()[0].type == "tensor(uint8)"


def test_outputs_of_the_wrong_kind_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder: give a file name"):
        zoo(["export", str(run.folder), "-o", str(tmp_path)])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file: --layout triton writes a folder"):
        zoo(["export", str(run.folder), "--layout", "triton", "-o", str(tmp_path / "file")])
    with pytest.raises(UserError, match="layout"):
        zoo(["export", str(run.folder), "--layout", "torchserve"])


@pytest.mark.parametrize("where", [".", "../here"])
def test_the_command_writes_a_repository_into_the_folder_it_stands_in(
    run: Run, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = run.folder.resolve()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    zoo(["export", str(source), "--target", "generic", "--layout", "triton", "-o", where])
    assert (tmp_path / "here" / FOLDER / "1" / "model.onnx").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"here", "here.json"}


def test_a_graph_with_preprocessing_is_not_timed(run: Run) -> None:
    with pytest.raises(UserError, match="without --embed-preprocessing"):
        zoo(["bench", str(run.folder / "model-uint8.onnx"), "--n", "0"])


@given(st.text(max_size=40) | st.text("-_.0aZ", max_size=80))
def test_any_run_has_a_name_that_servers_take(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*|-[A-Za-z0-9_.-]*", model_name(name))
    files = kserve_files(model_name(name), METADATA, preprocessing=False)
    service = yaml.safe_load(files["inference-service.yaml"])["metadata"]["name"]
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", service), "what KServe's webhook demands"
    assert len(service) <= 63


@pytest.mark.parametrize(
    ("one", "other"),
    [("模型一", "模型二"), ("кот", "пёс"), ("résnet", "ränet"), ("run#1", "run@1"), ("my run", "my_run"), ("a.", "a"),
     ("a" * 300, "a" * 301)],
)  # fmt: skip
def test_two_runs_are_two_models(one: str, other: str) -> None:
    assert model_name(one) != model_name(other)


@given(st.lists(st.text(max_size=8) | st.text("aA-_. #", max_size=4), unique=True, min_size=2, max_size=20))
def test_no_two_runs_have_a_folder_or_a_service_in_common(names: list[str]) -> None:
    folders = [model_name(name) for name in names]
    assert len(set(folders)) == len(names)
    manifests = [kserve_files(folder, METADATA, preprocessing=False)["inference-service.yaml"] for folder in folders]
    assert len({yaml.safe_load(manifest)["metadata"]["name"] for manifest in manifests}) == len(names)


def test_a_name_that_servers_take_stays_as_it_is() -> None:
    for name in ("resnet18-robust_lowrank-digits", "vit.2", "A", "model"):
        assert model_name(name) == name
    assert len(model_name("é" * 255)) <= 200


def test_a_second_run_leaves_the_model_of_the_first(run: Run, tmp_path: Path) -> None:
    for name in ("кот", "пёс"):
        export_packed(
            lambda path: shutil.copy(run.folder / "model.onnx", path),
            run.model(), Metadata.of(run.card), name, tmp_path / "models", Packaging("triton"),
        )  # fmt: skip
    assert {path.name for path in (tmp_path / "models").iterdir()} == {model_name("кот"), model_name("пёс")}
