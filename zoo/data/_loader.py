"""Batches of a split, drawn and augmented as whole tensors."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from zoo.data._augment import Augmentation
from zoo.data._base import Source


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
    """

    def __init__(
        self,
        source: Source,
        indices: Tensor,
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        epoch: Callable[[], int],
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.source, self.indices, self.augmentation = source, indices, augmentation
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
        for batch in range(len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size].to(labels.device)
            noise = torch.Generator().manual_seed(mixed_seed(self.seed, epoch, batch, self.rank))
            yield self.augmentation(self.source.fetch(chosen), noise), labels[chosen]


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
        for chosen in self.indices.split(self.batch_size):
            chosen = chosen.to(labels.device)
            yield self.source.fetch(chosen), labels[chosen]
