"""What a folder of images holds, in lines for a user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.data._inspect import LARGE, Inspected, named, relative

CLASSES = 30
"""Classes that have a line of their own; of more, the range is told."""


@dataclass(frozen=True)
class Summary:
    """What a training should know of its images before it starts.

    Attributes:
        root: the folder.
        class_names: in the order of the labels.
        counts: images of each class, by split.
        images: those that are used.
        sources: where validation and test images come from, ``""`` where there are none.
        damaged: images that are left out.
        other_files: files that are no images, by suffix.
        stray: images that lie beside the folders of the classes.
    """

    root: Path
    class_names: Sequence[str]
    counts: Mapping[str, Sequence[int]]
    images: Sequence[Inspected]
    sources: Mapping[str, str]
    damaged: Sequence[Inspected]
    other_files: Mapping[str, int]
    stray: int

    def lines(self) -> tuple[str, ...]:
        """Return the lines."""
        return (
            f"{self.root}: {len(self.images):,} images of {len(self.class_names)} classes",
            *self._table(),
            *(f"{split}: {where}" for split, where in self.sources.items() if where and split in self.counts),
            self._sizes(),
            *self._skipped(),
        )

    def _table(self) -> list[str]:
        totals = {split: sum(counts) for split, counts in self.counts.items()}
        rows = [(name, [str(counts[i]) for counts in self.counts.values()]) for i, name in enumerate(self.class_names)]
        if len(rows) > CLASSES:
            ranges = [_range(counts) for counts in self.counts.values()]
            rows = [("each class", ranges)]
        rows = [("", list(self.counts)), *rows, ("total", [f"{n:,}" for n in totals.values()])]
        first = max(len(name) for name, _ in rows)
        widths = [max(len(cells[i]) for _, cells in rows) for i in range(len(totals))]
        return [
            "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
            for name, cells in rows
        ]

    def _sizes(self) -> str:
        smallest = min(self.images, key=lambda image: image.pixels)
        largest = max(self.images, key=lambda image: image.pixels)
        ends = [f"{image.size} ({relative(self.root, image.path)})" for image in (smallest, largest)]
        return f"sizes: {ends[0]} to {ends[1]}" if smallest.size != largest.size else f"sizes: {smallest.size}"

    def _skipped(self) -> list[str]:
        found = []
        if self.damaged:
            found.append(f"skipped: {len(self.damaged)} that cannot be used: {named(self.root, self.damaged, why=True)}")
        if self.other_files:
            kinds = ", ".join(f"{n} {suffix}" for suffix, n in self.other_files.items())
            found.append(f"skipped: {sum(self.other_files.values())} files that are no images: {kinds}")
        if self.stray:
            found.append(f"skipped: {self.stray} images beside the folders of the classes")
        if large := [image for image in self.images if image.pixels > LARGE]:
            names = ", ".join(f"{relative(self.root, image.path)} ({image.size})" for image in large[:5])
            more = f" and {len(large) - 5} more" if len(large) > 5 else ""
            found.append(f"large: {names}{more}: smaller copies would be read faster")
        return found


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
