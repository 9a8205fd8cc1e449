"""Build the input of a training: data, dense backbone, starting weights, converted model."""

import copy
from pathlib import Path

from torch import nn

from zoo.adversaries import Adversary
from zoo.backbone import create_backbone
from zoo.budget import Budget
from zoo.data import DataSet, check_data_dir, open_data
from zoo.errors import UserError
from zoo.hub.runs import read_run
from zoo.lowrank.factorize import Ranks
from zoo.methods import Method
from zoo.runs.config import TrainConfig
from zoo.runs.run import load_weights
from zoo.runs.transfer import load_multiplied_out, load_transferred, transferred_ranks


def open_config_data(config: TrainConfig) -> DataSet:
    """Open the data set that a configuration names.

    Raises:
        UserError: see `open_data`; or files are named for a data set that has none, which would train on other data
            than intended.
    """
    check_data_dir(config.data, config.data_dir)
    return open_data(config.data, data_dir=config.data_dir, download=config.download, image_size=config.image_size)


def dense_backbone(config: TrainConfig, data: DataSet) -> nn.Module:
    """Build the dense backbone with its starting weights."""
    return starting_backbone(
        config.arch, len(data.class_names), data.image_shape, config.weights, pretrained=config.pretrained
    )


def starting_backbone(
    arch: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    weights: Path | None = None,
    *,
    pretrained: bool = False,
) -> nn.Module:
    """Build a dense backbone with a training's starting weights; random ones come from torch's generator.

    Args:
        arch, num_classes, image_shape, pretrained: see `zoo.backbone.create_backbone`.
        weights: start from these: a RUN or a published name whose factors are multiplied out, or a bare backbone's
            safetensors file.

    Raises:
        UserError: the backbone cannot be built, or the weights are missing or belong to another model.
    """
    model = create_backbone(arch, num_classes, image_shape, pretrained)
    if weights is not None:
        _start_from(model, weights)
    return model


def _start_from(model: nn.Module, source: Path) -> None:
    """Load a RUN's weights, its factors multiplied out, or a bare backbone's safetensors file."""
    if source.suffix == ".safetensors" or source.is_file():
        load_weights(model, source)
    else:
        load_multiplied_out(read_run(source), model)


def starting_model(
    config: TrainConfig, method: Method, data: DataSet, ranks: Ranks | None = None, adversary: Adversary | None = None
) -> nn.Module:
    """Build the backbone that training starts from, in its trainable form.

    Args:
        config: the recipe.
        method: how the network is compressed.
        data: of the training.
        ranks: of a checkpoint that is loaded next; None: those of ``config.init``, or the method's plan.
        adversary: what it is trained against, for factors that are fitted to attacked images.

    Raises:
        UserError: the backbone or the weights are not available, or the method has no use for them.
    """
    given = "--weights" if config.weights is not None else "--pretrained true" if config.pretrained else ""
    if given and not method.keeps_weights:
        raise UserError(f"--method.init random throws the weights away that {given} gives: leave one of them out")
    model = dense_backbone(config, data)
    if ranks is not None:
        return method.convert(model, ranks)
    if config.init is None:
        dense = copy.deepcopy(model) if method.calibrated_on else None
        model = method.convert(model, method.plan(model, budget(config)))
        if method.calibrated_on and dense is not None:
            from zoo.training.calibration import fit_to_training_images_  # a report needs no Lightning

            fit_to_training_images_(model, dense, method.calibrated_on, config, data, adversary)
        return model
    start = read_run(config.init)
    if start.card.arch != config.arch:
        raise UserError(f"{config.init} is a {start.card.arch}: leave --arch {config.arch} out")
    model = method.convert(model, transferred_ranks(start, model))
    load_transferred(start, model)
    return model


def budget(config: TrainConfig) -> Budget | None:
    """Return the budget of a configuration, or None to leave it to the method."""
    if config.compression is None and config.rank_fraction is None:
        return None
    return Budget(config.compression, config.rank_fraction, config.macs_reduction)
