"""What is compressed: the dense network of a checkpoint, a run or timm, and what is known of its task."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
from torch import nn

from zoo.checkpoints import Checkpoint, is_checkpoint, read_checkpoint, sizes_in
from zoo.data import DataSet, check_data_dir, open_data
from zoo.errors import UserError, unknown_name
from zoo.hub.runs import read_run
from zoo.oneshot.config import CompressConfig
from zoo.runs.normalization import Numbers, given_normalization
from zoo.runs.run import Run
from zoo.runs.task import Task
from zoo.training.build import starting_backbone


@dataclass(frozen=True)
class Source:
    """A dense network with its weights.

    Attributes:
        task: what it is for.
        model: the bare backbone, which takes normalised images, in eval mode.
        normalization: whose mean and standard deviation the task has, in words.
        data: to calibrate and measure on; None where none was given.
        data_dir: where the data set of the task is, as far as is known.
    """

    task: Task
    model: nn.Module
    normalization: str
    data: DataSet | None
    data_dir: Path | None


def open_source(arch: str, config: CompressConfig, say: Callable[[str], None]) -> Source:
    """Read what is to be compressed.

    Args:
        arch: timm's name of the architecture.
        config: which weights, which data.
        say: told in a line what was done to the weights.

    Raises:
        UserError: weights or data are missing or damaged, or do not fit the architecture or one another.
    """
    if not timm.is_model(arch.partition(".")[0]):
        raise unknown_name("architecture", arch, timm.list_models())
    data = _open_data(config)
    run = None if config.weights is None or is_checkpoint(config.weights) else read_run(config.weights)
    if run is not None:
        task, data_dir = _task_of_run(arch, run, config, data), config.data_dir or run.data_dir
        normalization = f"that of {config.weights}"
    else:
        checkpoint = read_checkpoint(config.weights) if config.weights is not None else None
        (task, normalization), data_dir = _task_of(arch, checkpoint, config, data), config.data_dir
    _check_channels(task)
    weights = config.weights
    classes = len(task.class_names)
    model = starting_backbone(
        arch, classes, task.image_shape, weights, pretrained=config.pretrained, stem=task.stem, say=say
    )
    return Source(task, model.eval(), normalization, data, data_dir)


def _open_data(config: CompressConfig) -> DataSet | None:
    if config.data is None:
        return None
    check_data_dir(config.data, config.data_dir)
    return open_data(config.data, data_dir=config.data_dir, download=config.download, image_size=config.image_size)


def _task_of_run(arch: str, run: Run, config: CompressConfig, data: DataSet | None) -> Task:
    card = run.card
    if card.arch != arch:
        raise UserError(f"{config.weights} is a {card.arch}, not a {arch}: give that architecture")
    if data is not None and (data.class_names != card.class_names or data.image_shape != card.image_shape):
        raise UserError(f"{config.weights} was trained on {card.data}, whose classes or images are not {config.data}'s")
    return Task(arch, card.stem, config.data or card.data, card.image_shape, card.mean, card.std, card.class_names)


def _task_of(
    arch: str, checkpoint: Checkpoint | None, config: CompressConfig, data: DataSet | None
) -> tuple[Task, str]:
    """Return what a checkpoint is for, from the data, from what it says of itself, or from timm's configuration.

    The text says whose mean and standard deviation it is.
    """
    cfg = timm.get_pretrained_cfg(arch)
    default = cfg.input_size if cfg is not None else (3, 224, 224)
    if checkpoint is None:
        classes, channels = (cfg.num_classes if cfg is not None else 1000), default[0]
    else:
        classes, channels = sizes_in(checkpoint, arch)
    if data is not None and classes != len(data.class_names):
        raise UserError(
            f"{config.weights or arch} has {classes} classes, {config.data} has {len(data.class_names)}: a new head "
            "needs a training, `zoo train --weights`; or leave --data out"
        )
    own = checkpoint.input_size if checkpoint is not None and checkpoint.input_size else default
    side = config.image_size or own[-1]
    mean, std, normalization = _normalization(arch, checkpoint, config, data, channels)
    if data is not None:
        task = Task(arch, config.stem, str(config.data), data.image_shape, mean, std, data.class_names)
    else:
        task = Task(arch, config.stem, "", (channels, side, side), mean, std, _class_names(checkpoint, classes))
    return task, normalization


def _normalization(
    arch: str, checkpoint: Checkpoint | None, config: CompressConfig, data: DataSet | None, channels: int
) -> tuple[Numbers, Numbers, str]:
    """Return the mean and the standard deviation per channel, and whose they are."""
    if given := given_normalization(config.mean, config.std):
        return *given, "given"
    if checkpoint is not None and checkpoint.mean and checkpoint.std:
        return checkpoint.mean, checkpoint.std, "the checkpoint's"
    if data is not None:
        return data.mean, data.std, data.normalization
    cfg = timm.get_pretrained_cfg(arch)
    mean, std = (cfg.mean, cfg.std) if cfg is not None else ((0.5,), (0.5,))
    return _for_channels(mean, channels), _for_channels(std, channels), f"timm's for {arch}"


def _for_channels(values: Numbers, channels: int) -> Numbers:
    """Return one value per channel: the average where timm has another number of them."""
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _class_names(checkpoint: Checkpoint | None, classes: int) -> tuple[str, ...]:
    names = checkpoint.class_names if checkpoint is not None else None
    return names if names and len(names) == classes else tuple(f"class_{i}" for i in range(classes))


def _check_channels(task: Task) -> None:
    channels = task.image_shape[0]
    if len(task.mean) != channels or len(task.std) != channels:
        raise UserError(f"images with {channels} channels need {channels} numbers each in --mean and --std")
