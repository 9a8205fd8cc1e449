"""Models in Python: list, create, load. The result is a plain module that takes images in [0, 1]."""

from pathlib import Path

from pydantic import ValidationError
from torch import nn

from zoo.backbone import Normalize, create_backbone, with_normalization
from zoo.errors import UserError
from zoo.hub.runs import read_run
from zoo.hub.search import find, published
from zoo.hub.selection import Key, Selection
from zoo.runs.records import Threat
from zoo.runs.run import Run
from zoo.runs.schema import first_mistake
from zoo.runs.transfer import load_transferred, transferred_ranks


def list_models(
    pattern: str = "*",
    *,
    data: str | None = None,
    min_robust: float | None = None,
    max_params: int | None = None,
    threat: tuple[str, float] | None = None,
    sort: Key = "name",
    hub: str | Path | None = None,
) -> list[str]:
    """Return the names of published models.

    Args:
        pattern: such as ``resnet*`` or ``*.robust_lowrank*_c10``; an architecture stands for all of its models.
        data: the data set they were trained on.
        min_robust: least accuracy under attack, in 0..1, at ``threat``, or each at the radius it is judged by;
            a model with masked gradients has none.
        max_params: most parameters.
        threat: norm and radius to compare at, such as ``("Linf", 8 / 255)``.
        sort: ``name``, ``params``, ``macs``, ``clean``, ``robust``, ``latency`` or ``bytes``, best first.
        hub: addresses separated by commas, or a folder as a path; default: ``ZOO_HUB``. The bundled hub is always
            searched last.

    Raises:
        UserError: a hub cannot be read, or an argument is out of range.
    """
    try:
        at = Threat.model_validate({"norm": threat[0], "eps": threat[1]}) if threat else None
    except (ValidationError, LookupError, TypeError) as error:
        why = first_mistake(error) if isinstance(error, ValidationError) else "two values are needed"
        raise UserError(f"threat {threat!r} is not a norm and a radius such as ('Linf', 8 / 255): {why}") from None
    chosen = Selection(pattern, data, min_robust, max_params, at, sort)
    return list(chosen.of({name: found.entry for name, found in published(hub).items()}))


def load(path_or_name: str | Path, *, factorized: bool = False, hub: str | Path | None = None) -> nn.Module:
    """Return a trained model in eval mode: (B, C, H, W) in [0, 1] to logits.

    Args:
        path_or_name: a RUN or a downloaded folder, or a published model's name.
        factorized: keep U, S and V apart, as in training, instead of the deployed form of plain layers.
        hub: see `list_models`.

    Raises:
        UserError: there is no such model, or a file of it is damaged. When it is called: images are no floats, or its
            first batch is not in [0, 1].
    """
    run = read_run(path_or_name, hub)
    return _checking(run.trained_model() if factorized else run.model())


def create_model(
    name: str,
    pretrained: bool = True,
    *,
    num_classes: int | None = None,
    factorized: bool = False,
    hub: str | Path | None = None,
) -> nn.Module:
    """Return a published model, as timm does: (B, C, H, W) in [0, 1] to logits, in eval mode.

    Args:
        name: such as ``resnet18.robust_lowrank80_c10``.
        pretrained: load its weights; without, they are random and only the card is read.
        num_classes: of another task: the classifier is then new, everything else as published.
        factorized: keep U, S and V apart, as in training, instead of the deployed form of plain layers.
        hub: see `list_models`.

    Raises:
        UserError: no hub has such a model, a file of it is damaged, or ``num_classes`` is less than one.
    """
    if num_classes is not None and num_classes < 1:
        raise UserError(f"num_classes must be at least 1, got {num_classes}")
    found = find(name, hub)
    if pretrained and num_classes is None:
        return load(found.folder(), factorized=factorized)
    run = Run(found.folder() if pretrained else found.card_file().parent)
    about = run.card
    backbone = create_backbone(about.arch, num_classes or len(about.class_names), about.image_shape, stem=about.stem)
    backbone = run.method.convert(backbone, transferred_ranks(run, backbone))
    if pretrained:
        load_transferred(run, backbone)
    model = with_normalization(backbone, about.mean, about.std).eval()
    return _checking(model if factorized else run.method.deploy(model).eval())


def _checking(model: nn.Module) -> nn.Module:
    """Let a model look at the range of the first images that it gets."""
    for module in model.modules():
        if isinstance(module, Normalize):
            module.checks_next = True
    return model
