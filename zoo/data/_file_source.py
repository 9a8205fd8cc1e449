"""Images that stay in files and are decoded on request."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zoo.data._decode import decode


@dataclass(frozen=True)
class FileSource:
    """A split whose images stay on disk and are decoded by threads on request; Pillow decodes without Python's lock."""

    paths: tuple[Path, ...]
    labels: Tensor
    size: int
    pool: ThreadPoolExecutor

    def __deepcopy__(self, memo: object) -> "FileSource":
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
        return [self.pool.submit(decode, self.paths[i], self.size) for i in indices.tolist()]

    def to(self, device: torch.device) -> "FileSource":
        """Return the split itself: its batches are moved one at a time."""
        return self
