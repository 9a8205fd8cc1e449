"""What the user's own data sets have in common: their size, their splits, and a summary before a training."""

from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from zoo.data._augment import Augmentation
from zoo.data._base import Augment, DataSet, Source, TensorSource
from zoo.data._encoded import Encoded, EncodedSource
from zoo.data._random_crops import RandomCrops
from zoo.data._split import held_out
from zoo.data._summary import table
from zoo.errors import UserError
from zoo.runtime.processors import usable_processors

IN_MEMORY = 2 * 2**30
"""Splits of at most this many bytes are decoded once and kept as one tensor; larger ones are decoded per batch."""
SMALL = 64
"""Images of more pixels a side are photographs, of which parts are cut out at random in a training."""
HELD_OUT = 0.1
"""Share of the training images that is held out as a test split where there is none, and no other share is given."""


class OwnImages(DataSet):
    """A data set of the user's own; a subclass fills `read`.

    Attributes:
        title: the data set in the summary, such as its folder.
        test_fraction: the share that was asked to be held out as a test split, if one was.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    own = True
    normalization = "ImageNet's"
    title: str

    def __init__(
        self, root: Path | None, download: bool, image_size: int | None, test_fraction: float | None = None
    ) -> None:
        super().__init__(root, download, image_size)
        if test_fraction is not None and not 0 < test_fraction < 1:
            raise UserError(f"test-fraction must be in (0, 1), the share held out to measure on: got {test_fraction:g}")
        self.test_fraction = test_fraction
        self.size = 224 if image_size is None else image_size
        self.image_shape = (3, self.size, self.size)
        self.augmentation: Augment = (
            Augmentation(self.size // 8, flip=True) if self.size <= SMALL else RandomCrops(self.size)
        )

    def __deepcopy__(self, memo: object) -> "OwnImages":
        # A copy of the training module (such as an average of its weights) shares it: it is read only.
        return self

    @abstractmethod
    def read(self) -> dict[str, Encoded]:
        """Return the images of each split: ``train``, and ``validation`` and ``test`` where there are such."""

    def key(self, images: Encoded, row: int) -> str:
        """Return what an image is called wherever the data set lies; who is held out depends on it."""
        return images.where(row)

    def hold_out(self, name: str) -> None:
        """Note that test images are held out of the training images, which are called so in messages."""
        self.test_note = f"held-out training images, {100 * (self.test_fraction or HELD_OUT):g} % of {name}"

    @cached_property
    def splits(self) -> dict[str, Encoded]:
        """The images of each split, some held out as the test split where there is none."""
        found = self.read()
        if "test" not in found:
            images = found["train"]
            keys = [self.key(images, row) for row in range(len(images.labels))]
            held = held_out(keys, images.labels, self.test_fraction or HELD_OUT)
            found["train"] = images.rows([row for row in range(len(keys)) if row not in held])
            found["test"] = images.rows(sorted(held))
        self._check(found)
        return found

    def source(self, train: bool) -> Source:
        """Return the split as one tensor if it is small, decoded batch by batch otherwise.

        Raises:
            UserError: images cannot be read.
        """
        splits = self.splits
        images = splits["train"].then(splits.get("validation")) if train else splits["test"]
        labels = torch.tensor(images.labels)
        source = EncodedSource(images, labels, self.size, ThreadPoolExecutor(usable_processors()))
        if len(labels) * 3 * self.size**2 > IN_MEMORY:
            return source
        return TensorSource(source.fetch(torch.arange(len(labels))), labels)

    def train_val(self, labels: Tensor, val_fraction: float) -> tuple[Tensor, Tensor]:
        """Return the rows of the train and of the validation split; without one, some of the former are kept for it."""
        if "validation" not in self.splits:
            return super().train_val(labels, val_fraction)
        train, every = torch.arange(len(self.splits["train"].labels)), torch.arange(len(labels))
        val = every[len(train) :] if val_fraction else every[:0]
        # In random order: the first few are then of all classes.
        return train, val[torch.randperm(len(val), generator=torch.Generator().manual_seed(0))]

    def summary(self, val_fraction: float) -> tuple[str, ...]:
        """Return the number of images by split and class, and what else is known of them, in lines."""
        labels: dict[str, Tensor] = {split: torch.tensor(images.labels) for split, images in self.splits.items()}
        notes = {"test": self.test_note} if self.test_note else {}
        if not val_fraction:
            labels.pop("validation", None)
        elif "validation" not in labels:
            train, val = self.train_val(labels["train"], val_fraction)
            labels |= {"train": labels["train"][train], "validation": labels["train"][val]}
            notes["validation"] = f"{100 * val_fraction:g} % of the training images"
        k = len(self.class_names)
        counts: dict[str, list[int]] = {
            split: labels[split].bincount(minlength=k).tolist()
            for split in ("train", "validation", "test")
            if split in labels
        }
        total = sum(map(sum, counts.values()))
        return (
            f"{self.title}: {total:,} images of {k} classes",
            *table(self.class_names, counts),
            *(f"{split}: {note}" for split, note in (self.places() | notes).items() if note and split in counts),
            *self.details(),
        )

    def places(self) -> dict[str, str]:
        """Return where the images of each split come from, in words, as far as there is something to say."""
        return {}

    def details(self) -> Sequence[str]:
        """Return further lines of the summary."""
        return ()

    def _check(self, splits: dict[str, Encoded]) -> None:
        present = set(splits["train"].labels)
        if lost := [name for label, name in enumerate(self.class_names) if label not in present]:
            raise UserError(
                f"{self.title}: no image of {', '.join(lost)} is left to train on: add some, or repair some"
            )
        if empty := [split for split, images in splits.items() if not images.labels]:
            raise UserError(f"{self.title}: no image is left for {', '.join(empty)}: add some, or repair those there")
