"""Image folders of every layout: what is trained on, validated on and measured on, and what is told before."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from image_tree import image_tree
from PIL import Image

from zoo.data import _image_files as files
from zoo.data import check_data_dir, data_name, open_data, with_options
from zoo.data._inspect import inspect_all
from zoo.errors import UserError


def pictures(folder: Path, n: int, shade: int = 0) -> Path:
    """Write n images, each of one grey that says which it is."""
    folder.mkdir(parents=True)
    for i in range(n):
        Image.fromarray(np.full((20 + i, 30, 3), shade + i, dtype=np.uint8)).save(folder / f"{i:03}.png")
    return folder


def shades(source) -> list[int]:
    return sorted(int(x) for x in source.fetch(torch.arange(len(source.labels)))[:, 0, 0, 0])


def test_val_is_validated_on_where_there_is_a_test_split_too(tmp_path: Path) -> None:
    for split, shade in (("train", 0), ("val", 100), ("test", 200)):
        for name in ("cat", "dog"):
            pictures(tmp_path / split / name, 3, shade)
    data = open_data("imagefolder", data_dir=tmp_path, image_size=8)
    source = data.source(train=True)
    train, val = data.train_val(source.labels, 0.1)
    assert source.fetch(train).max() < 100
    assert sorted(source.fetch(val)[:, 0, 0, 0].tolist()) == [100, 100, 101, 101, 102, 102]
    assert sorted(source.labels[val].tolist()) == [0, 0, 0, 1, 1, 1]
    assert len(data.train_val(source.labels, 0.0)[1]) == 0
    assert data.source(train=False).fetch(torch.arange(6)).min() >= 200
    assert data.test_note == ""


@pytest.mark.parametrize("other", ["val", "valid", "test", "Testing"])
def test_a_tree_of_two_splits_is_measured_on_the_second(other: str, tmp_path: Path) -> None:
    data = open_data("imagefolder", data_dir=image_tree(tmp_path, ("train", other)), image_size=8)
    assert len(data.source(train=False).labels) == 6
    source = data.source(train=True)
    assert len(data.train_val(source.labels, 0.5)[1]) == 3


@pytest.mark.parametrize(("layout", "spec"), [("train", "imagefolder"), ("", "imagefolder(test_fraction=0.1)")])
def test_images_are_held_out_where_there_is_no_test_split(layout: str, spec: str, tmp_path: Path) -> None:
    folder = tmp_path / layout
    for name in ("cat", "dog"):
        pictures(folder / name, 20)
    data = open_data(spec, data_dir=tmp_path, image_size=8)
    train, test = data.source(train=True), data.source(train=False)
    assert test.labels.bincount().tolist() == [2, 2]
    assert train.labels.bincount().tolist() == [18, 18]
    assert data.test_note.startswith("held-out training images, 10 % of")
    for label in (0, 1):  # no image is in both
        kept, held = (set(s.fetch((s.labels == label).nonzero().flatten())[:, 0, 0, 0].tolist()) for s in (train, test))
        assert kept | held == set(range(20))
        assert not kept & held
    # One more image leaves those that were held out where they are.
    Image.new("RGB", (30, 30), (200, 200, 200)).save(folder / "cat/new.png")
    grown = open_data(spec, data_dir=tmp_path, image_size=8).source(train=False)
    assert len(set(shades(grown)) - {200} ^ set(shades(test))) <= 1


def test_two_images_of_a_class_are_one_for_each_split_and_one_is_trained_on(tmp_path: Path) -> None:
    pictures(tmp_path / "cat", 2)
    pictures(tmp_path / "dog", 1)
    data = open_data("imagefolder(test_fraction=0.01)", data_dir=tmp_path, image_size=8)
    assert data.source(train=True).labels.tolist() == [0, 1]
    assert data.source(train=False).labels.tolist() == [0]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train", "plane"):
        pictures(tmp_path / name, 4)
    data = open_data("imagefolder(test_fraction=0.25)", data_dir=tmp_path, image_size=8)
    assert data.class_names == ("plane", "train")


def test_a_share_beside_a_test_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--test-fraction 0\.2: .* has a test split"):
        open_data("imagefolder(test_fraction=0.2)", data_dir=image_tree(tmp_path, ("train", "test")))


def test_a_flat_tree_without_a_share_says_what_to_give(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        pictures(tmp_path / name, 2)
    with pytest.raises(UserError, match=r"has no folder train: .* with --test-fraction 0\.2"):
        open_data("imagefolder", data_dir=tmp_path)


def test_every_damaged_file_of_every_split_is_named_at_once(tmp_path: Path) -> None:
    root = image_tree(tmp_path, ("train", "val", "test"))
    whole = (root / "train/cat/0.png").read_bytes()
    for path, content in (("train/cat/cut.png", whole[:50]), ("val/dog/page.jpg", b"<html>"), ("test/cat/a.gif", b"")):
        (root / path).write_bytes(content)
    Image.new("RGB", (1, 1)).save(root / "train/dog/pixel.png")
    data = open_data("imagefolder", data_dir=root, image_size=8)
    with pytest.raises(UserError) as refused:
        data.source(train=True)
    line = str(refused.value)
    assert "\n" not in line
    for words in (
        "4 files",
        "train/cat/cut.png (",
        "val/dog/page.jpg (",
        "test/cat/a.gif (",
        "1 x 1 pixels",
        "--skip-",
    ):
        assert words in line


def test_damaged_files_are_left_out_if_asked(tmp_path: Path) -> None:
    root = image_tree(tmp_path)
    (root / "train/cat/cut.jpg").write_bytes(b"")
    data = open_data("imagefolder(skip_corrupt=true)", data_dir=root, image_size=8)
    assert data.source(train=True).labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert any("train/cat/cut.jpg" in line for line in data.summary(0.1))
    for path in (root / "train/cat").glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no image of cat is left to train on"):
        open_data("imagefolder(skip_corrupt=true)", data_dir=root, image_size=8).source(train=True)


def test_many_damaged_files_are_counted(tmp_path: Path) -> None:
    root = image_tree(tmp_path)
    for i in range(30):
        (root / f"train/cat/{i}.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"30 files cannot .*, 10 more: repair"):
        open_data("imagefolder", data_dir=root, image_size=8).source(train=True)


def test_a_file_that_was_repaired_is_looked_at_again(tmp_path: Path) -> None:
    path = pictures(tmp_path / "cat", 1) / "000.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    assert inspect_all(tmp_path, [path])[0].problem
    assert inspect_all(tmp_path, [path])[0].problem
    path.write_bytes(whole)
    os.utime(path, ns=(1, 1))
    assert not inspect_all(tmp_path, [path])[0].problem


def test_what_is_known_of_files_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted(pictures(tmp_path / "cat", 3).iterdir())
    first = inspect_all(tmp_path, paths)
    monkeypatch.setattr("zoo.data._inspect.inspect", None)
    assert inspect_all(tmp_path, paths) == first
    assert [(each.width, each.height) for each in first] == [(30, 20), (30, 21), (30, 22)]


def test_empty_classes_are_named_at_once(tmp_path: Path) -> None:
    root = image_tree(tmp_path)
    for name in ("eel", "owl"):
        (root / "train" / name).mkdir()
    with pytest.raises(UserError, match=r"class folders \S*train/eel, \S*train/owl hold no images"):
        open_data("imagefolder", data_dir=root)


def test_classes_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    root = image_tree(tmp_path)
    if (root / "train/CAT").exists():
        pytest.skip("the file system does not tell cases apart")
    shutil.copytree(root / "train/cat", root / "train/CAT")
    with pytest.raises(UserError, match="differ in case only, CAT and cat"):
        open_data("imagefolder", data_dir=root)
    shutil.rmtree(root / "train/CAT")
    (root / "val/cat").rename(root / "val/Cat")
    with pytest.raises(UserError, match=r"val/Cat is not a class of .*train/cat differs in case only"):
        open_data("imagefolder", data_dir=root)


@pytest.fixture
def without_heic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "reads_heic", lambda: False)


def test_photographs_that_need_a_package_are_named_with_it(tmp_path: Path, without_heic: None) -> None:
    root = image_tree(tmp_path)
    for name in ("IMG_1.HEIC", "IMG_2.heif"):
        (root / "train/cat" / name).write_bytes(b"ftypheic")
    (root / "val/dog/page.jpg").write_bytes(b"<html>")
    with pytest.raises(UserError) as refused:
        open_data("imagefolder", data_dir=root, image_size=8).source(train=True)
    assert "2 images need `pip install 'robust-zoo[heic]'`" in str(refused.value)
    assert "IMG_1.HEIC, train/cat/IMG_2.heif" in str(refused.value)
    assert "page.jpg cannot be read" in str(refused.value)
    data = open_data("imagefolder(skip_corrupt=true)", data_dir=root, image_size=8)
    assert len(data.source(train=True).labels) == 6
    assert any("IMG_1.HEIC (needs pip install" in line for line in data.summary(0.1))


def test_the_summary_counts_what_is_used_and_what_is_not(tmp_path: Path) -> None:
    for name, n in (("cat", 10), ("dog", 20)):
        pictures(tmp_path / "train" / name, n)
        pictures(tmp_path / "test" / name, 2)
    (tmp_path / "train/cat/clip.mov").write_bytes(b"")
    (tmp_path / "train/cat/paper.pdf").write_bytes(b"")
    shutil.copy(tmp_path / "train/cat/000.png", tmp_path / "train/stray.png")
    lines = open_data("imagefolder", data_dir=tmp_path, image_size=8).summary(0.1)
    assert lines[0] == f"{tmp_path}: 34 images of 2 classes"
    table = [line.split() for line in lines[1:5]]
    assert table == [
        ["train", "validation", "test"],
        ["cat", "9", "1", "2"],
        ["dog", "18", "2", "2"],
        ["total", "27", "3", "4"],
    ]
    assert "validation: 10 % of the training images" in lines
    assert "test: test/" in lines
    assert "sizes: 30 x 20 (train/cat/000.png) to 30 x 39 (train/dog/019.png)" in lines
    assert any(line.startswith("skipped: 2 files that are not images: ") for line in lines)
    assert "skipped: 1 images beside the folders of the classes" in lines


def test_many_classes_are_summed_up(tmp_path: Path) -> None:
    for i in range(40):
        pictures(tmp_path / f"class{i}", 2 + (i == 7))
    lines = open_data("imagefolder(test_fraction=0.5)", data_dir=tmp_path, image_size=8).summary(0.0)
    assert lines[2].split() == ["each", "class", "1", "1", "to", "2"]


def test_a_poster_is_told_and_a_scan_beyond_measure_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.data._summary.LARGE", 20 * 30)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    root = image_tree(tmp_path)
    Image.new("RGB", (45, 30)).save(root / "train/cat/poster.png")
    lines = open_data("imagefolder", data_dir=root, image_size=8).summary(0.1)
    assert any(
        line.startswith("large: train/cat/poster.png (45 x 30)") or "poster.png (45 x 30)" in line for line in lines
    )
    Image.new("RGB", (60, 60)).save(root / "train/cat/scan.png")
    with pytest.raises(UserError, match=r"scan\.png cannot be read as an image \(Image size"):
        open_data("imagefolder", data_dir=root, image_size=8).source(train=True)


def test_options_stay_with_the_name() -> None:
    assert with_options("imagefolder", test_fraction=None, skip_corrupt=False) == "imagefolder"
    spec = with_options("imagefolder", test_fraction=0.2, skip_corrupt=True)
    assert spec == "imagefolder(test_fraction=0.2, skip_corrupt=true)"
    assert with_options(spec, test_fraction=0.2) == spec
    assert data_name(spec) == "imagefolder"
    with pytest.raises(UserError, match="another test_fraction"):
        with_options(spec, test_fraction=0.3)
    check_data_dir(spec, Path("somewhere"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("imagefolder(test_fraction=much)", "--test-fraction much: give a number"),
        ("imagefolder(test_fraction=1.5)", "test-fraction must be in"),
        ("imagefolder(fraction=0.1)", "has no option fraction"),
        ("digits(test_fraction=0.1)", "digits has no option test_fraction"),
        ("imagefolder(test_fraction=0.1", "cannot be read"),
    ],
)
def test_impossible_options_are_refused(spec: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        open_data(spec, data_dir=image_tree(tmp_path))


def test_a_large_split_is_decoded_ahead_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cat", "dog"):
        pictures(tmp_path / name, 9)
    whole = open_data("imagefolder(test_fraction=0.1)", data_dir=tmp_path, image_size=8).source(train=True)
    monkeypatch.setattr("zoo.data._own_images.IN_MEMORY", 0)
    lazy = open_data("imagefolder(test_fraction=0.1)", data_dir=tmp_path, image_size=8).source(train=True)
    parts = torch.randperm(16).split(5)
    for one, other in zip(whole.batches(parts), lazy.batches(parts), strict=True):
        assert torch.equal(one, other)
    assert list(lazy.batches([])) == []
