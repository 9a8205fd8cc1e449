"""Data sets and the sources of their images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from zoo.data._split import train_val

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Changes images (B, C, H, W), uint8, at random; the generator lives on the CPU."""


class Source(Protocol):
    """Labelled images of one split."""

    @property
    def labels(self) -> Tensor:
        """Class indices (N,), int64."""
        ...

    def fetch(self, indices: Tensor) -> Tensor:
        """Return images (B, C, H, W), uint8."""
        ...

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the images of each part of the indices, as `fetch` returns them."""
        ...

    def to(self, device: torch.device) -> "Source":
        """Move the images in memory to a device."""
        ...


@dataclass(frozen=True)
class TensorSource:
    """A split that is one tensor: images (N, C, H, W) uint8, labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def fetch(self, indices: Tensor) -> Tensor:
        """Return images (B, C, H, W), uint8."""
        return self.images[indices]

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the images of each part of the indices."""
        return map(self.fetch, parts)

    def __deepcopy__(self, memo: object) -> "TensorSource":
        # Read-only: a copy of the training module (such as an average of its weights) shares it.
        return self

    def to(self, device: torch.device) -> "TensorSource":
        """Return the split on a device."""
        return TensorSource(self.images.to(device), self.labels.to(device))


class DataSet(ABC):
    """A labelled set of images with a train and a test split.

    A subclass is in a file of its own, whose name is the data set's, and sets the attributes.

    Attributes:
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        class_names: in the order of the labels.
        image_shape: (C, H, W).
        augmentation: applied to the batches of a training.
        built_in: whether it comes with a package, so that there is no folder of files to name.
        own: whether the images are the user's own, so that nobody knows their normalisation.
        options: what may be given with its name, such as ``imagefolder(test_fraction=0.2)``, and the type of each.
        normalization: whose mean and std these are, in words.
        test_note: what is special about the test images, ``""`` if they are a split of the data set's own.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    augmentation: Augment
    built_in: bool = False
    own: bool = False
    options: ClassVar[dict[str, type]] = {}
    normalization: str = "the data set's"
    test_note: str = ""

    def __init__(self, root: Path | None, download: bool, image_size: int | None) -> None:
        self.root = root
        self.download = download

    @abstractmethod
    def source(self, train: bool) -> Source:
        """Return the train or the test split."""

    def train_val(self, labels: Tensor, val_fraction: float) -> tuple[Tensor, Tensor]:
        """Return which rows of the train split are trained on, and which are for validation; see `zoo.data.train_val`.

        Args:
            labels: of the train split.
            val_fraction: share of the images kept for validation, where the data set does not say which.
        """
        return train_val(labels, val_fraction)

    def summary(self, val_fraction: float) -> tuple[str, ...]:
        """Return what a user should know of the images before a training, in lines; nothing of a known data set."""
        return ()
