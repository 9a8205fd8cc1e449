"""Random parts of photographs, by torchvision."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2

SCALE = (0.35, 1.0)
"""Share of the area that is cut out. Images come at the size of the network's input, so that a part is enlarged, by 1.7
at most; the usual 0.08 would show networks far blurrier images than they are measured on."""


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Let torchvision's draws depend on a generator alone; torch's own generator of the CPU is put back."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the GPUs too.
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield


@dataclass(frozen=True)
class RandomCrops:
    """Cut out a random part of each image, resize it, and flip it left-right or not (Szegedy et al. 2015).

    Attributes:
        size: side of the result in pixels.
        flip: whether left and right may be swapped.
    """

    size: int
    flip: bool = True

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment images (B, C, H, W), uint8, each with draws of its own, on their device."""
        crop = v2.RandomResizedCrop(self.size, scale=SCALE, antialias=True)
        steps = v2.Compose([crop, v2.RandomHorizontalFlip()] if self.flip else [crop])
        with seeded(generator):
            return torch.stack([steps(image) for image in images])
