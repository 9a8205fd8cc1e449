"""The model under attack: verdicts, logits and input gradients, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from zoo.attacks._answers import checked_logits, input_gradient, other_precision_told
from zoo.attacks._batch_size import SMALLEST_BATCH, by_pixels, images_at_once
from zoo.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped

Loss = Callable[..., Tensor]
"""Maps logits (B, K), labels and further tensors of one row per image to the number that an attack maximises: (B,)."""

Gradients = Literal["fp32", "bf16"]
"""How searches compute: in fp32, or gradients under bf16 autocast and queries without gradients in TF32."""

Queries = Callable[[Tensor], Tensor]
"""Maps images (B, C, H, W) to the model's logits (B, K), computed elsewhere, for searches without gradients."""


@contextmanager
def fp32(device: torch.device) -> Iterator[None]:
    """Compute in fp32 (no autocast, no TF32 in products or convolutions), with gradients allowed.

    Gradients work inside `torch.inference_mode` too, for tensors made in this context.
    """
    plain = torch.autocast(device.type, enabled=False)
    with _tf32(allowed=False), torch.inference_mode(False), torch.enable_grad(), plain:
        yield


@contextmanager
def _tf32(*, allowed: bool) -> Iterator[None]:
    """Allow a GPU to round the operands of products and convolutions to ten bits, or forbid it; a CPU never does."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


class AttackedModel:
    """A model under attack. Calls take any number of images; the model sees ``batch_size`` at a time.

    Args:
        model: in eval mode; takes images in [0, 1], returns logits.
        batch_size: images that the model gets at once, at most: on a CPU fewer large ones (`images_at_once`).
        tick: called after each batch with the number of images that the model has seen.
        gradients: how searches compute, see `Gradients`. Verdicts are taken in fp32 either way, so a rounded search can
            miss an adversarial image but never invents one.
        queries: the same function by a faster library, for searches without gradients. Verdicts are still the model's.
    """

    def __init__(
        self,
        model: nn.Module,
        batch_size: int = 250,
        tick: Callable[[int], None] | None = None,
        gradients: Gradients = "fp32",
        queries: Queries | None = None,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.gradients = gradients
        self.queries = queries
        self._tick = tick or (lambda n: None)
        self._at_once: dict[torch.Size, int] = {}

    def at_once(self, images: Float[Tensor, "batch c h w"]) -> int:
        """Return how many images of this size the model gets at once."""
        if images.device.type != "cpu":
            return self.batch_size
        shape, fewest = images.shape[1:], by_pixels(images[0])
        if min(len(images), self.batch_size) <= fewest:  # the model need not be measured
            return min(self.batch_size, fewest)
        if shape not in self._at_once:
            self._at_once[shape] = images_at_once(self.model, images[:1], self.batch_size)
        return self._at_once[shape]

    def _seen(self, images: Float[Tensor, "batch c h w"], bf16: bool = False) -> Float[Tensor, "batch classes"]:
        filled = self._filled(images)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16), other_precision_told(self.model):
            logits = self.model(filled)
        self._tick(len(images))
        return checked_logits(logits, filled)[: len(images)].float()

    def _sizes(self, images: Float[Tensor, "batch c h w"]) -> list[int]:
        """Return the sizes of the batches that images are cut into: full ones, and a last one that is not too small."""
        most = self.at_once(images)
        full, rest = divmod(len(images), most)
        if 0 < rest < SMALLEST_BATCH <= (most + rest) // 2 and full:
            half = (most + rest) // 2
            return [most] * (full - 1) + [most + rest - half, half]
        return [most] * full + [rest] * (rest > 0)

    def _filled(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "filled c h w"]:
        """Repeat the first image of a batch that is too small, up to the smallest safe size or the largest batch."""
        missing = min(SMALLEST_BATCH, self.at_once(images)) - len(images)
        return torch.cat([images, images[:1].detach().expand(missing, -1, -1, -1)]) if missing > 0 else images

    @torch.no_grad()
    def logits(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of one image or more.

        Raises:
            UserError: a logit is NaN or infinite (one that is -inf excludes its class, and may be).
        """
        logits = torch.cat([self._seen(part) for part in images.split(self._sizes(images))])
        broken = int((~logits.amax(1).isfinite()).sum())
        if broken:
            raise UserError(f"the model's logits are NaN or infinite for {broken} of {len(images)} images")
        return logits

    def estimate(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch classes"]:
        """Return logits for a search without gradients; they may be rounded. A verdict needs `logits`."""
        if self.queries is not None:
            return torch.cat([self._asked(part) for part in images.split(self._sizes(images))])
        if self.gradients == "fp32":
            return self.logits(images)
        with _tf32(allowed=True):
            return self.logits(images)

    def _asked(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch classes"]:
        assert self.queries is not None
        logits = self.queries(self._filled(images))[: len(images)].to(images)
        self._tick(len(images))
        return logits

    def correct(self, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """Return which of one or more images a forward pass classifies correctly.

        Raises:
            UserError: see `logits`; or a label is not a class of the model.
        """
        logits = self.logits(images)
        low, high, classes = int(labels.min()), int(labels.max()), logits.shape[1]
        if not 0 <= low <= high < classes:
            raise UserError(f"labels are in {low}..{high}, but the model has classes 0..{classes - 1}")
        return logits.argmax(1) == labels

    def ascent(
        self,
        images: Float[Tensor, "batch c h w"],
        loss: Loss,
        labels: Int[Tensor, " batch"],
        *others: Shaped[Tensor, "batch ..."],
    ) -> tuple[Bool[Tensor, " batch"], Float[Tensor, " batch"], Float[Tensor, "batch c h w"]]:
        """Return which images are misclassified, and what `gradient` returns for the same arguments."""
        wrong, values, gradient = self._search(images, loss, labels, *others)
        if self.gradients == "bf16" and bool(wrong.any()):
            wrong[wrong.clone()] = self.logits(images[wrong]).argmax(1) != labels[wrong]
        return wrong, values, gradient

    def gradient(
        self,
        images: Float[Tensor, "batch c h w"],
        loss: Loss,
        labels: Int[Tensor, " batch"],
        *others: Shaped[Tensor, "batch ..."],
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch c h w"]]:
        """Return the losses of the images, and the gradients of these.

        Only the gradient with respect to the images is computed, not that of the weights.

        Args:
            images: one or more.
            loss: of logits, labels and ``others``.
            labels: class indices.
            others: further arguments of the loss, such as targets.

        Raises:
            UserError: the gradient is NaN.
        """
        return self._search(images, loss, labels, *others)[1:]

    def _search(
        self, images: Float[Tensor, "batch c h w"], loss: Loss, *per_image: Shaped[Tensor, "batch ..."]
    ) -> tuple[Bool[Tensor, " batch"], Float[Tensor, " batch"], Float[Tensor, "batch c h w"]]:
        """Return which images seem misclassified, their losses and the gradients of these."""
        sizes = self._sizes(images)
        parts = zip(*(t.split(sizes) for t in (images, *per_image)), strict=True)
        found = [self._ascent(x, loss, *rest) for x, *rest in parts]
        wrong, values, gradient = (torch.cat(tensors) for tensors in zip(*found, strict=True))
        if bool(gradient.isnan().any()):
            raise UserError("the gradient of the model's loss is NaN: it cannot be attacked by gradients")
        return wrong, values, gradient

    def _ascent(
        self,
        images: Float[Tensor, "batch c h w"],
        loss: Loss,
        labels: Int[Tensor, " batch"],
        *others: Shaped[Tensor, "batch ..."],
    ) -> tuple[Bool[Tensor, " batch"], Float[Tensor, " batch"], Float[Tensor, "batch c h w"]]:
        images = images.detach().requires_grad_()
        logits = self._seen(images, bf16=self.gradients == "bf16")
        values = loss(logits, labels, *others)
        return logits.detach().argmax(1) != labels, values.detach(), input_gradient(values, images)


def in_turn(
    attacked: AttackedModel,
    images: Float[Tensor, "batch c h w"],
    labels: Int[Tensor, " batch"],
    searches: Iterable[Callable[[Int[Tensor, " standing"]], Float[Tensor, "standing c h w"]]],
) -> Float[Tensor, "batch c h w"]:
    """Run searches one after the other, each on the images that are robust against the earlier ones.

    Args:
        attacked: the model under attack.
        images: all classified correctly.
        labels: class indices.
        searches: each takes the indices of standing images and returns where it ended.

    Returns:
        Where the last search of each image ended.
    """
    found, standing = images.clone(), torch.arange(len(images), device=images.device)
    for i, search in enumerate(searches):
        if i:
            standing = standing[attacked.correct(found[standing], labels[standing])]
        if not len(standing):
            break
        found[standing] = search(standing)
    return found
