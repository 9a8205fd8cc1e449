"""Record every factorized layer's rank and condition number, at the start and after each epoch."""

import csv
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from zoo.errors import UserError
from zoo.files import atomic, user_path
from zoo.lowrank.layers import factorized_layers

FIELDS = ("epoch", "step", "layer", "rank", "condition_number")


class LayerHistory(Callback):
    """Keep a CSV file with a row per factorized layer and epoch; epoch 0 is the start of training.

    Ranks and condition numbers are read off the layers themselves, so a method that changes ranks needs no code for it.

    Args:
        path: the file. A resumed training appends to its rows; those of a repeated epoch are replaced.
        prefix: removed from the layers' names.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        super().__init__()
        self.path, self.prefix = user_path(path), prefix

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the layers as they are when training starts."""
        if trainer.global_step == 0:
            self._write(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the layers after an epoch."""
        self._write(trainer, pl_module, trainer.current_epoch + 1)

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        if not trainer.is_global_zero:
            return
        rows = self._rows(before=epoch)
        for name, layer in factorized_layers(pl_module):
            values = (epoch, trainer.global_step, name.removeprefix(self.prefix), layer.rank, layer.condition_number())
            rows.append(dict(zip(FIELDS, map(str, values), strict=True)))
        if not rows:
            return
        with atomic(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)

    def _rows(self, before: int) -> list[dict[str, str]]:
        """Return the rows of the file that are of earlier epochs."""
        if not self.path.is_file():
            return []
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [{name: row[name] for name in FIELDS} for row in csv.DictReader(file)]
            return [row for row in rows if int(row["epoch"]) < before]
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(
                f"{self.path} is damaged ({type(error).__name__}): remove it to continue without it"
            ) from None
