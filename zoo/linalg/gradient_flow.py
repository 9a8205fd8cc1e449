"""The metric of the manifold of rank-r matrices, in the scalar form that its gradient flow is stepped with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

TINY = 1e-12
"""Keeps the scale of a step finite if S vanishes."""


@torch.no_grad()
def flow_scales(cores: Sequence[Float[Tensor, "_ _ ..."]], columns: Sequence[int]) -> tuple[Float[Tensor, ""], ...]:
    """Return r / ||S||_F^2 of several factors, the scalar form of (S S^T)^-1 in the rank-r manifold's gradient flow.

    Args:
        cores: S of each factor's layer, all on one device.
        columns: r of each factor: U and V of a Tucker-2 layer have different numbers of columns.
    """
    scales = torch._foreach_pow(torch._foreach_norm(list(cores)), -2)
    torch._foreach_clamp_max_(scales, 1 / TINY)
    torch._foreach_mul_(scales, [float(r) for r in columns])
    return tuple(scales)
