"""Tensors in the graph with a bound on their dependence on the image."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Activation:
    """A tensor that depends on the image, and how strongly.

    Attributes:
        shape: its shape.
        scale: Lipschitz constant of the map from the image to it, before ``rows``.
        rows: matrices (groups, n/groups, m/groups) that are still to be applied to each position's vector
            along ``axis``. Kept apart so that the norm of a product is taken, not the product of norms.
        axis: of the channels that the matrices made.
    """

    shape: Shape
    scale: float
    rows: Tensor | None = None
    axis: int = 1

    @cached_property
    def bound(self) -> float:
        """Lipschitz constant of the map from the image to this tensor."""
        return self.scale if self.rows is None else self.scale * spectral_norm(self.rows)


def spectral_norm(matrices: Tensor) -> float:
    """Return the largest singular value of a batch (g, n, m), from the smaller Gram matrix in fp64."""
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    return torch.linalg.eigvalsh(wide @ wide.mT)[..., -1].max().clamp_min(0).sqrt().item()


def spread(shape: Shape, x: Activation) -> float:
    """Return the bound of x broadcast or repeated to a shape: each copy of an entry moves as far."""
    return x.bound * math.sqrt(math.prod(shape) / math.prod(x.shape))
