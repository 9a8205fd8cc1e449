"""New coordinates of a product U S V^T: how factors, gradients and second moments follow a change of basis."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Role = Literal["U", "S", "V"]


@dataclass(frozen=True)
class BasisChange:
    """The change U' = U A, S' = A^+ S B^+T, V' = V B of a product U S V^T, which leaves it as it is if k = r.

    With fewer columns than rows (see `keep`) it is a truncation.

    Attributes:
        left: A, (r, k).
        left_inverse: A^+, (k, r), with A^+ A = I.
        right: B, (r, k).
        right_inverse: B^+, (k, r).
    """

    left: Tensor
    left_inverse: Tensor
    right: Tensor
    right_inverse: Tensor

    def keep(self, kept: Tensor) -> "BasisChange":
        """Return the change to only these of the new columns; indices of shape (k,)."""
        return BasisChange(self.left[:, kept], self.left_inverse[kept], self.right[:, kept], self.right_inverse[kept])

    def factor(self, role: Role, x: Tensor) -> Tensor:
        """Return U', S' or V'."""
        if role == "S":
            return self.left_inverse @ x @ self.right_inverse.T
        return x @ (self.left if role == "U" else self.right)

    def gradient(self, role: Role, x: Tensor) -> Tensor:
        """Return the gradient in U', S' or V' from that in U, S or V (chain rule): U A^+T, A^T S B, V B^+T."""
        if role == "S":
            return self.left.T @ x @ self.right
        return x @ (self.left_inverse if role == "U" else self.right_inverse).T

    def second_moment(self, role: Role, x: Tensor) -> Tensor:
        """Return the expected squares of a gradient's entries from the old ones, its entries being uncorrelated.

        Each new entry is a sum of old ones with the coefficients of `gradient`; variances add up with their
        squares. All stay >= 0, as an adaptive optimizer needs them.
        """
        squared = BasisChange(
            self.left.square(), self.left_inverse.square(), self.right.square(), self.right_inverse.square()
        )
        return squared.gradient(role, x)


def singular_basis(u: Tensor, s: Tensor, v: Tensor) -> BasisChange:
    """Return the change to U' and V' with orthonormal columns and diagonal S': the SVD of U S V^T.

    Singular values are descending. Computed in fp64 on r x r matrices; the dense product is never formed.

    Args:
        u: (n, r), full column rank.
        s: (r, r).
        v: (m, r), full column rank.
    """
    ru, rv = (torch.linalg.qr(x.double(), mode="r")[1] for x in (u, v))
    p, _, qh = torch.linalg.svd(ru @ s.double() @ rv.T)
    left, right = (torch.linalg.solve_triangular(r, x, upper=True) for r, x in ((ru, p), (rv, qh.T)))
    return BasisChange(left.to(u), (p.T @ ru).to(u), right.to(v), (qh @ rv).to(v))


def embedding(s: Tensor, more: int) -> BasisChange:
    """Return the change to r + more columns of which the new ones are zero, on S's device and in its type."""
    wide = torch.eye(len(s), len(s) + more, dtype=s.dtype, device=s.device)
    return BasisChange(wide, wide.T, wide, wide.T)


def slicing(s: Tensor, kept: Tensor) -> BasisChange:
    """Return the change that keeps some of the r columns as they are, on S's device and in its type."""
    eye = torch.eye(len(s), dtype=s.dtype, device=s.device)
    return BasisChange(eye, eye, eye, eye).keep(kept)
