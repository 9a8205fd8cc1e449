"""Keep the condition number of every core S bounded while it trains."""

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from zoo.callbacks._step_hook import StepHook
from zoo.layers import by_rank
from zoo.linalg import clamp_spectrum, condition_number
from zoo.linalg.stiefel import full_precision


class SpectrumClamp(StepHook):
    """Clip the singular values of each S around their mean after each optimizer step, so that kappa(S) <= 1 + tau.

    With orthonormal U and V (see `OrthonormalRetraction`, which must come first) this bounds the condition
    number of the layer's weight, since kappa(U S V^T) = kappa(S).

    Args:
        tau: >= 0; 0 makes all singular values of a layer equal.

    Attributes:
        condition_number: the largest over all layers after the last step.
        worst: the largest after any step of the present epoch; logged as ``worst_condition``.
    """

    def __init__(self, tau: float = 0.1) -> None:
        super().__init__()
        if not 0 <= tau < float("inf"):
            raise ValueError(f"tau must be >= 0 and finite, got {tau}")
        self.tau = tau
        self.condition_number = self.worst = 1.0

    def restore(self, optimizer: Optimizer | None) -> None:
        """Clamp the spectrum of every S; before training, only where the bound does not hold yet."""
        largest = []
        for layers in by_rank(self.layers):
            cores = [layer.S.data for layer in layers]
            with full_precision(cores[0].device):
                s = torch.stack(cores)
                if optimizer is None and self._bounded(s):
                    continue
                s, values = clamp_spectrum(s, self.tau)
                torch._foreach_copy_(cores, list(s))
                largest.append(condition_number(values).max())
        if largest:
            self.condition_number = max(x.item() for x in largest)
            self.worst = max(self.worst, self.condition_number)

    def _bounded(self, s: Tensor) -> bool:
        return bool((condition_number(torch.linalg.svdvals(s)) <= (1 + self.tau) * (1 + 1e-5)).all())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the largest condition number that any step of the epoch ended with."""
        pl_module.log("worst_condition", self.worst)
        self.worst = 1.0
