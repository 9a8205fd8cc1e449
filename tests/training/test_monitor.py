"""Which epoch an adversarial training keeps: the one that withstands PGD best, or the constraint-relaxation attack."""

import csv
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from zoo.attacks.cr import CR
from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.runs.run import Run
from zoo.training.resume_check import check_same_recipe

ROBUST = {"adversary": "pgd", "steps": 1, "eps": "0.1", "lr": 0.05}


def column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def made_up(*accuracies: float):
    """Return an attack that leaves these shares of the images, one after another."""
    found = iter(accuracies)
    return lambda model, images, labels, eps, **_: SimpleNamespace(robust=torch.full((1, 1), next(found)))


@pytest.mark.parametrize(("monitor", "best"), [("pgd", 0.9), ("cr", 0.6)])
def test_the_best_epoch_is_the_one_that_withstands_the_monitor(train_tiny, monkeypatch, monitor, best):
    """Under PGD the first of three epochs is made the best, under the other attack the second."""
    monkeypatch.setattr("zoo.training.robust_validation.PGD_10", made_up(0.9, 0.8, 0.7))
    monkeypatch.setattr("zoo.training.robust_validation.SHORT_CR", made_up(0.5, 0.6, 0.4))
    run = train_tiny("dense", monitor=monitor, epochs=3, **ROBUST)
    assert run.card.training[f"val_{monitor}_accuracy"] == pytest.approx(best)
    assert column(run.folder, "val_pgd_accuracy") == pytest.approx([0.9, 0.8, 0.7])
    assert column(run.folder, "val_cr_accuracy") == pytest.approx([0.5, 0.6, 0.4] if monitor == "cr" else [])


def test_validation_under_cr_is_the_accuracy_of_the_kept_epoch(train_tiny, monkeypatch):
    """The digits have fewer validation images than are looked at, in several batches here."""
    attacked = []
    attack = CR.__call__

    def watched(self, model, images, labels, eps, **options):
        attacked.append((len(images), options["gradients"]))
        return attack(self, model, images, labels, eps, **options)

    monkeypatch.setattr(CR, "__call__", watched)
    run = train_tiny("dense", monitor="cr", epochs=2, batch_size=40, **ROBUST)
    per_epoch, pgd = column(run.folder, "val_cr_accuracy"), column(run.folder, "val_pgd_accuracy")
    assert len(per_epoch) == len(pgd) == 2
    assert all(cr <= p + 0.02 for cr, p in zip(per_epoch, pgd, strict=True))
    assert run.card.training["val_cr_accuracy"] == pytest.approx(max(per_epoch))
    batches = attacked[: len(attacked) // 2]
    assert len(batches) > 1
    assert sum(n for n, _ in batches) == run.card.training["val_images"]
    assert {gradients for _, gradients in batches} == {"fp32"}


@pytest.mark.parametrize(
    ("before", "refused"),
    [
        ({"monitor": "pgd", "epochs": 2}, True),
        ({"epochs": 2}, True),  # from a version without the flag, which picked by PGD
        ({"monitor": "cr", "epochs": 2}, False),
        ({}, False),  # from a version that kept no recipe
    ],
)
def test_another_monitor_than_that_of_the_checkpoint_is_refused(before, refused):
    now = {"monitor": "cr", "epochs": 2}
    with pytest.raises(UserError, match=r"monitor cr, .* trained with pgd") if refused else nullcontext():
        check_same_recipe(before, now, Path("config.yaml"))


def test_a_training_begun_without_the_flag_goes_on_by_pgd(train_tiny, dying_at, tmp_path):
    with dying_at(11):
        train_tiny("dense", epochs=2, **ROBUST)
    config, checkpoint = tmp_path / "run/config.yaml", tmp_path / "run/last.ckpt"
    saved, written = torch.load(checkpoint, weights_only=True), yaml.safe_load(config.read_text())
    assert saved["recipe"].pop("monitor") == written.pop("monitor") == "pgd"
    torch.save(saved, checkpoint)
    config.write_text(yaml.safe_dump(written))
    zoo(["train", "--resume", str(tmp_path / "run")])
    assert "val_pgd_accuracy" in Run(tmp_path / "run").card.training


@pytest.mark.parametrize(
    ("options", "words"),
    [({}, "give --adversary too"), ({**ROBUST, "val_fraction": 0.0}, "give --val-fraction above 0 too")],
)
def test_a_monitor_that_has_nothing_to_pick_from_is_refused(train_tiny, tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        train_tiny("dense", monitor="cr", **options)
    assert not (tmp_path / "run").exists()
