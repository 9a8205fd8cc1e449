"""The trials of a sweep as plain data: the values of each, its results, and which are the best."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.importance import get_param_importances
from optuna.trial import TrialState

from zoo.tuning.objectives import is_accuracy
from zoo.tuning.queue import REASON, latest, run_name

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

FEWEST = 4
"""Finished trials from which importances are estimated."""


@dataclass(frozen=True)
class TrialFigures:
    """One trial.

    Attributes:
        name: of its RUN folder.
        state: finished, pruned, failed, running or waiting.
        values: of the options that are searched, as on a command line.
        figures: of the objectives, if it is finished.
        doubtful: whether its accuracies are not credible, see `zoo.runs.card.Card.doubts`.
        note: why it was pruned or failed, or ``""``.
    """

    name: str
    state: str
    values: dict[str, str]
    figures: dict[str, float]
    doubtful: bool
    note: str


@dataclass(frozen=True)
class SweepFigures:
    """A whole sweep.

    Attributes:
        plan: see `zoo.tuning.sweep.Plan.identity`.
        trials: in the order in which they were begun.
        front: finished, credible trials that no other beats in every objective.
        importances: by objective, the share of each option in what decides it; empty with too few trials.
    """

    plan: dict[str, Any]
    trials: tuple[TrialFigures, ...]
    front: tuple[TrialFigures, ...]
    importances: dict[str, dict[str, float]]

    @property
    def objectives(self) -> list[str]:
        """The names of the objectives, the decisive one first."""
        return list(self.plan["objectives"])

    @property
    def best(self) -> TrialFigures | None:
        """The trial of the front that is best in the first objective, then in the second."""

        def rank(trial: TrialFigures) -> list[float]:
            return [x if is_accuracy(name) else -x for name, x in trial.figures.items()]

        return max(self.front, key=rank, default=None)


WORDS = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def gather(study: Study, plan: dict[str, Any]) -> SweepFigures:
    """Read the trials of a study."""
    found = latest(study.get_trials(deepcopy=False))
    trials = {index: _figures(index, trial, plan) for index, trial in found.items()}
    best = {trial.number for trial in study.best_trials} if any(t.figures for t in trials.values()) else set()
    front = [trials[index] for index, trial in found.items() if trial.number in best and not trials[index].doubtful]
    return SweepFigures(plan, tuple(trials.values()), tuple(front), _importances(study, plan))


def _figures(index: int, trial: FrozenTrial, plan: dict[str, Any]) -> TrialFigures:
    finished = trial.state == TrialState.COMPLETE
    return TrialFigures(
        run_name(index),
        WORDS[trial.state],
        {key: str(trial.params[key]) for key in plan["search"] if key in trial.params},
        dict(zip(plan["objectives"], trial.values, strict=True)) if finished and trial.values else {},
        any(value > 0 for value in trial.constraints.values()),
        trial.user_attrs.get(REASON, ""),
    )


def _importances(study: Study, plan: dict[str, Any]) -> dict[str, dict[str, float]]:
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < FEWEST:
        return {}
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, name in enumerate(plan["objectives"]):
            sign = -1.0 if is_accuracy(name) else 1.0  # the estimate asks what makes the target small

            def target(trial: FrozenTrial, i: int = i, sign: float = sign) -> float:
                return sign * trial.values[i]

            found[name] = get_param_importances(study, target=target)
    return found
