"""Noise: every number of an image changes independently. For arguments and errors see `zoo.corruptions.Corruption`."""

import torch
from torch import Tensor

from zoo.corruptions._images import parameters, per_image, to_bytes, to_unit


def gaussian_noise(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Add normal noise, as of a sensor in poor light."""
    sigma = parameters(images, severity, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38))
    (noise,) = per_image(images, lambda: [torch.randn(images.shape[1:], generator=generator)])
    return to_bytes(to_unit(images) + sigma * noise)


def shot_noise(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Count photons: the mean of the Poisson distribution is the brightness times the photons of a white pixel."""
    photons = parameters(images, severity, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3))
    (chance,) = per_image(images, lambda: [torch.rand(images.shape[1:], generator=generator)])
    return to_bytes(_quantiles(images, chance, photons) / photons)


def impulse_noise(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Set a share of all numbers to 0 or 255 with equal probability (salt and pepper, in each channel separately)."""
    share = parameters(images, severity, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27))
    (chance,) = per_image(images, lambda: [torch.rand(images.shape[1:], generator=generator)])
    return images.masked_fill(chance < share, 255).masked_fill(chance < share / 2, 0)


def _quantiles(images: Tensor, chance: Tensor, photons: int) -> Tensor:
    """Return Poisson quantiles, at most ``photons``, of each grey level's distribution at chances in [0, 1).

    torch.poisson would take more random numbers for some grey levels than for others, so that one image's noise would
    depend on the images before it. There are only 256 distributions: one sorted table holds them all, grey level v from
    2v on.
    """
    device = images.device
    levels = torch.arange(256, dtype=torch.float64, device=device)[:, None]
    counts = torch.arange(photons, dtype=torch.float64, device=device)
    means = levels / 255 * photons
    below = (torch.xlogy(counts, means) - means - torch.lgamma(counts + 1)).exp().cumsum(1)
    wanted = 2.0 * images + chance.double()
    found = torch.searchsorted((2 * levels + below).flatten(), wanted.contiguous(), right=True)
    return found - photons * images.long()
