"""Any tree of image files, one folder per class."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from zoo.data._augment import Augmentation
from zoo.data._base import Augment, DataSet, Source, TensorSource
from zoo.data._file_source import FileSource
from zoo.data._folders import FORMS, Folders, stray_files
from zoo.data._inspect import Inspected, inspect_all, refusal, relative
from zoo.data._random_crops import RandomCrops
from zoo.data._summary import Summary
from zoo.errors import UserError
from zoo.runtime.processors import usable_processors

IN_MEMORY = 2 * 2**30
"""Splits of at most this many bytes are decoded once and kept as one tensor; larger ones are decoded per batch."""
SMALL = 64
"""Images of more pixels a side are photographs, of which parts are cut out at random in a training."""
HELD_OUT = 0.1
"""Share of the training images that is held out as a test split where there is none, and no other share is given."""


@dataclass(frozen=True)
class Row:
    """A usable image of a split, with its label."""

    image: Inspected
    label: int


class ImageFolder(DataSet):
    """Any tree of image files, in folders of classes; --image-size gives their side.

    DIR/train/CLASS/* with DIR/test/CLASS/* or DIR/val/CLASS/*, or both, and then the training is validated on val. A
    train split alone, or DIR/CLASS/* with ``test_fraction``: some of its images are held out to measure on, the same
    ones as long as the files keep their names.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    own = True
    options: ClassVar[dict[str, type]] = {"test_fraction": float, "skip_corrupt": bool}
    normalization = "ImageNet's"

    def __init__(
        self,
        root: Path | None,
        download: bool,
        image_size: int | None,
        *,
        test_fraction: float | None = None,
        skip_corrupt: bool = False,
    ) -> None:
        super().__init__(root, download, image_size)
        if root is None:
            raise UserError(f"imagefolder needs --data-dir DIR with {FORMS}")
        if not root.is_dir():
            raise UserError(f"imagefolder: there is no folder {root}; correct --data-dir")
        if test_fraction is not None and not 0 < test_fraction < 1:
            raise UserError(f"test-fraction must be in (0, 1), the share held out to measure on: got {test_fraction:g}")
        # Large photographs are no attack here: they are the user's own, and the summary names them.
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", message="Corrupt EXIF data")  # such images are taken as they lie
        self.folder, self.skip_corrupt = root, skip_corrupt
        self.size = 224 if image_size is None else image_size
        self.image_shape = (3, self.size, self.size)
        self.augmentation: Augment = (
            Augmentation(self.size // 8, flip=True) if self.size <= SMALL else RandomCrops(self.size)
        )
        self.folders = Folders.of(root, test_fraction)
        self.folders.check_images()
        self.class_names = self.folders.class_names
        self.held_out = (test_fraction or HELD_OUT) if self.folders.test is None else 0.0
        if self.held_out:
            where = f"{self.folders.train.name}/" if self.folders.train != root else "the images"
            self.test_note = f"held-out training images, {100 * self.held_out:g} % of {where}"

    def source(self, train: bool) -> Source:
        """Return the split as one tensor if it is small, decoded batch by batch otherwise.

        Raises:
            UserError: images cannot be read, of whichever split; all of them are named.
        """
        if train:
            rows = [*self._rows["train"], *self._rows.get("validation", ())]
        else:
            rows = self._rows["test"]
        labels = torch.tensor([row.label for row in rows])
        paths = tuple(row.image.path for row in rows)
        source = FileSource(paths, labels, self.size, ThreadPoolExecutor(usable_processors()))
        if len(paths) * 3 * self.size**2 > IN_MEMORY:
            return source
        return TensorSource(source.fetch(torch.arange(len(paths))), source.labels)

    def train_val(self, labels: Tensor, val_fraction: float) -> tuple[Tensor, Tensor]:
        """Return the rows of ``train`` and of ``val``; without the latter, some of ``train`` are for validation."""
        if "validation" not in self._rows:
            return super().train_val(labels, val_fraction)
        train, every = torch.arange(len(self._rows["train"])), torch.arange(len(labels))
        val = every[len(train) :] if val_fraction else every[:0]
        # In random order: the first few are then of all classes.
        return train, val[torch.randperm(len(val), generator=torch.Generator().manual_seed(0))]

    def summary(self, val_fraction: float) -> tuple[str, ...]:
        """Return the number of images by split and class, their sizes, and what is skipped and why, in lines."""
        labels = {split: torch.tensor([row.label for row in rows]) for split, rows in self._rows.items()}
        validation = ""
        if "validation" not in labels and val_fraction:
            train, val = self.train_val(labels["train"], val_fraction)
            labels |= {"train": labels["train"][train], "validation": labels["train"][val]}
            validation = f"{100 * val_fraction:g} % of the training images"
        return Summary(
            root=self.folder,
            class_names=self.class_names,
            counts={
                split: labels[split].bincount(minlength=len(self.class_names)).tolist()
                for split in ("train", "validation", "test")
                if split in labels and (split != "validation" or val_fraction)
            },
            images=[row.image for rows in self._rows.values() for row in rows],
            sources={
                "validation": validation or (f"{self.folders.val.name}/" if self.folders.val else ""),
                "test": self.test_note or (f"{self.folders.test.name}/" if self.folders.test else ""),
            },
            damaged=self._damaged,
            other_files=self.folders.other_files,
            stray=sum(stray_files(folder) for folder in self.folders.parts.values()),
        ).lines()

    @cached_property
    def _damaged(self) -> list[Inspected]:
        return [each for each, _, _ in self._inspected if each.problem]

    @cached_property
    def _inspected(self) -> list[tuple[Inspected, int, str]]:
        """Every image with its label and the folder's split, looked at once for all splits."""
        listed = [(*found, split) for split, folder in self.folders.parts.items() for found in self.folders.images(folder)]
        inspected = inspect_all(self.folder, [path for path, _, _ in listed])
        return [(each, label, split) for each, (_, label, split) in zip(inspected, listed, strict=True)]

    @cached_property
    def _rows(self) -> dict[str, list[Row]]:
        """The usable images by split, in the order of the labels."""
        if self._damaged and not self.skip_corrupt:
            raise refusal(self.folder, self._damaged)
        rows: dict[str, list[Row]] = {split: [] for split in self.folders.parts}
        for each, label, split in self._inspected:
            if not each.problem:
                rows[split].append(Row(each, label))
        if self.held_out:
            rows["train"], rows["test"] = self._hold_out(rows["train"])
        self._check_left(rows)
        return rows

    def _hold_out(self, rows: list[Row]) -> tuple[list[Row], list[Row]]:
        """Split by names: at least one image of a class stays, one is held out if there are two, and others may come."""
        chosen: set[Path] = set()
        for label in range(len(self.class_names)):
            own = [row.image.path for row in rows if row.label == label]
            own.sort(key=lambda path: sha256(relative(self.folders.train, path).encode()).digest())
            n = min(max(1, round(self.held_out * len(own))), len(own) - 1)
            chosen.update(own[: max(0, n)])
        train = [row for row in rows if row.image.path not in chosen]
        return train, [row for row in rows if row.image.path in chosen]

    def _check_left(self, rows: dict[str, list[Row]]) -> None:
        present = {row.label for row in rows["train"]}
        if lost := [name for label, name in enumerate(self.class_names) if label not in present]:
            raise UserError(
                f"no image of {', '.join(lost)} is left in {self.folders.train} without those that cannot be read: "
                "repair some, or remove the folder"
            )
        for split, found in rows.items():
            if not found:
                raise UserError(f"{self.folder}: no image is left for {split}: add images, or repair those there")
