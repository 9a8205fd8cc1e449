"""A checkpoint and a budget in, a RUN out that the other commands take; what cannot be done leaves nothing behind."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from make_run import make_run, shake

import zoo
from zoo.backbone import create_backbone, with_normalization
from zoo.cli import run as run_command
from zoo.data import open_data
from zoo.errors import UserError
from zoo.methods import METHODS, Method
from zoo.oneshot import CompressConfig, Outcome, compress_checkpoint
from zoo.runs.run import Run

DIGITS = (1, 8, 8)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of test_resnet for the digits."""
    torch.manual_seed(0)
    file = tmp_path / "x.pth"
    torch.save({"state_dict": shake(create_backbone("test_resnet", 10, DIGITS)).state_dict()}, file)
    return file


def method(name: str = "lowrank", **options: object) -> Method:
    return METHODS.get(name)(**options)


def compressed(checkpoint: Path, how: Method, **options: object) -> Outcome:
    given = {"out": checkpoint.with_name("run"), "n": 50, "device": "cpu", "compression": 0.5, "image_size": 8}
    return compress_checkpoint("test_resnet", how, CompressConfig(**{"weights": checkpoint, **given, **options}))


def dense_logits(checkpoint: Path, run: Run, images: torch.Tensor) -> torch.Tensor:
    dense = create_backbone("test_resnet", 10, DIGITS)
    dense.load_state_dict(torch.load(checkpoint)["state_dict"])
    return with_normalization(dense, run.card.mean, run.card.std).eval()(images)


@torch.no_grad()
@pytest.mark.parametrize("name", ["lowrank", "robust_lowrank", "magnitude_prune"])
def test_without_data(name: str, checkpoint: Path) -> None:
    done = compressed(checkpoint, method(name))
    card = Run(done.run.folder).card
    assert 0.5 <= card.compression <= 0.56
    assert card.class_names == tuple(f"class_{i}" for i in range(10))
    assert (card.data, card.image_shape, card.evaluations) == ("", DIGITS, ())
    assert done.before is None
    assert Run(done.run.folder).model()(torch.rand(2, *DIGITS)).shape == (2, 10)
    assert all(row.rank is None or row.condition_number for row in card.layers)


@torch.no_grad()
def test_at_full_rank_the_logits_stay(checkpoint: Path) -> None:
    done = compressed(checkpoint, method(), compression=None, rank_fraction=1.0)
    images = torch.rand(4, *DIGITS)
    assert torch.allclose(Run(done.run.folder).model()(images), dense_logits(checkpoint, done.run, images), atol=1e-4)


def test_with_data_accuracy_is_measured_before_and_after(train_tiny, tmp_path: Path) -> None:
    dense = train_tiny("dense", "dense", epochs=4, n=200)
    file = tmp_path / "dense.pth"
    torch.save(dense.trained_model().state_dict(), file)
    data = open_data("digits")
    found = {
        init: compressed(file, method(init=init), data="digits", n=200, image_size=None, out=tmp_path / init)
        for init in ("weights", "outputs")
    }
    for done in found.values():
        assert done.before is not None
        assert done.before.accuracy == dense.card.clean.accuracy
        assert done.run.card.clean == done.after
        assert done.run.card.class_names == data.class_names
    assert found["outputs"].after.accuracy > 0.8 * dense.card.clean.accuracy
    assert found["outputs"].after.accuracy >= found["weights"].after.accuracy - 0.05
    again = compressed(file, method(init="outputs"), data="digits", image_size=None, out=tmp_path / "again")
    states = [Run(x.run.folder).trained_model().state_dict() for x in (again, found["outputs"])]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_run_and_a_published_model_are_compressed_further(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", compression=0.3)
    config = CompressConfig(weights=first.folder, compression=0.6, out=tmp_path / "second", device="cpu")
    card = compress_checkpoint("test_resnet", method(), config).run.card
    assert (card.data, card.class_names, card.mean) == (first.card.data, first.card.class_names, first.card.mean)
    assert card.params < first.card.params
    with pytest.raises(UserError, match="is a test_resnet, not a resnet18"):
        compress_checkpoint("resnet18", method(), replace(config, out=tmp_path / "third"))


def test_what_cannot_be_done_is_told_and_leaves_nothing(checkpoint: Path) -> None:
    wrong: list[tuple[Method, dict[str, object], str]] = [
        (method(), {"compression": 0.9999}, "compression 0.9999 cannot be reached here: rank 1 in all"),
        (method(), {"compression": 1.5}, "compression 1.5 is invalid"),
        (method("magnitude_prune"), {"compression": 0.99999}, "one channel in each of the 11 groups"),
        (method("mrs_prune"), {}, "choose magnitude_prune"),
        (method(init="outputs"), {}, "--method.init outputs fits factors to training images: give --data"),
        (method(), {"data": "digits", "data_dir": Path("x")}, "digits is built in"),
        (method(), {"mean": "0.5,0.5", "std": "1,1"}, "images with 1 channels need 1 numbers each"),
    ]
    for how, options, message in wrong:
        with pytest.raises(UserError, match=message):
            compressed(checkpoint, how, **options)
        assert list(checkpoint.parent.iterdir()) == [checkpoint]
    for options, message in (
        ({}, "say what to compress"),
        ({"weights": checkpoint, "mean": "0.5"}, "--mean and --std go together"),
        ({"weights": checkpoint, "mean": "a", "std": "1"}, "--mean a: give a number per channel"),
        ({"weights": checkpoint, "std": "0", "mean": "0"}, "divides the pixels"),
        ({"weights": checkpoint, "data_dir": Path("x")}, "say of which data set with --data"),
    ):
        with pytest.raises(UserError, match=message):
            CompressConfig(**options)


def test_other_classes_than_the_data_s_are_refused(tmp_path: Path) -> None:
    torch.save(create_backbone("test_resnet", 7, DIGITS).state_dict(), tmp_path / "x.pth")
    with pytest.raises(UserError, match="has 7 classes, digits has 10: a new head needs a training"):
        compressed(tmp_path / "x.pth", method(), data="digits", image_size=None)


def test_a_run_that_is_there_is_replaced_only_on_demand(checkpoint: Path) -> None:
    done = compressed(checkpoint, method())
    with pytest.raises(UserError, match="holds a finished run"):
        compressed(checkpoint, method())
    assert compressed(checkpoint, method(), compression=0.7, overwrite=True).run.card.params < done.run.card.params


def test_the_command(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = checkpoint.with_name("run")
    run_command(
        [
            *("compress", "test_resnet", "--weights", str(checkpoint), "--compression", "0.5", "--n", "50"),
            *("--data", "digits", "--method", "lowrank(convolution=tucker)", "--device", "cpu", "--out", str(out)),
        ]
    )
    printed = capsys.readouterr().out
    assert "fewer than" in printed
    assert "accuracy on 50 test images of digits: before " in printed
    assert f"next: zoo export {out}" in printed
    assert Run(out).card.method_options["init"] == "outputs"
    assert Run(out).card.method_options["convolution"] == "tucker"
    run_command(["export", str(out), "--target", "generic"])
    run_command(["evaluate", str(out), "--attacks", "fgsm", "--eps", "0.01", "--n", "20", "--device", "cpu"])
    assert Run(out).card.lipschitz_bound
    start = ["train", "--init", str(out), "--data", "digits", "--epochs", "1", "--n", "20", "--device", "cpu"]
    run_command([*start, "--out", str(out.with_name("trained")), "--trainer.limit_train_batches", "2"])
    assert Run(out.with_name("trained")).card.ranks == Run(out).card.ranks


def test_without_data_export_works_and_evaluate_says_what_is_missing(checkpoint: Path) -> None:
    run = compressed(checkpoint, method()).run
    run_command(["export", str(run.folder), "--target", "generic"])
    with pytest.raises(UserError, match=r"was compressed without data, .*: give the one that it is for, --data NAME"):
        run_command(["evaluate", str(run.folder)])


def test_in_python_factors_are_fitted_to_images() -> None:
    torch.manual_seed(0)
    model = shake(create_backbone("test_resnet", 10, DIGITS)).eval()
    images = torch.rand(64, *DIGITS)
    with torch.no_grad():
        errors = [
            (zoo.compress(model, "lowrank", 0.6, **options).model.eval()(images) - model(images)).norm()
            for options in ({}, {"init": "outputs", "images": images})
        ]
    assert errors[1] < errors[0]
    with pytest.raises(UserError, match="images are what init"):
        zoo.compress(model, "lowrank", 0.6, images=images)
