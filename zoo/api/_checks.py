"""Checks of the arguments of this package's functions; each mistake is reported in one line."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zoo.attacks import checked_logits
from zoo.errors import UserError, first_line, unknown_name
from zoo.plugins import Plugins
from zoo.runtime.eval_mode import evaluating

T = TypeVar("T")
Classifier = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] to logits (B, K): an `nn.Module`, or any function."""
Shape = tuple[int, int, int]
"""(channels, height, width) of an image."""


class Logits(nn.Module):
    """A classifier of any kind as a module in eval mode, whose output is checked.

    Args:
        model: if it is a module, it must be in eval mode itself where that matters; its mode is not changed.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self.training = False  # not eval(), which would hide that the model is in training mode

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits: (B, C, H, W) to (B, K).

        Raises:
            UserError: the model does not take such images, or returns something else.
        """
        shape = tuple(images.shape)
        try:
            logits = self.model(images)
        except UserError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise UserError(f"the model cannot take images {shape} (B, C, H, W): {first_line(error)}") from error
        return checked_logits(logits, images)


def device_of(model: Classifier) -> torch.device | None:
    """Return where a model's parameters are; None if it has none."""
    return next((p.device for p in model.parameters()), None) if isinstance(model, nn.Module) else None


def unit_images(images: Tensor) -> Tensor:
    """Return images as fp32 in [0, 1].

    Args:
        images: (B, C, H, W), uint8 or of a floating type in [0, 1].

    Raises:
        UserError: their shape, type or range is wrong.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.numel():
        found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise UserError(f"images are a tensor (B, C, H, W), B >= 1: got {found}")
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise UserError(f"images are uint8, or numbers in [0, 1]: got {images.dtype}")
    low, high = float(images.min()), float(images.max())
    if not 0 <= low <= high <= 1:
        raise UserError(f"images in {low:g}..{high:g}: give pixels in [0, 1], and leave normalisation to the model")
    return images.float()


def class_indices(labels: Tensor | Sequence[int], images: Tensor) -> Tensor:
    """Return labels as a tensor of class indices (B,).

    Raises:
        UserError: they are not whole numbers, or there is not one for each image.
    """
    found = torch.as_tensor(labels)
    if found.is_floating_point() or found.dtype == torch.bool or found.shape != images.shape[:1]:
        wanted = f"labels are one class index for each of the {len(images)} images"
        raise UserError(f"{wanted}: got {found.dtype} {tuple(found.shape)}")
    return found.long()


def check_takes(model: nn.Module, input_shape: Shape) -> int:
    """Check that a model maps an image to logits, and return the number of classes.

    Raises:
        UserError: it does not, or the shape is no (channels, height, width).
    """
    if len(input_shape) != 3 or not all(isinstance(n, int) and n > 0 for n in input_shape):
        raise UserError(f"input_shape is (channels, height, width), such as (3, 32, 32): got {input_shape!r}")
    with torch.no_grad(), evaluating(model):
        return Logits(model)(torch.zeros(2, *input_shape, device=device_of(model))).shape[1]


def plugin(plugins: Plugins[T], name: str, options: Mapping[str, Any]) -> T:
    """Return a plugin with its options.

    Raises:
        UserError: no plugin has that name, or it does not have these options.
    """
    found: Any = plugins.get(name)
    known = [field.name for field in fields(found)]
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
    return found(**options)
