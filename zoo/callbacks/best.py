"""Keep the best epoch of a training whose network may still be shrinking."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from zoo.callbacks._rank_schedule import RankSchedule
from zoo.callbacks._trainer_callbacks import peers


class BestCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that looks only at epochs with final ranks: earlier ones are larger networks."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if this is the best epoch so far, once rank pruning is done."""
        if all(schedule.done for schedule in peers(trainer, RankSchedule)):
            super().on_validation_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best epoch so far, even if the folder was moved: Lightning forgets its score then."""
        here = Path(self.dirpath or "")

        def moved(path: str) -> str:
            return str(here / Path(path).name) if path else path

        paths = {
            name: moved(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")
        }
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": best})
