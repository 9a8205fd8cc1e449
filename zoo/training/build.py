"""Build the input of a training: data, dense backbone, starting weights, converted model."""

import copy
from collections.abc import Callable
from pathlib import Path

import timm
from torch import nn

from zoo.adversaries import Adversary
from zoo.backbone import Stem, create_backbone
from zoo.budget import Budget
from zoo.checkpoints import is_checkpoint, load_checkpoint_, read_checkpoint
from zoo.data import DataSet, check_data_dir, open_data
from zoo.errors import UserError
from zoo.files import sha256
from zoo.hub.runs import read_run
from zoo.lowrank.factorize import Ranks
from zoo.methods import METHODS, Method
from zoo.runs.config import TrainConfig
from zoo.runs.normalization import given_normalization
from zoo.runs.transfer import layers_without_channels, load_multiplied_out, load_transferred, transferred_ranks


def open_config_data(config: TrainConfig) -> DataSet:
    """Open the data set that a configuration names.

    Raises:
        UserError: see `open_data`; or files are named for a data set that has none, which would train on other data
            than intended.
    """
    check_data_dir(config.data, config.data_dir)
    data = open_data(config.data, data_dir=config.data_dir, download=config.download, image_size=config.image_size)
    if given := given_normalization(config.mean, config.std):
        data.mean, data.std = given
    return data


def unheard(line: str) -> None:
    """Say nothing: for callers that only want the model."""


def dense_backbone(config: TrainConfig, data: DataSet, say: Callable[[str], None] = unheard) -> nn.Module:
    """Build the dense backbone with its starting weights; `say` is told what was done to them."""
    return starting_backbone(
        config.arch,
        len(data.class_names),
        data.image_shape,
        config.weights,
        pretrained=config.pretrained,
        stem=config.stem,
        say=say,
    )


def starting_backbone(
    arch: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    weights: Path | None = None,
    *,
    pretrained: bool = False,
    stem: Stem = "auto",
    say: Callable[[str], None] = unheard,
) -> nn.Module:
    """Build a dense backbone with a training's starting weights; random ones come from torch's generator.

    Args:
        arch, num_classes, image_shape, pretrained, stem: see `zoo.backbone.create_backbone`.
        weights: start from these: a checkpoint, see `zoo.checkpoints`, or a RUN or a published name, whose factors are
            multiplied out.
        say: told in a line what was done to the weights, such as that the head is new.

    Raises:
        UserError: the backbone cannot be built, or the weights are missing or belong to another model.
    """
    model = create_backbone(arch, num_classes, image_shape, pretrained, stem)
    if pretrained and num_classes != (had := timm.get_pretrained_cfg_value(arch, "num_classes")):
        say(f"{arch}: a new head for {num_classes} classes, the pretrained weights have {had}")
    if weights is None:
        return model
    if not is_checkpoint(weights):
        load_multiplied_out(read_run(weights), model)
    elif notes := load_checkpoint_(model, read_checkpoint(weights)).notes:
        say(f"{weights}: {', '.join(notes)}")
    return model


def starting_model(
    config: TrainConfig,
    method: Method,
    data: DataSet,
    ranks: Ranks | None = None,
    adversary: Adversary | None = None,
    say: Callable[[str], None] = unheard,
) -> nn.Module:
    """Build the backbone that training starts from, in its trainable form.

    Args:
        config: the recipe.
        method: how the network is compressed.
        data: of the training.
        ranks: of a checkpoint that is loaded next; None: those of ``config.init``, or the method's plan.
        adversary: what it is trained against, for factors that are fitted to attacked images.
        say: told in a line what was done to the weights that it starts from.

    Raises:
        UserError: the backbone or the weights are not available, or the method has no use for them.
    """
    given = "--weights" if config.weights is not None else "--pretrained true" if config.pretrained else ""
    if given and not method.keeps_weights:
        raise UserError(f"--method.init random discards the weights that {given} gives: leave one of them out")
    if method.fine_tunes and ranks is None:
        check_start(config, METHODS.name_of(method))
    model = dense_backbone(config, data, say)
    model = method.convert(model, ranks) if ranks is not None else _converted(model, config, method, data, adversary)
    method.adapt_(model)
    return model


def _converted(
    model: nn.Module, config: TrainConfig, method: Method, data: DataSet, adversary: Adversary | None
) -> nn.Module:
    """Convert a dense backbone, and give it the weights of ``config.init`` if there are any."""
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
    if start.card.stem != config.stem:
        raise UserError(f"{config.init} has the stem {start.card.stem}: leave --stem {config.stem} out")
    model = method.convert(model, transferred_ranks(start, model))
    load_transferred(start, model)
    return model


def check_start(config: TrainConfig, name: str) -> None:
    """Check that a training has a network to fine-tune, whose form can be kept.

    Args:
        config: the recipe.
        name: of the method.

    Raises:
        UserError: it has none, or its factors would be multiplied out, or layers of it have lost channels; or an option
            would change weights that are kept.
    """
    for flag, value in (("--awp", config.awp), ("--balance", config.balance)):
        if value:
            raise UserError(
                f"{flag} moves whole weights, and --method {name} keeps those that it starts from: leave it out"
            )
    if config.weights is not None and not is_checkpoint(config.weights) and read_run(config.weights).card.ranks:
        raise UserError(
            f"--weights multiplies the factors of {config.weights} out, and the fine-tuned network would be dense: "
            f"give --init {config.weights}, which keeps its ranks"
        )
    if config.init is not None:
        cut = layers_without_channels(read_run(config.init))
        if cut:
            raise UserError(
                f"{config.init} has layers that lost channels, {cut[0]} for one, and --method {name} fine-tunes whole "
                f"or factorized ones: leave --method out, which trains {config.init} further by its own method"
            )
    elif config.weights is None and not config.pretrained:
        raise UserError(
            f"--method {name} fine-tunes a trained network: name it by --init (a RUN or a published model), "
            "--weights (a checkpoint) or --pretrained true"
        )


def started_from(config: TrainConfig) -> dict[str, str] | None:
    """Return name and SHA-256 of the weights that a training starts from; None for random ones, or timm's."""
    source = config.init if config.init is not None else config.weights
    if source is None:
        return None
    if config.init is None and is_checkpoint(Path(source)):
        return {"name": Path(source).name, "sha256": sha256(Path(source))} if Path(source).is_file() else None
    run = read_run(source)
    return {"name": run.name, "sha256": run.card.weights.sha256}


def budget(config: TrainConfig) -> Budget | None:
    """Return the budget of a configuration, or None to leave it to the method."""
    if config.compression is None and config.rank_fraction is None:
        return None
    return Budget(config.compression, config.rank_fraction, config.macs_reduction)
