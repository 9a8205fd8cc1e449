"""Options of Lightning's Trainer, from the user's request and the machine."""

import os
import shutil
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from zoo.errors import UserError, first_line
from zoo.runs.config import TrainConfig
from zoo.training.precision import precision_of

DIVISORS = ("accumulate_grad_batches", "check_val_every_n_epoch", "log_every_n_steps")
"""Options that Lightning uses as divisors during training."""
VALIDATION = ("max_steps", "val_check_interval", "check_val_every_n_epoch")
"""Options that set when Lightning validates, and when it ends."""


def trains_on_cuda(config: TrainConfig) -> bool:
    """Whether a GPU trains.

    Raises:
        UserError: one was requested, and there is none.
    """
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise UserError("device cuda was asked for, but torch sees no CUDA device here: use --device cpu or auto")
    return cuda and config.device != "cpu"


def lightning_options(config: TrainConfig, model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return the options of Lightning's Trainer: device, precision and behaviour.

    Args:
        config: the recipe.
        model: to be trained, on the CPU.
        image_shape: (channels, height, width) of its images.

    Raises:
        UserError: a requested device, compiler or precision is not available.
    """
    on_cuda = trains_on_cuda(config)
    compiler = os.environ.get("CXX", "g++")
    if config.compile and not shutil.which(compiler):
        raise UserError(f"--compile true needs a C++ compiler, and there is no {compiler} here: install one or set CXX")
    precision = precision_of(config.precision, model, image_shape, on_cuda)
    if config.cuda_graph:
        _check_capturable(config, on_cuda, precision)
    return {
        "max_epochs": config.epochs,
        "accelerator": "gpu" if on_cuda else "cpu",
        "devices": 1,
        "precision": precision,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "inference_mode": False,  # validation attacks the model, which needs gradients
        # Reading the condition numbers waits for a GPU, whose steps are short.
        "log_every_n_steps": 50 if on_cuda else 10,
    } | config.trainer


def _check_capturable(config: TrainConfig, on_cuda: bool, precision: str) -> None:
    processes = [config.trainer.get(name, 1) for name in ("devices", "num_nodes")]
    if not on_cuda or processes != [1, 1]:
        raise UserError("--cuda-graph true captures the steps of one CUDA device: leave it out, or train on one")
    if precision == "16-mixed":
        raise UserError("--cuda-graph true has no gradient scaling, which 16-mixed needs: give --precision bf16-mixed")


def validate_trainer_options(options: dict[str, Any], batches: int, val_batches: int) -> int:
    """Build a trial Trainer, so that its refusals come before anything is written; return the batches of an epoch.

    Args:
        options: of the Trainer.
        batches: how many there are in an epoch, at least 1.
        val_batches: how many there are in a validation.

    Raises:
        UserError: an option is unknown to Lightning, has a value that it refuses, or leaves nothing to train on.
    """
    trainer = _trial_trainer(options)
    batches = _taken(trainer, "limit_train_batches", batches)
    _taken(trainer, "limit_val_batches", val_batches)
    interval = _given(options, "val_check_interval", 1.0)
    counts_epochs = options.get("check_val_every_n_epoch", 1) is not None  # otherwise the interval may span several
    if counts_epochs and isinstance(interval, int | float) and interval > batches:
        raise UserError(f"trainer.val_check_interval is {interval}, but an epoch has {batches} batches only")
    return batches


def process_count(options: dict[str, Any]) -> int:
    """Return how many processes train together, on all nodes.

    Raises:
        UserError: Lightning refuses an option of the Trainer.
    """
    trainer = _trial_trainer(options)
    return trainer.num_devices * trainer.num_nodes


def _trial_trainer(options: dict[str, Any]) -> pl.Trainer:
    """Build a Trainer that writes nothing, or raise `UserError`."""
    for name in DIVISORS:
        if _given(options, name, 1) < 1:
            raise UserError(f"trainer.{name} must be at least 1")
    try:
        return pl.Trainer(**options | {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False})
    except Exception as error:  # MisconfigurationException, ValueError or TypeError, by option
        raise UserError(f"Lightning's Trainer refuses its options: {first_line(error)}") from None


def ends_with_validation(options: dict[str, Any], batches: int) -> bool:
    """Whether Lightning validates after the last batch of a training.

    Args:
        options: of the Trainer, which takes them; ``max_epochs`` among them.
        batches: of an epoch.
    """
    accumulated, epoch, batch = _given(options, "accumulate_grad_batches", 1), options["max_epochs"], batches
    steps_per_epoch, steps = -(-batches // accumulated), _given(options, "max_steps", -1)
    if 0 < steps < epoch * steps_per_epoch:
        epoch, in_epoch = -(-steps // steps_per_epoch), (steps - 1) % steps_per_epoch + 1
        batch = min(in_epoch * accumulated, batches)
    interval, epochs = _given(options, "val_check_interval", 1.0), options.get("check_val_every_n_epoch", 1)
    if not isinstance(interval, int | float):  # a time
        return True
    every = interval if isinstance(interval, int) else max(1, int(interval * batches))
    if epochs is None:  # the interval counts all batches
        return bool(((epoch - 1) * batches + batch) % every == 0)
    return bool(epoch % epochs == 0 and batch % every == 0)


def _taken(trainer: pl.Trainer, name: str, there: int) -> int:
    """Return how many batches a limit leaves; only those of the validation may be left out, by a limit of 0."""
    limit = getattr(trainer, name)
    left = min(limit, there) if isinstance(limit, int) else int(limit * there)
    if there and not left and (limit or name == "limit_train_batches"):
        raise UserError(f"trainer.{name} is {limit}: that leaves none of {there} batches")
    return left


def _given(options: dict[str, Any], name: str, default: Any) -> Any:
    """Return an option; None is Lightning's word for its default."""
    value = options.get(name)
    return default if value is None else value
