"""New coordinates of a product U S V^T: how factors, gradients and second moments follow a change of basis.

S may have further axes, (r, s, ...): B then acts along its second axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from zoo.linalg.mode_products import leading_vectors, multiply_modes, unfoldings

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Role = Literal["U", "S", "V"]


@dataclass(frozen=True)
class BasisChange:
    """The change U' = U A, S' = A^+ S B^+T, V' = V B of a product U S V^T, which keeps the product if k = r.

    With fewer columns than rows (see `keep`) it is a truncation.

    Attributes:
        left: A.
        left_inverse: A^+, with A^+ A = I.
        right: B.
        right_inverse: B^+.
    """

    left: Float[Tensor, "r k"]
    left_inverse: Float[Tensor, "k r"]
    right: Float[Tensor, "s l"]
    right_inverse: Float[Tensor, "l s"]

    def factor(self, role: Role, x: Tensor) -> Tensor:
        """Return U', S' or V'."""
        if role == "S":
            return multiply_modes(self.left_inverse, x, self.right_inverse)
        return x @ (self.left if role == "U" else self.right)

    def gradient(self, role: Role, x: Tensor) -> Tensor:
        """Return the gradient in U', S' or V' from the one in U, S or V (chain rule): U A^+T, A^T S B, V B^+T."""
        if role == "S":
            return multiply_modes(self.left.T, x, self.right.T)
        return x @ (self.left_inverse if role == "U" else self.right_inverse).T

    def second_moment(self, role: Role, x: Tensor) -> Tensor:
        """Return the expected squares of a gradient's entries from the old ones, assuming uncorrelated entries.

        Each new entry is a sum of old ones with the coefficients of `gradient`; variances add up with their
        squares. All stay >= 0, as an adaptive optimizer needs them.
        """
        squared = BasisChange(
            self.left.square(), self.left_inverse.square(), self.right.square(), self.right_inverse.square()
        )
        return squared.gradient(role, x)


def singular_basis(u: Float[Tensor, "n r"], s: Float[Tensor, "r s ..."], v: Float[Tensor, "m s"]) -> BasisChange:
    """Return the change to U' and V' with orthonormal columns and diagonal S': the SVD of U S V^T.

    Singular values are descending. Of a core with further axes the result is the higher-order SVD: the rows of both
    unfoldings of S' are orthogonal, their norms are the singular values of the weight's unfoldings (De Lathauwer, De
    Moor, Vandewalle, SIAM J. Matrix Anal. Appl. 21 (2000), theorem 2). Computed in fp64 on the core; the dense product
    is never formed.

    Args:
        u: full column rank.
        s: square, or with further axes and none larger than all others together.
        v: full column rank.
    """
    ru, rv = (torch.linalg.qr(x.double(), mode="r")[1] for x in (u, v))
    core = multiply_modes(ru, s.double(), rv)
    if core.ndim == 2:
        p, _, qh = torch.linalg.svd(core)
    else:
        p, q = (leading_vectors(matrix) for matrix in unfoldings(core))
        qh = q.T
    left, right = (torch.linalg.solve_triangular(r, x, upper=True) for r, x in ((ru, p), (rv, qh.T)))
    return BasisChange(left.to(u), (p.T @ ru).to(u), right.to(v), (qh @ rv).to(v))


def embedding(s: Float[Tensor, "r s ..."], more: int, more_right: int | None = None) -> BasisChange:
    """Return the change to r + more columns, with zeros in the new ones, on S's device and in its type.

    Args:
        s: the core.
        more: new columns of U.
        more_right: new columns of V; None: as many.
    """
    added = (more, more if more_right is None else more_right)
    wide = [torch.eye(old, old + new, dtype=s.dtype, device=s.device) for old, new in zip(s.shape, added, strict=False)]
    return BasisChange(wide[0], wide[0].T, wide[1], wide[1].T)


def slicing(
    s: Float[Tensor, "r s ..."], kept: Int[Tensor, " k"], kept_right: Int[Tensor, " l"] | None = None
) -> BasisChange:
    """Return the change that keeps some columns and drops the others, on S's device and in its type.

    Args:
        s: the core.
        kept: indices of columns of U.
        kept_right: indices of columns of V; None: the same.
    """
    chosen = (kept, kept if kept_right is None else kept_right)
    rows = [torch.eye(size, dtype=s.dtype, device=s.device)[i] for size, i in zip(s.shape, chosen, strict=False)]
    return BasisChange(rows[0].T, rows[0], rows[1].T, rows[1])
