"""Weather: snow, fog and light. For arguments and errors see `zoo.corruptions.Corruption`."""

import torch
from torch import Tensor

from zoo.corruptions._borders import zoomed
from zoo.corruptions._filters import motion_blurred
from zoo.corruptions._images import parameters, per_image, to_bytes, to_unit

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey image (ITU-R BT.601)."""


def snow(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Whiten the image and lay flakes over it: enlarged noise above a threshold, smeared downwards.

    ImageMagick's motion blur is reimplemented, see `zoo.corruptions._filters.motion_blurred`.
    """
    mean, deviation, zoom, threshold, radius, sigma, kept = parameters(
        images,
        severity,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    )
    shape = (1, *images.shape[2:])
    noise, chance = per_image(
        images, lambda: [torch.randn(shape, generator=generator), torch.rand((), generator=generator)]
    )
    flakes = zoomed(mean + deviation * noise, zoom).clamp(0, 1)
    flakes = torch.where(flakes < threshold, 0.0, flakes)
    flakes = motion_blurred(flakes, radius, sigma, 90 * chance - 135)
    x = to_unit(images)
    white = torch.maximum(x, 1.5 * _grey(x) + 0.5)
    return to_bytes(kept * x + (1 - kept) * white + flakes + flakes.flip(2, 3))


def fog(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Lay a plasma fractal over the image, then darken it so that its brightest number stays what it was."""
    density, decay = parameters(
        images,
        severity,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    )
    h, w = images.shape[2:]
    side = 1 << (max(h, w) - 1).bit_length()
    (noise,) = per_image(images, lambda: [torch.rand((side, side), generator=generator)])
    haze = _plasma(2 * noise - 1, decay)[:, None, :h, :w]
    x = to_unit(images)
    brightest = x.amax((1, 2, 3), keepdim=True)
    return to_bytes((x + density * haze) * brightest / (brightest + density))


def brightness(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Raise the value of the colour in HSV, which is its largest channel; nothing is random.

    Multiplying all channels alike preserves hue and saturation, so no conversion to HSV and back is needed.
    """
    more = parameters(images, severity, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5))
    x = to_unit(images)
    value = x.amax(1, keepdim=True)
    raised = (value + more).clamp_max(1)
    # Black has no hue: it becomes grey.
    return to_bytes(torch.where(value > 0, x * raised / value.clamp_min(1 / 255), raised))


def _grey(x: Tensor) -> Tensor:
    """Return the luma (B, 1, H, W) of x (B, C, H, W)."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def _plasma(noise: Tensor, decay: float) -> Tensor:
    """Return height maps in [0, 1] by the diamond-square algorithm on a torus: (B, S, S) to (B, S, S).

    A point is the mean of the four around it, which are halfway nearer each time, plus its noise, whose amplitude
    falls by decay^2 each time.
    Source: Fournier, Fussell, Carpenter: Computer rendering of stochastic models, CACM 25(6), 1982.

    Args:
        noise: of each point, in [-1, 1]; S is a power of two.
        decay: above 0.
    """
    heights, step, amplitude = torch.zeros_like(noise), noise.shape[1], 1.0
    while step > 1:
        half = step // 2
        corners = heights[:, ::step, ::step]
        right, below = corners.roll(-1, 2), corners.roll(-1, 1)
        centres = (corners + right + below + right.roll(-1, 1)) / 4 + amplitude * noise[:, half::step, half::step]
        above = (corners + right + centres + centres.roll(1, 1)) / 4 + amplitude * noise[:, ::step, half::step]
        beside = (corners + below + centres + centres.roll(1, 2)) / 4 + amplitude * noise[:, half::step, ::step]
        heights[:, half::step, half::step] = centres
        heights[:, ::step, half::step] = above
        heights[:, half::step, ::step] = beside
        step, amplitude = half, amplitude / decay**2
    heights = heights - heights.amin((1, 2), keepdim=True)
    return heights / heights.amax((1, 2), keepdim=True)
