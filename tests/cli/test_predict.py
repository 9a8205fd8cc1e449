"""A run, a published name and an exported file classify images alike, upright, and name what they cannot read."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from make_run import make_run
from PIL import Image

from zoo.cli import run as run_command
from zoo.errors import UserError
from zoo.export.exporter import export_model
from zoo.runs.file_metadata import Metadata
from zoo.runs.run import Run
from zoo.serving.preprocessing import embed_preprocessing

CLASSES = ("cat", "dog [1]", "ünicorn", "whale")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("predict") / "run", image_shape=(3, 16, 16), class_names=CLASSES)
    file = run.folder / "model.onnx"
    export_model(run.model(), Metadata.of(run.card), file)
    shutil.copy(file, run.folder / "model-uint8.onnx")
    embed_preprocessing(run.folder / "model-uint8.onnx", run.model(), Metadata.of(run.card))
    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Noise in several sizes and folders, and what is no image of the user's."""
    random = np.random.default_rng(0)
    names = ("a.png", "deep/er/b.jpg", "deep/c.PNG", ".hidden/d.png", "deep/.e.png", "notes.txt", "a.pdf", "a.mpg")
    for i, name in enumerate(names):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".txt", ".pdf", ".mpg"):
            path.write_text("no image")
        else:
            Image.fromarray(random.integers(0, 256, (20 + i, 31, 3), dtype=np.uint8)).save(
                path, path.suffix[1:].upper().replace("JPG", "JPEG")
            )
    return tmp_path / "photos"


def predicted(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> list[dict]:
    capsys.readouterr()
    run_command(["predict", *map(str, argv), "--json"])
    return json.loads(capsys.readouterr().out)


def test_run_and_files_agree(run: Run, photos: Path, capsys) -> None:
    found = [
        predicted(capsys, model, photos, "--top", "9")
        for model in (run.folder, run.folder / "model.onnx", run.folder / "model-uint8.onnx")
    ]
    assert [Path(x["file"]).relative_to(photos).as_posix() for x in found[0]] == [
        "a.png",
        "deep/c.PNG",
        "deep/er/b.jpg",
    ]
    for one in found:
        for mine, first in zip(one, found[0], strict=True):
            shares = {x["class"]: x["probability"] for x in mine["predictions"]}
            assert sorted(shares.values(), reverse=True) == list(shares.values())
            assert shares == pytest.approx({x["class"]: x["probability"] for x in first["predictions"]}, abs=2e-3)
            assert sum(shares.values()) == pytest.approx(1, abs=1e-5)


def test_the_best_class_is_the_models(run: Run, tmp_path: Path, capsys) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    logits = run.model()(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)[0]
    found = predicted(capsys, run.folder, tmp_path / "x.png", "--top", "1")[0]["predictions"]
    assert [x["class"] for x in found] == [CLASSES[int(logits.argmax())]]
    assert found[0]["probability"] == pytest.approx(logits.softmax(0).max().item(), abs=1e-5)


def test_a_published_name_leaves_nothing_behind(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "x.png")
    found = predicted(capsys, "test_resnet.robust_lowrank50_digits", "x.png")
    assert len(found[0]["predictions"]) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize("model", ["", "model.onnx", "model-uint8.onnx"])
def test_a_photo_that_its_exif_turns_is_seen_upright(model: str, run: Run, tmp_path: Path, capsys) -> None:
    upright = Image.fromarray(np.random.default_rng(2).integers(0, 256, (24, 40, 3), dtype=np.uint8))
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer turns it by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    one, other = predicted(capsys, run.folder / model, tmp_path / "a.png", tmp_path / "b.png")
    assert one["predictions"] == other["predictions"]


def test_the_table_shows_each_file_once_with_its_likeliest_classes(run: Run, photos: Path, capsys) -> None:
    run_command(["predict", str(run.folder / "model.onnx"), str(photos / "a.png"), "--top", "4"])
    shown = capsys.readouterr().out
    assert shown.count("photos/a.png") <= 1
    assert all(name in shown for name in CLASSES)  # brackets are no markup
    assert shown.count("%") == 4


def test_unreadable_files_are_named_together_and_the_others_are_answered(run: Run, photos: Path, capsys) -> None:
    (photos / "cut.jpg").write_bytes((photos / "deep/er/b.jpg").read_bytes()[:300])
    (photos / "text.png").write_text("no image")
    with pytest.raises(UserError, match=r"^2 files are not readable images, left out: .*cut\.jpg.*text\.png"):
        run_command(["predict", str(run.folder / "model.onnx"), str(photos), "--json"])
    assert len(json.loads(capsys.readouterr().out)) == 3


def test_what_is_not_there_is_named_together(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for given, told in (
        (["x.png", "y"], "no such file or folder: .*x.png, .*y$"),
        (["empty"], "no images in .*empty: files are known by their suffix"),
    ):
        with pytest.raises(UserError, match=told):
            run_command(["predict", str(run.folder), *(str(tmp_path / name) for name in given)])
    with pytest.raises(UserError, match="--top must be at least 1"):
        run_command(["predict", str(run.folder), str(tmp_path), "--top", "0"])
    with pytest.raises(UserError, match="no ONNX file at"):
        run_command(["predict", str(tmp_path / "none.onnx"), str(run.folder / "card.json")])


def test_an_exported_file_needs_no_pytorch(run: Run, photos: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from zoo.cli import run; run(sys.argv[1:])"
    argv = ["predict", str(run.folder / "model.onnx"), str(photos / "a.png")]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "whale" in done.stdout
