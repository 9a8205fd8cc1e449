"""Singular values: condition numbers, and the projection that bounds them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.linalg.padded import blocks, padded

WELL_CONDITIONED = 0.1
"""Smallest sigma_min^2 / sigma_max^2 at which eigenvectors of S^T S are as good as an SVD in fp32."""


def condition_number(singular_values: Tensor) -> Tensor:
    """Return the largest over the smallest singular value (inf for a singular matrix): (..., r) to (...)."""
    largest = singular_values.amax(-1)
    smallest = singular_values.amin(-1)
    return torch.where(smallest > 0, largest / smallest, torch.inf)


def product_singular_values(u: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """Return the r singular values of U S V^T, descending, without forming it; U and V need not be orthonormal.

    They are those of R_u S R_v^T, R^T R = X^T X in fp64. Only X^T X is computed where the factors lie: algebra of small
    matrices takes a GPU longer than a CPU.

    Args:
        u: (n, r).
        s: (r, r).
        v: (m, r).
    """
    left, right = (_triangle(x.double()) for x in (u, v))
    return torch.linalg.svdvals(left @ s.double().cpu() @ right.mT).to(s)


def _triangle(x: Tensor) -> Tensor:
    """Return R of X = Q R, on the CPU: by Cholesky, or where X has not full rank by Householder QR."""
    lower, failed = torch.linalg.cholesky_ex((x.mT @ x).cpu())
    return torch.linalg.qr(x.cpu(), mode="r")[1] if bool(failed) else lower.mT


def svd_square(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return an SVD S = P diag(s) Q^T of square matrices, the cheap way where that is accurate.

    Eigenvectors of S^T S cost half of an SVD, but squaring loses small singular values: a batch with
    an ill-conditioned matrix in it takes the SVD. The order of the singular values is unspecified.
    Each matrix is scaled by its largest entry first, so that squares neither overflow nor vanish.

    Args:
        s: shape (..., r, r).

    Returns:
        P (..., r, r), s (..., r), Q^T (..., r, r).

    Raises:
        torch.linalg.LinAlgError: an entry is infinite or undefined.
    """
    scale = s.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(s.dtype).tiny)
    scaled = s / scale
    squared, q = torch.linalg.eigh(scaled.mT @ scaled)
    if bool((squared[..., 0] > WELL_CONDITIONED * squared[..., -1]).all()):
        values = squared.sqrt()
        return (scaled @ q) / values.unsqueeze(-2), values * scale.squeeze(-1), q.mT
    if not bool(s.isfinite().all()):  # CUDA's SVD would return something
        raise torch.linalg.LinAlgError("a matrix has infinite or undefined entries")  # type: ignore[attr-defined]
    return torch.linalg.svd(s)


def clamp_spectrum(s: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Clip the singular values of S around their mean so that its condition number is at most 1 + tau.

    With K = 1 + tau and m the mean singular value, each one is clipped to [m - e, m + e],
    e = m (K - 1)/(K + 1), whose ends have the ratio K; singular vectors stay. tau = 0 gives m times the
    polar factor of S: all singular values equal. K is taken a few fp32 roundings smaller, so that the
    bound holds for the computed matrix too (for tau = 0 it holds up to those roundings).
    Source: CondLR (arXiv 2306.01485), as in its released optimizer.

    Args:
        s: shape (..., r, r).
        tau: >= 0.

    Returns:
        The clamped matrices (..., r, r) and their singular values (..., r).
    """
    left, values, right = svd_square(s)
    values = _clipped(values, values.mean(-1), tau)
    return (left * values.unsqueeze(-2)) @ right, values


def clamp_each(matrices: Sequence[Tensor], tau: float) -> tuple[list[Tensor], Tensor]:
    """Clamp the spectra of several square matrices, whatever their sizes, in one batch: see `clamp_spectrum`.

    Args:
        matrices: B of them, on one device.
        tau: >= 0.

    Returns:
        The clamped matrices and their condition numbers (B,).
    """
    sizes = torch.tensor([float(len(matrix)) for matrix in matrices]).to(matrices[0])
    # Smaller ones are padded with a multiple of I that lies between their own singular values.
    between = torch.stack(torch._foreach_norm(list(matrices))) / sizes.sqrt()
    left, values, right = svd_square(padded(matrices, between))
    mean = (values.sum(-1) - (values.shape[-1] - sizes) * between) / sizes
    values = _clipped(values, mean, tau)
    clamped = (left * values.unsqueeze(-2)) @ right
    return blocks(clamped, [len(matrix) for matrix in matrices]), condition_number(values)


def _clipped(values: Tensor, mean: Tensor, tau: float) -> Tensor:
    """Clip singular values (..., r) around their mean (...)."""
    roundings = 8 * torch.finfo(values.dtype).eps * values.shape[-1] ** 0.5
    bound = max(1.0, (1.0 + tau) * (1.0 - roundings))
    e = mean * (bound - 1.0) / (bound + 1.0)
    return torch.clamp(values, (mean - e).unsqueeze(-1), (mean + e).unsqueeze(-1))
