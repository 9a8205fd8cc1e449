"""Load a checkpoint from elsewhere into a timm model, and say what had to be done to it."""

from dataclasses import dataclass, replace

import timm
import torch
from timm.models import adapt_input_conv
from torch import nn

from zoo.backbone import ends
from zoo.checkpoints.checkpoint import Checkpoint
from zoo.checkpoints.misfit import explain
from zoo.checkpoints.readings import Reading, best_reading, head_names
from zoo.errors import UserError, unknown_name

COLOURS = 3
"""Channels from which timm can adapt a first convolution to others."""


@dataclass(frozen=True)
class Loaded:
    """What was done to a checkpoint so that it fits.

    Attributes:
        notes: in words, each a part of a sentence; empty where it was simply loaded.
        new_head: whether the classifier is the model's own, untrained.
    """

    notes: tuple[str, ...]
    new_head: bool


def load_checkpoint_(model: nn.Module, checkpoint: Checkpoint) -> Loaded:
    """Load a checkpoint into a backbone, in place; one that does not fit changes nothing.

    A classifier for another number of classes stays as it is. The first convolution is adapted to another number of
    channels as timm does, embeddings of positions to another image size.

    Args:
        model: from `zoo.backbone.create_backbone`.
        checkpoint: see `read_checkpoint`.

    Raises:
        UserError: it is another model's; the message lists what is missing, what is left over, and the likely reason.
    """
    reading, adapted = _with_channels(best_reading(checkpoint.tensors, model))
    head = head_names(model)
    new_head = bool(head & {*reading.reshaped, *reading.missing})
    left = head if new_head else set()
    if (set(reading.missing) | set(reading.unexpected) | set(reading.reshaped)) - left:
        raise UserError(explain(checkpoint, reading))
    model.load_state_dict(
        {x: t for x, t in reading.tensors.items() if x in reading.own and x not in left}, strict=False
    )
    return Loaded(tuple(_notes(checkpoint, reading, adapted, new_head)), new_head)


def sizes_in(checkpoint: Checkpoint, arch: str) -> tuple[int, int]:
    """Return the number of classes of a checkpoint's classifier, and the channels that its first layer reads.

    Args:
        checkpoint: see `read_checkpoint`.
        arch: timm's name of its architecture.

    Raises:
        UserError: timm has no such model, or the checkpoint has not these layers.
    """
    if not timm.is_model(arch.partition(".")[0]):
        raise unknown_name("architecture", arch, timm.list_models())
    with torch.device("meta"):
        model = timm.create_model(arch)
    reading = best_reading({name: tensor.to("meta") for name, tensor in checkpoint.tensors.items()}, model)
    first, last = ends(model)
    heads = [reading.tensors[f"{x}.weight"].shape[0] for x in sorted(last) if f"{x}.weight" in reading.tensors]
    stems = [reading.tensors[f"{x}.weight"].shape[1] for x in sorted(first) if f"{x}.weight" in reading.tensors]
    if not heads or not stems:
        raise UserError(explain(checkpoint, reading))
    return heads[0], stems[0]


def _with_channels(reading: Reading) -> tuple[Reading, list[str]]:
    """Adapt the first convolution to the channels of the model where it differs in nothing else; also which it was."""
    first, _ = ends(reading.model)
    tensors, adapted = dict(reading.tensors), []
    for name in reading.reshaped:
        own, tensor = reading.own[name], tensors[name]
        kernels = tensor.ndim == 4 and tensor[:, 0].shape == own[:, 0].shape
        if kernels and tensor.shape[1] == COLOURS and name.removesuffix(".weight") in first:
            tensors[name] = adapt_input_conv(own.shape[1], tensor)
            adapted.append(name)
    return replace(reading, tensors=tensors), adapted


def _notes(checkpoint: Checkpoint, reading: Reading, adapted: list[str], new_head: bool) -> list[str]:
    notes = []
    if averaged := [x for x in (checkpoint.entry, reading.prefix.rstrip(".")) if "ema" in x]:
        notes.append(f"the averaged weights in {averaged[0]}")
    if reading.naming != "timm":
        notes.append(f"{reading.naming}'s names")
    if reading.resized:
        notes.append(f"{' and '.join(reading.resized)} resized to these images")
    notes += [f"{name} adapted to {reading.own[name].shape[1]} channels" for name in adapted]
    if new_head:
        head = head_names(reading.model)
        had = next((f"has {reading.tensors[x].shape[0]}" for x in sorted(head & reading.tensors.keys())), "has none")
        notes.append(f"a new head for {getattr(reading.model, 'num_classes', '?')} classes, the checkpoint {had}")
    return notes
