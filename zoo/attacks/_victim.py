"""What an attack asks of the model under attack: verdicts, logits and input gradients, in batches, in fp32."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from zoo.errors import UserError

Loss = Callable[..., Tensor]
"""Logits (B, K) and further tensors of one row per image, to one number per image (B,) that an attack raises."""


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


class Victim:
    """A model under attack. Any number of images may be asked about; the model sees ``batch_size`` at a time.

    Args:
        model: in eval mode; takes images in [0, 1], returns logits.
        batch_size: images that the model gets at once.
        tick: told after each batch how many images the model has seen.
    """

    def __init__(self, model: nn.Module, batch_size: int = 250, tick: Callable[[int], None] | None = None) -> None:
        self.model = model
        self.batch_size = batch_size
        self._tick = tick or (lambda n: None)

    def _seen(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images).float()
        self._tick(len(images))
        return logits

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (B, K), B >= 1.

        Raises:
            UserError: a logit is NaN.
        """
        logits = torch.cat([self._seen(part) for part in images.split(self.batch_size)])
        nan = int(logits.isnan().any(1).sum())
        if nan:
            raise UserError(f"the model's logits are NaN for {nan} of {len(images)} images")
        return logits

    def right(self, images: Tensor, labels: Tensor) -> Tensor:
        """Say by a forward pass which images are classified rightly: (B, C, H, W) and (B,) to bool (B,), B >= 1.

        Raises:
            UserError: a logit is NaN, or a label is no class of the model.
        """
        logits = self.logits(images)
        low, high, classes = int(labels.min()), int(labels.max()), logits.shape[1]
        if not 0 <= low <= high < classes:
            raise UserError(f"labels are in {low}..{high}, but the model has classes 0..{classes - 1}")
        return logits.argmax(1) == labels

    def ascent(self, images: Tensor, loss: Loss, *per_image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (B, K), the loss of each image (B,) and its gradient in that image (B, C, H, W).

        Only the gradient with respect to the images is computed, not that of the weights.

        Args:
            images: B >= 1 of them.
            loss: of logits and ``per_image``.
            per_image: what the loss takes besides, one row per image, such as labels.

        Raises:
            UserError: the gradient is NaN.
        """
        parts = zip(*(t.split(self.batch_size) for t in (images, *per_image)), strict=True)
        found = [self._ascent(x, loss, *others) for x, *others in parts]
        logits, values, gradient = (torch.cat(tensors) for tensors in zip(*found, strict=True))
        if bool(gradient.isnan().any()):
            raise UserError("the gradient of the model's loss is NaN: it cannot be attacked by gradients")
        return logits, values, gradient

    def _ascent(self, images: Tensor, loss: Loss, *per_image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = images.detach().requires_grad_()
        logits = self._seen(images)
        values = loss(logits, *per_image)
        (gradient,) = torch.autograd.grad(values.sum(), images)
        return logits.detach(), values.detach(), gradient


def in_turn(victim: Victim, images: Tensor, labels: Tensor, searches: Iterable[Callable[[Tensor], Tensor]]) -> Tensor:
    """Run searches one after the other, each on the images that the earlier ones left standing.

    Args:
        victim: the model under attack.
        images: all classified rightly, (B, C, H, W).
        labels: (B,).
        searches: each takes the indices of standing images (S,) and returns where it ended (S, C, H, W).

    Returns:
        Where the last search of each image ended.
    """
    found, standing = images.clone(), torch.arange(len(images), device=images.device)
    for i, search in enumerate(searches):
        if i:
            standing = standing[victim.right(found[standing], labels[standing])]
        if not len(standing):
            break
        found[standing] = search(standing)
    return found
