"""The folders of an image tree: which split is where, and which classes there are."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from zoo.data._image_files import is_image, visible_files, visible_folders
from zoo.errors import UserError

TRAIN = ("train", "training")
VAL = ("val", "valid", "validation")
TEST = ("test", "testing")
FORMS = "DIR/train/CLASS/* with DIR/test/CLASS/* or DIR/val/CLASS/* or both, or DIR/CLASS/* with --test-fraction 0.2"


@dataclass(frozen=True)
class Folders:
    """A tree of folders of classes.

    Attributes:
        train: holds a folder per class.
        val: the same, where the tree has both this and ``test``.
        test: what networks are measured on; None: images held out of ``train``.
        class_names: sorted.
    """

    train: Path
    val: Path | None
    test: Path | None
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, root: Path, test_fraction: float | None) -> "Folders":
        """Look at a tree.

        Args:
            root: holds the splits, or the classes.
            test_fraction: share of the training images that is held out as a test split, if that was asked for.

        Raises:
            UserError: it is no such tree, it has a test split besides the share, or classes that cannot be told apart.
        """
        train = _named(root, TRAIN)
        if train is None or (test_fraction is not None and not visible_folders(train)):
            return cls(root, None, None, _flat_classes(root, test_fraction))
        val, test = _named(root, VAL), _named(root, TEST)
        if test_fraction is not None and test is not None:
            raise UserError(f"--test-fraction {test_fraction:g}: {root} has a test split, {test}; leave it out")
        if test is None and test_fraction is None:  # a tree of two splits is trained on one, and measured on the other
            val, test = None, val
        found = cls(train, val, test, _class_names(train))
        found._check_other_classes()
        return found

    @property
    def parts(self) -> dict[str, Path]:
        """The folders that there are, by split."""
        return {
            name: folder
            for name, folder in (("train", self.train), ("validation", self.val), ("test", self.test))
            if folder is not None
        }

    def images(self, folder: Path) -> Iterator[tuple[Path, int]]:
        """Yield the image files of a split with their labels."""
        for label, name in enumerate(self.class_names):
            for path in self._files[folder / name]:
                if is_image(path):
                    yield path, label

    @property
    def other_files(self) -> dict[str, int]:
        """How many files that are no images lie in the folders of the classes, by suffix."""
        others = [path for paths in self._files.values() for path in paths if not is_image(path)]
        return dict(Counter(path.suffix.lower() or "no suffix" for path in others).most_common())

    @cached_property
    def _files(self) -> dict[Path, list[Path]]:
        """The files of each class in each split, which are listed once."""
        classes = [folder / name for folder in self.parts.values() for name in self.class_names]
        return {folder: visible_files(folder) for folder in classes}

    def check_images(self) -> None:
        """Check that every class has training images, and every other split some.

        Raises:
            UserError: one has none.
        """
        present = {label for _, label in self.images(self.train)}
        if empty := [str(self.train / name) for i, name in enumerate(self.class_names) if i not in present]:
            if len(empty) == 1:
                raise UserError(f"class folder {empty[0]} holds no images: put some there, or remove it")
            raise UserError(f"class folders {', '.join(empty)} hold no images: put some there, or remove them")
        for folder in (self.val, self.test):
            if folder is not None and not any(True for _ in self.images(folder)):
                raise UserError(f"{folder} holds no images of the classes in {self.train}")

    def _check_other_classes(self) -> None:
        """Refuse classes without training images, which would make figures wrong or impossible."""
        for folder in (self.val, self.test):
            unknown = sorted(set(visible_folders(folder)) - set(self.class_names)) if folder is not None else []
            if not unknown or folder is None:
                continue
            where = ", ".join(str(folder / name) for name in unknown)
            alike = {name.casefold(): name for name in self.class_names}
            if near := alike.get(unknown[0].casefold()):
                hint = f"{self.train / near} differs in case only, so rename one of the two"
            else:
                hint = f"take {'it' if len(unknown) == 1 else 'them'} away, or give training images"
            raise UserError(
                f"{where} {'is not a class' if len(unknown) == 1 else 'are not classes'} of {self.train}: {hint}"
            )


def stray_files(folder: Path) -> int:
    """Return how many images lie beside the class folders of a split, where they belong to no class."""
    return sum(path.is_file() and not path.name.startswith(".") and is_image(path) for path in folder.iterdir())


def _named(root: Path, names: tuple[str, ...]) -> Path | None:
    """Return the folder of one of these names, in any case."""
    found = {name.casefold(): root / name for name in reversed(visible_folders(root))}
    return next((found[name] for name in names if name in found), None)


def _flat_classes(root: Path, test_fraction: float | None) -> tuple[str, ...]:
    names = visible_folders(root)
    if test_fraction is None and len(names) > 1:
        raise UserError(
            f"{root} has no folder train: if its {len(names)} folders, such as {names[0]}, are the classes, hold some "
            "of their images out to measure on with --test-fraction 0.2"
        )
    if len(names) < 2:
        raise UserError(f"{root} is not a tree of images, which is {FORMS}")
    return _class_names(root)


def _class_names(folder: Path) -> tuple[str, ...]:
    names = visible_folders(folder)
    if len(names) < 2:
        raise UserError(f"{folder} must hold one folder per class, at least two; it has {len(names)}")
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.casefold(), []).append(name)
    if alike := [" and ".join(group) for group in groups.values() if len(group) > 1]:
        raise UserError(f"{folder} has classes that differ in case only, {'; '.join(alike)}: merge them, or rename one")
    return names
