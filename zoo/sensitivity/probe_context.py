"""The network under probes, and their images."""

from functools import cached_property

import torch
from torch import Tensor, nn

from zoo.attacks import AttackedModel, fp32
from zoo.attacks.pgd import PGD
from zoo.runtime.eval_mode import require_eval_mode


class ProbeContext:
    """A network, test images and the radius at which they are attacked.

    Args:
        model: in eval mode; takes images in [0, 1], returns logits.
        images: uint8 (N, C, H, W), N >= 1.
        labels: class indices (N,).
        eps: Linf radius of adversarial images.
        batch_size: images that the model gets at once.

    Raises:
        UserError: a module of the model is in training mode.
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, eps: float, batch_size: int = 250) -> None:
        require_eval_mode(model, "a probe")
        self.model = model
        self.device = next(model.parameters(), torch.empty(0)).device
        self.images = images.to(self.device).float().div(255)
        self.labels = labels.to(self.device)
        self.eps = eps
        self.batch_size = batch_size

    @cached_property
    def adversarial(self) -> Tensor:
        """The images after PGD with 20 steps at eps, from the images: (N, C, H, W)."""
        attack = PGD(steps=20, random_start=False)
        return attack(self.model, self.images, self.labels, [self.eps], batch_size=self.batch_size).adversarial[0]

    def correct(self, images: Tensor) -> Tensor:
        """Return which of N images in [0, 1] are classified correctly, in fp32: bool (N,)."""
        with fp32(self.device):
            return AttackedModel(self.model, self.batch_size).correct(images, self.labels)
