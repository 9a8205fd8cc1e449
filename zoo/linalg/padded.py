"""Square matrices of several sizes as one batch: on a GPU a launch costs more than the arithmetic of small matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def padded(
    matrices: Sequence[Float[Tensor, "_ _"]], diagonal: Float[Tensor, " batch"] | float
) -> Float[Tensor, "batch m r"]:
    """Return each matrix A as diag(A, d I) of the largest size.

    The upper left blocks of the batch's products, Cholesky factors, inverses and spectral functions are those of A.

    Args:
        matrices: square ones, or ones of a single shape, which need no padding; on one device and of one type.
        diagonal: d, for all or for each.
    """
    if len({matrix.shape for matrix in matrices}) == 1:
        return torch.stack(list(matrices))
    sizes = [len(matrix) for matrix in matrices]
    batch = matrices[0].new_zeros(len(matrices), max(sizes), max(sizes))
    values = diagonal if isinstance(diagonal, Tensor) else batch.new_full((len(matrices),), diagonal)
    batch.diagonal(dim1=-2, dim2=-1).copy_(values.unsqueeze(-1))
    torch._foreach_copy_(blocks(batch, sizes), list(matrices))
    return batch


def blocks(batch: Float[Tensor, "batch m r"], sizes: Sequence[int]) -> list[Float[Tensor, "_ _"]]:
    """Return each matrix of a batch without the padding of `padded`, as views.

    Args:
        batch: of `padded`, or what is computed from it.
        sizes: columns k of each matrix, at most r; it has m - r + k rows.
    """
    above = batch.shape[-2] - batch.shape[-1]
    return [matrix[: above + size, :size] for matrix, size in zip(batch.unbind(), sizes, strict=True)]
