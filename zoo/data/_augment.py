"""Random crops and flips of a whole batch at once."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Shift each image by up to ``shift`` pixels, mirrored at the border, and flip it left-right or not.

    Attributes:
        shift: largest shift per axis in pixels, uniform over -shift..shift; less than the image's side.
        flip: whether left and right may be swapped.
    """

    shift: int = 0
    flip: bool = False

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment images (B, C, H, W) of any dtype; ``generator`` lives on the CPU."""
        if not self.shift and not self.flip:
            return images
        b, _, h, w = images.shape
        shifts = torch.randint(-self.shift, self.shift + 1, (2, b, 1), generator=generator)
        flips = torch.rand(b, 1, generator=generator) < (0.5 if self.flip else 0.0)
        rows = _mirror(torch.arange(h) + shifts[0], h)
        cols = _mirror(torch.arange(w) + shifts[1], w)
        cols = torch.where(flips, w - 1 - cols, cols)
        index = torch.arange(b).view(b, 1, 1), rows.unsqueeze(2), cols.unsqueeze(1)
        picked = images.permute(0, 2, 3, 1)[tuple(i.to(images.device, non_blocking=True) for i in index)]
        return picked.permute(0, 3, 1, 2)


def _mirror(index: Tensor, size: int) -> Tensor:
    """Reflect indices outside 0..size-1 at the border pixels."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
