"""Lines for the user that callbacks show while a training runs."""

import sys

import lightning.pytorch as pl
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from zoo.screen import is_quiet


def tell(trainer: pl.Trainer, text: str) -> None:
    """Show a line on standard error, above a bar if one moves there, in the first process, unless asked to be quiet."""
    if trainer.is_global_zero and not is_quiet():
        Tqdm.write(text, file=sys.stderr)
