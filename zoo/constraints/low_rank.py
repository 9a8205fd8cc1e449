"""Both constraints of a well-conditioned factorization in one object."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from zoo.constraints._base import Constraint, Layers, several
from zoo.constraints.bounded_spectrum import BoundedSpectrum
from zoo.constraints.orthonormal import Orthonormal
from zoo.runtime.cuda_graph import called


class LowRankConstraint(Constraint):
    """Orthonormal U and V and a condition number of S of at most 1 + tau: `Orthonormal`, then `BoundedSpectrum`.

    It is what the method ``robust_lowrank`` trains under (CondLR, arXiv 2306.01485). `in_set` has the tolerances of
    the two: ||X^T X - I||_2 <= 1e-5 for U and V, kappa(S) <= (1 + tau) (1 + 1e-5).

    Args:
        tau: >= 0; 0 makes all singular values of a layer equal.
        run: see `BatchedConstraint`.

    Raises:
        ValueError: tau is negative or not finite.

    Examples:
        >>> import torch
        >>> from zoo.constraints import LowRankConstraint
        >>> from zoo.lowrank.factorize import factorize
        >>> model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.ReLU(), torch.nn.Linear(30, 5))
        >>> model = factorize(model, {"0": 8, "2": 5})
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> constraint = LowRankConstraint(tau=0.1)
        >>> constraint.project_(model)
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     loss = model(torch.rand(16, 20)).square().mean()
        ...     loss.backward()
        ...     constraint.gradient_flow_(model, optimizer)
        ...     optimizer.step()
        ...     constraint.project_(model)
        >>> constraint.in_set(model)
        True
    """

    def __init__(self, tau: float = 0.1, run: Callable[..., Any] = called) -> None:
        self.orthonormal = Orthonormal(run)
        self.bounded_spectrum = BoundedSpectrum(tau, run)

    def in_set(self, layers: Layers) -> bool:
        """Return whether all layers satisfy both constraints, frozen ones too."""
        layers = list(several(layers))
        return self.orthonormal.in_set(layers) and self.bounded_spectrum.in_set(layers)

    def project_(self, layers: Layers) -> None:
        """Retract U and V, let S absorb their R factors, then clip the singular values of S; in place.

        Raises:
            torch.linalg.LinAlgError: a factor has infinite or undefined entries.
        """
        layers = list(several(layers))
        self.orthonormal.project_(layers)
        self.bounded_spectrum.project_(layers)

    def project_if_outside_(self, layers: Layers) -> None:
        """Move the layers into the set, in place, but leave a batch of layers that lies in it bit for bit as it is."""
        layers = list(several(layers))
        self.orthonormal.project_if_outside_(layers)
        self.bounded_spectrum.project_if_outside_(layers)

    def gradient_flow_(self, layers: Layers, optimizer: Optimizer | None = None, *, clipped: bool = False) -> None:
        """Make gradients of U and V the gradient flow of the rank-r manifold; see `Orthonormal.gradient_flow_`."""
        self.orthonormal.gradient_flow_(layers, optimizer, clipped=clipped)
