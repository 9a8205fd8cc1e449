"""What a model must answer with to be attacked: logits that follow from its images."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import UserError


def checked_logits(logits: Any, images: Tensor) -> Tensor:
    """Return what a model answered to images (B, C, H, W) if it is logits (B, K).

    Raises:
        UserError: it is something else, such as a tuple, a dictionary or one number for each image.
    """
    if not isinstance(logits, Tensor):
        raise UserError(
            f"the model returns a {type(logits).__name__} where a tensor of logits is needed: give a function that "
            "picks the logits, such as lambda images: model(images)[0]"
        )
    if logits.ndim != 2 or len(logits) != len(images) or not logits.is_floating_point():
        found = f"{logits.dtype} {tuple(logits.shape)}"
        raise UserError(f"the model returns {found} for images {tuple(images.shape)}: logits (B, classes) are needed")
    return logits


@contextmanager
def other_precision_told(model: nn.Module) -> Iterator[None]:
    """Tell in one line that a model fails because its weights are no fp32 numbers, as the images are.

    A model of other weights that takes fp32 images all the same passes.
    """
    try:
        yield
    except RuntimeError as error:
        other = next((p.dtype for p in model.parameters() if p.is_floating_point() and p.dtype != torch.float32), None)
        if other is None or isinstance(error, torch.OutOfMemoryError | UserError):
            raise
        raise UserError(f"the model's weights are {other} and its images float32: give model.float()") from error


def input_gradient(values: Tensor, images: Tensor) -> Tensor:
    """Return the gradient of the sum of values in the images that they follow from.

    Raises:
        UserError: they do not.
    """
    gradient = torch.autograd.grad(values.sum(), images, allow_unused=True)[0] if values.requires_grad else None
    if gradient is None:
        raise UserError(
            "the model's logits have no gradient in its images: take detach, no_grad or rounding out of its forward "
            "pass, or attack it by square, which needs none"
        )
    return gradient
