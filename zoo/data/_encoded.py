"""Images that stay encoded, in files, shards or tables, and are decoded on request."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from zoo.data._decode import decode


@dataclass(frozen=True)
class Encoded:
    """The labelled images of a split.

    Attributes:
        labels: class indices.
        open: gives the image of a row, as a path or as its bytes.
        where: says of a row what it is, for messages.
    """

    labels: tuple[int, ...]
    open: Callable[[int], Path | IO[bytes]]
    where: Callable[[int], str]

    @classmethod
    def files(cls, paths: list[Path], labels: list[int]) -> "Encoded":
        """Return images that are a file each."""
        return cls(tuple(labels), lambda row: paths[row], lambda row: str(paths[row]))

    def then(self, other: "Encoded | None") -> "Encoded":
        """Return these images followed by others."""
        if other is None:
            return self
        n, after = len(self.labels), other
        return Encoded(
            self.labels + after.labels,
            lambda row: self.open(row) if row < n else after.open(row - n),
            lambda row: self.where(row) if row < n else after.where(row - n),
        )

    def rows(self, chosen: list[int]) -> "Encoded":
        """Return some of the images."""
        labels = tuple(self.labels[i] for i in chosen)
        return Encoded(labels, lambda row: self.open(chosen[row]), lambda row: self.where(chosen[row]))


@dataclass(frozen=True)
class EncodedSource:
    """A split that is decoded by threads on request; Pillow decodes without Python's lock."""

    images: Encoded
    labels: Tensor
    size: int
    pool: ThreadPoolExecutor

    def __deepcopy__(self, memo: object) -> "EncodedSource":
        # A copy of the training module (such as an average of its weights) shares it: threads cannot be copied.
        return self

    def fetch(self, indices: Tensor) -> Tensor:
        """Return images (B, 3, size, size), uint8."""
        return torch.stack([image.result() for image in self._begin(indices)])

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the images of each part of the indices; the next part is decoded while the caller uses this one."""
        waiting: list[Future[Tensor]] | None = None
        for indices in parts:
            begun = self._begin(indices)
            if waiting is not None:
                yield torch.stack([image.result() for image in waiting])
            waiting = begun
        if waiting is not None:
            yield torch.stack([image.result() for image in waiting])

    def _begin(self, indices: Tensor) -> list[Future[Tensor]]:
        return [self.pool.submit(self._decode, row) for row in indices.tolist()]

    def _decode(self, row: int) -> Tensor:
        return decode(self.images.open(row), self.size, self.images.where(row))

    def to(self, device: torch.device) -> "EncodedSource":
        """Return the split itself: its batches are moved one at a time."""
        return self
