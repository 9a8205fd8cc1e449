"""Keep the condition number of every core S bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.constraints._base import BatchedConstraint
from zoo.linalg import clamp_each, condition_number
from zoo.linalg.stiefel import full_precision
from zoo.lowrank.layers import Factorized
from zoo.runtime.cuda_graph import called

if TYPE_CHECKING:
    from jaxtyping import Float

TOLERANCE = 1e-5
"""The share by which a condition number may exceed its bound: a few roundings of fp32."""


class BoundedSpectrum(BatchedConstraint):
    """The cores S with kappa(S) <= 1 + tau, which `project_` reaches by clipping singular values around their mean.

    With orthonormal U and V (see `Orthonormal`, which must come first) this bounds the condition number of the layer's
    weight, since kappa(U S V^T) = kappa(S); of a Tucker-2 convolution, as a matrix n x (c kh kw), since that is kappa
    of the core's first unfolding. `in_set` tolerates (1 + tau) (1 + 1e-5). A layer whose S is frozen does not change.

    With m the mean singular value of S, K = 1 + tau and e = m (K - 1) / (K + 1), `project_` computes

        argmin ||Z - S||_F  over all Z whose singular values lie in [m - e, m + e]

    It is the Frobenius projection on that interval of spectra around the mean, and not onto {Z: kappa(Z) <= K}: that
    set holds the intervals [a, K a] for every a, one of which is at least as near to S. The interval depends on S
    through its mean, and clipping moves the mean, so a second `project_` may clip again, within the set;
    `project_if_outside_` does not change a bit of layers in the set.
    Source: CondLR (arXiv 2306.01485), as in its released optimizer.

    Args:
        tau: >= 0; 0 makes all singular values of a layer equal.
        run: see `BatchedConstraint`.

    Attributes:
        largest: the largest condition number of the layers that the last projection moved, on their device, since
            reading it would wait for that at every step; None if it moved none.

    Raises:
        ValueError: tau is negative or not finite.

    Examples:
        >>> import torch
        >>> from zoo.constraints import BoundedSpectrum
        >>> from zoo.lowrank.layers import FactorizedLinear
        >>> layer = FactorizedLinear(torch.nn.Linear(30, 20), rank=6)
        >>> constraint = BoundedSpectrum(tau=0.1)
        >>> constraint.in_set(layer)
        False
        >>> constraint.project_(layer)
        >>> constraint.in_set(layer)
        True
        >>> layer.condition_number() <= 1.1 * (1 + 1e-5)
        True
    """

    def __init__(self, tau: float = 0.1, run: Callable[..., Any] = called) -> None:
        super().__init__(run)
        if not 0 <= tau < float("inf"):
            raise ValueError(f"tau must be >= 0 and finite, got {tau}")
        self.tau = tau
        self.largest: Float[Tensor, ""] | None = None

    def _trains(self, layer: Factorized) -> bool:
        return layer.S.requires_grad

    def _holds(self, layer: Factorized) -> bool:
        core = layer.core_matrix.data
        with full_precision(core.device):
            return bool(condition_number(torch.linalg.svdvals(core)) <= (1 + self.tau) * (1 + TOLERANCE))

    def _project_batches(self, found: Iterable[list[Factorized]]) -> None:
        self._conditions: list[Float[Tensor, ""]] = []
        super()._project_batches(found)
        conditions = self._conditions
        self.largest = torch.stack([x.to(conditions[0].device) for x in conditions]).max() if conditions else None

    def _project(self, layers: list[Factorized]) -> None:
        clamped, condition_numbers = clamp_each([layer.core_matrix.data for layer in layers], self.tau, self.run)
        restored = [layer.as_core(matrix) for layer, matrix in zip(layers, clamped, strict=True)]
        torch._foreach_copy_([layer.S.data for layer in layers], restored)
        self._conditions.append(condition_numbers.max())
