"""Square matrices of several sizes as one batch: on a GPU a launch costs more than the arithmetic of small matrices."""

from collections.abc import Sequence

import torch
from torch import Tensor


def padded(matrices: Sequence[Tensor], diagonal: Tensor | float) -> Tensor:
    """Return each matrix A as diag(A, d I) of the largest size: (B, R, R).

    The upper left blocks of the batch's products, Cholesky factors, inverses and spectral functions are those of A.

    Args:
        matrices: B square ones, or ones of a single shape, which need no padding; on one device and of one type.
        diagonal: d, for all or for each (B,).
    """
    if len({matrix.shape for matrix in matrices}) == 1:
        return torch.stack(list(matrices))
    sizes = [len(matrix) for matrix in matrices]
    batch = matrices[0].new_zeros(len(matrices), max(sizes), max(sizes))
    values = diagonal if isinstance(diagonal, Tensor) else batch.new_full((len(matrices),), diagonal)
    batch.diagonal(dim1=-2, dim2=-1).copy_(values.unsqueeze(-1))
    torch._foreach_copy_(blocks(batch, sizes), list(matrices))
    return batch


def blocks(batch: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return each matrix of a batch without the padding of `padded`, as views.

    Args:
        batch: (B, M, R).
        sizes: columns of each matrix, r at most R; it has M - R + r rows.
    """
    above = batch.shape[-2] - batch.shape[-1]
    return [matrix[: above + size, :size] for matrix, size in zip(batch.unbind(), sizes, strict=True)]
