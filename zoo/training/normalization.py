"""Which mean and standard deviation a training normalises pixels with."""

import dataclasses

import timm

from zoo.checkpoints import is_checkpoint, read_checkpoint
from zoo.data import DataSet
from zoo.errors import UserError
from zoo.hub.runs import read_run
from zoo.runs.config import TrainConfig
from zoo.runs.normalization import Numbers, as_text, given_normalization


def normalize_(data: DataSet, config: TrainConfig) -> TrainConfig:
    """Set a data set's mean and standard deviation as a recipe wants them, and return the recipe that names them.

    Those that are given; else, for the user's own images, those of the weights that the training starts from; else the
    data set's (ImageNet's for the user's own images).

    Args:
        data: just opened; its ``mean``, ``std`` and ``normalization`` are set.
        config: the recipe.

    Raises:
        UserError: there is not one number per channel.
    """
    own = data.own
    found = _of_the_start(config) if own else None
    given = given_normalization(config.mean, config.std)
    if given and given not in (found, (data.mean, data.std)):  # a resumed recipe names what was found at its start
        data.mean, data.std = given
        data.normalization = "given"
    elif found and (given in (None, found)):
        data.mean, data.std = found
        data.normalization = f"that of {config.weights or config.init or f'{config.arch}, pretrained'}"
    channels = data.image_shape[0]
    if len(data.mean) != channels:
        raise UserError(f"images with {channels} channels need {channels} numbers each in --mean and --std")
    return dataclasses.replace(config, mean=as_text(data.mean), std=as_text(data.std)) if own else config


def _of_the_start(config: TrainConfig) -> tuple[Numbers, Numbers] | None:
    """Return what the weights that a training starts from were trained with, if they say so."""
    if config.pretrained:
        cfg = timm.get_pretrained_cfg(config.arch)
        return (cfg.mean, cfg.std) if cfg is not None else None
    start = config.init or config.weights
    if start is None:
        return None
    if config.weights is None or not is_checkpoint(config.weights):
        card = read_run(start).card
        return card.mean, card.std
    checkpoint = read_checkpoint(config.weights)
    return (checkpoint.mean, checkpoint.std) if checkpoint.mean and checkpoint.std else None
