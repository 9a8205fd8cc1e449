"""Train and resume runs, each in a RUN folder."""

import logging
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer
from lightning.pytorch.utilities import rank_zero_only

from zoo.adversaries import Adversary
from zoo.adversaries.none import NoAdversary
from zoo.backbone import with_normalization
from zoo.callbacks import (
    BestCheckpoint,
    ConditioningMonitor,
    ExponentialAverage,
    GradientAlignment,
    LayerHistory,
    OverfittingGuard,
)
from zoo.data import check_data_dir, open_data
from zoo.errors import Interrupted, UserError
from zoo.methods import METHODS, Method
from zoo.post_training import Finisher
from zoo.post_training.none import NoFinisher
from zoo.regularizers import Regularizer
from zoo.regularizers.none import NoRegularizer
from zoo.runs.config import TrainConfig
from zoo.runs.run import BEST, CARD, CHECKPOINT, CONFIG, LAYERS, Run
from zoo.runtime.memory import keep_freed_memory
from zoo.training.build import starting_model
from zoo.training.finalize import finalize_run
from zoo.training.folder import prepare, refuse_occupied, removed_on_failure, started_by
from zoo.training.logs import csv_logger, extra_logger
from zoo.training.module import Classifier
from zoo.training.normalization import normalize_
from zoo.training.options import (
    lightning_options,
    process_count,
    validate_trainer_options,
)
from zoo.training.parts import Parts
from zoo.training.processes import change_of, check_slurm_tasks, check_strategy
from zoo.training.progress import ProgressBar
from zoo.training.refusals import check_compilation, check_end_is_validated, check_mixing, check_monitor
from zoo.training.resume_check import check_same_recipe, recipe
from zoo.training.teacher import open_teacher, teacher_run


def train(
    config: TrainConfig,
    method: Method,
    adversary: Adversary | None = None,
    regularizer: Regularizer | None = None,
    finisher: Finisher | None = None,
    *,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    command: str | None = None,
    launched: Mapping[str, Any] | None = None,
) -> Run:
    """Train a model and return its finished run.

    Args:
        config: the recipe.
        method: how the network is compressed and trained.
        adversary: what it is trained against; None: nothing.
        regularizer: added to the loss; None: nothing.
        finisher: applied to the trained network before it is measured; None: nothing.
        overwrite: replace a run that is already in the folder.
        callbacks: of Lightning, besides the training's own.
        command: that trains the same run, for its configuration and card; None: the command line of this process.
        launched: options by which Lightning's Trainer finds the other processes, if an engine started this one.

    Raises:
        UserError: the recipe is impossible, or the loss diverged before the first checkpoint; the folder is then
            removed. Or the loss diverged later, or the user interrupted (`Interrupted`); the folder then holds
            what `resume` needs.
    """
    parts = Parts(method, adversary or NoAdversary(), regularizer or NoRegularizer(), finisher or NoFinisher())
    folder = config.folder(METHODS.name_of(method))
    if _is_first_process():
        refuse_occupied(folder, overwrite)
    return _fit(config, parts, folder, callbacks, command=command, launched=launched)


def resume(
    folder: Path,
    config: TrainConfig,
    method: Method,
    adversary: Adversary,
    regularizer: Regularizer,
    finisher: Finisher,
    *,
    callbacks: Sequence[Callback] = (),
    launched: Mapping[str, Any] | None = None,
) -> Run:
    """Continue an interrupted run from its last checkpoint (from the start, if it has none) and return it finished.

    Args:
        folder: the run's folder.
        config, method, adversary, regularizer, finisher: as read from the folder's ``config.yaml``.
        callbacks: of Lightning, besides the training's own.
        launched: see `train`.
    """
    if (folder / CARD).is_file():
        raise UserError(f"{folder} is finished: there is nothing to resume")
    return _fit(config, Parts(method, adversary, regularizer, finisher), folder, callbacks, True, launched=launched)


def _fit(
    config: TrainConfig,
    parts: Parts,
    folder: Path,
    callbacks: Sequence[Callback],
    resume: bool = False,
    command: str | None = None,
    launched: Mapping[str, Any] | None = None,
) -> Run:
    quieten()
    pl.seed_everything(config.seed, verbose=False)
    checkpoint = folder / CHECKPOINT if resume and (folder / CHECKPOINT).is_file() else None
    saved = _load_checkpoint(checkpoint) if checkpoint else {}
    teacher = teacher_run(config)
    now = recipe(config, parts, teacher.card.weights.sha256 if teacher else None)
    before = {parts.renamed().get(key, key): value for key, value in saved.get("recipe", {}).items()}
    check_same_recipe(before, now, folder / CONFIG)
    module, options = _checked(config, parts, teacher, saved, launched or {})
    with removed_on_failure(folder) if _is_first_process() else nullcontext():
        step = saved.get("global_step", 0)
        logger = extra_logger(config.logger, folder, step, resume=resume)
        if not resume and _is_first_process():
            prepare(folder, module.config, parts, command)
        trainer = pl.Trainer(
            **options,
            callbacks=[*_callbacks(folder, module), *callbacks],
            logger=[csv_logger(folder, step), *([logger] if logger else [])],
            default_root_dir=folder,
        )
        if trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        was_stopped = False
        try:
            trainer.fit(module, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
        except SystemExit:
            was_stopped = True
    if was_stopped or trainer.interrupted:
        raise _interrupted(folder, trainer)
    if not trainer.is_global_zero:
        sys.exit()  # the first process finishes the run
    return finalize_run(folder, module, trainer, started_by(folder))


def _checked(
    config: TrainConfig, parts: Parts, teacher: Run | None, saved: Mapping[str, Any], launched: Mapping[str, Any]
) -> tuple[Classifier, dict[str, Any]]:
    """Build the module and the Trainer's options, and check that the training can run.

    Args:
        config, parts: the recipe.
        teacher: whose answers are learned, if there is one.
        saved: the checkpoint from which the training resumes, if there is one.
        launched: see `train`.
    """
    check_strategy(config.trainer.get("strategy"))
    check_data_dir(config.data, config.data_dir)
    data = open_data(config.data, data_dir=config.data_dir, download=config.download, image_size=config.image_size)
    config = normalize_(data, config)
    teaching = open_teacher(teacher, data, parts.adversary) if teacher else None
    source = data.source(train=True)
    for line in data.summary(config.val_fraction):
        _say(line)
    check_mixing(config, parts.adversary)
    model = with_normalization(
        starting_model(config, parts.method, data, saved.get("ranks"), parts.adversary, _say), data.mean, data.std
    )
    module = Classifier(model, parts, data, source, config, teaching, began=saved.get("processes"))
    check_monitor(module)
    check_compilation(module)
    options = lightning_options(config, model, data.image_shape) | dict(launched)
    processes = process_count(options)
    if not launched:
        check_slurm_tasks(processes)
    if change := change_of(config.batch_size, module.began, processes):
        _say(change)
    batches = validate_trainer_options(options, *module.batches_per_epoch(processes))
    check_end_is_validated(module, options, batches)
    parts.finisher.check(module.held_out)
    if teacher and module.is_robust_training and teacher.card.training.get("adversary", "none") == "none":
        _say(f"note: teacher {teacher.name} knew no adversary: a robust one makes a student more robust")
    return module, options


def _say(line: str) -> None:
    if _is_first_process():
        print(line)


def _is_first_process() -> bool:
    """Return whether this process fills the folder: Lightning runs the same command in each further process."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]


def _interrupted(folder: Path, trainer: pl.Trainer) -> Interrupted:
    return Interrupted(
        f"interrupted in epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: "
        f"continue with `zoo train --resume {folder}`",
        signal.SIGTERM if trainer.received_sigterm else signal.SIGINT,
    )


def _load_checkpoint(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): delete it to start over") from None


def _callbacks(folder: Path, module: Classifier) -> list[Callback]:
    last = ModelCheckpoint(
        dirpath=folder,
        filename=Path(CHECKPOINT).stem,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    history = LayerHistory(folder / LAYERS, "model.backbone.")
    callbacks = [ConditioningMonitor(), history, Timer(module.config.trainer.get("max_time"), verbose=False), last]
    if module.config.trainer.get("enable_progress_bar", True):  # Lightning refuses a bar beside a false
        callbacks.append(ProgressBar())
    if module.config.ema:
        callbacks.append(ExponentialAverage(module.config.ema))
    step = module.adversary.single_step
    if step is not None:
        callbacks.append(OverfittingGuard(*module.probe(), module.config.threat.eps, folder / CHECKPOINT, step=step))
        if not (module.config.compile or module.config.cuda_graph):  # a second form of the step, for every tenth step
            callbacks.append(GradientAlignment())
    if module.is_robust_training and len(module.val_indices):
        best = BestCheckpoint(
            dirpath=folder,
            filename=Path(BEST).stem,
            monitor=module.robust_accuracy,
            mode="max",
            save_weights_only=not module.config.ema,  # otherwise Lightning leaves the average out
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        callbacks.append(best)
    return callbacks


def quieten() -> None:
    """Keep Lightning's hints off the screen; zoo prints what matters to the user."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
