"""Data sets and the sources of their images."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from zoo.data._augment import Augmentation


class Source(Protocol):
    """Labelled images of one split."""

    @property
    def labels(self) -> Tensor:
        """Class indices (N,), int64."""
        ...

    def fetch(self, indices: Tensor) -> Tensor:
        """Return images (B, C, H, W), uint8."""
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
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    augmentation: Augmentation
    built_in: bool = False

    def __init__(self, root: Path | None, download: bool, image_size: int | None) -> None:
        self.root = root
        self.download = download

    @abstractmethod
    def source(self, train: bool) -> Source:
        """Return the train or the test split."""
