"""Keep the best epoch of a training whose network may still be shrinking."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from zoo.callbacks._peers import peers
from zoo.callbacks._rank_schedule import RankSchedule


class BestCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that looks only at epochs with final ranks: earlier ones are larger networks."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if this is the best epoch so far, once rank pruning is done."""
        if all(schedule.done for schedule in peers(trainer, RankSchedule)):
            super().on_validation_end(trainer, pl_module)
