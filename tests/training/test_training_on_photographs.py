"""Trainings on a folder of one's own images: validation, normalisation, blended labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from image_tree import image_tree
from make_run import make_run
from PIL import Image
from safetensors.torch import save_file

from zoo.adversaries import ADVERSARIES
from zoo.backbone import create_backbone
from zoo.data import open_data
from zoo.errors import UserError
from zoo.methods import METHODS
from zoo.runs.checkpoint import Checkpoint
from zoo.runs.config import TrainConfig
from zoo.runs.run import CHECKPOINT, Run, read_config
from zoo.training.module import smoothed
from zoo.training.normalization import normalize_
from zoo.training.trainer import resume, train

METHOD = METHODS.get("dense")


def config(tmp_path: Path, **options) -> TrainConfig:
    small = {"arch": "test_resnet", "epochs": 1, "batch_size": 4, "device": "cpu", "precision": "32-true", "n": 20}
    bar = {"trainer": {"enable_progress_bar": False}}
    data = {"data": "imagefolder", "data_dir": tmp_path / "images", "image_size": 16, "out": tmp_path / "run"}
    return TrainConfig(**{**small, **bar, **data, **options})


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return image_tree(tmp_path / "images", ("train", "val", "test"))


def test_a_training_is_validated_on_val_and_measured_on_test(images: Path, tmp_path: Path, capsys) -> None:
    for path in (images / "val/cat/0.png", images / "test/dog/1.png"):
        path.unlink()
    run = train(config(tmp_path), METHOD())
    assert (run.card.training["train_images"], run.card.training["val_images"]) == (6, 5)
    assert run.card.clean is not None
    assert run.card.clean.n == 5
    assert run.card.training["normalization"] == "ImageNet's"
    assert run.card.mean == (0.485, 0.456, 0.406)
    said = capsys.readouterr().err
    assert "16 images of 2 classes" in said
    assert "validation: val/" in said


def test_held_out_images_are_told_and_found_again(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "images"
    for name, shade in (("cat", 0), ("dog", 200)):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(np.full((20, 20, 3), shade + i, dtype=np.uint8)).save(folder / name / f"{i}.png")
    (folder / "cat/page.jpg").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"page\.jpg cannot be read"):
        train(config(tmp_path, test_fraction=0.2), METHOD())
    assert not (tmp_path / "run").exists()
    run = train(config(tmp_path, test_fraction=0.2, skip_corrupt=True), METHOD())
    assert run.card.data == "imagefolder(test_fraction=0.2, skip_corrupt=true)"
    assert run.card.training["test_images"] == "held-out training images, 20 % of the images"
    from zoo.evaluation import print_card

    print_card(run.card)
    assert "measured on held-out training images, 20 % of the images" in capsys.readouterr().out
    again = open_data(run.card.data, data_dir=run.data_dir, image_size=16).source(train=False)
    assert len(again.labels) == run.card.clean.n == 4
    assert config(tmp_path, test_fraction=0.2, out=None).folder("dense") == Path("runs/test_resnet-dense-imagefolder")


def weights_with(folder: Path, mean: str, std: str) -> Path:
    folder.mkdir()
    save_file(create_backbone("test_resnet", 2, (3, 16, 16)).state_dict(), folder / "model.safetensors")
    text = f'{{"architecture": "test_resnet", "pretrained_cfg": {{"mean": {mean}, "std": {std}}}}}'
    (folder / "config.json").write_text(text)
    return folder


def test_pixels_are_normalised_as_the_weights_were_trained(images: Path, tmp_path: Path) -> None:
    weights = weights_with(tmp_path / "own", "[0.5, 0.4, 0.3]", "[0.2, 0.2, 0.1]")
    data = open_data("imagefolder", data_dir=images, image_size=16)
    chosen = normalize_(data, config(tmp_path, weights=weights))
    assert (data.mean, data.std, chosen.mean) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1), "0.5,0.4,0.3")
    assert data.normalization == f"that of {weights}"
    run = make_run(tmp_path / "start", image_shape=(3, 16, 16), class_names=("cat", "dog"))
    data = open_data("imagefolder", data_dir=images, image_size=16)
    normalize_(data, config(tmp_path, init=str(run.folder)))
    assert (data.mean, data.normalization) == ((0.3,) * 3, f"that of {run.folder}")


def test_given_numbers_are_first_and_known_data_keep_their_own(images: Path, tmp_path: Path) -> None:
    weights = weights_with(tmp_path / "own", "[0.5, 0.4, 0.3]", "[0.2, 0.2, 0.1]")
    data = open_data("imagefolder", data_dir=images, image_size=16)
    given = config(tmp_path, weights=weights, mean="0.1,0.2,0.3", std="1,1,1")
    normalize_(data, given)
    assert (data.mean, data.std, data.normalization) == ((0.1, 0.2, 0.3), (1, 1, 1), "given")
    data = open_data("imagefolder", data_dir=images, image_size=16)
    with pytest.raises(UserError, match="images with 3 channels need 3 numbers each"):
        normalize_(data, config(tmp_path, mean="0.1", std="1"))
    data = open_data("digits")
    chosen = normalize_(data, TrainConfig(init=None, weights=weights))
    assert (data.mean, data.normalization, chosen.mean) == ((0.305,), "the data set's", None)
    for wrong in (
        {"mean": "0.1"},
        {"mean": "0.1,a", "std": "1,1"},
        {"mean": "0.1", "std": "0"},
        {"mean": "1", "std": "1,1"},
    ):
        with pytest.raises(UserError, match=r"--mean|--std"):
            TrainConfig(**wrong)


def test_what_was_chosen_is_in_the_run_and_its_checkpoint(images: Path, tmp_path: Path) -> None:
    weights = weights_with(tmp_path / "own", "[0.5, 0.4, 0.3]", "[0.2, 0.2, 0.1]")
    run = train(config(tmp_path, weights=weights, epochs=2), METHOD())
    assert (run.card.mean, run.card.training["normalization"]) == ((0.5, 0.4, 0.3), f"that of {weights}")
    saved = read_config(run.folder)
    assert (saved["mean"], saved["std"]) == ("0.5,0.4,0.3", "0.2,0.2,0.1")
    assert Checkpoint(run.folder / CHECKPOINT).metadata().mean == (0.5, 0.4, 0.3)
    (run.folder / "card.json").unlink()
    saved = {key: value for key, value in saved.items() if key in TrainConfig.__dataclass_fields__}
    named = ADVERSARIES.get("none")()
    from zoo.post_training.none import NoFinisher
    from zoo.regularizers.none import NoRegularizer

    more = TrainConfig(**{**saved, "data_dir": Path(saved["data_dir"]), "weights": weights, "out": run.folder})
    resumed = resume(run.folder, more, METHOD(), named, NoRegularizer(), NoFinisher())
    assert resumed.card.training["normalization"] == f"that of {weights}"


@pytest.mark.parametrize("adversary", ["none", "trades"])
def test_blended_images_train_any_loss_that_takes_shares(adversary: str, images: Path, tmp_path: Path) -> None:
    how = {"augment": "strong", "label_smoothing": 0.1, "steps": 1, "eps": "2/255"}
    run = train(config(tmp_path, **how), METHOD(), ADVERSARIES.get(adversary)())
    assert run.card.training["augment"] == "strong"
    assert isinstance(run, Run)


def test_a_loss_that_needs_whole_labels_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--augment strong blends images .* --adversary mart needs whole labels"):
        train(config(tmp_path, augment="strong"), METHOD(), ADVERSARIES.get("mart")())
    assert not (tmp_path / "run").exists()


def test_smoothing_spreads_a_share_over_all_classes() -> None:
    shares = torch.tensor([[0.7, 0.3, 0.0, 0.0]])
    torch.testing.assert_close(smoothed(shares, 0.2), torch.tensor([[0.61, 0.29, 0.05, 0.05]]))
    assert torch.equal(smoothed(shares, 0.0), shares)
