"""Common corruptions: 14 kinds, each at five severities, computed and never downloaded.

Hendrycks, Dietterich: Benchmarking neural network robustness to common corruptions and perturbations, ICLR 2019,
arXiv 1903.12261, section 4.1. The paper's fifteenth, frost, is left out: it lays photographs over the images.

The parameters are the published ones: those of CIFAR-10-C for images whose longer side has 64 pixels or fewer,
those of ImageNet-C for larger ones. Results are rounded to the nearest grey level, whereas the published sets are
rounded down; only the small image of pixelate is rounded in between. ImageNet-C's images were also stored as JPEG of
quality 85; these are not.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.corruptions._images import SEVERITIES, obstacle
from zoo.corruptions.blur import defocus_blur, glass_blur, motion_blur, zoom_blur
from zoo.corruptions.digital import contrast, elastic_transform, jpeg_compression, pixelate
from zoo.corruptions.noise import gaussian_noise, impulse_noise, shot_noise
from zoo.corruptions.weather import brightness, fog, snow

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]
"""Maps images uint8 (B, C, H, W), severity and generator to corrupted images of the same shape, uint8, on their device.

B >= 1, C is 1 or 3, H and W are 8 or more; the severity is 1 (mildest) to 5; the generator lives on the CPU. Noise is
drawn image by image: corrupting a batch in parts, one after the other with one generator, gives the same images.

Raises:
    UserError: the severity is none of 1..5, or the images are not as above.
"""

CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
"""Corruptions by name, in the paper's order."""

__all__ = ["CORRUPTIONS", "SEVERITIES", "Corruption", "obstacle"]
