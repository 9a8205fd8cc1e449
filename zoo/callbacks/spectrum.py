"""Keep the condition number of every core S bounded while a LightningModule trains."""

import lightning.pytorch as pl
import torch
from torch.optim import Optimizer

from zoo.callbacks._step_hook import StepHook
from zoo.constraints import BoundedSpectrum


class SpectrumClamp(StepHook):
    """Clip the singular values of each S around their mean after each optimizer step, so that kappa(S) <= 1 + tau.

    The mathematics is that of `zoo.constraints.BoundedSpectrum`. With orthonormal U and V (see `OrthonormalRetraction`,
    which must come first) this bounds the condition number of the layer's weight. The largest condition number after
    any step of an epoch is logged as ``worst_condition``. A layer whose S is frozen does not change and does not count.

    Args:
        tau: >= 0; 0 makes all singular values of a layer equal.
        spectrum: another form of the constraint; None: `BoundedSpectrum`.
    """

    def __init__(self, tau: float = 0.1, spectrum: BoundedSpectrum | None = None) -> None:
        self.spectrum = spectrum or BoundedSpectrum(tau)
        super().__init__(self.spectrum)
        self._latest = self._worst = torch.ones(())

    @property
    def tau(self) -> float:
        """The amount by which condition numbers may exceed 1."""
        return self.spectrum.tau

    @property
    def condition_number(self) -> float:
        """The largest condition number after the last step, over all layers whose S trains."""
        return self._latest.item()

    @property
    def worst(self) -> float:
        """The largest condition number after any step of the current epoch."""
        return self._worst.item()

    def project_(self, optimizer: Optimizer | None) -> None:
        """Clamp the spectrum of every S that trains; before training, only where the bound does not hold yet."""
        super().project_(optimizer)
        if self.spectrum.largest is not None:
            self._latest = self.spectrum.largest
            self._worst = torch.maximum(self._worst.to(self._latest), self._latest)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the largest condition number that any step of the epoch ended with."""
        pl_module.log("worst_condition", self.worst)
        self._worst = torch.ones(())
