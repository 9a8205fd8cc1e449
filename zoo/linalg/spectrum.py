"""Singular values: condition numbers, and the projection that bounds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.linalg.padded import blocks, padded
from zoo.runtime.cuda_graph import called

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64

    _SVD = tuple[Float[Tensor, "*batch m r"], Float[Tensor, "*batch r"], Float[Tensor, "*batch r r"]]
    """P, s and Q^T of S = P diag(s) Q^T."""

WELL_CONDITIONED = 0.1
"""Smallest sigma_min^2 / sigma_max^2 at which eigenvectors of S^T S are as good as an SVD in fp32."""


def condition_number(singular_values: Float[Tensor, "*batch r"]) -> Float[Tensor, " *batch"]:
    """Return the largest over the smallest singular value (inf for a singular matrix)."""
    largest = singular_values.amax(-1)
    smallest = singular_values.amin(-1)
    return torch.where(smallest > 0, largest / smallest, torch.inf)


def product_singular_values(
    u: Float[Tensor, "n r"], s: Float[Tensor, "r r"], v: Float[Tensor, "m r"]
) -> Float[Tensor, " r"]:
    """Return the r singular values of U S V^T, descending, without forming it; U and V need not be orthonormal.

    They are those of R_u S R_v^T, R^T R = X^T X in fp64. Only X^T X is computed on the factors' device: algebra of
    small matrices takes a GPU longer than a CPU.
    """
    left, right = (_triangle(x.double()) for x in (u, v))
    return torch.linalg.svdvals(left @ s.double().cpu() @ right.mT).to(s)


def _triangle(x: Float64[Tensor, "n r"]) -> Float64[Tensor, "r r"]:
    """Return R of X = Q R, on the CPU: by Cholesky, or by Householder QR if X is rank-deficient."""
    lower, failed = torch.linalg.cholesky_ex((x.mT @ x).cpu())
    return torch.linalg.qr(x.cpu(), mode="r")[1] if bool(failed) else lower.mT


def svd_square(s: Float[Tensor, "*batch m r"]) -> _SVD:
    """Return an SVD S = P diag(s) Q^T, by the cheap method if that is accurate.

    Eigenvectors of S^T S cost half of an SVD, but squaring loses small singular values: a batch with
    an ill-conditioned matrix in it takes the SVD. The order of the singular values is unspecified.
    Each matrix is scaled by its largest entry first, so that squares neither overflow nor vanish.

    Args:
        s: m >= r.

    Returns:
        P, s and Q^T.

    Raises:
        torch.linalg.LinAlgError: an entry is infinite or undefined.
    """
    scaled, scale, gram = _scaled_gram(s)
    squared, q = torch.linalg.eigh(gram)
    if bool(_accurate(squared)):
        return _from_eigenvectors(scaled, scale, squared, q)
    return _by_svd(s)


def _scaled_gram(
    s: Float[Tensor, "*batch m r"],
) -> tuple[Float[Tensor, "*batch m r"], Float[Tensor, "*batch 1 1"], Float[Tensor, "*batch r r"]]:
    """Return A = S / c, its scale c, and A^T A."""
    scale = s.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(s.dtype).tiny)
    scaled = s / scale
    return scaled, scale, scaled.mT @ scaled


def _accurate(squared: Float[Tensor, "*batch r"]) -> Bool[Tensor, ""]:
    """Return whether eigenvectors are accurate enough for all matrices with these ascending eigenvalues of S^T S."""
    return (squared[..., 0] > WELL_CONDITIONED * squared[..., -1]).all()


def _from_eigenvectors(
    scaled: Float[Tensor, "*batch m r"],
    scale: Float[Tensor, "*batch 1 1"],
    squared: Float[Tensor, "*batch r"],
    q: Float[Tensor, "*batch r r"],
) -> _SVD:
    """Return the SVD of S = c A from the eigenvalues and eigenvectors of A^T A."""
    values = squared.sqrt()
    return (scaled @ q) / values.unsqueeze(-2), values * scale.squeeze(-1), q.mT


def _by_svd(s: Float[Tensor, "*batch m r"]) -> _SVD:
    if not bool(s.isfinite().all()):  # CUDA's SVD would return arbitrary values
        raise torch.linalg.LinAlgError("a matrix has infinite or undefined entries")  # type: ignore[attr-defined]
    return torch.linalg.svd(s, full_matrices=False)


def clamp_spectrum(
    s: Float[Tensor, "*batch m r"], tau: float
) -> tuple[Float[Tensor, "*batch m r"], Float[Tensor, "*batch r"]]:
    """Clip the singular values of S around their mean so that its condition number is at most 1 + tau.

    With K = 1 + tau and m the mean singular value, each one is clipped to [m - e, m + e],
    e = m (K - 1)/(K + 1), whose ends have the ratio K; singular vectors stay. tau = 0 gives m times the
    polar factor of S: all singular values equal. K is taken a few fp32 roundings smaller, so that the
    bound holds for the computed matrix too (for tau = 0 it holds up to those roundings).
    Source: CondLR (arXiv 2306.01485), as in its released optimizer.

    Args:
        s: m >= r.
        tau: >= 0.

    Returns:
        The clamped matrices and their singular values.
    """
    left, values, right = svd_square(s)
    values = _clipped(values, values.mean(-1), tau)
    return (left * values.unsqueeze(-2)) @ right, values


def clamp_each(
    matrices: Sequence[Float[Tensor, "_ _"]], tau: float, run: Callable[..., Any] = called
) -> tuple[list[Float[Tensor, "_ _"]], Float[Tensor, " batch"]]:
    """Clamp the spectra of several matrices in one batch: see `clamp_spectrum`.

    Args:
        matrices: square ones of any sizes, or tall ones of one shape (m, r), m >= r; on one device.
        tau: >= 0.
        run: calls functions that do not wait for the device (see `zoo.runtime.cuda_graph.Replays`).

    Returns:
        The clamped matrices and their condition numbers.
    """
    sizes = tuple(matrix.shape[1] for matrix in matrices)
    batch, between, scaled, scale, gram = run(_batched, list(matrices))
    squared, q = torch.linalg.eigh(gram)
    clamped, condition_numbers, accurate = run(_clamped, [scaled, scale, squared, q], [between], sizes, tau)
    if not bool(accurate):
        clamped, condition_numbers = _rebuilt(_by_svd(batch), between, sizes, tau)
    return clamped, condition_numbers


def _batched(
    matrices: list[Float[Tensor, "_ _"]],
) -> tuple[
    Float[Tensor, "batch m r"],
    Float[Tensor, " batch"],
    Float[Tensor, "batch m r"],
    Float[Tensor, "batch 1 1"],
    Float[Tensor, "batch r r"],
]:
    """Return matrices as one batch, the padding value of each, and `_scaled_gram` of the batch."""
    # Smaller ones are padded with a multiple of I that lies between their own singular values.
    roots = [1 / matrix.shape[1] ** 0.5 for matrix in matrices]
    between = torch.stack(torch._foreach_mul(torch._foreach_norm(matrices), roots))
    batch = padded(matrices, between)
    return batch, between, *_scaled_gram(batch)


def _clamped(
    decomposed: list[Float[Tensor, "batch ..."]],
    between: list[Float[Tensor, " batch"]],
    sizes: tuple[int, ...],
    tau: float,
) -> tuple[list[Float[Tensor, "_ _"]], Float[Tensor, " batch"], Bool[Tensor, ""]]:
    """Return the clamped matrices, their condition numbers, and whether eigenvectors were accurate enough for them."""
    return *_rebuilt(_from_eigenvectors(*decomposed), between[0], sizes, tau), _accurate(decomposed[2])


def _rebuilt(
    svd: _SVD, between: Float[Tensor, " batch"], sizes: tuple[int, ...], tau: float
) -> tuple[list[Float[Tensor, "_ _"]], Float[Tensor, " batch"]]:
    left, values, right = svd
    size = torch.cat([values.new_full((1,), float(n)) for n in sizes])  # made on the device
    mean = (values.sum(-1) - (values.shape[-1] - size) * between) / size
    values = _clipped(values, mean, tau)
    clamped = blocks((left * values.unsqueeze(-2)) @ right, sizes)
    return [matrix.contiguous() for matrix in clamped], condition_number(values)


def _clipped(
    values: Float[Tensor, "*batch r"], mean: Float[Tensor, " *batch"], tau: float
) -> Float[Tensor, "*batch r"]:
    """Clip singular values around their mean."""
    roundings = 8 * torch.finfo(values.dtype).eps * values.shape[-1] ** 0.5
    bound = max(1.0, (1.0 + tau) * (1.0 - roundings))
    e = mean * (bound - 1.0) / (bound + 1.0)
    return torch.clamp(values, (mean - e).unsqueeze(-1), (mean + e).unsqueeze(-1))
