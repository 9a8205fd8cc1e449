"""Random numbers that depend only on a seed and an image, not on the other images in the batch.

A draw is a function of a key and a counter, without a state: SplitMix64 (Steele, Lea, Flood: Fast splittable
pseudorandom number generators, OOPSLA 2014), here over all images at once. It is integer arithmetic on the CPU,
so the numbers are the same whatever the device, the batch or the number of threads.
"""

from __future__ import annotations

from hashlib import blake2b
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float32, Int

Words = NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: the step from one state of SplitMix64 to the next."""
LEVELS = 2**16 - 1
"""Steps to which pixels are rounded before hashing: devices divide 8-bit pixels by 255 differently."""


class RandomStreams:
    """One stream of random numbers per image; equal calls return equal numbers, `at` gives other streams.

    Images with equal pixels have equal streams, even within one batch.

    Args:
        keys: of the streams, one per image.
    """

    def __init__(self, keys: Words) -> None:
        self.keys = keys

    @classmethod
    def of(cls, images: Float[Tensor, "batch c h w"], seed: int, purpose: str) -> RandomStreams:
        """Return the streams of images.

        Args:
            images: the unperturbed images in [0, 1].
            seed: any integer.
            purpose: of the numbers, such as the attack's name; another purpose gives unrelated numbers.
        """
        pixels = (images.detach().float() * LEVELS).round().to("cpu", torch.int32).numpy().astype("<u2")
        start = f"{purpose} {seed} {tuple(images.shape[1:])} ".encode()
        digests = [blake2b(start + image.tobytes(), digest_size=8).digest() for image in pixels]
        return cls(np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: Int[Tensor, " chosen"] | Bool[Tensor, " batch"]) -> RandomStreams:
        """Return the streams of some images, by their indices or by whether they are meant."""
        return RandomStreams(self.keys[rows.cpu().numpy()])

    def at(self, *counters: int) -> RandomStreams:
        """Return other streams of the same images: those of a restart, of a query, ..., each counter at least 0."""
        keys = self.keys
        for counter in counters:
            keys = _mixed(keys ^ _mixed(np.array([counter + 1], dtype=np.uint64) * GOLDEN))
        return RandomStreams(keys)

    def uniform(self, *shape: int) -> Float32[Tensor, " batch *shape"]:
        """Return numbers in [0, 1), multiples of 2^-24, on the CPU."""
        words = self._words(shape)
        words >>= np.uint64(40)
        return torch.from_numpy(words.astype(np.float32)).mul_(2.0**-24)

    def signs(self, *shape: int) -> Float32[Tensor, " batch *shape"]:
        """Return -1 or +1 with equal probability, on the CPU."""
        return as_signs(self.uniform(*shape))

    def normal(self, *shape: int) -> Float32[Tensor, " batch *shape"]:
        """Return standard normal numbers, by the inverse of their distribution, on the CPU."""
        words = self._words(shape)
        words >>= np.uint64(12)
        inside = torch.from_numpy(words.astype(np.float64)).add_(0.5).mul_(2.0**-52)  # never 0 or 1
        return torch.special.ndtri(inside).float()

    def _words(self, shape: tuple[int, ...]) -> Words:
        """Return 64 random bits for each entry of each image."""
        steps = np.arange(1, prod(shape) + 1, dtype=np.uint64) * GOLDEN
        words: Words = _mixed(self.keys[:, None] + steps)
        return words.reshape(len(self), *shape)


def as_signs(uniform: Float[Tensor, " *shape"]) -> Float32[Tensor, " *shape"]:
    """Turn numbers in [0, 1) into -1 or +1 with equal probability."""
    return torch.where(uniform < 0.5, -1.0, 1.0)


def _mixed(words: NDArray[Any]) -> Words:
    """Scramble 64-bit words in place: every bit of the result depends on every bit of a word, none is lost."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words
