"""Products along the first two axes of a core: the generalisation of U S V^T to an S with further axes."""

import torch
from torch import Tensor


def multiply_modes(left: Tensor, core: Tensor, right: Tensor) -> Tensor:
    """Return left x_1 core x_2 right, which is left @ core @ right.T for a matrix.

    Kolda, Bader: Tensor decompositions and applications, SIAM Review 51 (2009), section 2.5.

    Args:
        left: (n, r).
        core: (r, s, ...).
        right: (m, s).

    Returns:
        Shape (n, m, ...).
    """
    if core.ndim == 2:
        return left @ core @ right.T
    return torch.einsum("nr,rs...,ms->nm...", left, core, right)


def unfoldings(core: Tensor) -> tuple[Tensor, Tensor]:
    """Return a core (r, s, ...) as the matrices whose rows are its first and its second axis."""
    return core.flatten(1), core.transpose(0, 1).flatten(1)


def leading_vectors(matrix: Tensor) -> Tensor:
    """Return the left singular vectors of a matrix (r, m), r <= m, by descending singular value; (r, r), in fp64.

    Eigenvectors of X X^T: those of singular values below 1e-8 of the largest are any orthonormal ones.
    """
    gram = matrix.double() @ matrix.double().T
    return torch.linalg.eigh(gram)[1].flip(1)
