"""Base of the methods that train some singular components of each layer, and freeze the others."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.lowrank.layers import Factorized
from zoo.methods._fine_tuning import FineTuningMethod


class LowRankPart(nn.Module):
    """Adds B A, (n, k) and (k, m), to the rest of a dense weight; at first they are components of the weight.

    Args:
        weight: (n, ...).
        chosen: which of its components, by descending singular value.
    """

    def __init__(self, weight: Tensor, chosen: slice) -> None:
        super().__init__()
        u, s, vh = torch.linalg.svd(weight.detach().flatten(1).float(), full_matrices=False)
        root = s[chosen].sqrt()
        self.B = nn.Parameter((u[:, chosen] * root).to(weight))
        self.A = nn.Parameter((root[:, None] * vh[chosen]).to(weight))

    def forward(self, rest: Tensor) -> Tensor:
        """Return the weight."""
        return rest + (self.B @ self.A).view_as(rest)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the rest of a weight."""
        return weight - (self.B @ self.A).detach().view_as(weight)


class Replaced(nn.Module):
    """Trains some columns (dim 1) or rows (dim 0) of a factor.

    Args:
        factor: whose values they start from.
        chosen: which.
        dim: along which axis.
    """

    at: Tensor

    def __init__(self, factor: Tensor, chosen: slice, dim: int) -> None:
        super().__init__()
        self.register_buffer("at", torch.arange(factor.shape[dim], device=factor.device)[chosen], persistent=False)
        self.dim = dim
        self.values = nn.Parameter(factor.detach().index_select(dim, self.at))

    def forward(self, factor: Tensor) -> Tensor:
        """Return the factor with the trained part in its place."""
        return factor.index_copy(self.dim, self.at, self.values)


@dataclass(frozen=True, kw_only=True)
class ComponentsMethod(FineTuningMethod):
    """Low-rank updates B A that start as components of the weight, so that no rank grows.

    In a factorized layer B is columns of U and A columns of V; in a Tucker-2 convolution, rows of the core.
    """

    rank: int = 8
    """Components to train in each layer (all of them, in a layer that has fewer)."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"rank {self.rank} is invalid: give at least 1 component")

    @abstractmethod
    def chosen(self, rank: int) -> slice:
        """Return which components of a layer are trained, by descending singular value."""

    def adapters(self, layer: nn.Module) -> dict[str, nn.Module]:
        """Return the trained parts of U and V (or of a Tucker-2 core), or of a dense weight."""
        if not isinstance(layer, Factorized):
            weight = layer.get_parameter("weight")
            return {"weight": LowRankPart(weight, self.chosen(min(weight.flatten(1).shape)))}
        chosen = self.chosen(layer.rank)
        with torch.no_grad():  # both factors of the trained part have the same norm
            root = layer.S.flatten(1).norm(dim=1)[chosen].sqrt().clamp_min(torch.finfo(layer.S.dtype).tiny)
            layer.U[:, chosen] *= root
            if layer.paired:
                layer.V[:, chosen] *= root
                layer.S.diagonal()[chosen] = 1
            else:
                layer.S[chosen] /= root.view(-1, *[1] * (layer.S.ndim - 1))
        columns = Replaced(layer.U, chosen, 1)
        if layer.paired:
            return {"U": columns, "V": Replaced(layer.V, chosen, 1)}
        return {"U": columns, "S": Replaced(layer.S, chosen, 0)}
