"""Convolutions in Tucker-2 form: 1 x 1, k x k and 1 x 1, with ranks on both sides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from zoo.linalg import random_stiefel
from zoo.linalg.mode_products import leading_vectors, multiply_modes, unfoldings
from zoo.linalg.spectrum import product_singular_values
from zoo.lowrank.layers import FactorizedConv2d, Init, computes_factors

if TYPE_CHECKING:
    from jaxtyping import Float

SWEEPS = 3
"""Iterations of higher-order orthogonal iteration; the first ones gain most."""


def has_tucker_form(shape: Sequence[int]) -> bool:
    """Return whether a weight of this shape is a k x k kernel, k > 1, that Tucker-2 can represent at every rank."""
    n, m = shape[0], math.prod(shape[1:])
    return len(shape) == 4 and shape[2] * shape[3] > 1 and n <= m


def inner_rank(rank: int, n: int, c: int) -> int:
    """Return the rank on the side of the c input channels, in the ratio of the channels: ceil(rank c / n)."""
    return -(-rank * c // n)


def tucker_size(shape: Sequence[int], rank: int) -> int:
    """Return the number of weights in the three kernels of a Tucker-2 form of a kernel (n, c, h, w)."""
    n, c, *kernel = shape
    inner = inner_rank(rank, n, c)
    return n * rank + math.prod(kernel) * rank * inner + c * inner


class TuckerConv2d(FactorizedConv2d):
    """A convolution with weight S x_1 U x_2 V: 1 x 1 to s channels, k x k to r, 1 x 1 to n.

    U is (n, r) and V (c, s), the core S is (r, s, kh, kw), and s follows from r, see `inner_rank`. With orthonormal
    V the singular values of the weight, as a matrix n x (c kh kw), are those of S as a matrix r x (s kh kw): statements
    about the S of U S V^T hold for that matrix.

    Source: Tucker-2 of Kim et al., Compression of deep CNNs for fast and low power mobile applications, ICLR 2016,
    arXiv 1511.06530; factors by higher-order orthogonal iteration (Kolda, Bader, SIAM Review 2009, 4.2).

    Args:
        conv: see `FactorizedConv2d`; its weight must have a Tucker form, see `has_tucker_form`.
        rank: r, 1 to n.
        init: see `initialize`.
    """

    paired: ClassVar[bool] = False

    @staticmethod
    def factor_shapes(shape: Sequence[int], rank: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of U, S and V for a weight of this shape."""
        n, c, *kernel = shape
        inner = inner_rank(rank, n, c)
        return (n, rank), (rank, inner, *kernel), (c, inner)

    @property
    def weight(self) -> Float[Tensor, "n c kh kw"]:
        """The product S x_1 U x_2 V."""
        return multiply_modes(self.U, self.S, self.V)

    @property
    def core_matrix(self) -> Float[Tensor, "patch r"]:
        """The transpose of the core's first unfolding, (s kh kw) x r."""
        return self.S.flatten(1).mT

    def as_core(self, matrix: Float[Tensor, "patch r"]) -> Float[Tensor, "r s kh kw"]:
        """Return the S whose `core_matrix` this is."""
        return matrix.mT.reshape(self.S.shape)

    @property
    def deployed_weights(self) -> int:
        """The number of weights in the three kernels."""
        return tucker_size(self.weight_shape, self.rank)

    def _weights(self) -> tuple[Tensor, ...]:
        if not self.pays:
            return (self.weight,)
        return self.V.T[:, :, None, None], self.S, self.U[:, :, None, None]

    @torch.no_grad()
    def initialize(self, weight: Float[Tensor, "n c kh kw"], init: Init) -> None:
        """Set the factors from a dense weight.

        Args:
            weight: the dense weight.
            init: ``"weights"``: its orthogonal projection onto bases that fit it well. ``"random"``: U and V uniform on
                the Stiefel manifold, S a multiple of a matrix with orthonormal rows, with the weight's Frobenius norm.
        """
        if not computes_factors():
            return
        dense = weight.detach().double()
        (r, s, *kernel), (n, c) = self.S.shape, dense.shape[:2]
        if init == "random":
            core = random_stiefel(s * math.prod(kernel), r).T.reshape(self.S.shape)
            self.S.copy_(core * (dense.norm().cpu() / r**0.5))
            self.U.copy_(random_stiefel(n, r))
            self.V.copy_(random_stiefel(c, s))
            return
        v = leading_vectors(unfoldings(dense)[1])[:, :s]
        for _ in range(SWEEPS):
            u = leading_vectors(torch.einsum("nc...,cs->ns...", dense, v).flatten(1))[:, :r]
            v = leading_vectors(torch.einsum("nc...,nr->cr...", dense, u).flatten(1))[:, :s]
        self.U.copy_(u)
        self.V.copy_(v)
        self.S.copy_(multiply_modes(u.T, dense, v.T))

    @torch.no_grad()
    def singular_values(self) -> Float[Tensor, " r"]:
        """Return the r singular values of the weight as a matrix n x (c kh kw), descending."""
        triangle = torch.linalg.qr(self.V.double(), mode="r")[1]
        wide = torch.einsum("rs...,ts->rt...", self.S.double(), triangle).flatten(1)
        return product_singular_values(self.U, torch.linalg.qr(wide.T, mode="r")[1].T, torch.eye(self.rank)).to(self.S)

    @torch.no_grad()
    def energies(self) -> tuple[Float[Tensor, " r"], Float[Tensor, " s"]]:
        """Return the largest cost in ||W - W'||_F^2 of cutting each column of U and of V, in the singular basis.

        The squares of the singular values of both unfoldings, descending.
        """
        first, second = (matrix.square().sum(1) for matrix in unfoldings(self.S))
        return first, second
