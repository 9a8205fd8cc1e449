"""An early alarm for catastrophic overfitting, from gradients that a training step computes anyway.

SORA (arXiv 2606.00738) calls it PertAlign: the cosine between the input gradients at both ends of the single step. It
falls some tens of steps before catastrophic overfitting.
"""

import math
from typing import Any

import lightning.pytorch as pl
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from zoo.callbacks._notes import tell
from zoo.callbacks._trainer_callbacks import peers
from zoo.callbacks.conditioning import log_interval
from zoo.callbacks.overfitting import OverfittingGuard

MEMORY = 0.95
"""Share of the running mean that stays at each measurement."""
WARM = 5
"""Measurements before the mean is used."""
LEAST = 0.1
"""Smallest drop below the mean that is not noise: steps of 128 images vary by 0.06 (`n_fgsm` on the digits)."""
IN_A_ROW = 2
"""Measurements that must be low before the alarm sounds, for the same reason."""
AGAIN = 5
"""Measurements between two probes while the cosine stays low."""
TINY = 1e-30


class InputGradients:
    """The gradients in the images of one training step, where its search starts and where it trains."""

    def __init__(self) -> None:
        self._start: Tensor | None = None
        self._images: Tensor | None = None

    def begin(self, gradient: Tensor) -> None:
        """Store the gradient at the start of the search."""
        self._start = gradient.detach()

    def end(self, images: Tensor) -> Tensor:
        """Return the training images in a form whose gradient the backward pass stores here."""
        self._images = images.detach().requires_grad_()
        return self._images

    def cosine(self) -> Tensor | None:
        """Return the mean cosine over the images; None: the search or the backward pass left no gradient."""
        if self._start is None or self._images is None or self._images.grad is None:
            return None
        return mean_cosine(self._start, self._images.grad)


def mean_cosine(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean over images of the cosine between two gradients, however small they are: (B, ...) twice."""
    flat = [x.flatten(1).float() for x in (one, other)]
    # A confident image's gradient has a norm that underflows in fp32.
    scaled = [x / x.abs().amax(1, keepdim=True).clamp_min(TINY) for x in flat]
    return F.cosine_similarity(scaled[0], scaled[1]).mean()


class GradientAlignment(Callback):
    """Log ``gradient_alignment`` at Lightning's logging interval, and let `OverfittingGuard` probe where it falls.

    It has fallen if it is below ``share`` of its running mean, by more than noise, twice in a row. While it stays low,
    the guard probes at every fifth measurement, because the alignment falls before the accuracy does.

    The module leaves the gradients in its ``input_gradients``, an `InputGradients` that this callback puts there for
    the steps that are measured. A step that leaves no gradients is not measured.

    Args:
        share: of the running mean.
    """

    def __init__(self, share: float = 0.5) -> None:
        self.share = share
        self.mean, self.seen, self.low = 0.0, 0, 0

    def asks_for_a_probe(self, alignment: float) -> bool:
        """Add a measurement to the running mean; return whether the alignment has fallen and a probe is due."""
        if not math.isfinite(alignment):
            return False
        fallen = self.seen >= WARM and alignment < min(self.share * self.mean, self.mean - LEAST)
        self.low = self.low + 1 if fallen else 0
        self.mean += max(1 / (self.seen + 1), 1 - MEMORY) * (alignment - self.mean)
        self.seen += 1
        return self.low % AGAIN == IN_A_ROW

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Request the gradients of the steps that are logged."""
        module: Any = pl_module
        module.input_gradients = None if (trainer.global_step + 1) % log_interval(trainer) else InputGradients()

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure and log the alignment, and sound the alarm if it has fallen."""
        module: Any = pl_module
        gradients, module.input_gradients = module.input_gradients, None
        cosine = gradients.cosine() if gradients is not None else None
        if cosine is None:
            return
        alignment, before = float(trainer.strategy.reduce(cosine, reduce_op="mean")), self.mean
        pl_module.log("gradient_alignment", alignment)
        if self.asks_for_a_probe(alignment):
            for guard in peers(trainer, OverfittingGuard):
                guard.probe_soon()
            if self.low == IN_A_ROW:
                tell(
                    trainer,
                    f"gradient alignment fell from {before:.2f} to {alignment:.2f} in step {trainer.global_step + 1}: "
                    "a sign of catastrophic overfitting, checked by PGD now",
                )

    def state_dict(self) -> dict[str, Any]:
        """Return the running mean and how long the cosine has been low, for resuming."""
        return {"mean": self.mean, "seen": self.seen, "low": self.low}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` saved."""
        self.mean, self.seen, self.low = state_dict["mean"], state_dict["seen"], state_dict["low"]
