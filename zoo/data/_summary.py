"""What the user's own data set holds, in lines for a user."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo.data._inspect import LARGE, Inspected, named, relative

CLASSES = 30
"""Classes that have a line of their own; of more, the range is told."""


def table(class_names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> list[str]:
    """Return the lines of a table of images by class and split.

    Args:
        class_names: in the order of the labels.
        counts: images of each class, by split.
    """
    rows = [(name, [str(of_split[i]) for of_split in counts.values()]) for i, name in enumerate(class_names)]
    if len(rows) > CLASSES:
        rows = [("each class", [_range(of_split) for of_split in counts.values()])]
    rows = [("", list(counts)), *rows, ("total", [f"{sum(of_split):,}" for of_split in counts.values()])]
    first = max(len(name) for name, _ in rows)
    widths = [max(len(cells[i]) for _, cells in rows) for i in range(len(counts))]
    return [
        "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
        for name, cells in rows
    ]


def details(
    root: Path,
    images: Sequence[Inspected],
    damaged: Sequence[Inspected],
    other_files: Mapping[str, int],
    stray: int,
) -> list[str]:
    """Return lines on the sizes of images, and on what is not used.

    Args:
        root: the folder.
        images: those that are used.
        damaged: images that are left out.
        other_files: how many files are no images, by suffix.
        stray: how many images lie beside the folders of the classes.
    """
    found = [_sizes(root, images)]
    if damaged:
        found.append(f"skipped: {len(damaged)} that cannot be used: {named(root, damaged, why=True)}")
    if other_files:
        kinds = ", ".join(f"{n} {suffix}" for suffix, n in other_files.items())
        found.append(f"skipped: {sum(other_files.values())} files that are not images: {kinds}")
    if stray:
        found.append(f"skipped: {stray} images beside the folders of the classes")
    if large := [image for image in images if image.pixels > LARGE]:
        names = ", ".join(f"{relative(root, image.path)} ({image.size})" for image in large[:5])
        more = f" and {len(large) - 5} more" if len(large) > 5 else ""
        found.append(f"large: {names}{more}: smaller copies would be read faster")
    return found


def _sizes(root: Path, images: Sequence[Inspected]) -> str:
    smallest, largest = (choose(images, key=lambda image: image.pixels) for choose in (min, max))
    if smallest.size == largest.size:
        return f"sizes: {smallest.size}"
    ends = [f"{image.size} ({relative(root, image.path)})" for image in (smallest, largest)]
    return f"sizes: {ends[0]} to {ends[1]}"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
