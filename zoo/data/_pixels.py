"""Images as the networks take them."""

import torch
from torch import Tensor


def to_unit(images: Tensor) -> Tensor:
    """Map uint8 images to float32 in [0, 1], channels last in memory."""
    return (images.float() / 255).contiguous(memory_format=torch.channels_last)
