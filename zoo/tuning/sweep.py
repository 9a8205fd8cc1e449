"""A sweep: its plan, its folder, and the loop of one process over trials."""

from __future__ import annotations

import json
import math
import shlex
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import optuna
import torch
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from zoo.adversaries.none import NoAdversary
from zoo.data import check_data_dir, mixed_seed
from zoo.errors import Interrupted, UserError, first_line
from zoo.latency.session import default_threads
from zoo.runs.config import TrainConfig, check_seed
from zoo.runs.run import CARD, CONFIG, Run
from zoo.training.parts import Parts
from zoo.training.resume_check import recipe
from zoo.training.trainer import resume, train
from zoo.tuning.objectives import CLEAN, TrialEvaluator, directions, parse_objectives
from zoo.tuning.pruning import TrialPruning
from zoo.tuning.queue import INDEX, INTERRUPTED, REASON, Queue, latest, locked, run_name
from zoo.tuning.space import Dimension, parse_space
from zoo.tuning.storage import open_storage, open_study
from zoo.tuning.write import DATA, write_sweep

Recipe = tuple[TrainConfig, dict[str, Any]]
"""A configuration, and its plugins by flag."""
ID = "id"
"""Attribute of the study by which its folder is recognised."""


@dataclass(frozen=True)
class Settings:
    """Settings of a sweep; the fields are flags of ``zoo sweep``."""

    objective: str = "cr"
    """Objectives, such as cr,latency: clean, an attack (accuracy on validation images), parameters, macs, latency."""
    trials: int = 20
    """Trials of the whole sweep, over all processes and calls."""
    storage: str | None = None
    """What the processes share: journal:DIR, sqlite:///FILE, or a database (default: a journal in --out)."""
    out: Path = Path("sweep")
    """Folder of the runs (trial-000, ...), the page sweep.html, and best.yaml."""
    sampler: Literal["tpe", "random"] = "tpe"
    """tpe learns from the finished trials; random: trial k is the same in every sweep of this seed."""
    prune: bool = True
    """End trials early whose validation accuracy is below the median of the others at the same epoch."""
    n: int = 1000
    """Validation images for the accuracies, at most."""
    threads: int = field(default_factory=default_threads)
    """Threads of ONNX Runtime for the latency; 1 where processes share a machine."""
    seed: int = 0
    """Seed of the sampler; the trainings have the recipe's."""

    def __post_init__(self) -> None:
        for name in ("trials", "n", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, not {getattr(self, name)}")
        check_seed(self.seed)


@dataclass(frozen=True)
class Plan:
    """What is searched, and for what.

    Attributes:
        words: of ``zoo train``, which every trial shares.
        read: reads such words.
        base: the recipe without a trial's values.
        space: the options that are searched.
        evaluator: measures the objectives.
    """

    words: tuple[str, ...]
    read: Callable[[list[str]], Recipe]
    base: Recipe
    space: tuple[Dimension, ...]
    evaluator: TrialEvaluator

    @classmethod
    def of(
        cls, words: Sequence[str], search: Sequence[str], settings: Settings, read: Callable[[list[str]], Recipe]
    ) -> Plan:
        """Read a plan and check it: every value that a list or the end of a range gives must be one of its option.

        Raises:
            UserError: the recipe, the search or an objective is wrong, or the data are not there.
        """
        base = read(list(words))
        config, plugins = base
        space = parse_space(search, config, plugins)
        evaluator = TrialEvaluator(parse_objectives(settings.objective), config, settings.n, settings.threads)
        plan = cls(tuple(words), read, base, space, evaluator)
        for dimension in space:
            for value in dimension.extremes():
                read(plan.with_values({dimension.key: value}))
        if any(config.trainer.get(name, 1) not in (1, "1", "auto") for name in ("devices", "num_nodes")):
            raise UserError("a trial trains in one process: leave trainer.devices and trainer.num_nodes out")
        check_data_dir(config.data, config.data_dir)
        evaluator.check()
        return plan

    def with_values(self, values: dict[str, str]) -> list[str]:
        """Return the words of ``zoo train`` for some values."""
        return [*self.words, *(f"--{key}={value}" for key, value in values.items())]

    @property
    def identity(self) -> dict[str, Any]:
        """What trials must have in common to be compared, as plain data."""
        config, plugins = self.base
        searched = {dimension.key.replace("-", "_") for dimension in self.space}
        fixed = recipe(config, Parts(*plugins.values()))
        fixed |= {name: getattr(config, name) for name in ("weights", "init", "teacher", "pretrained")}
        kept = {k: v for k, v in fixed.items() if k not in searched and k.partition(".")[0] not in searched}
        found = {
            "objectives": list(self.evaluator.objectives),
            "search": {dimension.key: dimension.text for dimension in self.space},
            "recipe": kept,
            "images": {"n": self.evaluator.n},
        }
        plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
        return plain

    @property
    def watched(self) -> str | None:
        """The metric that trainings log and an objective is close to; None: there is none to prune by."""
        config, plugins = self.base
        is_robust = not isinstance(plugins["adversary"], NoAdversary)
        if any(dimension.key == "epochs" for dimension in self.space):
            return None  # at the same epoch, schedules of other lengths are elsewhere
        if is_robust and self.evaluator.attacks:
            return f"val_{config.monitor}_accuracy"
        return "val_accuracy" if CLEAN in self.evaluator.objectives else None


class Sweep:
    """A sweep in a storage and a folder.

    Args:
        plan: what is searched.
        settings: see `Settings`.

    Raises:
        UserError: the storage or the folder belongs to another sweep.
    """

    def __init__(self, plan: Plan, settings: Settings) -> None:
        self.plan, self.settings, self.folder = plan, settings, settings.out
        address = settings.storage or f"journal:{self.folder}"
        self.storage = open_storage(address)
        self.study = open_study(self.storage, address, plan.identity, directions(plan.evaluator.objectives))
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            if ID not in self.study.user_attrs:
                self.study.set_user_attr(ID, uuid4().hex)
            self._check_folder()
            self.queue = Queue(self.study, self.folder, settings.trials, self._sampler)
            self.write()

    def work(self, say: Callable[[str], None]) -> None:
        """Run trials until none is left to begin.

        Args:
            say: called with a line on each trial that begins or ends.

        Raises:
            UserError: the user interrupted a trial, or the storage cannot be reached; the same command goes on.
        """
        while self.next(say):
            pass

    def next(self, say: Callable[[str], None]) -> bool:
        """Run the next trial; return whether there was one. Arguments and errors are those of `work`."""
        try:
            with self.queue.next() as trial:
                if trial is None:
                    return False
                self._run(trial, say)
            with locked(self.folder):
                self.write()
        except StorageInternalError as error:
            raise UserError(
                f"the storage cannot be reached ({first_line(error)}): the same command continues once it can"
            ) from None
        return True

    @property
    def left(self) -> int:
        """How many trials are not finished."""
        trials = latest(self.study.get_trials(deepcopy=False)).values()
        return max(0, self.settings.trials - sum(trial.state.is_finished() for trial in trials))

    def write(self) -> None:
        """Write page, figures and ``best.yaml`` of the trials so far."""
        write_sweep(self.study, self.plan.identity, self.folder, self.best_configuration)

    def best_configuration(self, values: dict[str, str]) -> Recipe:
        """Return the recipe of some values, without a folder."""
        config, plugins = self.plan.read(self.plan.with_values(values))
        config.out = None
        return config, plugins

    def _run(self, trial: Trial, say: Callable[[str], None]) -> None:
        values = {dimension.key: dimension.suggest(trial) for dimension in self.plan.space}
        name = run_name(trial.user_attrs[INDEX])
        say(f"{name}: {', '.join(f'{key} {value}' for key, value in values.items())}")
        try:
            run = self._finished(self.folder / name, values)
            figures = self.plan.evaluator.measure(run, self.study)
            trial.set_constraint("doubts", float(bool(run.card.doubts)))
        except (Interrupted, KeyboardInterrupt) as stop:
            trial.set_user_attr(INTERRUPTED, True)
            number = stop.signal if isinstance(stop, Interrupted) else signal.SIGINT
            raise Interrupted(f"interrupted in {name}: the same command continues from there", number) from None
        except optuna.TrialPruned as pruned:
            self._end(trial, TrialState.PRUNED, str(pruned))
            say(f"{name}: pruned, {pruned}")
        except (UserError, torch.OutOfMemoryError) as error:
            self._end(trial, TrialState.FAIL, first_line(error))
            say(f"{name}: failed, {first_line(error)}")
        else:
            self.study.tell(trial, figures)
            shown = zip(self.plan.evaluator.objectives, figures, strict=True)
            say(f"{name}: {', '.join(f'{key} {value:.6g}' for key, value in shown)}")

    def _end(self, trial: Trial, state: TrialState, reason: str) -> None:
        trial.set_user_attr(REASON, reason)
        self.study.tell(trial, state=state)

    def _finished(self, folder: Path, values: dict[str, str]) -> Run:
        """Train a trial's run, or go on with it, or return it if it is finished."""
        if (folder / CARD).is_file():
            return Run(folder)
        watch = self._pruning()
        if (folder / CONFIG).is_file():
            config, plugins = self.plan.read(["--config", str(folder / CONFIG)])
            return resume(folder, config, *plugins.values(), callbacks=watch)
        words = [*self.plan.with_values(values), "--out", str(folder)]
        config, plugins = self.plan.read(words)
        command = " ".join(shlex.join(["zoo", "train", *words]).splitlines())
        return train(config, *plugins.values(), overwrite=True, callbacks=watch, command=command)

    def _pruning(self) -> list[TrialPruning]:
        metric, epochs = self.plan.watched, self.plan.base[0].epochs
        if not self.settings.prune or metric is None:
            return []
        return [TrialPruning(self.storage, metric, math.ceil(epochs / 3))]

    def _sampler(self, index: int) -> BaseSampler:
        seed = mixed_seed(self.settings.seed, index) % 2**32
        return TPESampler(seed=seed) if self.settings.sampler == "tpe" else RandomSampler(seed=seed)

    def _check_folder(self) -> None:
        path = self.folder / DATA
        try:
            before = json.loads(path.read_text(encoding="utf-8"))[ID] if path.is_file() else self.study.user_attrs[ID]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is damaged: delete it if the runs beside it are of this sweep") from None
        if before != self.study.user_attrs[ID]:
            raise UserError(f"{self.folder} holds the runs of another sweep: choose another --out or its --storage")
