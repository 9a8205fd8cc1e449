"""Images in tar shards, and in the tables of Hugging Face."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data import open_data
from zoo.errors import UserError


def png(shade: int, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), shade, dtype=np.uint8)).save(file, "PNG", **options)
    return file.getvalue()


def shard(path: Path, samples: list[tuple[str, int, str]]) -> Path:
    """Write samples: key, shade, label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, shade, label in samples:
            for suffix, content in (("png", png(shade)), ("cls", label.encode())):
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def shards(root: Path, names: tuple[str, ...] = ("train-000", "train-001", "test-000")) -> Path:
    for i, name in enumerate(names):
        shard(root / f"{name}.tar", [(f"{j:03}", 40 * i + j, str(j % 2)) for j in range(10)])
    return root


def test_shards_are_read_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shards(tmp_path)
    (root / "classes.txt").write_text("cat\ndog\n")
    data = open_data("webdataset", data_dir=root, image_size=8)
    assert data.class_names == ("cat", "dog")
    for limit in (2**30, 0):
        monkeypatch.setattr("zoo.data._own_images.IN_MEMORY", limit)
        source = data.source(train=True)
        assert source.labels.tolist() == [0, 1] * 10
        assert source.fetch(torch.tensor([13, 2, 5]))[:, 0, 0, 0].tolist() == [43, 2, 5]
        assert data.source(train=False).fetch(torch.tensor([9]))[0, 0, 0, 0] == 89
    lines = data.summary(0.1)
    assert lines[0] == f"{root}: 30 images of 2 classes"
    assert any(line.startswith("shards: 3") for line in lines)


@pytest.mark.parametrize(
    ("names", "trained", "measured"),
    [
        (("train/a", "val/a", "test/a"), 10, 10),
        (("train/a", "val/a"), 10, 10),
        (("train-0",), 8, 2),
        (("shard-0", "shard-1"), 18, 2),
    ],
)
def test_names_of_shards_say_their_split(names: tuple[str, ...], trained: int, measured: int, tmp_path: Path) -> None:
    data = open_data("webdataset", data_dir=shards(tmp_path, names), image_size=8)
    source = data.source(train=True)
    assert len(data.train_val(source.labels, 0.0)[0]) == trained
    assert len(data.source(train=False).labels) == measured
    assert (len(data.train_val(source.labels, 0.1)[1]) == 10) == (len(names) == 3)


def test_labels_may_be_names(tmp_path: Path) -> None:
    shard(tmp_path / "train.tar", [("a", 1, "owl"), ("b", 2, "eel"), ("c", 3, "owl"), ("d", 4, "eel")])
    data = open_data("webdataset(test_fraction=0.5)", data_dir=tmp_path, image_size=8)
    assert data.class_names == ("eel", "owl")
    assert sorted(data.source(train=True).labels.tolist()) == [0, 1]


def test_every_shard_that_ends_early_is_named(tmp_path: Path) -> None:
    root = shards(tmp_path)
    for name in ("train-001", "test-000"):
        path = root / f"{name}.tar"
        path.write_bytes(path.read_bytes()[:3500])
    (root / "train-002.tar").write_bytes(b"<html>" * 200)
    with pytest.raises(UserError, match=r"train-001\.tar .*train-002\.tar .*test-000\.tar .* end early") as refused:
        open_data("webdataset", data_dir=root)
    assert "\n" not in str(refused.value)


def test_impossible_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give one with --data-dir"):
        open_data("webdataset")
    with pytest.raises(UserError, match="has no shards to train on"):
        open_data("webdataset", data_dir=tmp_path)
    root = shards(tmp_path / "a")
    (root / "classes.txt").write_text("cat\n")
    with pytest.raises(UserError, match="names 1 classes, and there is a label 1"):
        open_data("webdataset", data_dir=root)
    with tarfile.open(root / "train-003.tar", "w") as tar:
        info = tarfile.TarInfo("lonely.png")
        info.size = len(png(1))
        tar.addfile(info, io.BytesIO(png(1)))
    with pytest.raises(UserError, match=r"images without a label .*lonely\.png"):
        open_data("webdataset", data_dir=root)


def test_hidden_shards_are_left_out_and_linked_ones_are_read(tmp_path: Path) -> None:
    root = shards(tmp_path / "data", ("train-000",))
    (root / "._train-000.tar").write_bytes(b"resource fork of macOS")
    (root / "test").symlink_to(shards(tmp_path / "elsewhere", ("a",)))
    assert len(open_data("webdataset", data_dir=root, image_size=8).source(train=False).labels) == 10


def test_numbers_that_are_no_class_indices_are_refused(tmp_path: Path) -> None:
    shard(tmp_path / "train.tar", [("a", 1, "3"), ("b", 2, "20240131")])
    with pytest.raises(UserError, match=r"labels go up to 20240131, and there are 2 different ones.*classes\.txt"):
        open_data("webdataset", data_dir=tmp_path)


def test_a_damaged_image_in_a_shard_is_named(tmp_path: Path) -> None:
    root = shards(tmp_path)
    path = root / "train-000.tar"
    content = bytearray(path.read_bytes())
    at = content.find(b"\x89PNG")
    content[at : at + 4] = b"<htm"
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"train-000\.tar: 000\.png cannot be read as an image"):
        open_data("webdataset", data_dir=root, image_size=8).source(train=True)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    exif = Image.Exif()
    exif[0x0112] = 3
    gradient = np.zeros((20, 20, 3), dtype=np.uint8)
    gradient[:10] = 200
    file = io.BytesIO()
    Image.fromarray(gradient).save(file, "PNG", exif=exif)
    images = [{"bytes": content, "path": None} for content in (png(1), png(2), png(3), file.getvalue())]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    made = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 0, 1]}, features=features)
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_table_of_hugging_face(table: Path) -> None:
    data = open_data("huggingface", data_dir=table, image_size=8)
    source = data.source(train=True)
    assert (data.class_names, source.labels.tolist()) == (("cat", "dog"), [0, 1, 0, 1])
    images = source.fetch(torch.arange(4))
    assert images[:3, 0, 0, 0].tolist() == [1, 2, 3]
    assert images[3, 0, 0, 0] < 50  # turned as its tag says
    assert images[3, 0, 7, 0] > 150
    assert data.summary(0.0)[0] == f"{table}: 8 images of 2 classes"


def test_rows_without_an_image_or_with_an_unknown_label_are_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})

    def made(labels: list[str], images: list) -> object:
        return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)

    image = {"bytes": png(1), "path": None}
    train, test = made(["cat", "dog"], [image, None]), made(["cat", "eel"], [image, image])
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path))
    data = open_data("huggingface", data_dir=tmp_path, image_size=8)
    with pytest.raises(UserError, match=r"row 1 of test has no label of the split train \(1 such rows\)"):
        data.source(train=False)
    datasets.DatasetDict({"train": train, "test": made(["cat"], [image])}).save_to_disk(str(tmp_path / "b"))
    data = open_data("huggingface", data_dir=tmp_path / "b", image_size=8)
    with pytest.raises(UserError, match="row 1 of train has no image"):
        data.source(train=True)


def test_columns_that_are_not_there_are_named(table: Path) -> None:
    with pytest.raises(UserError, match="has no column species: it has image, label"):
        open_data("huggingface(label=species)", data_dir=table)
    with pytest.raises(UserError, match="needs a folder with --data-dir, or a name"):
        open_data("huggingface")
    with pytest.raises(UserError, match="has a test split; leave it out"):
        open_data("huggingface(test_fraction=0.5)", data_dir=table)


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "notes.md").write_text("none")
    with pytest.raises(UserError, match=r"cannot be opened \("):
        open_data("huggingface", data_dir=tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        open_data("huggingface", data_dir=tmp_path / "nowhere")
