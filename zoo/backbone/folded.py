"""The network under attack: the function that its ONNX file computes."""

import torch
from torch import nn

from zoo.backbone.fold_batch_norm import fold_batch_norm


def folded(model: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return a copy with BatchNorm folded as in the exported file, laid out for speed; weights take no gradients.

    Convolutions run channels last: on CPUs, with the folding, that halves a forward pass.

    Args:
        model: the deployed form, in eval mode; images in [0, 1] to logits.
        image_shape: (channels, height, width).
    """
    copy = fold_batch_norm(model, image_shape).requires_grad_(False)
    copy.to(memory_format=torch.channels_last)
    return copy
