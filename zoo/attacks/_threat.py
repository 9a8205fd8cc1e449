"""The threat model: a ball of radius eps around each image, within [0, 1]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.attacks._random import RandomStreams
from zoo.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Shaped

Norm = Literal["Linf", "L2", "L1", "L0"]
"""L0 counts the pixels that differ, whatever their channels."""
NORMS: tuple[Norm, ...] = get_args(Norm)

ORDER: dict[Norm, float] = {"Linf": math.inf, "L2": 2.0, "L1": 1.0}
"""The p of each Lp norm."""

ROUNDING = 2.0**-25
"""Largest error of rounding a pixel in [0, 1] to fp32: half a unit in the last place below 1."""


def parse_eps(text: str) -> float:
    """Read a radius in pixel units of [0, 1], written as ``0.03`` or as ``8/255``.

    Raises:
        UserError: it is neither, or negative.
    """
    above, slash, below = text.strip().partition("/")
    try:
        eps = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise UserError(f"eps {text!r} is not a number: write 0.03 or 8/255") from None
    if not math.isfinite(eps) or eps < 0:
        raise UserError(f"eps {text!r} is invalid: a radius is 0 or more, such as 0.03 or 8/255")
    return eps


def format_eps(eps: float) -> str:
    """Write a radius as `parse_eps` reads it: as ``8/255`` where that is shorter than the decimal number."""
    levels = round(eps * 255)
    fraction, decimal = f"{levels}/255", f"{eps:g}"
    return fraction if abs(eps * 255 - levels) < 1e-9 and len(fraction) < len(decimal) else decimal


def check_eps(eps: float, norm: Norm, pixels: int) -> None:
    """Refuse a radius beyond the largest distance of two images: 1 for Linf, sqrt(pixels) for L2, pixels for L1 and L0.

    Args:
        eps: the radius.
        norm: of the ball.
        pixels: numbers in an image, C H W.

    Raises:
        UserError: eps is negative or larger, or no whole number in L0; the message suggests the probable intention.
    """
    largest = largest_distance(norm, pixels)
    if not eps >= 0:
        raise UserError(f"{norm} eps {eps:g} is invalid: a radius is 0 or more")
    if norm == "L0" and not float(eps).is_integer():
        raise UserError(f"L0 eps {eps:g} is not a number of pixels: give whole numbers, such as 5,10,20")
    if eps > largest:
        levels = norm in ("Linf", "L2") and float(eps).is_integer()
        meant = f"for {eps:g} of 255 grey levels give {eps:g}/255" if levels else "give a smaller one"
        raise UserError(f"{norm} eps {eps:g} exceeds any perturbation of images in [0, 1] ({largest:g}): {meant}")


def largest_distance(norm: Norm, pixels: int) -> float:
    """Return the largest distance of two images of so many numbers, C H W; in L0 pixels count once per channel."""
    return {"Linf": 1.0, "L2": math.sqrt(pixels), "L1": float(pixels), "L0": float(pixels)}[norm]


def column(x: Shaped[Tensor, " batch"]) -> Shaped[Tensor, "batch 1 1 1"]:
    """Reshape one number per image so that it multiplies images."""
    return x.view(-1, 1, 1, 1)


def distance(
    x: Float[Tensor, "batch c h w"], images: Float[Tensor, "batch c h w"], norm: Norm
) -> Float64[Tensor, " batch"]:
    """Return each image's distance in fp64; in L0 the number of pixels that differ in any channel."""
    if norm == "L0":
        return (x != images).any(1).flatten(1).sum(1).double()
    return torch.linalg.vector_norm((x.double() - images.double()).flatten(1), ORDER[norm], dim=1)


def project(
    x: Float[Tensor, "batch c h w"], images: Float[Tensor, "batch c h w"], eps: float, norm: Norm
) -> Float[Tensor, "batch c h w"]:
    """Bring x into the ball around images and into [0, 1].

    In L1 this is the nearest point of both. In Linf and L2 the clip to [0, 1] comes last: it moves every pixel towards
    the image's, so the result stays in the ball. The radius is taken a few roundings smaller, so that the fp32 result
    is inside eps exactly.
    """
    if norm == "L0":
        raise ValueError("there is no projection onto an L0 ball here")
    radius = eps * (1 - 2e-6)
    if norm == "Linf":
        radius = max(radius - ROUNDING, 0.0)
        return torch.clamp(x, images - radius, images + radius).clamp(0.0, 1.0)
    if norm == "L1":
        radius = max(radius - ROUNDING * images[0].numel(), 0.0)
        return (images + nearest_in_l1(x - images, images, radius)).clamp(0.0, 1.0)
    radius = max(radius - ROUNDING * math.sqrt(images[0].numel()), 0.0)
    delta = x - images
    length = torch.linalg.vector_norm(delta.flatten(1), dim=1).clamp_min(torch.finfo(x.dtype).tiny)
    return (images + delta * column((radius / length).clamp_max(1.0))).clamp(0.0, 1.0)


def nearest_in_l1(
    delta: Float[Tensor, "batch c h w"], images: Float[Tensor, "batch c h w"], radius: float
) -> Float[Tensor, "batch c h w"]:
    """Return the nearest change to ``delta`` with L1 length at most ``radius`` that keeps images + change in [0, 1].

    It shortens every entry by one number t, to no less than 0 and no more than the room to 0 or 1. Its length falls
    with t, with a slope that changes where an entry leaves its room or reaches 0; between two such places t is linear.
    Source: Croce, Hein: Mind the box: l1-APGD for sparse adversarial attacks on image classifiers, ICML 2021,
    arXiv 2103.01208, proposition 2.1.
    """
    size = delta.flatten(1).double().abs()
    room = torch.where(delta > 0, 1 - images, images).flatten(1).double()
    places, order = torch.cat([size - room, size], 1).sort(1)
    shrinking = torch.where(order < size.shape[1], 1.0, -1.0).cumsum(1).double()  # entries between 0 and their room
    lengths = room.sum(1, keepdim=True) - F.pad((places.diff(dim=1) * shrinking[:, :-1]).cumsum(1), (1, 0))
    last = ((lengths > radius).sum(1, keepdim=True) - 1).clamp_min(0)
    beyond = (lengths.gather(1, last) - radius) / shrinking.gather(1, last).clamp_min(1.0)
    t = (places.gather(1, last) + beyond.clamp_min(0.0)).clamp_min(0.0)
    t = torch.where(torch.minimum(size, room).sum(1, keepdim=True) <= radius, 0.0, t)
    kept = torch.minimum((size - t).clamp_min(0.0), room)
    return (kept.view_as(delta) * delta.sign()).to(delta.dtype)


def steepest(gradient: Float[Tensor, "batch c h w"], norm: Norm) -> Float[Tensor, "batch c h w"]:
    """Return the unit step that raises a linear function most: the sign (Linf), or the direction (L2); no other norm.

    An image whose gradient is zero gets the zero step. The largest entry is divided out before squaring,
    because gradients of a confident model square to zero in fp32.
    """
    if norm == "Linf":
        return gradient.sign()
    tiny = torch.finfo(gradient.dtype).tiny
    flat = gradient.flatten(1)
    flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(tiny)
    return (flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp_min(tiny)).view_as(gradient)


def random_in_ball(
    images: Float[Tensor, "batch c h w"], norm: Norm, streams: RandomStreams
) -> Float[Tensor, "batch c h w"]:
    """Return a uniform point of the unit ball for each image, from the image's own stream."""
    shape = images.shape[1:]
    if norm == "Linf":
        return (2 * streams.uniform(*shape) - 1).to(images)
    direction = steepest(streams.at(0).normal(*shape), "L2")
    radius = streams.at(1).uniform() ** (1 / images[0].numel())
    return (direction * column(radius)).to(images)


def random_on_sphere(
    images: Float[Tensor, "batch c h w"], norm: Norm, streams: RandomStreams
) -> Float[Tensor, "batch c h w"]:
    """Return a point of the unit sphere for each image: a uniform one in L2, scaled uniform noise in Linf."""
    shape = images.shape[1:]
    if norm == "L2":
        return steepest(streams.normal(*shape), "L2").to(images)
    noise = 2 * streams.uniform(*shape) - 1
    return (noise / column(noise.abs().flatten(1).amax(1))).to(images)
