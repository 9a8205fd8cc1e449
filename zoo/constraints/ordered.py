"""Constraints under which every prefix of a layer's components is orthonormal and well conditioned too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from zoo.constraints._base import Layers, several
from zoo.constraints.bounded_spectrum import BoundedSpectrum
from zoo.constraints.orthonormal import Orthonormal
from zoo.linalg import clamp_each
from zoo.linalg.stiefel import full_precision, householder_qr, stiefel_tangent_
from zoo.lowrank.layers import Factorized
from zoo.runtime.cuda_graph import called

ROTATION = 0.25
"""Speed of rotations within the span of a factor, in units of the gradient flow's."""
TRIANGULAR = 1e-6
"""Largest entry above the diagonal, over the largest entry, of an S that counts as lower triangular."""


class OrderedOrthonormal(Orthonormal):
    """Orthonormal U and V whose columns may exchange their order: rotations within their spans are kept.

    `Orthonormal` leaves these rotations to S, since they change the whole weight no differently. A prefix has only the
    leading columns, so for it they matter. The QR retraction keeps the span of every number of leading columns, because
    R is triangular. Gradients of an S that is a matrix are made lower triangular, see `OrderedSpectrum`.

    S moves the weight within the spans already, and so do the rotations of U and of V: they are slowed down to
    `ROTATION`, or the weight would move three times as fast there as elsewhere.
    """

    tangent_ = staticmethod(partial(stiefel_tangent_, rotation=ROTATION))

    def gradient_flow_(self, layers: Layers, optimizer: Optimizer | None = None, *, clipped: bool = False) -> None:
        """Turn the gradients into the directions of the gradient flow on ordered factors; see `Orthonormal`."""
        super().gradient_flow_(layers, optimizer, clipped=clipped)
        for layer in several(layers):
            if layer.S.grad is not None and layer.S.ndim == 2:
                layer.S.grad.tril_()


class OrderedSpectrum(BoundedSpectrum):
    """The cores with kappa(S) <= 1 + tau, the matrices among them lower triangular: kappa of every prefix is bounded.

    With a lower triangular S the prefix of k components is U_k U_k^T W. Its singular values are those of k rows of S,
    which by Cauchy's interlacing lie between the smallest and the largest of S. `project_` clamps as `BoundedSpectrum`
    does and factors the result S = L Q^T, L lower triangular with a positive diagonal; Q goes into V, so the weight
    does not change.

    A prefix of a Tucker-2 core has fewer input channels as well, and no such bound. `project_` therefore clamps the
    cores of the prefixes that ``prefixes`` names, the smallest first, and the whole core last. Each clamp moves a few
    entries of the others: only the bound of the whole core is exact, and the bounds of prefixes hold after a cut if the
    remaining layers are projected once more.

    Args:
        tau: see `BoundedSpectrum`.
        run: see `BatchedConstraint`.

    Attributes:
        prefixes: ranks of each layer's prefixes to clamp, for layers in Tucker-2 form.

    Examples:
        >>> import torch
        >>> from zoo.constraints import OrderedSpectrum
        >>> from zoo.lowrank.layers import FactorizedLinear
        >>> from zoo.lowrank.prefix import prefix
        >>> layer = FactorizedLinear(torch.nn.Linear(30, 20), rank=6)
        >>> OrderedSpectrum(tau=0.1).project_(layer)
        >>> all(prefix(layer, k).condition_number() <= 1.1 * (1 + 1e-5) for k in range(1, 7))
        True
    """

    def __init__(self, tau: float = 0.1, run: Callable[..., Any] = called) -> None:
        super().__init__(tau, run)
        self.prefixes: Mapping[Factorized, Sequence[int]] = {}

    def _holds(self, layer: Factorized) -> bool:
        return is_ordered(layer) and super()._holds(layer)

    def project_if_outside_(self, layers: Layers) -> None:
        """Make matrices lower triangular, which changes no weight, then clamp batches of layers that need it."""
        unordered = [x for x in several(layers) if self._trains(x) and not is_ordered(x)]
        for batch in _by_shape(unordered):
            with full_precision(batch[0].S.device):
                order_(batch)
        super().project_if_outside_(layers)

    def _project_batches(self, found: Iterable[list[Factorized]]) -> None:
        # On a GPU matrices of several sizes are one batch; QR wants them by size.
        super()._project_batches(x for batch in found for x in _by_shape(batch))

    def _project(self, layers: list[Factorized]) -> None:
        if layers[0].S.ndim > 2:
            self._clamp_prefixes(layers)
        super()._project(layers)
        if layers[0].S.ndim == 2:
            order_(layers)

    def _clamp_prefixes(self, layers: list[Factorized]) -> None:
        ranks = sorted({rank for layer in layers for rank in self.prefixes.get(layer, ()) if rank < layer.rank})
        for rank in ranks:
            r, s = layers[0].ranks_at(rank)
            cores = [layer.S.data[:r, :s] for layer in layers if rank in self.prefixes.get(layer, ())]
            clamped, _ = clamp_each([core.flatten(1).mT for core in cores], self.tau, self.run)
            for core, matrix in zip(cores, clamped, strict=True):
                core.copy_(matrix.mT.reshape(core.shape))


def is_ordered(layer: Factorized) -> bool:
    """Return whether S is lower triangular, or a Tucker-2 core."""
    core = layer.S.data
    return core.ndim > 2 or bool(core.triu(1).abs().max() <= TRIANGULAR * core.abs().max())


def order_(layers: Sequence[Factorized]) -> None:
    """Make S lower triangular, in place, by a rotation of V: neither the weight nor U changes.

    Args:
        layers: with square S of one shape, on one device.
    """
    q, r = householder_qr(torch.stack([layer.S.data.mT for layer in layers]))
    for layer, basis, upper in zip(layers, q, r, strict=True):
        layer.S.data.copy_(upper.mT)
        layer.V.data.copy_(layer.V.data @ basis)


def _by_shape(layers: list[Factorized]) -> list[list[Factorized]]:
    groups: dict[tuple[int, ...], list[Factorized]] = {}
    for layer in layers:
        groups.setdefault((*layer.S.shape, *layer.weight_shape[:2]), []).append(layer)
    return list(groups.values())
