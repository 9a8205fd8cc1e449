"""Build a timm backbone for a data set: classes, channels, image size, and normalisation inside the model."""

import warnings
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from zoo.backbone.pretrained import told_at_once
from zoo.backbone.small_images import SMALL, adapt, small_options
from zoo.errors import UserError, first_line, unknown_name
from zoo.runtime.eval_mode import evaluating

SLACK = 0.01
"""By how much the images of a loaded model may leave [0, 1]: resizing by cubic filters rings a little."""
Stem = Literal["auto", "original"]
"""auto: images of 64 pixels and fewer get the small-image form; original: every image gets the form of large ones."""


class Normalize(nn.Module):
    """Map images in [0, 1] to (x - mean) / std per channel, so that an attack's eps is in pixel units."""

    mean: Tensor
    std: Tensor
    checks_next: bool = False
    """Whether the range of the next batch is looked at: whoever loads a model learns of a wrong one at once."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise: (B, C, H, W) to the same shape.

        Raises:
            UserError: the images are not floating-point, or the first batch of a loaded model is not in [0, 1].
        """
        # Tracers pass stand-ins, which have no values.
        if isinstance(images, Tensor) and not torch.compiler.is_compiling():
            self._check(images)
        return (images - self.mean) / self.std

    def _check(self, images: Tensor) -> None:
        if not images.is_floating_point():
            name = str(images.dtype).removeprefix("torch.")
            raise UserError(f"the images are {name}: the model takes floats in [0, 1], such as images.float() / 255")
        if self.checks_next and images.numel():
            self.checks_next = False
            low, high = (float(x) for x in images.detach().aminmax())
            if not (low >= -SLACK and high <= 1 + SLACK):
                raise UserError(
                    f"the images range from {low:.3g} to {high:.3g}: the model takes [0, 1] and normalises them itself"
                )


def create_backbone(
    arch: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    pretrained: bool = False,
    stem: Stem = "auto",
) -> nn.Module:
    """Build a timm model; images of 64 pixels and fewer get the architecture's small-image form.

    Args:
        arch: any name that ``timm.list_models()`` knows.
        num_classes: classes of the last layer.
        image_shape: (channels, height, width).
        pretrained: load timm's weights (needs the network, and the original form).
        stem: whether small images get the small-image form; with ``original`` its stem, and the head of a VGG, stay.

    Raises:
        UserError: timm has no such model, it cannot be built for that image size, or its weights are not available.
    """
    name = arch.partition(".")[0]
    if not timm.is_model(name):
        raise unknown_name("architecture", arch, timm.list_models())
    channels, height, width = image_shape
    size = max(height, width)
    small = size <= SMALL and stem == "auto"
    if pretrained and small:
        raise UserError(
            f"pretrained weights of {arch} are for large images, not for {height} x {width}: give --stem original, "
            "which keeps the stem that they were trained with, or leave --pretrained out"
        )
    options: list[dict[str, Any]] = (
        small_options(name, height, width)
        if small
        else [{"img_size": size if height == width else (height, width)}]
        if _fixed_size(arch)
        else [{}]
    )
    reason: Exception | None = None
    for kwargs in options:
        try:
            with warnings.catch_warnings(), told_at_once() if pretrained else nullcontext():
                warnings.simplefilter("ignore")
                model = timm.create_model(
                    arch, pretrained=pretrained, num_classes=num_classes, in_chans=channels, **kwargs
                )
            model = adapt(model, name, size) if small else model
            _try_out(model, image_shape, num_classes)
            model.image_shape = image_shape  # for code that runs the network later, to find its channels
            return model
        except OSError as error:
            raise UserError(
                f"the pretrained weights of {arch} cannot be fetched ({first_line(error)}): "
                "leave --pretrained out, or give a file with --weights"
            ) from None
        except (
            TypeError,
            ValueError,
            AssertionError,
            RuntimeError,
            ZeroDivisionError,
            AttributeError,
            IndexError,
        ) as error:
            reason = error
    assert reason is not None
    raise UserError(f"{arch} cannot be built for {height} x {width} images: {first_line(reason)}")


@torch.no_grad()
def _try_out(model: nn.Module, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Run one image through: some models can be built for any size, and fail only on the first image."""
    with evaluating(model):
        logits = model(torch.zeros(1, *image_shape))
    if logits.shape != (1, num_classes):
        raise ValueError(f"logits of shape {tuple(logits.shape)} instead of (1, {num_classes})")


def _fixed_size(arch: str) -> bool:
    cfg = timm.get_pretrained_cfg(arch)
    return bool(cfg is not None and cfg.fixed_input_size)


def ends(model: nn.Module) -> tuple[set[str], set[str]]:
    """Return the names of a model's first layers and of its classifiers.

    For timm models these are the layers that timm names. For other models they are the first convolution and the last
    linear layer in the order in which the modules were registered (without convolutions the first linear layer, without
    linear layers the last convolution).
    """
    cfg = getattr(model, "pretrained_cfg", None)
    if cfg is None:
        return _ends_by_order(model)
    names = {name for name, _ in model.named_modules()}

    def listed(key: str) -> set[str]:
        value = cfg.get(key) or ()
        return {value} & names if isinstance(value, str) else set(value) & names

    return listed("first_conv"), listed("classifier")


def _ends_by_order(model: nn.Module) -> tuple[set[str], set[str]]:
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    names = [name for name, _ in layers]
    convolutions = [name for name, layer in layers if isinstance(layer, nn.Conv2d)]
    linear = [name for name, layer in layers if isinstance(layer, nn.Linear)]
    return set((convolutions or names)[:1]), set((linear or names)[-1:])


def with_normalization(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Return a model that takes images in [0, 1]: normalisation, then ``model`` (under the name ``backbone``)."""
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), backbone=model))
