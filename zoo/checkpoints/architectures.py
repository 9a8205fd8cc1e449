"""Which of timm's common architectures a checkpoint is, by the names and shapes of its tensors."""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import timm
import torch
from torch import Tensor, nn

from zoo.checkpoints.readings import Reading, best_reading

T = TypeVar("T")
COMMON = (
    ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "resnext50_32x4d"),
    ("vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn", "vgg11", "vgg13", "vgg16", "vgg19"),
    ("densenet121", "densenet161", "densenet169", "densenet201"),
    ("mobilenetv2_100", "mobilenetv2_050", "mobilenetv2_140"),
    ("mobilenetv3_small_100", "mobilenetv3_large_100"),
    ("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4"),
    ("regnety_004", "regnety_008", "regnety_016", "regnety_032", "regnetx_004", "regnetx_008"),
    ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "vit_small_patch32_224",
     "vit_base_patch32_224"),
    ("convnext_tiny", "convnext_atto", "convnext_nano", "convnext_small", "convnext_base"),
    ("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224", "swin_base_patch4_window7_224"),
    ("mixer_b16_224", "mixer_s16_224"),
)  # fmt: skip
"""Architectures by family, the first of which stands for its family in the first round."""
ALIKE = 0.95
"""Similarity, or share of tensors that fit, at which no further one is looked at."""


def closest(tensors: Mapping[str, Tensor]) -> tuple[str, float]:
    """Return the common architecture that most tensors fit, and the share that does, of the larger side, in 0..1.

    Takes seconds: models are built on the meta device, without weights.

    Args:
        tensors: by their names in the file.
    """
    shapes = {name: tensor.to("meta") for name, tensor in tensors.items()}
    family, _ = _first_alike(COMMON, lambda family: _similarity(_read(shapes, family[0])))
    return _first_alike(family, lambda arch: _share(_read(shapes, arch)))


def _first_alike(candidates: Iterable[T], score: Callable[[T], float]) -> tuple[T, float]:
    """Return the first candidate with a score of `ALIKE`, or the one with the highest, and its score."""
    scores: dict[T, float] = {}
    for candidate in candidates:
        scores[candidate] = score(candidate)
        if scores[candidate] >= ALIKE:
            break
    best = max(scores, key=lambda candidate: scores[candidate])
    return best, scores[best]


def _read(tensors: Mapping[str, Tensor], arch: str) -> Reading:
    return best_reading(tensors, _build(arch))


def _build(arch: str) -> nn.Module:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: nn.Module = timm.create_model(arch)
    return model


def _similarity(reading: Reading) -> float:
    """Return how alike the names are, numbers left out, in 0..1: members of a family differ in the numbers."""
    ours, theirs = ({re.sub(r"\d+", "#", name) for name in names} for names in (reading.own, reading.tensors))
    return len(ours & theirs) / len(ours | theirs)


def _share(reading: Reading) -> float:
    return reading.fit[0] / max(len(reading.own), len(reading.tensors))
