"""The other callbacks of a training."""

from typing import TypeVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

C = TypeVar("C", bound=Callback)


def peers(trainer: pl.Trainer, kind: type[C]) -> list[C]:
    """Return the trainer's callbacks of a class, in their order."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, kind)]
