"""Splits, batches, augmentation and the errors of missing data."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_tree import image_tree
from PIL import Image

from zoo.data import DATA, load_test, open_data
from zoo.data._augment import Augmentation
from zoo.data._base import TensorSource
from zoo.data._loader import EvalBatches, TrainBatches, mixed_seed
from zoo.data._split import stratified, train_val
from zoo.errors import UserError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 7), st.booleans(), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_augmentation_is_a_mirrored_shift_and_a_flip(shift: int, flip: bool, seed: int) -> None:
    images = torch.randint(0, 255, (5, 3, 8, 9), dtype=torch.uint8)
    out = Augmentation(shift, flip)(images, generator(seed))
    assert out.shape == images.shape
    assert out.dtype == torch.uint8
    for before, after in zip(images, out, strict=True):
        padded = torch.from_numpy(np.pad(before.numpy(), ((0, 0), (7, 7), (7, 7)), mode="reflect"))
        candidates = [
            padded[:, 7 + i : 15 + i, 7 + j : 16 + j]
            for i in range(-shift, shift + 1)
            for j in range(-shift, shift + 1)
        ]
        assert any(torch.equal(after, c) or (flip and torch.equal(after, c.flip(2))) for c in candidates)


def test_augmentation_draws_every_image_apart() -> None:
    same = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8).expand(50, 1, 8, 8)
    assert len({tuple(x.flatten().tolist()) for x in Augmentation(2, True)(same, generator())}) > 20


@given(st.lists(st.integers(0, 4), min_size=20, max_size=200), st.integers(1, 20), st.integers(0, 9))
@settings(deadline=None)
def test_a_stratified_choice_has_every_class_in_its_share(labels: list[int], n: int, seed: int) -> None:
    y = torch.tensor(labels)
    chosen = stratified(y, n, seed)
    assert len(chosen.unique()) == len(chosen) == n
    share = y.bincount(minlength=5) * n / len(y)
    assert ((y[chosen].bincount(minlength=5) - share).abs() < 1).all()
    assert torch.equal(chosen, stratified(y, n, seed))


def test_training_and_validation_are_apart_and_always_the_same() -> None:
    labels = open_data("digits").source(train=True).labels
    train, val = train_val(labels, 0.1)
    assert len(val) == round(0.1 * len(labels))
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(len(labels)))
    torch.manual_seed(5)
    assert torch.equal(val, train_val(labels, 0.1)[1])
    assert len(train_val(labels, 0.0)[1]) == 0


@pytest.mark.parametrize(
    "counts", [[1] * 20, [40] * 3 + [1] * 37, [3, 3, 1], [1, 1], [0, 5, 0, 1]], ids=lambda counts: str(len(counts))
)
def test_an_image_of_every_class_stays_for_training(counts: list[int]) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    for share in (0.1, 0.3, 0.49):
        train, val = train_val(labels, share)
        assert set(labels[train].tolist()) == set(labels.tolist())
        assert sorted([*train.tolist(), *val.tolist()]) == list(range(len(labels)))


def test_the_first_validation_images_are_of_all_classes() -> None:
    """Those of an image folder are stored class by class."""
    labels = torch.arange(10).repeat_interleave(200)
    _, val = train_val(labels, 0.5)
    assert labels[val[:100]].bincount(minlength=10).min() > 0


def test_validation_cannot_take_every_image() -> None:
    with pytest.raises(UserError, match="val-fraction"):
        train_val(torch.tensor([0, 1]), 0.9)


def source(n: int = 50) -> TensorSource:
    return TensorSource(torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 4, 4), torch.arange(n))


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own() -> None:
    epoch = 0
    batches = TrainBatches(source(), torch.arange(48), 12, Augmentation(), 0, lambda: epoch)
    orders = []
    for epoch in (0, 1, 0):  # noqa: B007 (the loader reads it)
        seen = torch.cat([y for _, y in batches])
        assert torch.equal(seen.sort().values, torch.arange(48))
        orders.append(seen)
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0], orders[2])


def test_processes_share_an_epoch_between_them() -> None:
    parts = [TrainBatches(source(), torch.arange(48), 8, Augmentation(), 0, lambda: 3, (r, 2)) for r in (0, 1)]
    seen = torch.cat([y for part in parts for _, y in part])
    assert len(parts[0]) == len(parts[1]) == 3
    assert torch.equal(seen.sort().values, torch.arange(48))
    ordered = [EvalBatches(source(), torch.arange(50), 8, (r, 2)) for r in (0, 1)]
    assert torch.equal(torch.cat([y for part in ordered for _, y in part]).sort().values, torch.arange(50))


def test_images_and_labels_stay_together() -> None:
    for images, labels in TrainBatches(source(), torch.arange(50), 16, Augmentation(1, True), 0, lambda: 0):
        assert torch.equal(images[:, 0, 0, 0].long(), labels)


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=4, unique=True))
def test_mixed_seeds_depend_on_every_number_and_their_order(numbers: list[int]) -> None:
    assert 0 <= mixed_seed(*numbers) < 2**63
    assert mixed_seed(*numbers) != mixed_seed(*numbers, 0)
    if len(numbers) > 1:
        assert mixed_seed(*numbers) != mixed_seed(*reversed(numbers))


def test_the_digits_are_real_and_split_evenly() -> None:
    data = open_data("digits")
    train, test = data.source(True), data.source(False)
    assert (len(train.labels), len(test.labels)) == (1437, 360)
    assert test.labels.bincount().min() >= 34
    pixels = torch.cat([train.images, test.images]).float() / 255
    assert pixels.mean().item() == pytest.approx(data.mean[0], abs=2e-3)
    assert pixels.std().item() == pytest.approx(data.std[0], abs=2e-3)
    train_set = {tuple(x.flatten().tolist()) for x in train.images}
    assert not train_set & {tuple(x.flatten().tolist()) for x in test.images}


def test_an_image_folder(tmp_path: Path) -> None:
    data = open_data("imagefolder", data_dir=image_tree(tmp_path), image_size=16)
    assert data.class_names == ("cat", "dog")
    assert data.image_shape == (3, 16, 16)
    test = data.source(train=False)
    assert test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.fetch(torch.tensor([4]))[0, 0, 3, 3] == 101


def test_grey_pixels_of_16_bits_keep_their_shades(tmp_path: Path) -> None:
    image_tree(tmp_path)
    shades = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257  # black is 0 and white 65,535
    Image.fromarray(shades).save(tmp_path / "val/cat/0.png")
    decoded = open_data("imagefolder", data_dir=tmp_path, image_size=16).source(train=False).fetch(torch.tensor([0]))
    assert torch.equal(decoded[0], torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, 16, 16))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_whose_white_is_not_known_are_refused(tmp_path: Path, kind: type) -> None:
    image_tree(tmp_path)
    Image.fromarray(np.ones((16, 16), dtype=kind)).save(tmp_path / "train/cat/a.tif")
    with pytest.raises(UserError, match=r"a\.tif cannot be read as an image \(pixels of 32 bits"):
        open_data("imagefolder", data_dir=tmp_path, image_size=16).source(train=True)


def test_test_images_of_unknown_classes_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    image_tree(tmp_path)
    (tmp_path / "val/.ipynb_checkpoints").mkdir()  # is no class
    assert open_data("imagefolder", data_dir=tmp_path).class_names == ("cat", "dog")
    (tmp_path / "val/dog").rename(tmp_path / "val/dogs")
    with pytest.raises(UserError, match="val/dogs is not a class of"):
        open_data("imagefolder", data_dir=tmp_path)


def test_a_test_split_without_images_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    image_tree(tmp_path, ("train",))
    (tmp_path / "test/cat").mkdir(parents=True)
    with pytest.raises(UserError, match="test holds no images of the classes in"):
        open_data("imagefolder", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("class_names", "message"),
    [
        (("cat", "dog", "eel"), "has 2 classes here, the model 3"),
        (("cat", "eel"), "has a class dog here where the model has eel"),
    ],
)
def test_a_model_is_not_measured_on_other_classes(class_names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    where = {"data_dir": image_tree(tmp_path), "download": False}
    with pytest.raises(UserError, match=message):
        load_test("imagefolder", **where, image_shape=(3, 8, 8), class_names=class_names, n=None)


@pytest.mark.parametrize(("data", "size"), [("digits", 0), ("digits", 16), ("imagefolder", -5)])
def test_sizes_that_images_cannot_have_are_refused(data: str, size: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="image-size"):
        open_data(data, data_dir=image_tree(tmp_path), image_size=size)


def test_a_large_image_folder_is_read_batch_by_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = image_tree(tmp_path)
    whole = open_data("imagefolder", data_dir=root, image_size=16).source(train=True)
    monkeypatch.setattr("zoo.data._own_images.IN_MEMORY", 0)
    lazy = open_data("imagefolder", data_dir=root, image_size=16).source(train=True)
    assert not isinstance(lazy, TensorSource)
    chosen = torch.tensor([5, 0, 2])
    assert torch.equal(lazy.fetch(chosen), whole.fetch(chosen))
    # As the average of a module's weights copies what the module holds.
    assert torch.equal(copy.deepcopy(lazy).fetch(chosen), whole.fetch(chosen))


def test_broken_image_folders_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs --data-dir"):
        open_data("imagefolder")
    with pytest.raises(UserError, match=r"is not a tree of images, which is DIR/train/CLASS/\*"):
        open_data("imagefolder", data_dir=tmp_path)
    image_tree(tmp_path / "b")
    (tmp_path / "b/train/cat/0.png").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"0\.png cannot be read"):
        open_data("imagefolder", data_dir=tmp_path / "b").source(train=True)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "fashion_mnist"])
def test_missing_files_say_how_to_get_them(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data-dir"):
        open_data(name).source(train=True)
    with pytest.raises(UserError, match="--download true"):
        open_data(name, data_dir=tmp_path / "nowhere").source(train=True)
    with pytest.raises(UserError, match="--download true"):
        open_data(name, data_dir=tmp_path).source(train=True)


def test_truncated_files_are_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": []})[:5])
    with pytest.raises(UserError, match="cifar10 cannot be read"):
        open_data("cifar10", data_dir=tmp_path).source(train=True)


@pytest.mark.parametrize("content", [{}, [], {"data": [1], "labels": None}, {"data": [object]}])
def test_damaged_files_are_not_taken_whatever_their_reader_raises(content: object, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("torchvision.datasets.CIFAR10._check_integrity", lambda self: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="cifar10 cannot be read in"):
        open_data("cifar10", data_dir=tmp_path).source(train=True)


def test_an_unknown_data_set_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean cifar10"):
        open_data("cifar-10")
    assert all(DATA.describe().values())


@pytest.mark.slow
def test_cifar10_for_real(cifar10_dir: Path) -> None:
    names = DATA.get("cifar10").class_names
    where = {"data_dir": cifar10_dir, "download": False}
    images, labels = load_test("cifar10", **where, image_shape=(3, 32, 32), class_names=names, n=None)
    assert images.shape == (10000, 3, 32, 32)
    assert labels.bincount().tolist() == [1000] * 10
    data = open_data("cifar10", data_dir=cifar10_dir)
    pixels = data.source(train=True).images.float().div(255)
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.tensor(data.mean), atol=5e-4, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3)), torch.tensor(data.std), atol=5e-4, rtol=0)


def test_a_seed_of_more_than_64_bits_is_refused() -> None:
    with pytest.raises(UserError, match="seed must be in"):
        stratified(torch.arange(10), 5, seed=2**70)
