"""Shards of images: tar files as webdataset writes them, read where they lie."""

import os
import re
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import ClassVar, NamedTuple

from zoo.data._encoded import Encoded
from zoo.data._image_files import is_image, visible_files
from zoo.data._own_images import OwnImages
from zoo.errors import UserError, first_line

NAMES = {"train": r"train", "validation": r"val(id(ation)?)?", "test": r"test"}
"""How the folder or the file name of a shard says which split it belongs to."""
CLASSES = "classes.txt"


class Member(NamedTuple):
    """Bytes in a shard."""

    shard: Path
    name: str
    offset: int
    size: int

    def bytes(self) -> bytes:
        """Read them; several threads may do so at once, as each opens the file anew."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class WebDataset(OwnImages):
    """Tar shards of images and labels (KEY.jpg beside KEY.cls), for millions of them; --image-size gives their side.

    DIR/train/*.tar and DIR/test/*.tar, or DIR/train-000.tar and DIR/test-000.tar (``val`` likewise; without either,
    some images are held out to measure on). A label is a whole number or a name; DIR/classes.txt names the numbers, a
    line each. Nothing is unpacked: the shards are indexed once, and images read at their place, in any order.
    """

    options: ClassVar[dict[str, type]] = {"test_fraction": float}

    def __init__(
        self, root: Path | None, download: bool, image_size: int | None, *, test_fraction: float | None = None
    ) -> None:
        super().__init__(root, download, image_size, test_fraction)
        if root is None or not root.is_dir():
            raise UserError(f"webdataset: {root or 'no folder'} is not a folder of shards: give one with --data-dir")
        self.folder, self.title = root, str(root)
        shards = _by_split(root)
        self._samples = _indexed({split: paths for split, paths in shards.items() if paths})
        labels = {label for samples in self._samples.values() for _, label in samples}
        self.class_names = _class_names(root, labels)
        if "test" not in self._samples:
            if "validation" in self._samples and test_fraction is None:  # of two splits, the second is measured on
                self._samples["test"] = self._samples.pop("validation")
            else:
                self.hold_out("the train shards")
        elif test_fraction is not None:
            raise UserError(f"--test-fraction {test_fraction:g}: {root} has shards of a test split; leave it out")

    def read(self) -> dict[str, Encoded]:
        """Return the images of each split."""
        index = {name: i for i, name in enumerate(self.class_names)}
        by_number = all(re.fullmatch(r"\d+", label) for samples in self._samples.values() for _, label in samples)

        def encoded(samples: list[tuple[Member, str]]) -> Encoded:
            labels = tuple(int(label) if by_number else index[label] for _, label in samples)
            return Encoded(
                labels,
                lambda row: BytesIO(samples[row][0].bytes()),
                lambda row: f"{samples[row][0].shard}: {samples[row][0].name}",
            )

        return {split: encoded(samples) for split, samples in self._samples.items()}

    def key(self, images: Encoded, row: int) -> str:
        """Return an image's name in its shard."""
        return images.where(row).removeprefix(f"{self.folder}").replace(os.sep, "/")  # the same choice on every system

    def details(self) -> Sequence[str]:
        """Return the number of shards."""
        shards = {member.shard for samples in self._samples.values() for member, _ in samples}
        size = sum(shard.stat().st_size for shard in shards)
        return [f"shards: {len(shards):,}, {size / 1e9:.3g} GB"]


def _by_split(root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {split: [] for split in NAMES}
    unknown = []
    for path in (file for file in visible_files(root) if file.suffix == ".tar"):
        name = path.relative_to(root).as_posix().lower()
        splits = [split for split, words in NAMES.items() if re.match(rf"(.*[^a-z])?({words})([^a-z]|$)", name)]
        if len(splits) == 1:
            found[splits[0]].append(path)
        else:
            unknown.append(path)
    if not found["train"] and unknown and not found["test"] and not found["validation"]:
        found["train"], unknown = unknown, []
    if not found["train"]:
        raise UserError(f"{root} has no shards to train on: it needs DIR/train/*.tar or DIR/train-*.tar")
    if unknown:
        raise UserError(f"{', '.join(map(str, unknown[:10]))}: name the split, train, val or test, of these shards")
    return found


def _indexed(shards: dict[str, list[Path]]) -> dict[str, list[tuple[Member, str]]]:
    """Read the headers of all shards, and the labels.

    Raises:
        UserError: shards end early or are not tar files (all are named), or images have no label.
    """
    found: dict[str, list[tuple[Member, str]]] = {split: [] for split in shards}
    damaged, unlabelled = [], []
    for split, paths in shards.items():
        for path in paths:
            try:
                images, labels = _members(path)
            except (tarfile.TarError, OSError, EOFError, ValueError) as error:
                damaged.append(f"{path} ({first_line(error)})")
                continue
            unlabelled += [f"{path}: {member.name}" for key, member in images.items() if key not in labels]
            found[split] += [(member, labels[key]) for key, member in images.items() if key in labels]
    if damaged:
        end = (
            "ends early or is not a tar file: copy it again" if len(damaged) == 1 else "end early or are not tar files"
        )
        raise UserError(f"{', '.join(damaged)} {end}")
    if unlabelled:
        more = f", {len(unlabelled) - 10} more" if len(unlabelled) > 10 else ""
        raise UserError(f"images without a label (KEY.cls beside KEY.jpg): {', '.join(unlabelled[:10])}{more}")
    if empty := [split for split, samples in found.items() if not samples]:
        raise UserError(f"the shards for {', '.join(empty)} hold no images with labels (KEY.jpg beside KEY.cls)")
    return found


def _members(path: Path) -> tuple[dict[str, Member], dict[str, str]]:
    """Return the images and the labels of a shard by their key: the name up to the first dot behind the last slash."""
    images: dict[str, Member] = {}
    labels: dict[str, Member] = {}
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            if not info.isfile() or Path(info.name).name.startswith("."):
                continue
            folder, _, name = info.name.rpartition("/")
            base, _, suffix = name.partition(".")
            key, member = f"{folder}/{base}", Member(path, info.name, info.offset_data, info.size)
            if suffix.lower() == "cls":
                labels[key] = member
            elif is_image(Path(f"x.{suffix}")):
                images[key] = member
        end = tar.offset
    # tarfile takes a file that ends between two members, or within a header, for a whole one.
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("the end mark is missing")
    return images, {key: member.bytes().decode().strip() for key, member in labels.items()}


def _class_names(root: Path, labels: set[str]) -> tuple[str, ...]:
    """Return the names of the classes in the order of their numbers, or sorted where labels are names."""
    largest = max(map(int, labels)) if all(re.fullmatch(r"\d+", label) for label in labels) else None
    if largest is None:
        names = tuple(sorted(labels))
    elif (root / CLASSES).is_file():
        lines = (root / CLASSES).read_text(encoding="utf-8").splitlines()
        names = tuple(line.strip() for line in lines if line.strip())
        if largest >= len(names):
            raise UserError(f"{root / CLASSES} names {len(names)} classes, and there is a label {largest}")
    elif largest >= len(labels):  # a class without images could not be trained
        raise UserError(
            f"{root}: the labels go up to {largest}, and there are {len(labels)} different ones: number the classes "
            f"from 0 without gaps, or name them in {root / CLASSES}"
        )
    else:
        names = tuple(f"class_{i}" for i in range(largest + 1))
    if len(names) < 2:
        raise UserError(f"{root}: the shards have images of one class, and need two at least")
    return names
