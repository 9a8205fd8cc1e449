"""Keep the condition number of every core S bounded while it trains."""

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from zoo.callbacks._step_hook import StepHook, batches
from zoo.linalg import clamp_each, condition_number
from zoo.linalg.stiefel import full_precision


class SpectrumClamp(StepHook):
    """Clip the singular values of each S around their mean after each optimizer step, so that kappa(S) <= 1 + tau.

    With orthonormal U and V (see `OrthonormalRetraction`, which must come first) this bounds the condition
    number of the layer's weight, since kappa(U S V^T) = kappa(S); of a Tucker-2 convolution, as a matrix
    n x (c kh kw), since that is kappa of the core's first unfolding. The largest condition number after any
    step of an epoch is logged as ``worst_condition``. A layer whose S is frozen is left as it is, and does not count.

    Args:
        tau: >= 0; 0 makes all singular values of a layer equal.
    """

    def __init__(self, tau: float = 0.1) -> None:
        super().__init__()
        if not 0 <= tau < float("inf"):
            raise ValueError(f"tau must be >= 0 and finite, got {tau}")
        self.tau = tau
        self._latest = self._worst = torch.ones(())

    @property
    def condition_number(self) -> float:
        """The largest over all layers whose S trains after the last step."""
        return self._latest.item()

    @property
    def worst(self) -> float:
        """The largest after any step of the present epoch."""
        return self._worst.item()

    def project_(self, optimizer: Optimizer | None) -> None:
        """Clamp the spectrum of every S that trains; before training, only where the bound does not hold yet."""
        largest = []
        for layers in batches(layer for layer in self.layers if layer.S.requires_grad):
            cores = [layer.core_matrix.data for layer in layers]
            with full_precision(cores[0].device):
                if optimizer is None and self._bounded(cores):
                    continue
                clamped, condition_numbers = clamp_each(cores, self.tau, self.run)
                restored = [layer.as_core(matrix) for layer, matrix in zip(layers, clamped, strict=True)]
                torch._foreach_copy_([layer.S.data for layer in layers], restored)
                largest.append(condition_numbers.max())
        if largest:  # kept where the layers are: reading it would wait for the device at every step
            self._latest = torch.stack([x.to(largest[0].device) for x in largest]).max()
            self._worst = torch.maximum(self._worst.to(self._latest), self._latest)

    def _bounded(self, cores: list[Tensor]) -> bool:
        return all(condition_number(torch.linalg.svdvals(s)) <= (1 + self.tau) * (1 + 1e-5) for s in cores)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the largest condition number that any step of the epoch ended with."""
        pl_module.log("worst_condition", self.worst)
        self._worst = torch.ones(())
