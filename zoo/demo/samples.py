"""Sample pictures of a page, and the adversarial directions along which its slider moves them.

A direction is what an attack found, in levels of an 8-bit pixel, scaled to the radius at the slider's end. The slider
stops at whole levels, and the pictures at its stops have 8 bits, so what the page shows is what the networks see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from zoo.attacks.pgd import PGD
from zoo.backbone.folded import folded
from zoo.data import load_test
from zoo.demo.networks import Network
from zoo.errors import UserError
from zoo.latency.session import OnnxModel
from zoo.runs.card import Card

LEVELS = 255
"""The largest value of an 8-bit pixel."""
DRAWN = 200
"""Test images among which samples are looked for, at least."""
STEPS = 20
ATTACK = PGD(norm="Linf", steps=STEPS, random_start=False)
ATTACK_NAME = f"PGD-{STEPS}, Linf"


@dataclass(frozen=True)
class Samples:
    """Pictures that every network classifies correctly: uint8 (N, C, H, W), their classes (N,), and of how many."""

    images: Tensor
    labels: Tensor
    drawn: int


@dataclass(frozen=True)
class Slide:
    """What one network answers along its own direction from each picture.

    Attributes:
        delta: the change at the slider's end, in levels, int8 (N, C, H, W).
        classes: the answer at each stop, int64 (N, radius + 1).
        confidence: the probability of the picture's own class there, (N, radius + 1).
    """

    delta: Tensor
    classes: Tensor
    confidence: Tensor


def moved(images: Tensor, delta: Tensor, stop: int, radius: int) -> Tensor:
    """Return 8-bit pictures moved by stop/radius of a change, rounded half up; the page does the same.

    Args:
        images: uint8 (N, C, H, W).
        delta: the change at the slider's end, in levels.
        stop: of the slider, 0 to radius.
        radius: the last stop.
    """
    change = (2 * stop * delta.int() + radius).div(2 * radius, rounding_mode="floor")
    return (images.int() + change).clamp(0, LEVELS).to(torch.uint8)


def choose_samples(
    networks: Sequence[Network], count: int, data_dir: Path | None = None, download: bool = False
) -> Samples:
    """Return the first test images of each class that every network classifies correctly: one of each class, then more.

    Args:
        networks: of one task.
        count: how many images, at most.
        data_dir: where the data set's files are; default: where a training found them.
        download: fetch them if they are missing.

    Raises:
        UserError: the data set is not at hand, or no image is classified correctly by all.
    """
    card = networks[0].run.card
    data_dir = data_dir or next((n.run.data_dir for n in networks if n.run.data_dir), None)
    images, labels = load_test(
        card.data,
        data_dir=data_dir,
        download=download,
        image_shape=card.image_shape,
        class_names=card.class_names,
        n=max(DRAWN, 4 * count),
    )
    right = torch.ones(len(labels), dtype=torch.bool)
    for network in networks:
        right &= answers(network.file, images)[0] == labels
    rows = right.nonzero().flatten().tolist()
    if not rows:
        raise UserError(f"no picture of {len(labels)} is classified correctly by every network: give --samples 0")
    seen: dict[int, int] = {}
    places = {}
    for row in rows:
        label = int(labels[row])
        places[row] = (seen.get(label, 0), label)
        seen[label] = places[row][0] + 1
    chosen = sorted(rows, key=lambda row: places[row])[:count]
    return Samples(images[chosen], labels[chosen], len(labels))


def answers(file: Path, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the classes that an exported file answers, (N,), and all probabilities, (N, classes)."""
    logits = torch.from_numpy(OnnxModel(file, "cpu").logits(images.numpy().astype(np.float32) / LEVELS))
    return logits.argmax(1), logits.softmax(1)


def slide(network: Network, samples: Samples, radius: int) -> Slide:
    """Search the direction of each picture against a network, and measure its exported file along the direction."""
    delta = _directions(folded(network.run.model(), _card(network).image_shape), samples, radius)
    classes, confidence = [], []
    for stop in range(radius + 1):
        answer, probabilities = answers(network.file, moved(samples.images, delta, stop, radius))
        classes.append(answer)
        confidence.append(probabilities.gather(1, samples.labels[:, None]).flatten())
    return Slide(delta, torch.stack(classes, 1), torch.stack(confidence, 1))


def _card(network: Network) -> Card:
    return network.run.card


def _directions(model: nn.Module, samples: Samples, radius: int) -> Tensor:
    """Return the change that the attack found at the smallest radius, in whole levels, at which it succeeds.

    The change is scaled to the slider's end, so that it has the same direction; where no attack succeeds, it is that of
    the largest radius.

    Args:
        model: folded; images in [0, 1] to logits.
        samples: all classified correctly.
        radius: at the slider's end, in levels.
    """
    delta = torch.zeros(samples.images.shape, dtype=torch.int8)
    left = torch.arange(len(samples.labels))
    for level in range(1, radius + 1):
        images, labels = samples.images[left], samples.labels[left]
        start = images.float() / LEVELS
        found = ATTACK(model, start, labels, [level / LEVELS]).adversarial[0]
        scaled = ((found - start) * LEVELS * radius / level).round().clamp(-radius, radius).to(torch.int8)
        with torch.no_grad():
            fooled = model(moved(images, scaled, level, radius).float() / LEVELS).argmax(1) != labels
        done = fooled if level < radius else torch.ones_like(fooled)
        delta[left[done]] = scaled[done]
        left = left[~done]
        if not len(left):
            break
    return delta
