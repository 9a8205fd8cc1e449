"""How tensors lie in memory, when their shapes change while they train."""

from collections.abc import Sequence

import torch
from torch import Tensor


def empty_as(old: Tensor, shape: Sequence[int]) -> Tensor:
    """Return an uninitialised tensor of another shape that lies in memory as an old one does: channels last, or not.

    By strides, exactly: `Tensor.contiguous` leaves those of dimensions of size 1 alone, but kernels are chosen by them,
    and round differently. A run that is resumed builds its tensors anew, and must compute what the first one did.

    Args:
        old: of any shape, of as many dimensions.
        shape: of the new one.
    """
    last = old.ndim == 4 and old.stride() == _strides(old.shape, torch.channels_last)
    format_ = torch.channels_last if last and old.stride() != _strides(old.shape) else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=old.dtype, device=old.device, memory_format=format_)


def _strides(shape: Sequence[int], memory_format: torch.memory_format = torch.contiguous_format) -> tuple[int, ...]:
    return torch.empty(tuple(shape), device="meta", memory_format=memory_format).stride()
