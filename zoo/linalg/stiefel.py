"""The Stiefel manifold {X in R^(n x r): X^T X = I}, n >= r: retractions, tangent space, random points."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

ORTHONORMAL = 1e-5
"""Largest ||X^T X - I||_2 at which X counts as orthonormal in fp32."""
NEAR = 0.5
"""Largest ||X^T X - I||_F at which one pass of Cholesky-QR is used: its error grows with the square of X's
condition number (Yamamoto et al. 2015), which is at most 3 there."""


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute fp32 products in fp32: no autocast, no TF32 or bf16 inside (each caps accuracy near 1e-3)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def orthonormality_error(x: Tensor) -> Tensor:
    """Return the spectral norm ||X^T X - I||_2 of each matrix: shape (..., n, r) to (...)."""
    gram = x.mT @ x
    gram.diagonal(dim1=-2, dim2=-1).sub_(1.0)
    return torch.linalg.matrix_norm(gram, ord=2)


def householder_qr(x: Tensor) -> tuple[Tensor, Tensor]:
    """Factor X = Q R by Householder QR, signs chosen so that R's diagonal is positive (Q is unique then).

    Args:
        x: shape (..., n, r), n >= r, full column rank.

    Returns:
        Q (..., n, r) and R (..., r, r).
    """
    q, r = torch.linalg.qr(x)
    sign = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(x.dtype)
    return q * sign.unsqueeze(-2), r * sign.unsqueeze(-1)


def retract(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the QR retraction Q of X onto the Stiefel manifold, and R with X = Q R.

    One pass of Cholesky-QR while ||X^T X - I||_F <= 1/2, where every singular value of X lies in
    [0.7, 1.23] and the pass is accurate to a few roundings; otherwise Householder QR for the whole batch.

    Args:
        x: shape (..., n, r), n >= r, full column rank.

    Returns:
        Q (..., n, r) and R (..., r, r), upper triangular with a positive diagonal.
    """
    gram = x.mT @ x
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device).expand_as(gram)
    if not bool((torch.linalg.matrix_norm(gram - eye) <= NEAR).all()):
        return householder_qr(x)
    lower = torch.linalg.cholesky_ex(gram)[0]
    return x @ torch.linalg.solve_triangular(lower, eye, upper=False).mT, lower.mT


def tangent(x: Tensor, d: Tensor) -> Tensor:
    """Project a direction onto the complement of X's column space: (I - X X^T) D.

    This is the horizontal part of the tangent space: rotations within span(X) are left to the core S
    of a factorization U S V^T.

    Args:
        x: orthonormal columns, shape (..., n, r).
        d: shape (..., n, r).
    """
    return d - x @ (x.mT @ d)


def random_stiefel(
    n: int, r: int, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return a point of the Stiefel manifold, uniform (Haar), shape (n, r).

    Raises:
        ValueError: r > n, where no such point exists.
    """
    if r > n:
        raise ValueError(f"{n} x {r}: orthonormal columns need n >= r")
    return householder_qr(torch.randn(n, r, generator=generator, dtype=dtype))[0]
