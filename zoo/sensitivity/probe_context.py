"""The network under probes, and their images."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zoo.attacks import AttackedModel, fp32
from zoo.attacks.pgd import PGD
from zoo.runtime.eval_mode import require_eval_mode

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt8


class ProbeContext:
    """A network, test images and the radius at which they are attacked.

    Args:
        model: in eval mode; takes images in [0, 1], returns logits.
        images: at least one, of 0 to 255.
        labels: class indices.
        eps: Linf radius of adversarial images.
        batch_size: images that the model gets at once.

    Raises:
        UserError: a module of the model is in training mode.
    """

    def __init__(
        self,
        model: nn.Module,
        images: UInt8[Tensor, "batch c h w"],
        labels: Int[Tensor, " batch"],
        eps: float,
        batch_size: int = 250,
    ) -> None:
        require_eval_mode(model, "a probe")
        self.model = model
        self.device = next(model.parameters(), torch.empty(0)).device
        self.images = images.to(self.device).float().div(255)
        self.labels = labels.to(self.device)
        self.eps = eps
        self.batch_size = batch_size

    @cached_property
    def adversarial(self) -> Float[Tensor, "batch c h w"]:
        """The images after PGD with 20 steps at eps, from the images."""
        attack = PGD(steps=20, random_start=False)
        return attack(self.model, self.images, self.labels, [self.eps], batch_size=self.batch_size).adversarial[0]

    def correct(self, images: Float[Tensor, "batch c h w"]) -> Bool[Tensor, " batch"]:
        """Return which of the images, in [0, 1], are classified correctly, in fp32."""
        with fp32(self.device):
            return AttackedModel(self.model, self.batch_size).correct(images, self.labels)
