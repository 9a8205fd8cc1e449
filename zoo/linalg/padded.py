"""Square matrices of several sizes as one batch: on a GPU a launch costs more than the arithmetic of small matrices."""

from collections.abc import Sequence

import torch
from torch import Tensor


def padded(matrices: Sequence[Tensor], diagonal: Tensor | float) -> Tensor:
    """Return each matrix A as diag(A, d I) of the largest size: (B, R, R).

    Products, Cholesky factors, inverses and spectral functions of the batch have those of A as their upper left block.

    Args:
        matrices: B square ones, on one device and of one type.
        diagonal: d, for all or for each (B,).
    """
    sizes = [len(matrix) for matrix in matrices]
    if min(sizes) == max(sizes):
        return torch.stack(list(matrices))
    batch = matrices[0].new_zeros(len(matrices), max(sizes), max(sizes))
    values = diagonal if isinstance(diagonal, Tensor) else batch.new_full((len(matrices),), diagonal)
    batch.diagonal(dim1=-2, dim2=-1).copy_(values.unsqueeze(-1))
    torch._foreach_copy_(blocks(batch, sizes), list(matrices))
    return batch


def blocks(batch: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return the upper left block of each matrix of a batch, as views: (B, R, R) to (r, r) each."""
    return [matrix[:size, :size] for matrix, size in zip(batch.unbind(), sizes, strict=True)]
