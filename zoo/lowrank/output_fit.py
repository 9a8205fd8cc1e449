"""Fit the factors of a low-rank network to the outputs of its dense original: a start that preserves outputs.

Let C = E[x x^T] be the second moment of a layer's input at one position (x unfolded, m entries), and y = W x its output
without the bias. The truncated SVD of W minimises ||W - W_r||_F; here W_r of rank r minimises

    E ||W x - W_r x||^2 + eps ||W - W_r||_F^2 = ||(W - W_r) (C + eps I)^(1/2)||_F^2.

The ridge eps is `RIDGE` times the mean square of an input: directions that no image excites count a little, so C may be
singular, and a layer whose input is zero is cut by its weight.

As a matrix: the truncated SVD P D Q^T of W (C + eps I)^(1/2), with the root undone, is P P^T W, and the columns of P
are the leading eigenvectors of E[y y^T] + eps W W^T. Only the moment of the outputs, n x n, is therefore gathered, and
nothing is inverted. The best fits of all ranks are nested: the first k columns of P give the one of rank k. (SVD-LLM,
arXiv 2403.07378, and CorDA, arXiv 2406.05223, write it with C; Zhang, Zou, He, Sun, Accelerating very deep
convolutional networks, TPAMI 2016, arXiv 1505.06798, with centred outputs.)

In Tucker-2 form (see `zoo.lowrank.tucker`) a basis V of input channels is chosen first; z = P^T x is x with its
channels projected on V. With M = E[y z^T] + eps W P and G = E[z z^T] + eps I the best kernel that reads z is M G^-1,
and the best one of rank r is U U^T M G^-1, U the leading eigenvectors of M G^-1 M^T (reduced-rank regression: Izenman,
J. Multivariate Analysis 5 (1975)). U^T M G^-1 is the core: given V, nothing is better. V is that of the whitened
higher-order SVD, see `channel_basis`. The layer's own V is tried as well and the better one taken, so the error is
never above that of the old factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.linalg.mode_products import multiply_modes
from zoo.lowrank.layers import Factorized, factorized_layers
from zoo.lowrank.moments import OutputMoment, PatchMoments, ProjectedMoments, observe
from zoo.lowrank.tucker import TuckerConv2d

if TYPE_CHECKING:
    from jaxtyping import Float, Float64

RIDGE = 1e-4
"""Weight of the plain criterion, in units of the mean square of a layer's inputs."""


@torch.no_grad()
def fit_to_outputs_(
    model: nn.Module, dense: nn.Module, images: Float[Tensor, "batch c h w"], batch_size: int = 64
) -> None:
    """Set the factors of a factorized model so that its layers keep the outputs of a dense one's, in place.

    Each layer is fitted separately, to its inputs and outputs in the dense model. U and V become orthonormal. Layers of
    full rank, and those that the dense model does not call, do not change.

    Args:
        model: with factorized layers that have factors from the dense weights already (see `zoo.lowrank.factorize`).
        dense: the model that it was factorized from, with layers of the same names, on the same device.
        images: as both models take them.
        batch_size: images of a forward pass.

    Raises:
        UserError: a layer's inputs or outputs are not finite.
    """
    layers = {name: layer for name, layer in factorized_layers(model) if _is_cut(layer)}
    moments = {name: PatchMoments() if _reads_fewer(layer) else OutputMoment() for name, layer in layers.items()}
    observe(dense, images, {name: [moment] for name, moment in moments.items()}, batch_size)
    projected: dict[str, Sequence[ProjectedMoments]] = {}
    for name, moment in moments.items():
        if not moment.count:
            continue
        if not moment.is_finite:
            raise UserError(f"layer {name!r} reads or gives values that are not finite: nothing can be fitted to them")
        layer, weight = layers[name], _weight(dense, name)
        u = output_basis(weight, moment, layer.rank)
        if isinstance(moment, PatchMoments):
            v = channel_basis(weight, u, moment, layer.V.shape[1])
            projected[name] = [ProjectedMoments(basis) for basis in (layer.V.clone(), v.to(layer.V))]
        elif isinstance(layer, TuckerConv2d):  # V is square: it keeps all channels
            _set(layer, u, multiply_modes(u.T, weight, layer.V.double().T), layer.V)
        else:
            # U keeps the order of its eigenvalues and S is lower triangular, so that each prefix is its own best fit.
            v, upper = torch.linalg.qr((u.T @ weight.flatten(1)).T)
            _set(layer, u, upper.T, v)
    observe(dense, images, projected, batch_size)
    for name, candidates in projected.items():
        weight, eps = _weight(dense, name), ridge(moments[name])
        fits = [regression(weight, candidate, eps, layers[name].rank) for candidate in candidates]
        best = max(range(len(fits)), key=lambda i: fits[i][2])
        u, core, _ = fits[best]
        _set(layers[name], u, core.reshape(layers[name].S.shape), candidates[best].basis)


def _is_cut(layer: Factorized) -> bool:
    return layer.rank < min(layer.weight_shape[0], layer.weight_shape[1:].numel())


def _reads_fewer(layer: Factorized) -> bool:
    return isinstance(layer, TuckerConv2d) and layer.V.shape[1] < layer.V.shape[0]


def _weight(dense: nn.Module, name: str) -> Float64[Tensor, "n c *kernel"]:
    return dense.get_submodule(name).get_parameter("weight").double()


def _set(layer: Factorized, u: Float[Tensor, "n r"], s: Float[Tensor, "r s ..."], v: Float[Tensor, "m s"]) -> None:
    layer.U.copy_(u)
    layer.S.copy_(s)
    layer.V.copy_(v)


def ridge(moment: OutputMoment) -> float:
    """Return eps; 1 if a layer's input is always zero."""
    return RIDGE * moment.input_square or 1.0


def leading(moment: Float[Tensor, "n n"], r: int) -> Float[Tensor, "n r"]:
    """Return the eigenvectors of the r largest eigenvalues of a symmetric matrix."""
    return torch.linalg.eigh(moment)[1].flip(1)[:, :r]


def output_basis(weight: Float[Tensor, "n c *kernel"], moment: OutputMoment, r: int) -> Float[Tensor, "n r"]:
    """Return the U of the best W_r = U U^T W: the leading eigenvectors of E[y y^T] + eps W W^T."""
    rows = weight.flatten(1)
    return leading(moment.value + ridge(moment) * rows @ rows.T, r)


def channel_basis(
    weight: Float[Tensor, "n c kh kw"], u: Float[Tensor, "n r"], moment: PatchMoments, s: int
) -> Float[Tensor, "c s"]:
    """Return a basis of the input channels that the outputs in the span of U depend on most.

    C is approximated by a Kronecker product C_c (x) C_k of a moment of channels and one of the kernel's positions. Let
    W_2 be the unfolding (c, r kh kw) of U^T W with its kernels multiplied by C_k^(1/2). The whitened higher-order SVD
    takes the leading left singular vectors of C_c^(1/2) W_2 and undoes the root. With B = W_2 W_2^T the result spans
    B^(1/2) Q, Q the leading eigenvectors of B^(1/2) C_c B^(1/2), which needs no inverse.

    Args:
        weight: of the dense layer.
        u: basis of the outputs that count.
        moment: of the layer.
        s: columns wanted, below c.

    Returns:
        Orthonormal columns.
    """
    kernels = torch.einsum("nc...,nr->cr...", weight, u).flatten(2)
    b = torch.einsum("crk,kl,drl->cd", kernels, moment.offsets, kernels)
    values, vectors = torch.linalg.eigh(b)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    channels = moment.channels + RIDGE / len(b) * torch.eye(len(b)).to(b)
    return torch.linalg.qr(root @ leading(root @ channels @ root, s))[0]


def regression(
    weight: Float[Tensor, "n c kh kw"], moments: ProjectedMoments, eps: float, r: int
) -> tuple[Float[Tensor, "n r"], Float[Tensor, "r patch"], float]:
    """Return the best U and core for a basis of input channels, and their share of E ||y||^2.

    Args:
        weight: of the dense layer.
        moments: of the patches on that basis.
        eps: the ridge.
        r: rank.

    Returns:
        U, the core as a matrix r x (s kh kw), and tr(U^T M G^-1 M^T U): the error is a constant less this.
    """
    projected = torch.einsum("nc...,cs->ns...", weight, moments.basis.to(weight)).flatten(1)
    cross = moments.cross + eps * projected
    gram = moments.gram + eps * torch.eye(cross.shape[1]).to(cross)
    lower = torch.linalg.cholesky(gram)
    half = torch.linalg.solve_triangular(lower, cross.T, upper=False)  # L^-1 M^T
    explained = half.T @ half
    u = leading(explained, r)
    core = torch.linalg.solve_triangular(lower.T, half @ u, upper=True).T
    return u, core, (u.T @ explained @ u).trace().item()
