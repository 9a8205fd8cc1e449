"""Batches of a split, drawn and augmented as whole tensors."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from zoo.data._base import Augment, Source

Mix = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Blends the images (B, C, H, W) of a batch with one another, and their labels (B,), to probabilities (B, K)."""


def mixed_seed(*numbers: int) -> int:
    """Return one 63-bit seed from several numbers; neighbours give unrelated seeds (SplitMix64's finalizer)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1


class TrainBatches:
    """Shuffled, augmented batches; random draws depend only on (seed, epoch, batch), so any epoch can be replayed.

    Args:
        source: the split.
        indices: which of its images.
        batch_size: images per batch; the last, smaller batch is left out (unless it is the only one).
        augmentation: applied to each batch.
        seed: of the order and the augmentation.
        epoch: gives the current epoch when an iteration begins.
        shard: (rank, number of processes): each takes its own part of every epoch's order.
        mix: applied after the augmentation; None: the labels stay class indices.
    """

    def __init__(
        self,
        source: Source,
        indices: Tensor,
        batch_size: int,
        augmentation: Augment,
        seed: int,
        epoch: Callable[[], int],
        shard: tuple[int, int] = (0, 1),
        mix: Mix | None = None,
    ) -> None:
        self.source, self.indices, self.augmentation, self.mix = source, indices, augmentation, mix
        self.seed, self.epoch = seed, epoch
        self.rank, self.world = shard
        self.per_process = len(indices) // self.world
        self.batch_size = min(batch_size, self.per_process)

    def __len__(self) -> int:
        return self.per_process // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = self.epoch()
        shuffle = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        order = self.indices[torch.randperm(len(self.indices), generator=shuffle)]
        order = order[self.rank :: self.world]
        labels = self.source.labels
        parts = [part.to(labels.device) for part in order.split(self.batch_size)[: len(self)]]
        for batch, images in enumerate(self.source.batches(parts)):
            noise = torch.Generator().manual_seed(mixed_seed(self.seed, epoch, batch, self.rank))
            augmented, truth = self.augmentation(images, noise), labels[parts[batch]]
            yield (augmented, truth) if self.mix is None else self.mix(augmented, truth, noise)


class EvalBatches:
    """Batches in order, each image once, nothing drawn at random."""

    def __init__(self, source: Source, indices: Tensor, batch_size: int, shard: tuple[int, int] = (0, 1)) -> None:
        self.source, self.batch_size = source, batch_size
        rank, world = shard
        self.indices = indices[rank::world]

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        labels = self.source.labels
        parts = [part.to(labels.device) for part in self.indices.split(self.batch_size)]
        for chosen, images in zip(parts, self.source.batches(parts), strict=True):
            yield images, labels[chosen]
