"""One training in the processes of an engine, continued from its last checkpoint if one of them is lost."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.engines import Engine, LostWorker, enter
from zoo.errors import Interrupted, UserError
from zoo.methods import METHODS
from zoo.runs.config import TrainConfig
from zoo.runs.run import CARD, CHECKPOINT, CONFIG, Run
from zoo.screen import note
from zoo.training.folder import own_command, refuse_occupied
from zoo.training.processes import check_engine_options
from zoo.training.trainer import resume, train


@dataclass(frozen=True)
class Job:
    """A training, as each of its processes gets it.

    Attributes:
        config: the recipe.
        plugins: method, adversary, regularizer and finisher.
        here: folder in which the command was given, from which its paths lead.
        command: that was given, for the run's card.
        overwrite: see `zoo.training.trainer.train`.
        resumed: folder of the run that is continued, None: a new run.
    """

    config: TrainConfig
    plugins: tuple[Any, ...]
    here: str
    command: str
    overwrite: bool = False
    resumed: Path | None = None


def run_job(job: Job, launched: dict[str, Any]) -> None:
    """Train as one of several processes; each worker calls it.

    Args:
        job: the training.
        launched: options by which Lightning's Trainer finds the other processes.

    Raises:
        UserError: the machine does not have the folder in which the command was given, or see `train`.
    """
    enter(job.here)
    with suppress(SystemExit):  # with which all processes but the first end
        if job.resumed:
            resume(job.resumed, job.config, *job.plugins, launched=launched)
        else:
            train(job.config, *job.plugins, overwrite=job.overwrite, command=job.command, launched=launched)


def train_on(
    engine: Engine,
    config: TrainConfig,
    plugins: tuple[Any, ...],
    *,
    overwrite: bool = False,
    resumed: Path | None = None,
) -> Run:
    """Train in the workers of an engine, and return the finished run.

    A training that loses a worker continues from its last checkpoint, as long as each attempt gets further.

    Args:
        engine: whose workers train together.
        config, plugins, overwrite: see `train`, in its order.
        resumed: folder of a run to continue.

    Raises:
        UserError: see `Engine.launch` and `train`.
    """
    folder = resumed or config.folder(METHODS.name_of(plugins[0]))
    if resumed is None:
        check_engine_options(config.trainer)
        refuse_occupied(folder, overwrite)
    elif (folder / CARD).is_file():
        raise UserError(f"{folder} is finished: there is nothing to resume")
    job = Job(config, plugins, str(Path.cwd()), own_command(), overwrite, resumed)
    while True:
        before = _progress(folder)
        try:
            engine.launch(run_job, job, config.device)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted: continue with `zoo train --resume {folder}`") from None
        except LostWorker as error:
            if _progress(folder) == before:
                then = f"continue with `zoo train --resume {folder}`" if (folder / CONFIG).is_file() else "try again"
                raise UserError(f"{error} before its next checkpoint: {then}") from None
            note(f"{error}: it goes on from its last checkpoint")
            job = dataclasses.replace(job, resumed=folder)
        else:
            return Run(folder)


def _progress(folder: Path) -> float:
    """Return the time of a run's last checkpoint, 0 without one."""
    file = folder / CHECKPOINT
    return file.stat().st_mtime if file.is_file() else 0.0
