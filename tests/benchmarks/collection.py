"""Train recipes one after another within a time limit, attack each with AutoAttack, keep each as soon as it is done.

Usage: python tests/benchmarks/collection.py RECIPE... --minutes M --out DIR [--share 0.7] [--n 1000] [-- OPTIONS]

Each recipe gets an equal part of the time that is left, and of its part the share for training. How many epochs fit
is measured first, on a few steps; a recipe is never trained for more epochs than it says. DIR/NAME is a finished run
without checkpoints. OPTIONS go to every training, such as: -- --data-dir DATA --batch-size 256 --lr 0.2.
"""

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from zoo.backbone import with_normalization
from zoo.cli import run as zoo
from zoo.cli._parser import Parser
from zoo.cli.train import read_recipe
from zoo.runs.config import TrainConfig
from zoo.training.build import open_config_data, starting_model
from zoo.training.module import Classifier
from zoo.training.options import lightning_options
from zoo.training.parts import Parts
from zoo.training.teacher import open_teacher, teacher_run
from zoo.training.trainer import quieten, train

WARM, TIMED = 15, 25
"""Steps before the clock runs, and while it does."""
OVERHEAD = 1.15
"""Validation, checkpoints and averages, as a share of the steps' time."""


class Pace(pl.Callback):
    """Time the steps after the first few."""

    def __init__(self) -> None:
        self.begun = self.seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Start and stop the clock."""
        if trainer.global_step in (WARM, WARM + TIMED):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds, self.begun = (time.perf_counter() - self.begun) / TIMED, time.perf_counter()


def few_steps(config: TrainConfig, parts: Parts, callbacks: list[pl.Callback], steps: int) -> None:
    """Train a model that is thrown away for a few steps."""
    data = open_config_data(config)
    model = with_normalization(
        starting_model(config, parts.method, data, adversary=parts.adversary), data.mean, data.std
    )
    options = lightning_options(config, model, data.image_shape) | {
        "max_epochs": -1,
        "max_steps": steps,
        "limit_val_batches": 0,
    }
    teacher = teacher_run(config)
    teaching = open_teacher(teacher, data, parts.adversary) if teacher else None
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quieten()
    pl.Trainer(**options | silent, callbacks=callbacks).fit(
        Classifier(model, parts, data, data.source(train=True), config, teaching)
    )


def seconds_per_step(config: TrainConfig, parts: Parts) -> float:
    """Return what a step takes once everything is warm."""
    pace = Pace()
    few_steps(config, parts, [pace], WARM + TIMED)
    return pace.seconds


def epochs_within(config: TrainConfig, seconds: float, per_step: float) -> int:
    """Return how many epochs fit, at most the recipe's and at least one, the last of them validated."""
    images = len(open_config_data(config).source(train=True).labels) * (1 - config.val_fraction)
    steps = max(1, int(images) // config.batch_size)
    interval = int(config.trainer.get("check_val_every_n_epoch", 1))
    fit = min(config.epochs, int(seconds / (OVERHEAD * steps * per_step)))
    return max(interval, fit - fit % interval)


def main() -> None:
    """Train, attack and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.7, help="of a recipe's time that goes to training")
    parser.add_argument("--n", type=int, default=1000, help="images of AutoAttack; 0 for none")
    options, extra = parser.parse_known_args()
    end = time.monotonic() + 60 * options.minutes
    extra = [word for word in extra if word != "--"]
    for i, recipe in enumerate(options.recipes):
        config, plugged, _ = read_recipe(Parser(prog="zoo train"), ["--config", recipe, *extra])
        parts, folder = list(plugged.values()), options.out / Path(recipe).stem
        part = (end - time.monotonic()) / (len(options.recipes) - i)
        begin = time.monotonic()
        pace = seconds_per_step(config, Parts(*parts))
        left = options.share * part - (time.monotonic() - begin)
        epochs = epochs_within(config, left, pace)
        print(f"{recipe}: {1e3 * pace:.0f} ms a step, {epochs} epochs in {left:.0f} s", flush=True)
        train(dataclasses.replace(config, epochs=epochs, out=folder), *parts, overwrite=True)
        if options.n:
            where = ["--data-dir", str(config.data_dir)] if config.data_dir else []
            zoo(["evaluate", str(folder), "--attacks", "standard", "--n", str(options.n), *where])
        for checkpoint in folder.glob("*.ckpt"):
            checkpoint.unlink()
        print(f"{folder} is done, {end - time.monotonic():.0f} s left", flush=True)


if __name__ == "__main__":
    main()
