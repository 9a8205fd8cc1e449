"""Recipes whose parts do not go together: each check raises `UserError` before anything is written."""

from typing import Any

from zoo.adversaries import ADVERSARIES, Adversary
from zoo.callbacks import RankSchedule
from zoo.errors import UserError
from zoo.methods import METHODS
from zoo.runs.config import TrainConfig
from zoo.training.module import Classifier
from zoo.training.options import VALIDATION, ends_with_validation


def check_mixing(config: TrainConfig, adversary: Adversary) -> None:
    """Check that the loss takes the labels of blended images, which are shares of classes."""
    if config.augment == "strong" and not adversary.takes_soft_targets:
        able = ", ".join(x for x in ADVERSARIES.names() if ADVERSARIES.get(x).takes_soft_targets)
        name = ADVERSARIES.name_of(adversary)
        raise UserError(
            f"--augment strong blends images and their labels, and the loss of --adversary {name} needs whole labels: "
            f"give --augment standard, or one of {able}"
        )


def check_compilation(module: Classifier) -> None:
    """Check that the network's shapes last long enough for compiling or capturing its steps to pay."""
    schedules = [callback for callback in module.configure_callbacks() if isinstance(callback, RankSchedule)]
    flags = {"--compile": module.config.compile, "--cuda-graph": module.config.cuda_graph}
    asked = [flag for flag, value in flags.items() if value]
    name = METHODS.name_of(module.method)
    if asked and module.method.trains_several:
        raise UserError(
            f"{asked[0]} true does not go with {name}: the networks that it trains change from step to step; leave "
            f"{asked[0]} out"
        )
    if asked and any(schedule.changes_often for schedule in schedules):
        raise UserError(
            f"{asked[0]} true cannot be combined with {name}: its shapes change every few steps, and each change "
            f"{'compiles' if module.config.compile else 'captures'} anew; leave {asked[0]} out"
        )


def check_monitor(module: Classifier) -> None:
    """Check that there are epochs under attack to choose the best of, if a monitor is named for that."""
    monitor, missing = module.config.monitor, "--val-fraction above 0" if module.is_robust_training else "--adversary"
    if monitor != "pgd" and not (module.is_robust_training and len(module.val_indices)):
        raise UserError(f"--monitor {monitor} picks the best epoch of adversarial training: give {missing} too")


def check_end_is_validated(module: Classifier, options: dict[str, Any], batches: int) -> None:
    """Check that the last epoch is validated: adversarial training ends with its best validated epoch."""
    keeps_best = module.is_robust_training and len(module.val_indices) and options.get("limit_val_batches") != 0
    if keeps_best and not ends_with_validation(options, batches):
        given = ", ".join(f"trainer.{name} is {options[name]}" for name in VALIDATION if name in options)
        raise UserError(
            f"{given}: adversarial training keeps its best validated epoch, and what comes after the last validation "
            f"would be lost; let the training, of {module.config.epochs} epochs of {batches} batches, end with one"
        )
