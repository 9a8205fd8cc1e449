"""Products along the first two axes of a core: the generalisation of U S V^T to an S with further axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Float64


def multiply_modes(
    left: Float[Tensor, "n r"], core: Float[Tensor, "r s ..."], right: Float[Tensor, "m s"]
) -> Float[Tensor, "n m ..."]:
    """Return left x_1 core x_2 right, which is left @ core @ right.T for a matrix.

    Kolda, Bader: Tensor decompositions and applications, SIAM Review 51 (2009), section 2.5.
    """
    if core.ndim == 2:
        return left @ core @ right.T
    return torch.einsum("nr,rs...,ms->nm...", left, core, right)


def unfoldings(core: Float[Tensor, "r s ..."]) -> tuple[Float[Tensor, "r _"], Float[Tensor, "s _"]]:
    """Return a core as the matrices whose rows are its first and its second axis."""
    return core.flatten(1), core.transpose(0, 1).flatten(1)


def leading_vectors(matrix: Float[Tensor, "r m"]) -> Float64[Tensor, "r r"]:
    """Return the left singular vectors of a matrix, r <= m, by descending singular value, in fp64.

    Eigenvectors of X X^T: those of singular values below 1e-8 of the largest are any orthonormal ones.
    """
    gram = matrix.double() @ matrix.double().T
    return torch.linalg.eigh(gram)[1].flip(1)
