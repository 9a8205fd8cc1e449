"""Which files of an image folder count as images, and what damaged ones end in."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from image_tree import image_tree
from PIL import Image, features

from zoo.data import open_data
from zoo.data._decode import decode
from zoo.data._image_files import image_files
from zoo.errors import UserError


def encoded(kind: str, size: int = 40) -> bytes:
    file, generator = io.BytesIO(), np.random.default_rng(1)
    Image.fromarray(generator.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def png_with_an_unknown_chunk() -> bytes:
    """The type of the second chunk of data is overwritten."""
    data = bytearray(encoded("PNG", 400))
    second = data.find(b"IDAT", data.find(b"IDAT") + 4)
    data[second : second + 4] = b"\x8d\xc9\xab\x19"
    return bytes(data)


def huge() -> bytes:
    """A scan of 200 megapixels, in few bytes."""
    file = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(file, "PNG")
    return file.getvalue()


DAMAGED = {
    "page.jpg": lambda: b"<html>",
    "empty.png": lambda: b"",
    "chunk.png": png_with_an_unknown_chunk,
    "scan.png": huge,
    "cut.qoi": lambda: encoded("QOI")[:600],
    "cut.jpg": lambda: encoded("JPEG")[:700],
    "cut.gif": lambda: encoded("GIF")[:200],
    "cut.avif": lambda: encoded("AVIF")[:-200],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_image_is_named_whatever_its_decoder_raises(name: str, tmp_path: Path) -> None:
    if name.endswith(".avif") and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    root = image_tree(tmp_path)
    (root / "train/cat" / name).write_bytes(DAMAGED[name]())
    with pytest.raises(
        UserError, match=rf"^\S*train/cat/{name} cannot be read as an image \([^\n]+\): repair or remove"
    ):
        open_data("imagefolder", data_dir=root, image_size=16).source(train=True)


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in image_files(folder)]


def test_images_lie_at_any_depth_and_folders_are_none(tmp_path: Path) -> None:
    cat = image_tree(tmp_path) / "train/cat"
    (cat / "old.png/more").mkdir(parents=True)
    shutil.copy(cat / "0.png", cat / "old.png/more/3.JPEG")
    (cat / "notes.txt").write_text("none")
    assert names(cat) == ["0.png", "1.png", "2.png", "old.png/more/3.JPEG"]


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints/0-checkpoint.png", "._0.png", "more/.cache/0.png", ".0.png"])
def test_hidden_files_are_no_images_at_any_depth(hidden: str, tmp_path: Path) -> None:
    cat = image_tree(tmp_path) / "train/cat"
    path = cat / hidden
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    assert names(cat) == ["0.png", "1.png", "2.png"]
    assert len(open_data("imagefolder", data_dir=tmp_path, image_size=16).source(train=True).labels) == 6


def test_links_to_folders_and_files_are_followed(tmp_path: Path) -> None:
    cat, elsewhere = image_tree(tmp_path / "images") / "train/cat", tmp_path / "camera"
    shutil.copytree(cat, elsewhere)
    (cat / "from_camera").symlink_to(elsewhere)
    (cat / "2.png").unlink()
    (cat / "2.png").symlink_to(elsewhere / "2.png")
    assert names(cat) == ["0.png", "1.png", "2.png", *(f"from_camera/{i}.png" for i in range(3))]
    for i in range(3):
        (cat / f"{i}.png").unlink()
    labels = open_data("imagefolder", data_dir=tmp_path / "images", image_size=16).source(train=True).labels
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    root = image_tree(tmp_path / "images")
    (root / "train/cat").rename(tmp_path / "cats")
    (root / "train/cat").symlink_to(tmp_path / "cats")
    data = open_data("imagefolder", data_dir=root, image_size=16)
    assert data.class_names == ("cat", "dog")
    assert data.source(train=True).labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_links_in_circles_are_read_once(tmp_path: Path) -> None:
    cat = image_tree(tmp_path) / "train/cat"
    (cat / "a").mkdir()
    (cat / "a/up").symlink_to(cat)
    (cat / "itself").symlink_to(cat / "itself")
    (cat / "b").symlink_to(cat / "a")
    shutil.copy(cat / "0.png", cat / "a/3.png")
    assert names(cat) == ["0.png", "1.png", "2.png", "a/3.png"]


def test_a_link_to_an_image_that_is_gone_is_named(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    path.symlink_to(tmp_path / "gone.png")
    assert image_files(tmp_path) == [path]
    with pytest.raises(UserError, match=r"0\.png cannot be read as an image \(.*No such file"):
        decode(path, 8)
