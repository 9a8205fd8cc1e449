"""Where metrics go: RUN/metrics.csv always, TensorBoard or Weights & Biases besides."""

import csv
from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from zoo.errors import UserError, first_line
from zoo.runs.run import METRICS


def csv_logger(folder: Path, step: int) -> CSVLogger:
    """Return the logger of RUN/metrics.csv that keeps the rows up to ``step`` of an earlier session."""
    kept = []
    if step and (folder / METRICS).is_file():
        try:
            with (folder / METRICS).open(newline="") as file:
                rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
            kept = [row for row in rows if int(row["step"]) < step]
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(
                f"{folder / METRICS} is damaged ({type(error).__name__}): remove it to go on without its rows"
            ) from None
    logger = CSVLogger(save_dir=folder, name="", version="")
    # Lightning's writer deletes the old file when it is created; give it the rows back.
    logger.experiment.metrics = kept
    return logger


def extra_logger(name: str, folder: Path) -> Logger | None:
    """Return the logger asked for besides CSV, or None.

    Raises:
        UserError: its package is not installed, or it cannot log in.
    """
    if name == "tensorboard":
        if find_spec("tensorboard") is None:
            raise UserError("--logger tensorboard needs its package: pip install 'robust-zoo[tensorboard]'")
        return TensorBoardLogger(save_dir=folder, name="", version="tensorboard")
    if name == "wandb":
        return _wandb_logger(folder)
    return None


def _wandb_logger(folder: Path) -> WandbLogger:
    """Begin a run of Weights & Biases, before anything is written for ours."""
    import wandb

    logger = WandbLogger(project="zoo", name=folder.name, save_dir=folder)
    try:
        _ = logger.experiment
    except wandb.errors.Error as error:
        reason = first_line(error).rstrip(".")
        raise UserError(f"--logger wandb: {reason} (or keep its files here, with WANDB_MODE=offline)") from None
    return logger
