"""The progress bar."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar


class ProgressBar(TQDMProgressBar):
    """Lightning's bar with the remaining time of the whole run; a few lines if there is no terminal."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=1 if sys.stdout.isatty() else 100, leave=False)
        self._start: tuple[float, int] | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Record the start of the first step of this session."""
        if self._start is None:
            self._start = time.monotonic(), trainer.global_step

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return the logged metrics and ``left``, the time until the last step ends."""
        metrics = dict(super().get_metrics(trainer, pl_module))
        metrics.pop("v_num", None)
        if self._start is not None and trainer.global_step > self._start[1]:
            pace = (time.monotonic() - self._start[0]) / (trainer.global_step - self._start[1])
            left = max(0, round(pace * (trainer.estimated_stepping_batches - trainer.global_step)))
            metrics["left"] = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        return metrics

    def on_exception(self, *args: Any) -> None:
        """End the bars' lines, so that the message of the exception is on its own line."""
        for bar in (self._val_progress_bar, self._train_progress_bar):
            if bar is not None:
                bar.close()
