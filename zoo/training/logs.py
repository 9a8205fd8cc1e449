"""Loggers of metrics: RUN/metrics.csv always, and optionally TensorBoard or Weights & Biases."""

import csv
import re
from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from zoo.errors import UserError, first_line
from zoo.runs.run import METRICS

LONGEST_NAME = 128
"""Characters of a run's name in Weights & Biases."""


def csv_logger(folder: Path, step: int) -> CSVLogger:
    """Return the logger of RUN/metrics.csv that keeps the rows up to ``step`` of an earlier session."""
    kept = []
    if step and (folder / METRICS).is_file():
        try:
            with (folder / METRICS).open(newline="", encoding="utf-8") as file:
                rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
            if any(None in row for row in rows):
                raise ValueError("a row has more values than there are columns")
            kept = [row for row in rows if int(row["step"]) < step]
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(
                f"{folder / METRICS} is damaged ({type(error).__name__}): remove it to continue without its rows"
            ) from None
    logger = CSVLogger(save_dir=folder, name="", version="")
    # Lightning's writer deletes the old file when it is created; restore its rows.
    logger.experiment.metrics = kept
    return logger


def extra_logger(name: str, folder: Path, step: int = 0, *, resume: bool = False) -> Logger | None:
    """Return the requested logger besides CSV, or None.

    Args:
        name: of the logger.
        folder: of the run.
        step: at which the training goes on; what an earlier session logged from there on is hidden.
        resume: whether the training goes on with what an earlier session began.

    Raises:
        UserError: its package is not installed, or it cannot log in.
    """
    if name == "tensorboard":
        if find_spec("tensorboard") is None:
            raise UserError("--logger tensorboard needs its package: pip install 'robust-zoo[tensorboard]'")
        return TensorBoardLogger(save_dir=folder, name="", version="tensorboard", purge_step=step)
    if name == "wandb":
        return _wandb_logger(folder, _last_wandb_id(folder) if resume else None)
    return None


def _last_wandb_id(folder: Path) -> str | None:
    """Return the id of the run of Weights & Biases that the last session logged to; None: to none.

    wandb keeps a folder of each session, such as ``wandb/offline-run-20260131_235959-ID``.
    """
    sessions = [re.fullmatch(r"(?:offline-)?run-(\d{8}_\d{6})-(.+)", path.name) for path in folder.glob("wandb/*")]
    return max(((session[1], session[2]) for session in sessions if session), default=(None, None))[1]


def _wandb_logger(folder: Path, run_id: str | None) -> WandbLogger:
    """Begin a run of Weights & Biases, or go on with one, before anything is written for ours."""
    import wandb

    # Without settings of its own Lightning gives resume="allow": the run of this id goes on where there is one.
    logger = WandbLogger(project="zoo", name=folder.name[:LONGEST_NAME], id=run_id, save_dir=folder)
    try:
        _ = logger.experiment
    except wandb.errors.Error as error:
        reason = first_line(error).rstrip(".")
        raise UserError(f"--logger wandb: {reason} (or keep its files here, with WANDB_MODE=offline)") from None
    return logger
