"""What an attack asks of a model: verdicts and input gradients, in fp32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UserError


@contextmanager
def fp32(device: torch.device) -> Iterator[None]:
    """Compute in fp32 (no autocast, no TF32 in products or convolutions), with gradients allowed.

    Gradients work inside `torch.inference_mode` too, for tensors made in this context.
    """
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


@torch.no_grad()
def right(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Say by a forward pass which images are classified rightly: (B, C, H, W) and (B,) to bool (B,), B >= 1.

    Raises:
        UserError: a logit is NaN, or a label is no class of the model.
    """
    logits = model(images)
    nan = int(logits.isnan().any(1).sum())
    if nan:
        raise UserError(f"the model's logits are NaN for {nan} of {len(images)} images")
    low, high, classes = int(labels.min()), int(labels.max()), logits.shape[1]
    if not 0 <= low <= high < classes:
        raise UserError(f"labels are in {low}..{high}, but the model has classes 0..{classes - 1}")
    return logits.argmax(1) == labels


def ascent(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return which images are classified rightly (B,), and each one's cross-entropy gradient (B, C, H, W).

    Only the gradient with respect to the images is computed, not that of the weights.

    Raises:
        UserError: the gradient is NaN.
    """
    images = images.detach().requires_grad_()
    logits = model(images)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), images)
    if bool(gradient.isnan().any()):
        raise UserError("the gradient of the model's loss is NaN: it cannot be attacked by gradients")
    return logits.detach().argmax(1) == labels, gradient
