"""The Stiefel manifold {X in R^(n x r): X^T X = I}, n >= r: retractions, tangent space, random points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.linalg.padded import blocks, padded

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

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


def orthonormality_error(x: Float[Tensor, "*batch n r"]) -> Float[Tensor, " *batch"]:
    """Return the spectral norm ||X^T X - I||_2 of each matrix.

    Only the product is computed on X's device: eigenvalues of small matrices take a GPU longer than a CPU.
    """
    with full_precision(x.device):  # otherwise the user's TF32 would be measured
        gram = (x.mT @ x).cpu()
    gram.diagonal(dim1=-2, dim2=-1).sub_(1.0)
    return torch.linalg.matrix_norm(gram, ord=2).to(x.device)


def householder_qr(x: Float[Tensor, "*batch n r"]) -> tuple[Float[Tensor, "*batch n r"], Float[Tensor, "*batch r r"]]:
    """Factor X = Q R by Householder QR, with signs that make R's diagonal positive (Q is then unique).

    Args:
        x: n >= r, full column rank.
    """
    q, r = torch.linalg.qr(x)
    sign = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(x.dtype)
    return q * sign.unsqueeze(-2), r * sign.unsqueeze(-1)


def retract(x: Float[Tensor, "n r"]) -> tuple[Float[Tensor, "n r"], Float[Tensor, "r r"]]:
    """Return the QR retraction Q of one matrix onto the Stiefel manifold, and R with X = Q R: see `retract_each`."""
    q, r = retract_each([x])
    return q[0], r[0]


def retract_each(xs: Sequence[Float[Tensor, "_ _"]]) -> tuple[list[Float[Tensor, "_ _"]], Float[Tensor, "batch r r"]]:
    """Return the QR retractions of several matrices of any sizes.

    One pass of Cholesky-QR if ||X^T X - I||_F <= 1/2: every singular value of X is then in [0.7, 1.23] and the pass is
    accurate to a few roundings. Other matrices get Householder QR.

    Args:
        xs: each with no more columns than rows, full column rank; on one device.

    Returns:
        Each Q, and every R, upper triangular with a positive diagonal; r is the largest one, and the rest of a smaller
        R is the identity.
    """
    q, triangle, near = cholesky_qr(xs)
    if bool(near.all()):
        return q, triangle
    triangles = blocks(triangle, [x.shape[1] for x in xs])
    pairs = [(q[i], triangles[i]) if near[i] else householder_qr(x) for i, x in enumerate(xs)]
    return [q for q, _ in pairs], padded([r for _, r in pairs], 1.0)


def cholesky_qr(
    xs: Sequence[Float[Tensor, "_ _"]],
) -> tuple[list[Float[Tensor, "_ _"]], Float[Tensor, "batch r r"], Bool[Tensor, " batch"]]:
    """Return Q and R as `retract_each`, by one pass of Cholesky-QR, and for which of the matrices it is accurate.

    All r x r algebra is one batch, because on small matrices calls cost more than arithmetic; nothing waits for a GPU.
    """
    gram = padded([x.T @ x for x in xs], 1.0)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    near = (gram - eye).square().sum((-2, -1)) <= NEAR**2
    triangle = torch.linalg.cholesky_ex(gram)[0].mT
    inverse = torch.linalg.solve_triangular(triangle, eye, upper=True)
    factors = blocks(inverse, [x.shape[1] for x in xs])
    return [x @ factor for x, factor in zip(xs, factors, strict=True)], triangle, near


def tangent(x: Float[Tensor, "n r"], d: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Project a direction onto the complement of X's column space: (I - X X^T) D.

    This is the horizontal part of the tangent space: rotations within span(X) are left to the core S
    of a factorization U S V^T.

    Args:
        x: orthonormal columns.
        d: any directions; a movement of X has as many columns.
    """
    return tangent_(x, d.clone())


def tangent_(x: Float[Tensor, "n r"], d: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Project D onto the tangent space at X, in place, and return it."""
    return d.addmm_(x, x.T @ d, alpha=-1)


def stiefel_tangent_(x: Float[Tensor, "n r"], d: Float[Tensor, "n r"], rotation: float = 1.0) -> Float[Tensor, "n r"]:
    """Project D onto the tangent space of the Stiefel manifold at X, in place, and return it.

    It is (I - X X^T) D + rotation X skew(X^T D). Unlike `tangent`, it keeps rotations within span(X), which change the
    spans of X's leading columns.

    Args:
        x: orthonormal columns.
        d: any directions.
        rotation: 1 for the projection in the Euclidean metric; less makes X rotate more slowly.
    """
    inner = x.T @ d
    skew = (inner - inner.T) / 2
    return d.addmm_(x, inner - rotation * skew, alpha=-1)


def complement(x: Float[Tensor, "n r"], d: Float[Tensor, "n l"], k: int) -> Float[Tensor, "n k"]:
    """Return k orthonormal directions orthogonal to X's columns that capture the most of D.

    They are the leading left singular vectors of (I - X X^T) D; if its rank is below k, arbitrary ones follow.

    Args:
        x: orthonormal columns.
        d: l >= k.
        k: at most n - r.
    """
    normal = tangent(x, tangent(x, d))
    leading = torch.linalg.eigh(normal.T @ normal)[1].flip(-1)[:, :k]
    # The columns of X come first, so they do not change; a second projection would not fix a vanishing D.
    return householder_qr(torch.cat([x, normal @ leading], 1))[0][:, x.shape[1] :]


def random_stiefel(
    n: int, r: int, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "n r"]:
    """Return a point of the Stiefel manifold, uniform (Haar).

    Raises:
        ValueError: r > n, where no such point exists.
    """
    if r > n:
        raise ValueError(f"{n} x {r}: orthonormal columns need n >= r")
    return householder_qr(torch.randn(n, r, generator=generator, dtype=dtype))[0]
