"""Which trial comes next: those of dead processes first, then new ones, until all are begun.

A process holds a lock file for as long as it works on a trial. The system releases the lock when the process ends,
however it ends, so a trial that is said to run and whose lock is free is to be done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from optuna.trial import TrialState, create_trial

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

INDEX, ATTEMPT, INTERRUPTED, REASON = "index", "attempt", "interrupted", "reason"
"""Attributes of a trial: its number among the distinct ones, how often it was begun, whether the user or a scheduler
interrupted it, and why it failed."""
ATTEMPTS = 3
"""How often a trial may end the process that works on it; interruptions do not count."""
LOCK = ".sweep.lock"


class Queue:
    """The trials of a sweep, as the processes take them.

    Args:
        study: in the shared storage.
        folder: of the runs and the locks.
        total: distinct trials.
        sampler: returns the sampler of a trial by its index: what it draws then depends on the index and on the
            finished trials, not on the process.
    """

    def __init__(self, study: Study, folder: Path, total: int, sampler: Callable[[int], BaseSampler]) -> None:
        self.study, self.folder, self.total, self.sampler = study, folder, total, sampler

    @contextmanager
    def next(self) -> Iterator[Trial | None]:
        """Yield the next trial, locked for as long as the context lasts, or None if none is left to begin."""
        with locked(self.folder):
            self._repeat_abandoned()
            trial, lock = self._take()
        try:
            yield trial
        finally:
            if lock is not None:
                lock.release()

    def _take(self) -> tuple[Trial | None, FileLock | None]:
        trials = self.study.get_trials(deepcopy=False)
        waiting = next((t for t in trials if t.state == TrialState.WAITING), None)
        index = waiting.user_attrs[INDEX] if waiting else distinct(trials)
        if waiting is None and index >= self.total:
            return None, None
        lock = self._lock(index)
        lock.acquire()
        self._marker(index).touch()
        self.study.sampler = self.sampler(index)
        trial = self.study.ask()
        trial.set_user_attr(INDEX, index)
        return trial, lock

    def _repeat_abandoned(self) -> None:
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_abandoned(trial):
                attempt = trial.user_attrs.get(ATTEMPT, 1) + (not trial.user_attrs.get(INTERRUPTED, False))
                self.study.tell(trial.number, state=TrialState.FAIL)
                if attempt <= ATTEMPTS:
                    self.study.add_trial(_again(trial, attempt, self.study.get_trials(deepcopy=False)))

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        if INDEX not in trial.user_attrs:
            return True  # its process ended between two lines of `_take`, or else would hold the sweep's lock
        index = trial.user_attrs[INDEX]
        if not self._marker(index).exists():
            return False  # it runs on a machine with a folder of its own
        try:
            with self._lock(index).acquire(timeout=0):
                return True
        except Timeout:
            return False

    def _lock(self, index: int) -> FileLock:
        return FileLock(self.folder / f".{run_name(index)}.lock")

    def _marker(self, index: int) -> Path:
        """Return the file that says that a trial was begun in this folder: Windows removes the lock file on release."""
        return self.folder / f".{run_name(index)}.begun"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a sweep's folder."""
    with FileLock(folder / LOCK):
        yield


def run_name(index: int) -> str:
    """Return the name of a trial's RUN folder."""
    return f"trial-{index:03}"


def distinct(trials: list[FrozenTrial]) -> int:
    """Return how many trials were begun; one that is begun again counts once."""
    return len(latest(trials))


def latest(trials: list[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Return the last attempt of each trial by its index."""
    return dict(sorted({t.user_attrs[INDEX]: t for t in trials if INDEX in t.user_attrs}.items()))


def _again(trial: FrozenTrial, attempt: int, trials: list[FrozenTrial]) -> FrozenTrial:
    """Return a waiting trial with the values of an abandoned one, which continues its run."""
    index = trial.user_attrs.get(INDEX, distinct(trials))
    return create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={**trial.user_attrs, INDEX: index, ATTEMPT: attempt, INTERRUPTED: False},
    )
