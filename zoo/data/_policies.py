"""How strongly the images of a training are augmented: none, light, standard or strong."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import v2

from zoo.data._augment import Augmentation
from zoo.data._base import Augment, DataSet
from zoo.data._loader import Mix
from zoo.data._random_crops import seeded

Strength = Literal["none", "light", "standard", "strong"]
OPERATIONS, MAGNITUDE = 2, 9
"""Of RandAugment (Cubuk et al. 2020): operations an image, and how far they go on a scale to 30."""
ERASED = 0.25
"""Share of the images of which a rectangle is erased (Zhong et al. 2020)."""
SHARED = 4
"""Images of a batch that share a draw of the two: on small images the cost is that of launching them."""
MIXUP = 0.2
"""Parameter of the Beta distribution of mixup's weights (Zhang et al. 2018); CutMix's (Yun et al. 2019) is uniform."""


def augmentation(strength: Strength, data: DataSet) -> Augment:
    """Return what is applied to each batch of uint8 images.

    Args:
        strength: ``none``; ``light``: the data set's own, a shift and a flip for small images, a random part and a flip
            for photographs; ``standard`` and ``strong``: then RandAugment and random erasing.
        data: the data set.
    """
    if strength == "none":
        return Augmentation()
    if strength == "light":
        return data.augmentation
    return RandomOperations(data.augmentation, tuple(round(255 * x) for x in data.mean))


def mixing(strength: Strength, data: DataSet) -> Mix | None:
    """Return what blends the images of a batch and their labels: mixup or CutMix for ``strong``, None otherwise."""
    return Mixing(len(data.class_names)) if strength == "strong" else None


@dataclass(frozen=True)
class RandomOperations:
    """A data set's own augmentation, then RandAugment, then a rectangle erased.

    Attributes:
        first: the data set's own.
        fill: colour of what is erased or comes from beyond the border, 0 to 255 per channel.
    """

    first: Augment
    fill: tuple[int, ...]

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment images (B, C, H, W), uint8, on their device."""
        images = self.first(images, generator)
        operations = v2.RandAugment(OPERATIONS, MAGNITUDE, fill=list(self.fill))
        erasing = v2.RandomErasing(ERASED, value=[float(x) for x in self.fill])
        with seeded(generator):
            # The library draws once for all images that it is given.
            return torch.cat([erasing(operations(part)) for part in images.split(SHARED)])


@dataclass(frozen=True)
class Mixing:
    """Mixup or CutMix, one of the two for each batch."""

    num_classes: int

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Blend images (B, C, H, W), uint8, with one another: the same shape, and probabilities (B, K)."""
        mixup = v2.MixUp(alpha=MIXUP, num_classes=self.num_classes)
        cutmix = v2.CutMix(alpha=1.0, num_classes=self.num_classes)
        with seeded(generator):
            blended, truth = v2.RandomChoice([mixup, cutmix])(images.float(), labels)  # it cannot blend whole numbers
        return blended.round().to(torch.uint8), truth
