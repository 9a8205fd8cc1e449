"""SVF: one positive number for each singular value of a trained network.

Sun, Cetin, Tang: Transformer-squared: self-adaptive LLMs, ICLR 2025, arXiv 2501.06252; there by reinforcement learning.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.lowrank.layers import Factorized
from zoo.methods._fine_tuning import FineTuningMethod


class SpectrumScale(nn.Module):
    """Positive factors on singular values that keep their sum: s exp(p) sum(s) / sum(s exp(p)), at first 1.

    Args:
        s: (r,), singular values.
        tau: see `Svf`.
    """

    s: Tensor

    def __init__(self, s: Tensor, tau: float | None) -> None:
        super().__init__()
        self.register_buffer("s", s.detach().clone())
        self.p, self.tau = nn.Parameter(torch.zeros_like(s)), tau

    def factors(self) -> Tensor:
        """Return the factor of each singular value, (r,)."""
        scaled = self.s * self.p.exp()
        if self.tau is not None:
            middle = scaled.mean()
            edge = middle * self.tau / (2 + self.tau)
            scaled = torch.minimum(torch.maximum(scaled, middle - edge), middle + edge)
        kept = self.s.sum() / scaled.sum()
        return kept * (self.p.exp() if self.tau is None else scaled / self.s.clamp_min(torch.finfo(self.s.dtype).tiny))


class CoreScale(SpectrumScale):
    """Scales the rows of a core S, (r, s, ...), whose rows are orthogonal: their norms are the singular values."""

    def forward(self, core: Tensor) -> Tensor:
        """Return the scaled core."""
        return core * self.factors().view(-1, *[1] * (core.ndim - 1))


class WeightScale(SpectrumScale):
    """Scales the singular values of a dense weight, (n, ...): W + P diag(z - 1) P^T W with its left vectors P."""

    left: Tensor

    def __init__(self, weight: Tensor, tau: float | None) -> None:
        left, s, _ = torch.linalg.svd(weight.detach().flatten(1).float(), full_matrices=False)
        super().__init__(s.to(weight), tau)
        self.register_buffer("left", left.to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the scaled weight."""
        change = (self.factors() - 1)[:, None] * (self.left.T @ weight.flatten(1))
        return weight + (self.left @ change).view_as(weight)


@dataclass(frozen=True)
class Svf(FineTuningMethod):
    """One positive number for each singular value of a trained network; their sum in each layer stays.

    Of a Tucker-2 convolution these are the singular values of its weight as a matrix n x (c kh kw). The numbers are
    factors exp(p): `--optimizer adamw --lr 2e-3` suits every network.
    """

    tau: float | None = None
    """Keep condition numbers at most 1 + tau, for a start that is so conditioned; by default they are free."""

    def __post_init__(self) -> None:
        if self.tau is not None and not 0 <= self.tau < float("inf"):
            raise UserError(f"tau {self.tau} is invalid: the condition number's bound 1 + tau needs a tau from 0 up")

    def adapters(self, layer: nn.Module) -> dict[str, nn.Module]:
        """Return the scale of S, or of a dense weight."""
        if isinstance(layer, Factorized):
            return {"S": CoreScale(layer.S.flatten(1).norm(dim=1), self.tau)}
        return {"weight": WeightScale(layer.get_parameter("weight"), self.tau)}
