"""The memory layout of tensors whose shapes change during training."""

from collections.abc import Sequence

import torch
from torch import Tensor


def empty_as(old: Tensor, shape: Sequence[int]) -> Tensor:
    """Return an uninitialised tensor of another shape with the memory layout of an old one: channels last, or not.

    Strides match exactly: `Tensor.contiguous` ignores those of dimensions of size 1, but they decide the choice of
    kernels, which round differently. A resumed run rebuilds its tensors and must compute the same numbers as the first
    one.

    Args:
        old: of any shape with the same number of dimensions.
        shape: of the new one.
    """
    last = old.ndim == 4 and old.stride() == _strides(old.shape, torch.channels_last)
    format_ = torch.channels_last if last and old.stride() != _strides(old.shape) else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=old.dtype, device=old.device, memory_format=format_)


def _strides(shape: Sequence[int], memory_format: torch.memory_format = torch.contiguous_format) -> tuple[int, ...]:
    return torch.empty(tuple(shape), device="meta", memory_format=memory_format).stride()
