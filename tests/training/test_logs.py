"""Every logger goes on where a training that was interrupted does."""

from pathlib import Path

import pytest
import wandb

from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.training.logs import csv_logger, extra_logger


@pytest.fixture
def interrupted(train_tiny, dying_at, tmp_path: Path):
    """Return a function that begins a training of two epochs with a logger, which dies in the second one."""

    def begin(logger: str) -> Path:
        with dying_at(15):
            train_tiny("lowrank", epochs=2, logger=logger)
        return tmp_path / "run"

    return begin


def sessions(folder: Path) -> list[str]:
    """The ids of the W&B runs of the sessions, in order."""
    return [path.name.rpartition("-")[2] for path in sorted((folder / "wandb").glob("offline-run-*"))]


def test_a_resumed_training_goes_on_in_the_same_run_of_weights_and_biases(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.finish()  # a run that an earlier test of this process left open would be joined
    ids = []
    for resume in (False, True, False):
        logger = extra_logger("wandb", tmp_path, resume=resume)
        ids.append(logger.experiment.id)
        logger.experiment.finish()
    assert ids[0] == ids[1] != ids[2]


def test_the_run_of_the_last_session_is_taken(tmp_path: Path, monkeypatch) -> None:
    begun = {}
    monkeypatch.setattr("wandb.init", lambda **options: begun.update(options))
    for name in ("offline-run-20260102_000000-new", "run-20260101_000000-old", "latest-run", "debug.log"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    extra_logger("wandb", tmp_path, resume=True)
    assert (begun["id"], begun["resume"]) == ("new", "allow")
    extra_logger("wandb", tmp_path)
    assert begun["id"] is None
    extra_logger("wandb", tmp_path / ("a" * 200), resume=True)
    assert (begun["id"], begun["name"]) == (None, "a" * 128)


def test_tensorboard_shows_each_step_of_a_resumed_training_once(interrupted) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = interrupted("tensorboard")
    zoo(["train", "--resume", str(folder)])
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    steps = [event.step for event in events.Scalars("loss")]
    assert len(steps) > 1
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("content", ["step,loss\nx,1\n", "loss\n1\n", "step,loss\n1,2,3\n", "step\n\0\xff\n"])
def test_damaged_metrics_are_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"metrics\.csv is damaged \(\w+\): remove it to continue without its rows"):
        csv_logger(tmp_path, step=5)
