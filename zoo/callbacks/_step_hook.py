"""Run a callback's constraint after each real optimizer step."""

from abc import abstractmethod
from collections.abc import Iterable

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from zoo.errors import UserError
from zoo.layers import Factorized, factorized_layers


class StepHook(Callback):
    """A constraint on the factorized layers, restored after every step that an optimizer takes.

    Lightning has no hook after the step, so this registers on the optimizer itself: it runs once per real
    step under gradient accumulation, and not at all when a gradient scaler skips one.
    """

    def __init__(self) -> None:
        self.layers: list[Factorized] = []
        self._handles: list[RemovableHandle] = []

    @abstractmethod
    def restore(self, optimizer: Optimizer | None) -> None:
        """Move ``self.layers`` back onto the constraint; ``optimizer`` is None before the first step."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the factorized layers, bring them onto the constraint, and follow the optimizers."""
        self.layers = [layer for _, layer in factorized_layers(pl_module)]
        self.restore(None)
        self._handles = [
            optimizer.register_step_post_hook(lambda opt, args, kwargs: self._after_step(opt, trainer.global_step))
            for optimizer in trainer.optimizers
        ]

    def _after_step(self, optimizer: Optimizer, step: int) -> None:
        try:
            self.restore(optimizer)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # of infinite or undefined entries
            raise UserError(
                f"training diverged: step {step} made a factorized layer infinite; lower the learning rate"
            ) from None

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let the optimizers go."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


def batches(layers: Iterable[Factorized]) -> list[list[Factorized]]:
    """Group layers whose r x r algebra goes as one batch: on a CPU those of one rank, on a GPU all (see `padded`)."""
    groups: dict[tuple[torch.device, int], list[Factorized]] = {}
    for layer in layers:
        device = layer.S.device
        groups.setdefault((device, layer.rank if device.type == "cpu" else 0), []).append(layer)
    return list(groups.values())
