"""The processes of a sweep take turns, survive one another, and prune trials."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import torch
from filelock import FileLock
from optuna.trial import TrialState

from zoo.tuning.pruning import FIRST, TrialPruning
from zoo.tuning.queue import ATTEMPT, ATTEMPTS, INDEX, INTERRUPTED, Queue, latest
from zoo.tuning.storage import open_storage


def random_queue(study: optuna.Study, folder: Path, total: int = 3) -> Queue:
    return Queue(study, folder, total, lambda index: optuna.samplers.RandomSampler(seed=index))


def test_a_trial_is_begun_again_only_when_its_process_is_gone(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(f"journal:{tmp_path}"))
    with random_queue(study, tmp_path).next() as first:
        first.suggest_float("x", 0, 1)
        with random_queue(study, tmp_path).next() as second:
            assert second.user_attrs[INDEX] == 1  # the first is being worked on
    with random_queue(study, tmp_path).next() as again:  # both were left without a result
        assert again.user_attrs[INDEX] == 0
        assert again.user_attrs[ATTEMPT] == 2
        assert again.suggest_float("x", 0, 1) == first.params["x"]


def test_a_trial_is_begun_again_where_released_lock_files_are_removed(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(f"journal:{tmp_path}"))
    with random_queue(study, tmp_path).next():
        pass
    for lock in tmp_path.glob(".trial-*.lock"):  # as Windows does
        lock.unlink()
    with random_queue(study, tmp_path).next() as again:
        assert (again.user_attrs[INDEX], again.user_attrs[ATTEMPT]) == (0, 2)


def test_a_trial_may_be_interrupted_any_number_of_times(tmp_path: Path) -> None:
    """By Ctrl-C, or by a scheduler that takes the machine away."""
    study = optuna.create_study(storage=open_storage(f"journal:{tmp_path}"))
    for _ in range(ATTEMPTS + 2):
        with random_queue(study, tmp_path, 1).next() as trial:
            assert trial.user_attrs.get(ATTEMPT, 1) == 1
            trial.set_user_attr(INTERRUPTED, True)
    with random_queue(study, tmp_path, 1).next():
        pass  # a kill counts
    with random_queue(study, tmp_path, 1).next() as trial:
        assert trial.user_attrs[ATTEMPT] == 2


def test_a_trial_that_ends_its_process_every_time_is_given_up(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(f"journal:{tmp_path}"))
    for attempt in range(1, ATTEMPTS + 1):
        with random_queue(study, tmp_path, 1).next() as trial:
            assert trial.user_attrs.get(ATTEMPT, 1) == attempt
    with random_queue(study, tmp_path, 1).next() as trial:
        assert trial is None
    assert latest(study.trials)[0].state == TrialState.FAIL


def test_processes_together_begin_no_more_trials_than_asked(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(f"journal:{tmp_path}"))
    for _ in range(5):
        with random_queue(study, tmp_path, 3).next() as trial:
            if trial is not None:
                study.tell(trial, 1.0)
    assert len(study.trials) == 3


def test_a_trial_on_a_machine_with_a_folder_of_its_own_is_left_to_it(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    study = optuna.create_study(storage=open_storage(f"journal:{tmp_path}"))
    with random_queue(study, there).next():
        pass
    with random_queue(study, here).next() as trial:
        assert trial.user_attrs[INDEX] == 1


def test_what_a_trial_draws_depends_on_its_index_and_not_on_the_process(tmp_path: Path) -> None:
    drawn = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        study = optuna.create_study(storage=open_storage(f"journal:{folder}"))
        values = []
        for _ in range(3):  # a new queue for each, as a new process has
            with random_queue(study, folder).next() as trial:
                values.append(trial.suggest_float("x", 0, 1))
                study.tell(trial, 0.0)
        drawn.append(values)
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    hold = "lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); time.sleep(60)"
    code = f"import sys, time, filelock; {hold}"
    path = tmp_path / "a.lock"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    process.stdout.readline()
    with pytest.raises(TimeoutError), FileLock(path, timeout=0):
        pass
    process.kill()
    process.wait()
    with FileLock(path, timeout=0):
        assert path.exists()


# Pruning.


def report(storage, metric: float, epochs: int = 3) -> None:
    callback = TrialPruning(storage, "val_accuracy", warmup=1)
    for epoch in range(epochs):
        trainer = SimpleNamespace(
            callback_metrics={"val_accuracy": torch.tensor(metric)}, current_epoch=epoch, interrupted=False
        )
        callback.on_validation_end(trainer, None)
    callback.on_fit_end(trainer, None)


def test_a_trial_below_the_median_is_pruned_though_there_are_several_objectives(
    tmp_path: Path,
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 's.db'}")
    optuna.create_study(storage=storage, directions=["maximize", "minimize"])
    for _ in range(FIRST):
        report(storage, 0.5)
    report(storage, 0.6)
    with pytest.raises(optuna.TrialPruned, match=r"val_accuracy 10.0% after epoch 2"):
        report(storage, 0.1)
    report(storage, 0.1, epochs=1)  # within the warm-up
