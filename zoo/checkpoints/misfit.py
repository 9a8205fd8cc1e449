"""Say why a checkpoint does not fit a model: what differs, both ways, and the likely reason."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from zoo.backbone import Stem, create_backbone
from zoo.checkpoints.architectures import closest
from zoo.checkpoints.checkpoint import Checkpoint
from zoo.checkpoints.readings import Reading, best_reading, head_names
from zoo.errors import UserError

LISTED = 10
"""Names of each kind that a message gives."""
SMALL_SIDE = 32
"""Pixels of images for which architectures have their small-image form."""


def explain(checkpoint: Checkpoint, reading: Reading) -> str:
    """Return a message in one line.

    Args:
        checkpoint: that does not fit.
        reading: the best one; in the classifier the two may differ.
    """
    head = head_names(reading.model)
    shapes = [
        f"{name} {_by(reading.tensors[name].shape)} for {_by(reading.own[name].shape)}"
        for name in reading.reshaped
        if name not in head
    ]
    differences = [
        _listed("missing", [name for name in reading.missing if name not in head]),
        _listed("unexpected", reading.unexpected),
        _listed("of another shape", shapes),
    ]
    found = ", ".join(text for text in differences if text)
    return f"{checkpoint.path} does not fit {_architecture(reading.model)}: {found}; {_reason(checkpoint, reading)}"


def _listed(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > LISTED else ""
    return f"{len(names)} {what} ({', '.join(names[:LISTED])}{more})"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a number"


def _architecture(model: nn.Module) -> str:
    return str((getattr(model, "pretrained_cfg", None) or {}).get("architecture", type(model).__name__))


def _reason(checkpoint: Checkpoint, reading: Reading) -> str:
    """Return the likely reason, and what to do."""
    arch = _architecture(reading.model)
    if checkpoint.arch and checkpoint.arch.partition(".")[0] != arch:
        return f"its config.json says that it is a {checkpoint.arch}: give that architecture"
    if any(name.rpartition(".")[2] in ("U", "S", "V") for name in checkpoint.tensors):
        return "its layers are factorized: give the RUN folder, whose card says how"
    if advice := _other_form(checkpoint, arch, reading.model):
        return advice
    found, share = closest(checkpoint.tensors)
    if share > 0.9:
        return f"it is a {found}: give that architecture"
    if share > 0.4:
        return f"of timm's common architectures {found} is closest, with {share:.0%} of the tensors in place"
    return "it is not a common architecture of timm: see `zoo list --archs`"


def _other_form(checkpoint: Checkpoint, arch: str, model: Any) -> str:
    """Return what makes the checkpoint fit where it is the same architecture in the form for other images."""
    shape = tuple(getattr(model, "image_shape", (3, 224, 224)))
    small = (shape[0], SMALL_SIDE, SMALL_SIDE)
    forms: list[tuple[tuple[int, ...], Stem, str]] = [
        (
            shape,
            "original",
            "it has the stem for large images, and these get the small-image form: give --stem original",
        ),
        (shape, "auto", "it has the small-image form's stem: leave --stem original out"),
        (small, "auto", f"it has the small-image form's stem: give images of that kind, --image-size {SMALL_SIDE}"),
    ]
    tensors = {name: tensor.to("meta") for name, tensor in checkpoint.tensors.items()}
    for image_shape, stem, advice in forms:
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                other = create_backbone(arch, model.num_classes, image_shape, stem=stem)  # type: ignore[arg-type]
        except (UserError, RuntimeError, NotImplementedError):
            continue
        reading = best_reading(tensors, other)
        if not ({*reading.missing, *reading.unexpected, *reading.reshaped} - head_names(other)):
            return advice
    return ""
