"""PSOFT: rotate the principal subspace of each weight, arXiv 2505.11235."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.lowrank.layers import Factorized
from zoo.methods._fine_tuning import FineTuningMethod


class Rotation(nn.Module):
    """Maps rows X, (r, k), to diag(a) R X diag(b) with R = (I - K)^-1 (I + K), K skew; at first it changes nothing.

    Args:
        rows: r.
        columns: k; b acts on them.
        like: whose device and type the numbers have.
    """

    def __init__(self, rows: int, columns: int, like: Tensor) -> None:
        super().__init__()
        self.angles = nn.Parameter(like.new_zeros(rows * (rows - 1) // 2))
        self.a, self.b = nn.Parameter(like.new_ones(rows)), nn.Parameter(like.new_ones(columns))

    def orthogonal(self) -> Tensor:
        """Return R, (r, r)."""
        r = len(self.a)
        above = torch.triu_indices(r, r, 1, device=self.a.device)
        upper = self.a.new_zeros(r, r).index_put((above[0], above[1]), self.angles)
        skew, identity = upper - upper.T, torch.eye(r, dtype=upper.dtype, device=upper.device)
        return torch.linalg.solve_ex(identity - skew, identity + skew)[0]  # never singular; a CUDA graph cannot check


class CoreRotation(Rotation):
    """Maps a core S, (r, s, ...), to diag(a) R S diag(b): R and a along its first axis, b along its second."""

    def forward(self, core: Tensor) -> Tensor:
        """Return the rotated core."""
        rest = [1] * (core.ndim - 2)
        rotated = (self.orthogonal() @ core.flatten(1)).view_as(core)
        return rotated * self.a.view(-1, 1, *rest) * self.b.view(1, -1, *rest)


class WeightRotation(Rotation):
    """Rotates the largest components P D Q^T of a dense weight, (n, ...): W + P (diag(a) R D diag(b) - D) Q^T."""

    left: Tensor
    s: Tensor
    right: Tensor

    def __init__(self, weight: Tensor, rank: int) -> None:
        u, s, vh = torch.linalg.svd(weight.detach().flatten(1).float(), full_matrices=False)
        k = min(rank, len(s))
        super().__init__(k, k, weight)
        for name, value in (("left", u[:, :k]), ("s", s[:k]), ("right", vh[:k].T)):
            self.register_buffer(name, value.contiguous().to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rotated weight."""
        core = self.a[:, None] * (self.orthogonal() * (self.s * self.b))
        return weight + (self.left @ (core - self.s.diag()) @ self.right.T).view_as(weight)


@dataclass(frozen=True)
class Psoft(FineTuningMethod):
    """An orthogonal rotation of each weight's principal subspace, with two scaling vectors; its directions stay.

    Of a factorized layer this is the whole subspace that it keeps: S becomes diag(a) R S diag(b).
    """

    rank: int = 32
    """Components that are rotated in a dense layer."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"rank {self.rank} is invalid: give at least 1 component")

    def adapters(self, layer: nn.Module) -> dict[str, nn.Module]:
        """Return the rotation of S, or of a dense weight."""
        if isinstance(layer, Factorized):
            return {"S": CoreRotation(layer.S.shape[0], layer.S.shape[1], layer.S)}
        return {"weight": WeightRotation(layer.get_parameter("weight"), self.rank)}
